//! What came of scenarios: as a value, as text, as JSON and as JUnit.
//!
//! Names neither the engine nor absolute paths, and no clock but the World's: the same run gives the same bytes
//! everywhere.

mod junit;
mod text;

pub use text::{TextStyle, status_style};

use crate::error::{Diagnostic, SetupError};
use crate::evidence::{Class, Direction, Drop, Evidence, Outcome, Packets, PolicyDirection, Walk};
use crate::frame::FiveTuple;
use crate::judge::{FlowVerdict, Mismatch};
use crate::plan::{Plan, PlannedStep};
use crate::snapshot::{ConntrackDirection, ConntrackEntry, Metric};
use crate::world::Network;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The version of the JSON report's schema.
pub const SCHEMA: &str = "skep.dev/report/v1";

/// How a step or a scenario ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As expected.
    Passed,
    /// Not carried out: the World does not offer it.
    Skipped,
    /// An expectation does not hold.
    Failed,
    /// The input or the set-up is wrong.
    Error,
    /// An invariant broke.
    Broken,
}

impl Status {
    /// The word that reports print.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Error => "error",
            Self::Broken => "broken",
        }
    }
}

/// Everything that was run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// In the order of the command line.
    pub scenarios: Vec<ScenarioReport>,
    /// Counts.
    pub summary: Summary,
}

/// Counts of scenarios, and of skipped steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// Scenarios that passed.
    pub passed: usize,
    /// Scenarios with an expectation that does not hold.
    pub failed: usize,
    /// Scenarios that could not be set up, or in which an invariant broke.
    pub errors: usize,
    /// Steps that were skipped.
    pub skipped_steps: usize,
}

impl Report {
    /// Of scenarios.
    pub fn new(scenarios: Vec<ScenarioReport>) -> Self {
        let count = |wanted: &[Status]| scenarios.iter().filter(|s| wanted.contains(&s.status)).count();
        let summary = Summary {
            passed: count(&[Status::Passed, Status::Skipped]),
            failed: count(&[Status::Failed]),
            errors: count(&[Status::Error, Status::Broken]),
            skipped_steps: scenarios.iter().map(ScenarioReport::skipped).sum(),
        };
        Self { schema: SCHEMA, scenarios, summary }
    }

    /// 0 as expected, 1 an expectation failed, 2 the input is wrong, 3 an invariant broke: the gravest of all.
    pub fn exit_status(&self) -> u8 {
        let of = |s: &ScenarioReport| match s.status {
            Status::Passed | Status::Skipped => 0,
            Status::Failed => 1,
            Status::Error => 2,
            Status::Broken => 3,
        };
        self.scenarios.iter().map(of).max().unwrap_or(0)
    }

    /// Indented JSON, with a newline at its end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report has only string keys");
        text.push('\n');
        text
    }
}

/// What came of a scenario.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// What it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How it ended.
    pub status: Status,
    /// The seed of its World.
    pub seed: u64,
    /// The switches, all resolved.
    pub network: Network,
    /// The objects that ran: name -> SHA-256.
    pub objects: BTreeMap<String, String>,
    /// Objects that have no effect on networking and were read past, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub read_past: BTreeMap<String, usize>,
    /// Its steps, as far as it got.
    pub steps: Vec<StepReport>,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Diagnostic>,
    /// How to run it again, if an invariant broke.
    #[serde(skip)]
    pub reproduce: Option<String>,
}

impl ScenarioReport {
    /// Of a plan that was carried out, or as far as `error` let it.
    pub fn new(
        plan: &Plan,
        objects: BTreeMap<String, String>,
        steps: Vec<StepReport>,
        error: Option<SetupError>,
    ) -> Self {
        let worst = steps.iter().map(|s| s.status).filter(|s| *s != Status::Skipped).max();
        let all_skipped = !steps.is_empty() && steps.iter().all(|s| s.status == Status::Skipped);
        let (status, errors) = match error {
            None if all_skipped => (Status::Skipped, vec![]),
            None => (worst.unwrap_or(Status::Passed), vec![]),
            Some(SetupError::Input(all)) => (Status::Error, all),
            Some(SetupError::Refused(why)) => (Status::Error, vec![Diagnostic::new(why).in_file(&plan.file)]),
            Some(SetupError::InvariantBroken(why)) => (Status::Broken, vec![Diagnostic::new(why)]),
        };
        let folder = plan.file.parent().unwrap_or(&plan.file).display();
        let reproduce = (status == Status::Broken)
            .then(|| format!("skep run {folder} --seed {} --trace", plan.cluster.seed));
        Self {
            name: plan.name.clone(),
            description: plan.description.clone(),
            status,
            seed: plan.cluster.seed,
            network: plan.cluster.network.clone(),
            objects,
            read_past: plan.read_past.clone(),
            steps,
            errors,
            reproduce,
        }
    }

    /// How many steps were skipped.
    pub fn skipped(&self) -> usize {
        self.steps.iter().filter(|s| s.skip.is_some()).count()
    }
}

