//! The tests of a kernel, each group a function, and their results on the second serial port.
//!
//! A group that comes later is a line of [`GROUPS`].

use skep_abi::program::PROGRAMS;
use skep_agent_linux::{kernel_release, verify_running_kernel};
use skep_live::fuzz::campaign::{self, Options};
use skep_live::fuzz::generate::BLOCK;
use skep_live::live::LiveWorld;
use skep_live::qemu::protocol::{CheckOutcome, Line};
use skep_live::{kernel::Machine, outcome, rows, vm::Simulator};
use skep_object::ObjectSet;
use skep_scenario::plan::{Plan, PlanOptions};
use skep_scenario::report::Status;
use skep_scenario::run::{RunOptions, Silent, run as run_plan};
use skep_vm::EngineKind;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;
type Group = fn(&ObjectSet, &mut Results) -> Result<(), Failure>;

/// All groups by name, in the order in which they run.
const GROUPS: [(&str, Group); 5] = [
    ("verifier", verifier),
    ("packet-tables", packet_tables),
    ("random-cases", random_cases),
    ("scenarios", scenarios),
    ("panic", panic),
];

/// Sixty-four random cases a program: each has a load to itself, and an emulated CPU verifies slowly.
const RANDOM_CASES: u64 = BLOCK * PROGRAMS.len() as u64;

/// The groups that this run is about, one a line.
const WANTED: &str = "/groups";

/// What this kernel is known to lack, one a line (ci/kernels.toml).
const LACKS: &str = "/lacks";
const INGRESS_IFINDEX: &str = "ingress-ifindex";
const DROP_REASONS: &str = "drop-reasons";

fn lacks(what: &str) -> Result<bool, Failure> {
    Ok(std::fs::read_to_string(LACKS)?.lines().any(|l| l == what))
}

pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("tests: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut results = Results::open()?;
    results.say(&Line::Start { kernel: kernel_release() })?;
    let objects = ObjectSet::from_folder(Path::new("/objects"))?;
    let wanted = std::fs::read_to_string(WANTED)?;
    for name in wanted.lines() {
        let (_, group) = GROUPS.iter().find(|(n, _)| *n == name).ok_or_else(|| format!("no group {name}"))?;
        group(&objects, &mut results)?;
    }
    results.end()
}

/// The second serial port.
struct Results {
    port: File,
    lines: usize,
}

impl Results {
    fn open() -> Result<Self, Failure> {
        Ok(Self { port: OpenOptions::new().write(true).open("/dev/ttyS1")?, lines: 0 })
    }

    fn say(&mut self, line: &Line) -> Result<(), Failure> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.port.write_all(text.as_bytes())?;
        self.lines += 1;
        Ok(())
    }

    fn check(&mut self, group: &str, name: String, outcome: CheckOutcome) -> Result<(), Failure> {
        self.say(&Line::Check { group: group.to_owned(), name, outcome })
    }

    /// The end line, and its way out of the port's buffer.
    fn end(mut self) -> Result<(), Failure> {
        self.say(&Line::End { lines: self.lines })?;
        rustix::termios::tcdrain(&self.port)?;
        Ok(())
    }
}

fn verifier(objects: &ObjectSet, results: &mut Results) -> Result<(), Failure> {
    let report = verify_running_kernel(objects)?;
    results.say(&Line::Verifier { report: report.to_json() })
}

/// Every row in this kernel, against the contract and against skep-vm.
fn packet_tables(objects: &ObjectSet, results: &mut Results) -> Result<(), Failure> {
    if !verify_running_kernel(objects)?.is_success() {
        let why = "no row can run: the verifier refuses a program".to_owned();
        return results.check("packet-tables", "all".to_owned(), CheckOutcome::Failed(why));
    }
    let simulator = Simulator::new(objects)?;
    let lacks_ingress = lacks(INGRESS_IFINDEX)?;
    let mut machine = Machine::new(objects.clone())?;
    for row in rows::all() {
        let outcome = match machine.run(&row) {
            Err(_) if row.kernel_may_refuse => CheckOutcome::Passed,
            Err(_) if row.context.ingress_ifindex != 0 && lacks_ingress => {
                CheckOutcome::Skipped(INGRESS_IFINDEX.to_owned())
            }
            Err(e) => CheckOutcome::Failed(e),
            Ok(real) => {
                let mut wrong = row.expected.violations(&row, &real);
                wrong.extend(outcome::differences(&real, &simulator.run(&row)?));
                if wrong.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed(wrong.join("; ")) }
            }
        };
        results.check("packet-tables", row.title(), outcome)?;
    }
    Ok(())
}

/// Random cases in this kernel and in skep-vm.
fn random_cases(objects: &ObjectSet, results: &mut Results) -> Result<(), Failure> {
    let options = Options {
        seed: 6,
        cases: RANDOM_CASES,
        program: None,
        ingress: !lacks(INGRESS_IFINDEX)?,
        threads: 1,
        most: 3,
        engine: EngineKind::default(),
        kernel: objects.clone(),
        vm: objects.clone(),
    };
    let outcome = match campaign::run(&options, |_| {}) {
        Ok(report) if report.found.is_empty() => CheckOutcome::Passed,
        Ok(report) => {
            let found = report.found.iter().map(|f| format!("case {}: {}", f.index, f.case.about));
            CheckOutcome::Failed(found.collect::<Vec<_>>().join("; "))
        }
        Err(why) => CheckOutcome::Failed(why),
    };
    results.check("random-cases", format!("seed {}, {} cases", options.seed, options.cases), outcome)
}

/// Every folder below /scenarios in this kernel, each step a check, judged as `skep run --on kernel` judges it.
///
/// A kernel whose stack gives no reason for a drop is known not to run them; were it to, nothing would be skipped, and
/// the host says so.
fn scenarios(_: &ObjectSet, results: &mut Results) -> Result<(), Failure> {
    let lacks_reasons = lacks(DROP_REASONS)?;
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir("/scenarios")?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    folders.sort();
    for folder in folders {
        let plan = Plan::load(&folder, &PlanOptions::default())
            .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        let mut world = LiveWorld::new(Some(Path::new("/objects")))?;
        let report = run_plan(&plan, &mut world, RunOptions::default(), &mut Silent);
        for step in &report.steps {
            let outcome = match step.status {
                Status::Passed => CheckOutcome::Passed,
                Status::Skipped => CheckOutcome::NotOffered(step.skip.clone().unwrap_or_default()),
                _ => CheckOutcome::Failed(step.failures.iter().map(in_words).collect::<Vec<_>>().join("; ")),
            };
            results.check(
                "scenarios",
                format!("{} step {}: {}", report.name, step.number, step.title),
                outcome,
            )?;
        }
        if !report.errors.is_empty() {
            let why = report.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let outcome = if lacks_reasons && report.steps.is_empty() {
                CheckOutcome::Skipped(DROP_REASONS.to_owned())
            } else {
                CheckOutcome::Failed(why)
            };
            results.check("scenarios", report.name.clone(), outcome)?;
        }
    }
    Ok(())
}

fn in_words(failure: &skep_scenario::report::Failure) -> String {
    let m = &failure.mismatch;
    format!("line {}: {}: expected {}, got {}", failure.line, m.field, m.expected, m.got)
}

/// Takes the kernel down, to see that the host notices (`cargo xtask kernels --self-test`).
fn panic(_: &ObjectSet, _: &mut Results) -> Result<(), Failure> {
    std::fs::write("/proc/sys/kernel/sysrq", "1")?;
    std::fs::write("/proc/sysrq-trigger", "c")?;
    Err("the kernel is still there".into())
}
