//! How long a program takes on each engine, in one run: `speed OBJECT PROGRAM` for a program on packets, or nothing for
//! a loop. Ratios are to rbpf's interpreter.

use std::time::Instant;

use skep_vm::{EngineKind, Environment, Kernel, KernelConfig, LoadSpec, MapId, Object, ProgramKind};

struct Nothing;

impl Environment for Nothing {
    fn now_ns(&mut self) -> u64 {
        0
    }
    fn random_u32(&mut self) -> u32 {
        0
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

/// Loads, stores, arithmetic and a branch, 1000 times; 64 bytes of memory.
fn looping() -> Object {
    let insn = |code: u8, registers: u8, off: i16, imm: i32| {
        let mut bytes = vec![code, registers];
        bytes.extend(off.to_le_bytes());
        bytes.extend(imm.to_le_bytes());
        bytes
    };
    let program = [
        insn(0xb7, 0x00, 0, 0),
        insn(0xb7, 0x03, 0, 1000),
        insn(0x79, 0x14, 8, 0),
        insn(0x0f, 0x40, 0, 0),
        insn(0x7b, 0x0a, -8, 0),
        insn(0x79, 0xa5, -8, 0),
        insn(0xaf, 0x50, 0, 0),
        insn(0x07, 0x00, 0, 7),
        insn(0x63, 0x01, 16, 0),
        insn(0x07, 0x03, 0, -1),
        insn(0x55, 0x03, -9, 0),
        insn(0x95, 0x00, 0, 0),
    ];
    Object::from_instructions("loop", ProgramKind::Memory, &program.concat(), &[]).expect("it is well formed")
}

fn main() {
    let object = looping();
    let mut nanoseconds = Vec::new();
    for engine in [EngineKind::Rbpf, EngineKind::Checked, EngineKind::RbpfJit] {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = match kernel.load(&object, &LoadSpec::default()) {
            Ok(loaded) => loaded,
            Err(e) => {
                println!("{engine}: {e}");
                continue;
            }
        };
        let mut memory = [1; 64];
        let mut best = f64::INFINITY;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..200 {
                kernel
                    .run_memory(loaded.programs["loop"], &mut memory, &mut Nothing)
                    .expect("it does not fault");
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 200.0 / 9002.0);
        }
        nanoseconds.push((engine, best));
    }
    for (engine, best) in &nanoseconds {
        println!("{engine}: {best:.2} ns an instruction, {:.2}", best / nanoseconds[0].1);
    }
}
