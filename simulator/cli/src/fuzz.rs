//! `skep fuzz kernel`: skep-vm and the running kernel on random cases.

use crate::args::{FuzzCommand, FuzzKernelArgs};
use crate::diagnostics;
use skep_scenario::Diagnostic;

/// Exit status where the kernel cannot be asked, or an argument names nothing.
const INPUT: u8 = 2;

/// Runs a campaign. Returns the exit status.
pub(crate) fn fuzz(command: &FuzzCommand) -> u8 {
    match command {
        FuzzCommand::Kernel(args) => kernel(args),
    }
}

fn complain(why: impl Into<String>, help: &str) -> u8 {
    diagnostics::print(&Diagnostic::new(why.into()).help(help));
    INPUT
}

#[cfg(all(feature = "kernel", target_os = "linux"))]
fn kernel(args: &FuzzKernelArgs) -> u8 {
    use crate::args::VerifyOutput;
    use skep_live::fuzz::campaign::{self, Options};
    use skep_live::fuzz::tunnel;
    use skep_object::ObjectSet;

    if let Err(e) = skep_agent_linux::probe() {
        return complain(e.to_string(), "run it as root on a kernel with BPF");
    }
    let program = match args.program.as_deref().map(|name| (name, skep_abi::program::by_name(name))) {
        None => None,
        Some((_, Some(program))) => Some(program),
        Some((name, None)) => {
            let all: Vec<&str> = skep_abi::program::PROGRAMS.iter().map(|p| p.name).collect();
            return complain(format!("there is no program `{name}`"), &format!("one of {}", all.join(", ")));
        }
    };
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let options = Options {
        seed: args.seed,
        cases: args.cases,
        program,
        threads: threads.unwrap_or(1),
        most: 10,
        engine: args.engine,
        kernel: ObjectSet::built_in(),
        vm: ObjectSet::built_in(),
    };
    let progress = progress::Line::new(args.cases);
    let report = campaign::run(&options, |done| progress.show(done));
    progress.clear();
    // A test run carries no tunnel metadata: real devices show what programs at the tunnel do.
    let frames = args.frames.unwrap_or(if program.is_some() { 0 } else { args.cases / 50 });
    let report = report.and_then(|mut report| {
        if frames > 0 {
            let progress = progress::Line::new(frames);
            let sent = tunnel::run(&options, frames, |done| progress.show(done));
            progress.clear();
            report.merge(sent?);
        }
        Ok(report)
    });
    let report = match report {
        Ok(report) => report,
        Err(e) => return complain(e, "run it as root on a kernel with BPF"),
    };
    match args.output {
        VerifyOutput::Text => print!("{report}"),
        VerifyOutput::Json => match report.to_json() {
            Ok(json) => println!("{json}"),
            Err(e) => return complain(e.to_string(), "report this as a bug"),
        },
    }
    match args.keep.as_deref().map_or(Ok(()), |folder| keep(folder, &report)) {
        Ok(()) => u8::from(!report.found.is_empty()),
        Err(e) => complain(e, "choose another --keep"),
    }
}

/// Writes each case to a file of its own.
#[cfg(all(feature = "kernel", target_os = "linux"))]
fn keep(folder: &std::path::Path, report: &skep_live::fuzz::report::Report) -> Result<(), String> {
    let say = |path: &std::path::Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    std::fs::create_dir_all(folder).map_err(|e| say(folder, &e))?;
    for found in &report.found {
        let path = folder.join(format!("{}-{}-{}.toml", found.case.program, report.seed, found.index));
        let text = found.case.text().map_err(|e| say(&path, &e))?;
        std::fs::write(&path, text).map_err(|e| say(&path, &e))?;
    }
    Ok(())
}

/// Where there is a person to wait, one line on stderr says how far it is.
#[cfg(all(feature = "kernel", target_os = "linux"))]
mod progress {
    use std::io::{IsTerminal as _, Write as _};
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    pub(super) struct Line {
        cases: u64,
        started: Instant,
        /// When it was last written; `None` where nobody looks.
        last: Option<Mutex<Instant>>,
    }

    impl Line {
        pub(super) fn new(cases: u64) -> Self {
            let started = Instant::now();
            let last = std::io::stderr().is_terminal().then(|| Mutex::new(started));
            Self { cases, started, last }
        }

        pub(super) fn show(&self, done: u64) {
            const OFTEN: Duration = Duration::from_millis(200);
            let Some(Ok(mut last)) = self.last.as_ref().map(Mutex::lock) else { return };
            if last.elapsed() < OFTEN {
                return;
            }
            *last = Instant::now();
            let rate = done as f64 / self.started.elapsed().as_secs_f64();
            let left = (self.cases.saturating_sub(done)) as f64 / rate.max(1.0);
            let _ = write!(
                std::io::stderr(),
                "\r{done} of {} cases, {rate:.0}/s, {left:.0} s left  ",
                self.cases
            );
        }

        pub(super) fn clear(&self) {
            if self.last.is_some() {
                let _ = write!(std::io::stderr(), "\r\x1b[K");
            }
        }
    }
}

/// Says what it would need.
#[cfg(not(all(feature = "kernel", target_os = "linux")))]
fn kernel(_: &FuzzKernelArgs) -> u8 {
    if cfg!(target_os = "linux") {
        let help = "run `cargo run --release -p skep --features kernel -- fuzz kernel` as root";
        complain("this skep was built without the feature `kernel`", help)
    } else {
        complain("there is no Linux kernel to compare with here", "run `skep fuzz kernel` on Linux, as root")
    }
}
