//! Nanoseconds a run of every engine and program, and beside them the running kernel's BPF_PROG_TEST_RUN where there is
//! root, as ratios: `cargo bench -p skep-benches --bench ratios`. Ends with an error where a ratio is worse than promised.
//!
//! Both sides repeat: the packet is put in place once, and the program runs over it again and again. What is compared is
//! measured in turns, and the least of several means counts, as what disturbs only adds.

use skep_benches::{ESTABLISHED, programs};
use skep_live::rows;
use skep_live::vm::Simulator;
use skep_object::ObjectSet;
use skep_vm::EngineKind;
use std::process::ExitCode;

const ENGINES: [EngineKind; 3] = [EngineKind::RbpfJit, EngineKind::Checked, EngineKind::Rbpf];
/// How often everything is measured.
const ROUNDS: usize = 60;
/// Nanoseconds that one measurement takes, about, and of one engine alone.
const LONG: [f64; 2] = [5e6, 50e6];

/// What is measured: told how often to run, says how many nanoseconds one run took.
type Timed<'a> = Box<dyn FnMut(u32) -> Option<f64> + 'a>;

/// Nanoseconds of one run of each; of what cannot be run here, nothing.
fn measure(mut all: Vec<Option<Timed<'_>>>, long: f64) -> Vec<Option<f64>> {
    let mut best: Vec<Option<f64>> = vec![None; all.len()];
    let mut repeat = vec![1u32; all.len()];
    for (timed, repeat) in all.iter_mut().zip(&mut repeat) {
        // The first run is slow: what comes out is how long the others take.
        let often = |ns: f64, long: f64| (long / ns.max(10.0)).clamp(1.0, 1e8) as u32;
        let ns = timed.as_mut().and_then(|timed| {
            let first = timed(1)?;
            timed(often(first, long / 10.0))
        });
        match ns {
            None => *timed = None,
            Some(ns) => *repeat = often(ns, long),
        }
    }
    for _ in 0..ROUNDS {
        for ((timed, repeat), best) in all.iter_mut().zip(&repeat).zip(&mut best) {
            let Some(ns) = timed.as_mut().and_then(|timed| timed(*repeat)) else { continue };
            *best = Some(best.map_or(ns, |b: f64| b.min(ns)));
        }
    }
    best
}

/// Nanoseconds that this thread has run: the kernel, too, does not count what it did for others meanwhile.
fn thread_ns() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// Times a closure that repeats by itself.
fn repeated<'a>(mut run: impl FnMut(u32) -> bool + 'a) -> Timed<'a> {
    Box::new(move |times| {
        let start = thread_ns();
        run(times).then(|| (thread_ns() - start) / f64::from(times))
    })
}

/// Times a closure that does it once.
fn once<'a>(mut run: impl FnMut() -> bool + 'a) -> Timed<'a> {
    repeated(move |times| (0..times).all(|_| run()))
}

/// One line: kernel, then engines; and the numbers.
fn line(name: &str, ns: &[Option<f64>]) {
    // What the others are compared with: the kernel, or the interpreter where there is none.
    let unit = ns[0].or(ns[ns.len() - 1]);
    let cell = |ns: &Option<f64>| match (ns, unit) {
        (Some(ns), Some(unit)) => format!("{ns:>11.1} {:>7.2}", ns / unit),
        _ => format!("{:>11} {:>7}", "-", "-"),
    };
    let cells: Vec<String> = ns.iter().map(cell).collect();
    println!("{name:<28} {}", cells.join(" "));
}

