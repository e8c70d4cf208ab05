//! The checks themselves, each against a kernel that really does what the check is there for.
//!
//! Knows what has to be found in which kernel. Does not know how a kernel is booted.

use crate::Bench;
use skep_live::qemu::config::Kernel;
use skep_live::qemu::table::{Check, Counted, GROWTH_LIMIT, Table};
use skep_live::qemu::{Problem, Result, canary};
use skep_object::ObjectSet;

/// The program of the growth that is put before the check.
const GROWN: (&str, &str) = ("lxc", "tail_ipv4_to_endpoint");

/// Whether every check found what it should in this kernel, and nothing else.
pub(crate) fn run(bench: &Bench<'_>, kernel: &Kernel) -> Result<bool> {
    let folder = bench.arguments.cache.join("self-test");
    canary::write(&ObjectSet::built_in(), canary::PROGRAM, &folder)
        .map_err(|e| Problem(format!("{}: {e}", folder.display())))?;
    let altered = ObjectSet::from_folder(&folder).map_err(|e| Problem(e.to_string()))?;
    let said = bench.boot(kernel, &altered, &["verifier"])?;
    let report = said.report.ok_or_else(|| Problem("no word of the verifier".to_owned()))?;
    let mut table = bench.table(&kernel.series)?;

    let refused = if canary::is_known_to(&kernel.series) {
        vec![]
    } else {
        vec![format!("overlay/{}", canary::PROGRAM)]
    };
    let mut good = expect(kernel, Check::Verdict, &named(&table, &report, Check::Verdict), &refused);

    // What this kernel counts is a fifth more than this table has.
    let line = table.programs.get_mut(GROWN.0).and_then(|p| p.get_mut(GROWN.1));
    let line = line.ok_or_else(|| Problem(format!("{GROWN:?} is not in the table")))?;
    *line = Counted { verified: line.verified * 5 / 6, ..*line };
    let grown = [format!("{}/{}", GROWN.0, GROWN.1)];
    good &= expect(kernel, Check::VerifiedGrowth, &named(&table, &report, Check::VerifiedGrowth), &grown);
    const { assert!(GROWTH_LIMIT > 5, "a fifth is beyond the limit") }

    let said = match bench.boot(kernel, &ObjectSet::built_in(), &["panic"]) {
        Ok(_) => "a pass".to_owned(),
        Err(problem) => problem.to_string(),
    };
    let is_told = said.contains("it panicked or rebooted (status 0)") && said.contains("Kernel panic");
    println!(
        "{}: self-test: a kernel that panics is {}",
        kernel.series,
        if is_told { "reported" } else { &said }
    );
    Ok(good && is_told)
}

/// The programs that one check names.
fn named(table: &Table, report: &skep_agent_linux::Report, check: Check) -> Vec<String> {
    table.compare(report).into_iter().filter(|f| f.check == check).map(|f| f.program).collect()
}

fn expect(kernel: &Kernel, check: Check, found: &[String], wanted: &[String]) -> bool {
    let good = found == wanted;
    let word = if good { "as it should".to_owned() } else { format!("and should name {wanted:?}") };
    println!("{}: self-test: {} names {found:?}, {word}", kernel.series, check.name());
    good
}
