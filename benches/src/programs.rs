//! Programs written by hand, small enough that an engine's own cost shows. Each leaves its packet as it is.

use skep_vm::{
    EngineKind, Environment, Input, Kernel, KernelConfig, LoadSpec, Loaded, MapDef, MapId, Object,
    ProgramKind, Run, SkBuff, UpdateMode,
};

/// The name of every program here.
const NAME: &str = "bench";

/// A program, its maps and what stands in them.
pub struct Program {
    /// What it is about.
    pub name: &'static str,
    /// Instructions; a map is its index in `maps`.
    pub code: Vec<u8>,
    /// Its maps.
    pub maps: Vec<MapDef>,
    /// Entries of the first map.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let (o, i) = (off.to_le_bytes(), imm.to_le_bytes());
    [code, dst | src << 4, o[0], o[1], i[0], i[1], i[2], i[3]]
}

fn def(kind: u32, key_size: u32, value_size: u32, max_entries: u32, flags: u32) -> MapDef {
    let name = format!("map{kind}");
    MapDef { name, kind, key_size, value_size, max_entries, flags, ..MapDef::default() }
}

/// `r1 = map[index]`
fn map(index: i32) -> [[u8; 8]; 2] {
    [insn(0x18, 1, 1, 0, index), insn(0, 0, 0, 0, 0)]
}

/// Parses Ethernet and IPv4 and leaves the destination in r7; `out` is how many instructions stand between this and
/// the end.
fn parse(out: i16) -> Vec<[u8; 8]> {
    vec![
        insn(0x61, 2, 1, 76, 0),
        insn(0x61, 3, 1, 80, 0),
        insn(0xbf, 4, 2, 0, 0),
        insn(0x07, 4, 0, 0, 34),
        insn(0x2d, 4, 3, out + 3, 0),
        insn(0x69, 4, 2, 12, 0),
        insn(0x55, 4, 0, out + 1, 8),
        insn(0x61, 7, 2, 30, 0),
    ]
}

fn end() -> [[u8; 8]; 2] {
    [insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)]
}

/// Headers, a look-up of the destination in a hash map, and a counter there.
fn parse_and_look_up() -> Program {
    let mut code = parse(10);
    code.push(insn(0x63, 10, 7, -4, 0));
    code.extend([insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -4)]);
    code.extend(map(0));
    code.extend([insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 3, 0)]);
    code.extend([insn(0x79, 1, 0, 0, 0), insn(0x07, 1, 0, 0, 1), insn(0x7b, 0, 1, 0, 0)]);
    code.extend(end());
    let entries = vec![(vec![10, 0, 0, 2], vec![0; 8])];
    Program { name: "parse and look up", code: code.concat(), maps: vec![def(1, 4, 8, 1024, 0)], entries }
}

/// A thousand times round, five instructions each.
fn tight_loop() -> Program {
    let mut code = vec![insn(0xb7, 1, 0, 0, 1000), insn(0xb7, 6, 0, 0, 0)];
    code.extend([
        insn(0x0f, 6, 1, 0, 0),
        insn(0x67, 6, 0, 0, 1),
        insn(0xa7, 6, 0, 0, 0x55),
        insn(0x07, 1, 0, 0, -1),
        insn(0x55, 1, 0, -5, 0),
    ]);
    code.extend(end());
    Program { name: "tight loop", code: code.concat(), maps: Vec::new(), entries: Vec::new() }
}

/// Every packet another flow, in an LRU map that was full long ago. The second map counts packets.
fn lru_churn() -> Program {
    let mut code = vec![insn(0x62, 10, 0, -4, 0), insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -4)];
    code.extend(map(1));
    code.extend([insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 12, 0)]);
    code.extend([
        insn(0x79, 1, 0, 0, 0),
        insn(0x07, 1, 0, 0, 1),
        insn(0x7b, 0, 1, 0, 0),
        insn(0x7b, 10, 1, -16, 0),
    ]);
    code.extend([insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -16)]);
    code.extend([insn(0xbf, 3, 2, 0, 0), insn(0xb7, 4, 0, 0, 0)]);
    code.extend(map(0));
    code.push(insn(0x85, 0, 0, 0, 2));
    code.extend(end());
    let maps = vec![def(9, 8, 8, 4096, 0), def(2, 4, 8, 1, 0)];
    Program { name: "LRU under churn", code: code.concat(), maps, entries: Vec::new() }
}

