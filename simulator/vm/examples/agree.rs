//! Runs random programs on every engine and says which of them differ: `agree -- [COUNT [FIRST SEED]]`.

use std::process::ExitCode;

#[path = "../tests/agree/compare.rs"]
mod compare;
#[expect(dead_code, reason = "programs that begin with a map are for the comparison with a kernel")]
#[path = "../tests/agree/generator.rs"]
mod generator;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let (count, first) = (numbers.first().copied().unwrap_or(1000), numbers.get(1).copied().unwrap_or(0));
    let mut engines = compare::Engines::new();
    let mut differ = 0;
    for seed in first..first.saturating_add(count) {
        if let Err(what) = engines.compare(seed) {
            println!("{what}");
            differ += 1;
        }
    }
    println!("{} agree, {differ} differ", count - differ);
    if differ == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
