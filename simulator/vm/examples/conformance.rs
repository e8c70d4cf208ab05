//! Runs bpf_conformance's cases: a table of name, CPU version, memory, expected r0 and program, in hexadecimal, tabs
//! between them. `cargo run --example conformance -- cases.tsv`

use std::process::ExitCode;

use skep_vm::{Environment, Kernel, KernelConfig, LoadSpec, MapId, Object, ProgramKind};

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

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.as_bytes().chunks_exact(2).map(|c| digit(c[0]) << 4 | digit(c[1])).collect()
}

fn run(memory: &str, program: &str) -> Result<u64, String> {
    let object = Object::from_instructions("case", ProgramKind::Memory, &bytes(program), &[]);
    let object = object.map_err(|e| e.to_string())?;
    let mut kernel = Kernel::new(&KernelConfig::default());
    let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
    kernel.run_memory(loaded.programs["case"], &mut bytes(memory), &mut Nothing).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: conformance CASES.tsv");
        return ExitCode::from(2);
    };
    let table = match std::fs::read_to_string(&path) {
        Ok(table) => table,
        Err(e) => {
            eprintln!("{path}: {e}");
            return ExitCode::from(2);
        }
    };
    let (mut all, mut passed) = (0, 0);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, _, memory, expected, program] = fields[..] else { continue };
        all += 1;
        match (run(memory, program), u64::from_str_radix(expected, 16)) {
            (Ok(r0), Ok(want)) if r0 == want => passed += 1,
            (r0, _) => println!("{name}: {r0:x?} and not {expected}"),
        }
    }
    println!("{passed} of {all}");
    if passed == all { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
