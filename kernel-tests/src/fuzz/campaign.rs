//! A campaign: so many cases of a seed, on so many threads.
//!
//! Knows threads and how to stop. What a case is and whether it differs is others' business.

use super::case::CaseFile;
use super::generate::{BLOCK, Generator};
use super::replay::{Compared, Pair, namespace};
use super::report::{Found, Report};
use super::shrink::shrink;
use crate::row::Row;
use skep_abi::program::Program;
use skep_object::ObjectSet;
use skep_vm::EngineKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed of all cases.
    pub seed: u64,
    /// How many.
    pub cases: u64,
    /// Only this program.
    pub program: Option<&'static Program>,
    /// On so many threads.
    pub threads: usize,
    /// Stops after so many differences.
    pub most: usize,
    /// What executes the programs in skep-vm.
    pub engine: EngineKind,
    /// The objects in the kernel.
    pub kernel: ObjectSet,
    /// The objects in skep-vm: others only to see that the campaign notices.
    pub vm: ObjectSet,
}

/// What all threads share.
struct Shared<'a> {
    options: &'a Options,
    generator: Generator,
    next_block: AtomicU64,
    done: AtomicU64,
    found: AtomicU64,
    stop: AtomicBool,
}

/// Runs a campaign. `progress` is told how many cases are done, from time to time.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub fn run(options: &Options, progress: impl Fn(u64) + Sync) -> Result<Report, String> {
    let started = Instant::now();
    let shared = Shared {
        options,
        generator: Generator::new(options.seed, options.program),
        next_block: AtomicU64::new(0),
        done: AtomicU64::new(0),
        found: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let parts: Vec<Result<Report, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..options.threads.max(1)).map(|_| scope.spawn(|| part(&shared, &progress))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect()
    });
    let mut report = Report { seed: options.seed, ..Report::default() };
    for part in parts {
        report.merge(part?);
    }
    report.elapsed = started.elapsed();
    Ok(report)
}

/// What one thread does, in a namespace of its own.
fn part(shared: &Shared<'_>, progress: &(impl Fn(u64) + Sync)) -> Result<Report, String> {
    let netns = namespace().map_err(|e| e.to_string())?;
    let work = || {
        let mut pair = Pair::new(shared.options.kernel.clone(), &shared.options.vm, shared.options.engine)?;
        let mut report = Report::default();
        while !shared.stop.load(Ordering::Relaxed) {
            let first = shared.next_block.fetch_add(1, Ordering::Relaxed) * BLOCK;
            let end = (first + BLOCK).min(shared.options.cases);
            if first >= end {
                break;
            }
            for index in first..end {
                one(shared, &mut pair, index, &mut report);
            }
            progress(shared.done.fetch_add(end - first, Ordering::Relaxed) + end - first);
        }
        Ok(report)
    };
    netns.within(work).map_err(|e| e.to_string())?
}

fn one(shared: &Shared<'_>, pair: &mut Pair, index: u64, report: &mut Report) {
    let row = shared.generator.case(index);
    match pair.compare(&row) {
        Compared::Refused => report.refused += 1,
        Compared::Ran(outcome, found) => {
            report.count(row.program, &outcome);
            if !found.is_empty() {
                if shared.found.fetch_add(1, Ordering::Relaxed) + 1 >= shared.options.most as u64 {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                report.found.push(smallest(pair, index, &row, found));
            }
        }
    }
}

fn smallest(pair: &mut Pair, index: u64, row: &Row, found: Vec<String>) -> Found {
    let small = shrink(row, |r| !pair.differences(r).is_empty());
    let again = pair.differences(&small);
    // What does not happen twice is told as it happened once.
    let (small, differences) = if again.is_empty() { (row.clone(), found) } else { (small, again) };
    let case = CaseFile::of(&small, differences.join("\n"));
    Found { index, differences, case }
}
