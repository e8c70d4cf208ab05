//! What a campaign has met.
//!
//! Knows events and counts. Does not know how cases are made or run.

use super::case::CaseFile;
use crate::outcome::Outcome;
use serde::Serialize;
use skep_abi::DropReason;
use skep_abi::event::{Event, TracePoint};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A difference that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The case's index in its seed.
    pub index: u64,
    /// What differs: the kernel's and skep-vm's.
    pub differences: Vec<String>,
    /// The smallest case that shows one.
    pub case: CaseFile,
}

/// What a campaign has met.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Cases that both places ran.
    pub cases: u64,
    /// Packets that the kernel's test runs do not take.
    pub refused: u64,
    /// Frames that went through real devices and through skep-vm.
    pub frames: u64,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Cases by the program that they enter.
    pub programs: BTreeMap<String, u64>,
    /// Runs of a program that another one called.
    pub tail_called: BTreeMap<String, u64>,
    /// Return values.
    pub returned: BTreeMap<i32, u64>,
    /// Drops by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Trace events by observation point.
    pub traces: BTreeMap<String, u64>,
    /// Decisions of policies by the kind of key that matched.
    pub decisions: BTreeMap<String, u64>,
    /// What differed.
    pub found: Vec<Found>,
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64(elapsed.as_secs_f64())
}

impl Report {
    /// Counts what a case has reached.
    pub fn count(&mut self, program: &str, outcome: &Outcome) {
        self.cases += 1;
        add(&mut self.programs, program, 1);
        *self.returned.entry(outcome.return_value).or_default() += 1;
        for called in outcome.chain.iter().flatten().skip(1) {
            add(&mut self.tail_called, called, 1);
        }
        self.count_events(outcome);
    }

    /// Counts what events say.
    pub fn count_events(&mut self, outcome: &Outcome) {
        for event in &outcome.events {
            match Event::from_bytes(event) {
                Some(Event::Drop(e)) => {
                    add(&mut self.reasons, e.reason().map_or("a number without a name", DropReason::name), 1);
                }
                Some(Event::Trace(e)) => add(&mut self.traces, e.point().map_or("?", TracePoint::name), 1),
                Some(Event::PolicyVerdict(e)) => {
                    let matched = e.match_type().map_or("?", |m| m.name());
                    let word = if e.verdict < 0 { "denied" } else { "allowed" };
                    add(&mut self.decisions, &format!("{word} by {matched}"), 1);
                }
                None => add(&mut self.traces, "an event of no known kind", 1),
            }
        }
    }

    /// Adds what another part of the campaign has met.
    pub fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        self.refused += other.refused;
        self.frames += other.frames;
        self.elapsed += other.elapsed;
        let maps = [
            (&mut self.programs, other.programs),
            (&mut self.tail_called, other.tail_called),
            (&mut self.reasons, other.reasons),
            (&mut self.traces, other.traces),
            (&mut self.decisions, other.decisions),
        ];
        for (to, from) in maps {
            from.iter().for_each(|(name, count)| add(to, name, *count));
        }
        for (value, count) in other.returned {
            *self.returned.entry(value).or_default() += count;
        }
        self.found.extend(other.found);
        self.found.sort_by_key(|f| f.index);
    }

    /// As JSON.
    ///
    /// # Errors
    ///
    /// None: every part of it is a string or a number.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

fn add(to: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    if let Some(there) = to.get_mut(name) {
        *there += count;
    } else {
        to.insert(name.to_owned(), count);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = [
            ("program", &self.programs),
            ("tail call", &self.tail_called),
            ("drop reason", &self.reasons),
            ("trace", &self.traces),
            ("policy", &self.decisions),
        ];
        for (title, counts) in groups {
            let total: u64 = counts.values().sum();
            writeln!(f, "{title:<34} {total:>10}")?;
            for (name, count) in counts {
                writeln!(f, "  {name:<32} {count:>10}")?;
            }
        }
        for found in &self.found {
            writeln!(f, "case {} ({}) differs:", found.index, found.case.program)?;
            for difference in &found.differences {
                writeln!(f, "  {difference}")?;
            }
        }
        let (seconds, differ) = (self.elapsed.as_secs_f64(), self.found.len());
        let rate = self.cases as f64 / seconds.max(0.001);
        writeln!(
            f,
            "seed {}: {} cases and {} frames in {seconds:.0} s ({rate:.0} cases/s), {} refused by the kernel, {differ} {}",
            self.seed,
            self.cases,
            self.frames,
            self.refused,
            if differ == 1 { "difference" } else { "differences" }
        )
    }
}
