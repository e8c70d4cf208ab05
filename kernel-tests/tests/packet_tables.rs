//! Every row in skep-vm against its expectation, and in the running kernel against both; and that the tables notice
//! a program that is altered.
//!
//! Where the kernel cannot be asked the rows still run in skep-vm, and one line says what was skipped.

use libtest_mimic::{Arguments, Failed, Trial};
use skep_abi::program::PROGRAMS;
use skep_live::outcome::differences;
use skep_live::row::Row;
use skep_live::vm::Simulator;
use skep_live::{alter, rows};
use skep_object::ObjectSet;
use std::cell::RefCell;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One kernel, one set of maps, one ring of events.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for row in rows::all() {
        let title = row.title();
        trials.push(Trial::test(format!("vm/{title}"), move || in_vm(&row)));
    }
    for program in PROGRAMS {
        trials.push(Trial::test(format!("canary/{}", program.name), || canary(program.name)));
    }
    match kernel::open() {
        Ok(()) => {
            for row in rows::all() {
                let title = row.title();
                trials.push(Trial::test(format!("kernel/{title}"), move || in_kernel(&row)));
            }
        }
        Err(capability) => println!("SKIP packet-tables: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

thread_local! {
    static SIMULATOR: RefCell<Option<Simulator>> = const { RefCell::new(None) };
}

/// The row in skep-vm, with the built-in objects.
fn simulated(row: &Row) -> Result<skep_live::outcome::Outcome, Failed> {
    SIMULATOR.with_borrow_mut(|s| {
        if s.is_none() {
            *s = Some(Simulator::new(&ObjectSet::built_in())?);
        }
        let simulator = s.as_ref().expect("it was just made");
        Ok(simulator.run(row)?)
    })
}

fn none(what: &str, found: &[String]) -> Result<(), Failed> {
    if found.is_empty() { Ok(()) } else { Err(format!("{what}:\n  {}", found.join("\n  ")).into()) }
}

fn in_vm(row: &Row) -> Result<(), Failed> {
    none("skep-vm against the contract", &row.expected.violations(row, &simulated(row)?))
}

fn in_kernel(row: &Row) -> Result<(), Failed> {
    let real = match kernel::run(row) {
        Err(_) if row.kernel_may_refuse => return Ok(()),
        other => other?,
    };
    none("the kernel against the contract", &row.expected.violations(row, &real))?;
    none("the kernel and skep-vm", &differences(&real, &simulated(row)?))
}

/// With the program replaced by one that only returns "ok", each of its rows must differ from the real program's
/// run, or the row would not need the program; but for those in which it only passes the packet on in silence.
fn canary(program: &'static str) -> Result<(), Failed> {
    let folder = altered(program)?;
    let objects = ObjectSet::from_folder(folder.path())?;
    let simulator = Simulator::new(&objects)?;
    let rows: Vec<Row> = rows::all().into_iter().filter(|r| r.program == program).collect();
    let mut blind = Vec::new();
    for row in &rows {
        let broken = simulator.run(row)?;
        if differences(&simulated(row)?, &broken).is_empty() {
            blind.push(row.name.to_owned());
        }
    }
    if blind.len() == rows.len() {
        return Err(format!("no row of {program} notices that it is gone").into());
    }
    let silent = ["arp_is_the_stacks"];
    blind.retain(|name| !silent.contains(&name.as_str()));
    none(&format!("rows that do not notice that {program} is gone"), &blind)
}

/// A folder of objects in which one program only returns "ok".
fn altered(program: &str) -> Result<tempfile::TempDir, Failed> {
    let folder = tempfile::tempdir()?;
    let objects = ObjectSet::built_in();
    for object in skep_abi::program::Object::ALL {
        let bytes = objects.bytes(*object);
        let bytes = alter::return_ok(bytes, program).unwrap_or_else(|| bytes.to_vec());
        std::fs::write(folder.path().join(format!("{}.o", object.name())), bytes)?;
    }
    Ok(folder)
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::{Failed, ObjectSet, RefCell, Row};
    use skep_live::kernel::Machine;
    use skep_live::outcome::Outcome;

    thread_local! {
        static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
    }

    /// Whether the kernel can be asked; else the capability that is missing.
    pub(super) fn open() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    pub(super) fn run(row: &Row) -> Result<Outcome, Failed> {
        MACHINE.with_borrow_mut(|m| {
            if m.is_none() {
                *m = Some(Machine::new(ObjectSet::built_in())?);
            }
            Ok(m.as_mut().expect("it was just made").run(row)?)
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::{Failed, Row};

    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn run(_: &Row) -> Result<skep_live::outcome::Outcome, Failed> {
        Err("there is no kernel here".into())
    }
}