/// The destination in a trie of 100000 prefixes.
fn lpm() -> Program {
    let mut code = parse(9);
    code.extend([insn(0x62, 10, 0, -8, 32), insn(0x63, 10, 7, -4, 0)]);
    code.extend([insn(0xbf, 2, 10, 0, 0), insn(0x07, 2, 0, 0, -8)]);
    code.extend(map(0));
    code.extend([insn(0x85, 0, 0, 0, 1), insn(0x15, 0, 0, 1, 0), insn(0x79, 1, 0, 0, 0)]);
    code.extend(end());
    let prefix = |n: u32| {
        let address = (n << 7 ^ 0x0a00_0000).to_be_bytes();
        let length = 24 + n % 9;
        ([&length.to_le_bytes()[..], &address].concat(), u64::from(n).to_le_bytes().to_vec())
    };
    let entries = (0..100_000).map(prefix).collect();
    Program {
        name: "LPM, 100000 prefixes",
        code: code.concat(),
        maps: vec![def(11, 8, 8, 200_000, 1)],
        entries,
    }
}

/// All of them.
pub fn all() -> Vec<Program> {
    vec![parse_and_look_up(), tight_loop(), lru_churn(), lpm()]
}

/// A TCP segment to 10.0.0.2.
pub fn frame() -> Vec<u8> {
    let mut frame =
        vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0x26, 0xcd];
    frame.extend([
        10, 0, 0, 1, 10, 0, 0, 2, 3, 0xe8, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    frame
}

struct World;

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        1
    }
    fn random_u32(&mut self) -> u32 {
        4
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

/// A program that is ready to run in the vm.
pub struct Prepared {
    kernel: Kernel,
    loaded: Loaded,
    packet: SkBuff,
    last: Run,
}

impl Program {
    /// Loads it for an engine.
    ///
    /// # Errors
    ///
    /// What the engine refuses.
    pub fn prepare(&self, engine: EngineKind) -> Result<Prepared, String> {
        let object = Object::from_instructions(NAME, ProgramKind::SchedClassifier, &self.code, &self.maps);
        let object = object.map_err(|e| e.to_string())?;
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
        for (key, value) in &self.entries {
            let map = loaded.maps[&self.maps[0].name];
            kernel.map_update(map, key, value, UpdateMode::Any).map_err(|e| e.to_string())?;
        }
        Ok(Prepared { kernel, loaded, packet: SkBuff::from_frame(&frame()), last: Run::default() })
    }
}

impl Prepared {
    /// One run; how many instructions it took.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn run(&mut self) -> Result<u64, String> {
        let id = self.loaded.programs[NAME];
        let run = self.kernel.run(id, &mut self.packet, &mut World).map_err(|e| e.to_string())?;
        Ok(run.stats.instructions)
    }

    /// So many runs over the packet, as `BPF_PROG_TEST_RUN` with `repeat` does them; how many instructions they took.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn repeat(&mut self, times: u32) -> Result<u64, String> {
        let (id, input) = (self.loaded.programs[NAME], Input::Skb(&mut self.packet));
        let ran = self.kernel.run_repeated(id, input, &mut World, times, &mut self.last);
        ran.map(|stats| stats.instructions).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_does_the_same_on_every_engine() {
        for program in all() {
            let counts = [EngineKind::Checked, EngineKind::Rbpf].map(|engine| {
                let mut prepared = program.prepare(engine).unwrap();
                (0..3).map(|_| prepared.run().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(counts[0], counts[1], "{}", program.name);
            assert!(counts[0][0] > 10, "{} does its work", program.name);
        }
    }
}
