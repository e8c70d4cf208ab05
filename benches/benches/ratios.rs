//! Nanoseconds a run of every engine and program, and beside them the running kernel's BPF_PROG_TEST_RUN where there is
//! root, as ratios: `cargo bench -p skep-benches --bench ratios`.
//!
//! The vm's time is that of a whole run, packet in and packet out; the kernel's is of the program alone.

use skep_benches::{ESTABLISHED, programs};
use skep_live::rows;
use skep_live::vm::Simulator;
use skep_object::ObjectSet;
use skep_vm::EngineKind;
use std::time::{Duration, Instant};

const ENGINES: [EngineKind; 3] = [EngineKind::RbpfJit, EngineKind::Checked, EngineKind::Rbpf];
/// How long one measurement takes; the best of several counts, as what disturbs only adds.
const LONG: Duration = Duration::from_millis(60);
const TIMES: u32 = 7;

/// Nanoseconds of one call, the least of several means.
fn time(mut run: impl FnMut() -> bool) -> Option<f64> {
    let mut best: Option<f64> = None;
    for _ in 0..TIMES {
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < LONG {
            for _ in 0..16 {
                if !run() {
                    return None;
                }
            }
            count += 16;
        }
        let mean = start.elapsed().as_nanos() as f64 / f64::from(count);
        best = Some(best.map_or(mean, |b| b.min(mean)));
    }
    best
}

fn line(name: &str, kernel: Option<f64>, engines: &[Option<f64>]) {
    let cell = |ns: &Option<f64>, unit: Option<f64>| match (ns, unit) {
        (Some(ns), Some(unit)) => format!("{ns:>9.1} {:>7.2}", ns / unit),
        (Some(ns), None) => format!("{ns:>9.1} {:>7}", "-"),
        (None, _) => format!("{:>9} {:>7}", "-", "-"),
    };
    // What the others are compared with: the kernel, or the interpreter where there is none.
    let unit = kernel.or(engines.last().copied().flatten());
    let cells: Vec<String> = engines.iter().map(|ns| cell(ns, unit)).collect();
    println!("{name:<28} {} {}", cell(&kernel, unit), cells.join(" "));
}

fn main() {
    // `cargo test --benches` runs this, too, and only wants to know that it builds.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let heads: Vec<String> = ENGINES.iter().map(|e| format!("{:>9} {:>7}", e.name(), "ratio")).collect();
    println!("{:<28} {:>9} {:>7} {}", "ns a run", "kernel", "ratio", heads.join(" "));
    for program in programs::all() {
        let engines = ENGINES.map(|engine| {
            let mut prepared = program.prepare(engine).ok()?;
            time(|| prepared.run().is_ok())
        });
        line(program.name, kernel::program(&program), &engines);
    }
    let simulator = Simulator::new(&ObjectSet::built_in()).expect("the built-in objects are read");
    let row = rows::all().into_iter().find(|r| (r.program, r.name) == ESTABLISHED).expect("the row is there");
    let engines = ENGINES.map(|engine| {
        let mut prepared = simulator.prepare(&row, engine).ok()?;
        time(|| prepared.run().is_ok())
    });
    line("from_container established", kernel::row(&row), &engines);
    let loads = ENGINES.map(|engine| {
        time(|| Simulator::new(&ObjectSet::built_in()).and_then(|s| s.prepare(&row, engine)).is_ok())
    });
    line("load all objects", kernel::load(&row), &loads);
}

#[cfg(target_os = "linux")]
mod kernel {
    use skep_benches::programs::{Program, frame};
    use skep_live::kernel::{Machine, time_instructions};
    use skep_live::row::Row;
    use skep_object::ObjectSet;
    use std::time::Instant;

    const REPEAT: u32 = 100_000;
    const TIMES: usize = 7;

    fn least(mut one: impl FnMut() -> Option<f64>) -> Option<f64> {
        (0..TIMES).map(|_| one()).collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::min)
    }

    pub(super) fn program(program: &Program) -> Option<f64> {
        let mut timed = time_instructions(&program.code, &program.maps, &program.entries).ok()?;
        least(|| timed(&frame(), REPEAT).ok().map(f64::from))
    }

    pub(super) fn row(row: &Row) -> Option<f64> {
        let mut machine = Machine::new(ObjectSet::built_in()).ok()?;
        least(|| machine.time_ns(row, REPEAT).ok().map(f64::from))
    }

    /// The first time that a row is timed its objects are loaded.
    pub(super) fn load(row: &Row) -> Option<f64> {
        least(|| {
            let mut machine = Machine::new(ObjectSet::built_in()).ok()?;
            let start = Instant::now();
            machine.time_ns(row, 1).ok()?;
            Some(start.elapsed().as_nanos() as f64)
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use skep_benches::programs::Program;
    use skep_live::row::Row;

    pub(super) fn program(_: &Program) -> Option<f64> {
        None
    }
    pub(super) fn row(_: &Row) -> Option<f64> {
        None
    }
    pub(super) fn load(_: &Row) -> Option<f64> {
        None
    }
}
