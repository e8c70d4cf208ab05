//! Whole runs: programs written by hand, and the objects that skep ships.

mod callbacks;
mod context;
mod faults;
mod helpers;
mod kinds;
mod objects;
mod tail_calls;

use skep_packet::SkBuff;

use crate::insn::{CALL, DW, Insn, JMP, LD_IMM64, MEM, MOV, PSEUDO_MAP_FD, ST, W};
use crate::{
    EngineKind, Environment, Kernel, KernelConfig, LoadSpec, Loaded, MapDef, MapId, Object, ProgramId,
    ProgramKind, Run,
};

/// A world in which nothing is random.
#[derive(Default)]
struct World {
    clock: u64,
    events: Vec<(MapId, Vec<u8>, Vec<u8>)>,
    texts: Vec<String>,
}

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
    fn random_u32(&mut self) -> u32 {
        4
    }
    fn emit(&mut self, map: MapId, event: &[u8], captured: &[u8]) {
        self.events.push((map, event.to_vec(), captured.to_vec()));
    }
    fn trace(&mut self, text: &str) {
        self.texts.push(text.to_owned());
    }
}

/// The name of every program here.
const NAME: &str = "program";

fn mov(dst: u8, imm: i32) -> Insn {
    Insn::alu64_imm(MOV, dst, imm)
}

fn copy(dst: u8, src: u8) -> Insn {
    Insn::alu64(MOV, dst, src)
}

/// `dst = *(u32 *)(src + off)`
fn read(dst: u8, src: u8, off: i16) -> Insn {
    Insn::load(W, dst, src, off)
}

/// `*(u64 *)(r10 + off) = imm`
fn put(off: i16, imm: i32) -> Insn {
    Insn::new(ST | MEM | DW, 10, 0, off, imm)
}

/// `dst = r10 + off`
fn stack(dst: u8, off: i32) -> [Insn; 2] {
    [copy(dst, 10), Insn::alu64_imm(crate::insn::ADD, dst, off)]
}

/// `dst =` the map of this index
fn map(dst: u8, index: i32) -> [Insn; 2] {
    [Insn::new(LD_IMM64, dst, PSEUDO_MAP_FD, 0, index), Insn::default()]
}

fn jump(op: u8, dst: u8, imm: i32, off: i16) -> Insn {
    Insn::new(JMP | op, dst, 0, off, imm)
}

/// A call of the function so many instructions behind the next.
fn function(offset: i32) -> Insn {
    Insn::new(JMP | CALL, 0, 1, 0, offset)
}

fn def(kind: u32, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    MapDef {
        name: format!("map{kind}"),
        kind,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        ..MapDef::default()
    }
}

fn object(parts: &[&[Insn]], maps: &[MapDef]) -> Object {
    let bytes: Vec<u8> = parts.concat().into_iter().flat_map(Insn::encode).collect();
    Object::from_instructions(NAME, ProgramKind::SchedClassifier, &bytes, maps).unwrap()
}

fn kernel() -> Kernel {
    let mut kernel = Kernel::new(&KernelConfig { engine: EngineKind::Rbpf, ..KernelConfig::default() });
    kernel.record_accesses(true);
    kernel
}

fn load(kernel: &mut Kernel, parts: &[&[Insn]], maps: &[MapDef]) -> (ProgramId, Loaded) {
    let loaded = kernel.load(&object(parts, maps), &LoadSpec::default()).unwrap();
    (loaded.programs[NAME], loaded)
}

/// Runs a program without maps over a packet.
fn run(parts: &[&[Insn]], skb: &mut SkBuff) -> Run {
    let mut kernel = kernel();
    let (program, _) = load(&mut kernel, parts, &[]);
    kernel.run(program, skb, &mut World::default()).unwrap()
}

/// A TCP SYN from 10.0.0.1:1000 to 10.0.0.2:80, checksums in place.
fn frame() -> SkBuff {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    bytes.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0x26, 0xcd, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0x03, 0xe8, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0x97, 0xa7, 0, 0]);
    SkBuff::from_frame(&bytes)
}
