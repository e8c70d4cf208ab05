//! Runs bpf_conformance's cases: a table of name, CPU version, memory, expected r0 and program, in hexadecimal, tabs
//! between them. `cargo run --example conformance -- [--engine ENGINE] cases.tsv`

use std::process::ExitCode;

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

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| (c as char).to_digit(16).expect("a hexadecimal digit") as u8;
    hex.as_bytes().chunks_exact(2).map(|c| digit(c[0]) << 4 | digit(c[1])).collect()
}

fn run(engine: EngineKind, memory: &str, program: &str) -> Result<u64, String> {
    let object = Object::from_instructions("case", ProgramKind::Memory, &bytes(program), &[]);
    let object = object.map_err(|e| e.to_string())?;
    let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
    let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
    kernel.run_memory(loaded.programs["case"], &mut bytes(memory), &mut Nothing).map_err(|e| e.to_string())
}

/// The engine and the table.
fn arguments() -> Result<(EngineKind, String), String> {
    let (mut engine, mut path) = (EngineKind::default(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--engine" {
            engine = arguments.next().unwrap_or_default().parse()?;
        } else {
            path = Some(argument);
        }
    }
    Ok((engine, path.ok_or("usage: conformance [--engine ENGINE] CASES.tsv")?))
}

fn main() -> ExitCode {
    let table = arguments().and_then(|(engine, path)| {
        let table = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok((engine, table))
    });
    let (engine, table) = match table {
        Ok(found) => found,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(2);
        }
    };
    let (mut passed, mut failed) = (0, 0);
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, _, memory, expected, program] = fields[..] else { continue };
        match (run(engine, memory, program), u64::from_str_radix(expected, 16)) {
            (Ok(r0), Ok(want)) if r0 == want => passed += 1,
            (Ok(r0), _) => {
                failed += 1;
                println!("{name}: {r0:x} and not {expected}");
            }
            (Err(why), _) => {
                failed += 1;
                println!("{name}: {why}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