/// Says whether a promised ratio is kept; what cannot be measured here is.
fn promise(what: &str, ns: Option<f64>, unit: Option<f64>, most: f64) -> bool {
    let (Some(ns), Some(unit)) = (ns, unit) else {
        println!("SKIP {what}: cannot be measured here");
        return true;
    };
    let ratio = ns / unit;
    println!("{} {what}: {ratio:.2}, promised {most:.2}", if ratio <= most { "  ok" } else { "FAIL" });
    ratio <= most
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs this, too, and only wants to know that it builds.
    if arguments.iter().any(|a| a == "--test") {
        return ExitCode::SUCCESS;
    }
    // A part of a line's name, and of an engine's, to look at one alone with a profiler.
    let mut filters = arguments.iter().filter(|a| !a.starts_with("--"));
    let (only, engine) = (filters.next(), filters.next());
    let wanted = |name: &str| only.is_none_or(|part| name.contains(part.as_str()));
    let engines = |name: &str| engine.is_none_or(|part| name == part);

    let long = LONG[usize::from(engine.is_some())];
    let heads: Vec<String> = ENGINES.iter().map(|e| format!("{:>11} {:>7}", e.name(), "ratio")).collect();
    println!("{:<28} {:>11} {:>7} {}", "ns a run", "kernel", "ratio", heads.join(" "));
    let mut kept = true;
    let mut promises = Vec::new();
    for program in programs::all().iter().filter(|p| wanted(p.name)) {
        let mut all = vec![engines("kernel").then(|| kernel::program(program)).flatten()];
        for kind in ENGINES {
            let prepared = engines(kind.name()).then(|| program.prepare(kind).ok()).flatten();
            all.push(prepared.map(|mut p| repeated(move |times| p.repeat(times).is_ok())));
        }
        let ns = measure(all, long);
        line(program.name, &ns);
        promises.push((format!("checked to rbpf, {}", program.name), ns[2], ns[3], 0.6));
    }
    let simulator = Simulator::new(&ObjectSet::built_in()).expect("the built-in objects are read");
    let row = rows::all().into_iter().find(|r| (r.program, r.name) == ESTABLISHED).expect("the row is there");
    let name = "from_container established";
    if wanted(name) {
        let mut all = vec![engines("kernel").then(|| kernel::row(&row)).flatten()];
        for kind in ENGINES {
            let prepared = engines(kind.name()).then(|| simulator.prepare(&row, kind).ok()).flatten();
            all.push(prepared.map(|mut p| repeated(move |times| p.repeat(times).is_ok())));
        }
        let ns = measure(all, long);
        line(name, &ns);
        promises.push((format!("rbpf-jit to kernel, {name}"), ns[1], ns[0], 1.0));
        promises.push((format!("checked to rbpf, {name}"), ns[2], ns[3], 0.6));
    }
    let name = "load all objects";
    if wanted(name) {
        let mut all = vec![engines("kernel").then(|| kernel::load(&row)).flatten()];
        for kind in ENGINES.into_iter().filter(|e| engines(e.name())) {
            let row = &row;
            let load =
                move || Simulator::new(&ObjectSet::built_in()).and_then(|s| s.prepare(row, kind)).is_ok();
            all.push(Some(once(load)));
        }
        let ns = measure(all, long);
        line(name, &ns);
        promises.push((format!("rbpf-jit to kernel, {name}"), ns[1], ns[0], 1.0));
    }
    if engine.is_none() {
        for (what, ns, unit, most) in promises {
            kept &= promise(&what, ns, unit, most);
        }
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::{Timed, once};
    use skep_benches::programs::{Program, frame};
    use skep_live::kernel::{Machine, time_instructions};
    use skep_live::row::Row;
    use skep_object::ObjectSet;

    pub(super) fn program(program: &Program) -> Option<Timed<'static>> {
        let mut timed = time_instructions(&program.code, &program.maps, &program.entries).ok()?;
        Some(Box::new(move |times| timed(&frame(), times).ok().map(f64::from)))
    }

    pub(super) fn row(row: &Row) -> Option<Timed<'_>> {
        let mut machine = Machine::new(ObjectSet::built_in()).ok()?;
        Some(Box::new(move |times| machine.time_ns(row, times).ok().map(f64::from)))
    }

    /// Maps are made, and the first time that a row is timed its objects are loaded.
    pub(super) fn load(row: &Row) -> Option<Timed<'_>> {
        Machine::new(ObjectSet::built_in()).ok()?;
        let load = || Machine::new(ObjectSet::built_in()).ok()?.time_ns(row, 1).ok();
        Some(once(move || load().is_some()))
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::Timed;
    use skep_benches::programs::Program;
    use skep_live::row::Row;

    pub(super) fn program(_: &Program) -> Option<Timed<'static>> {
        None
    }
    pub(super) fn row(_: &Row) -> Option<Timed<'static>> {
        None
    }
    pub(super) fn load(_: &Row) -> Option<Timed<'static>> {
        None
    }
}
