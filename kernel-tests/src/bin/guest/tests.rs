//! The tests of a kernel, each group a function, and their results on the second serial port.
//!
//! A group that comes later is a line of [`GROUPS`].

use skep_agent_linux::{kernel_release, verify_running_kernel};
use skep_live::qemu::protocol::{CheckOutcome, Line};
use skep_live::{kernel::Machine, outcome, rows, vm::Simulator};
use skep_object::ObjectSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;
type Group = fn(&ObjectSet, &mut Results) -> Result<(), Failure>;

/// All groups by name, in the order in which they run.
const GROUPS: [(&str, Group); 3] =
    [("verifier", verifier), ("packet-tables", packet_tables), ("panic", panic)];

/// The groups that this run is about, one a line.
const WANTED: &str = "/groups";

/// What this kernel is known to lack, one a line (ci/kernels.toml).
const LACKS: &str = "/lacks";
const INGRESS_IFINDEX: &str = "ingress-ifindex";

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
    let lacks_ingress = std::fs::read_to_string(LACKS)?.lines().any(|l| l == INGRESS_IFINDEX);
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

/// Takes the kernel down, to see that the host notices (`cargo xtask kernels --self-test`).
fn panic(_: &ObjectSet, _: &mut Results) -> Result<(), Failure> {
    std::fs::write("/proc/sys/kernel/sysrq", "1")?;
    std::fs::write("/proc/sysrq-trigger", "c")?;
    Err("the kernel is still there".into())
}