/// What came of a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StepReport {
    /// Its number, from 1.
    pub number: usize,
    /// What it does.
    pub title: String,
    /// How it ended.
    pub status: Status,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
    /// What became of its flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<FlowVerdict>,
    /// What does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// By how much counters grew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counters: Vec<CounterDelta>,
    /// What was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<FlowReport>,
    /// The flow's entries in conntrack after the step.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conntrack: Vec<NodeConntrack>,
}

/// A flow's entries in the conntrack of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeConntrack {
    /// The node.
    pub node: String,
    /// Its entries, sorted.
    pub entries: Vec<ConntrackEntry>,
}

impl NodeConntrack {
    /// Those entries of every node that a flow made, or that let error messages about it pass.
    pub(crate) fn of_flow(flow: &FiveTuple, all: BTreeMap<String, Vec<ConntrackEntry>>) -> Vec<Self> {
        let is_of = |e: &ConntrackEntry| {
            let same = |t: &FiveTuple| {
                let ends = (e.src, e.dst) == (t.src, t.dst);
                let ports = match t.protocol {
                    1 => e.sport == t.sport,
                    _ => (e.sport, e.dport) == (t.sport, t.dport),
                };
                ends && (e.direction == ConntrackDirection::Related || (e.protocol == t.protocol && ports))
            };
            same(flow) || same(&flow.reversed())
        };
        all.into_iter()
            .map(|(node, entries)| Self { node, entries: entries.into_iter().filter(|e| is_of(e)).collect() })
            .filter(|n| !n.entries.is_empty())
            .collect()
    }
}

impl StepReport {
    pub(crate) fn done(step: &PlannedStep) -> Self {
        Self {
            number: step.number,
            title: step.title.clone(),
            status: Status::Passed,
            skip: None,
            verdict: None,
            failures: vec![],
            counters: vec![],
            evidence: None,
            conntrack: vec![],
        }
    }

    pub(crate) fn skipped(step: &PlannedStep, why: String) -> Self {
        Self { status: Status::Skipped, skip: Some(why), ..Self::done(step) }
    }

    pub(crate) fn judged(step: &PlannedStep, failures: Vec<Failure>) -> Self {
        let status = if failures.is_empty() { Status::Passed } else { Status::Failed };
        Self { status, failures, ..Self::done(step) }
    }
}

/// An expectation that does not hold, and where it is written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// `scenario.yaml`, without its folder.
    pub file: String,
    /// The folder, for messages only.
    #[serde(skip)]
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// What does not hold.
    #[serde(flatten)]
    pub mismatch: Mismatch,
}

impl Failure {
    pub(crate) fn new(file: &Path, line: u32, mismatch: Mismatch) -> Self {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { file: name, path: file.display().to_string(), line, mismatch }
    }
}

/// By how much a counter grew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CounterDelta {
    /// The node.
    pub node: String,
    /// The reason.
    pub reason: String,
    /// Which way.
    pub direction: PolicyDirection,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl CounterDelta {
    pub(crate) fn list(growth: &BTreeMap<String, Vec<Metric>>) -> Vec<Self> {
        growth
            .iter()
            .flat_map(|(node, rows)| rows.iter().map(move |m| (node, m)))
            .map(|(node, m)| Self {
                node: node.clone(),
                reason: m.reason.clone(),
                direction: m.direction,
                packets: m.packets,
                bytes: m.bytes,
            })
            .collect()
    }
}

/// A flow's evidence as a report has it: the first packet of each class and direction, and the first drop of each
/// reason and place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlowReport {
    /// Who talked to whom.
    pub flow: FiveTuple,
    /// The pod that acted.
    pub from: String,
    /// What the application saw.
    pub outcome: Outcome,
    /// How many packets there were.
    pub packets: Packets,
    /// First packets.
    pub walks: Vec<Walk>,
    /// First drops.
    pub drops: Vec<Drop>,
}

impl FlowReport {
    /// Of evidence.
    pub fn of(evidence: &Evidence) -> Self {
        let mut seen = BTreeSet::new();
        let mut drops = evidence.drops();
        drops.retain(|d| seen.insert((d.direction, d.class, d.place.clone(), d.reason.clone())));
        Self {
            flow: evidence.flow,
            from: evidence.from.clone(),
            outcome: evidence.outcome.clone(),
            packets: evidence.packets,
            walks: shown(evidence).into_iter().cloned().collect(),
            drops,
        }
    }
}

/// The walks that are worth showing: the first of each class and direction, and the first of each that was dropped
/// elsewhere or for another reason.
pub fn shown(evidence: &Evidence) -> Vec<&Walk> {
    let mut classes: BTreeSet<(Direction, Class)> = BTreeSet::new();
    let mut ends: BTreeSet<(Direction, Class, String, String)> = BTreeSet::new();
    evidence
        .walks
        .iter()
        .filter(|w| {
            let dropped =
                w.hops.iter().find_map(|h| Some((h.place().to_string(), h.verdict.reason()?.to_owned())));
            let first = classes.insert((w.direction, w.class));
            let new_end =
                dropped.is_some_and(|(place, reason)| ends.insert((w.direction, w.class, place, reason)));
            first || new_end
        })
        .collect()
}
