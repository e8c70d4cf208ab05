//! Carries a plan out on a World, step by step, and reports.
//!
//! Knows no World in particular: what one does not offer is a skip, decided before anything is built.

use crate::error::{Diagnostic, SetupError};
use crate::evidence::Evidence;
use crate::judge::{self, FlowVerdict, Observed, State};
use crate::opinion::{Opinion, Placement};
use crate::plan::{Action, Plan, PlannedStep};
use crate::report::{CounterDelta, Failure, FlowReport, NodeConntrack, ScenarioReport, Status, StepReport};
use crate::schema::{AssertStep, ConntrackExpect};
use crate::snapshot::{ConntrackEntry, Metric, Query, Snapshot};
use crate::world::{Capability, FlowId, Until, World};
use std::collections::BTreeMap;

/// What the caller decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunOptions {
    /// A skip is a failure.
    pub no_skip: bool,
}

/// Watches a run, for traces and progress.
pub trait Progress {
    /// A scenario begins.
    fn scenario(&mut self, plan: &Plan);
    /// A step has ended. `evidence` is that of a flow; of one that was left open, as far as it got.
    fn step(&mut self, step: &StepReport, evidence: Option<&Evidence>);
    /// A scenario has ended.
    fn done(&mut self, report: &ScenarioReport);
}

/// Nobody watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn scenario(&mut self, _: &Plan) {}
    fn step(&mut self, _: &StepReport, _: Option<&Evidence>) {}
    fn done(&mut self, _: &ScenarioReport) {}
}

/// Carries out a plan. Never fails: what goes wrong is in the report.
pub fn run(
    plan: &Plan,
    world: &mut dyn World,
    options: RunOptions,
    progress: &mut dyn Progress,
) -> ScenarioReport {
    progress.scenario(plan);
    let skips = skips(plan, world);
    let mut runner = Runner {
        plan,
        world,
        flows: BTreeMap::new(),
        nodes: Vec::new(),
        objects: BTreeMap::new(),
        steps: Vec::new(),
        opinion: Opinion::new(&plan.manifests, &plan.cluster.nodes),
    };
    let error = runner.all(&skips, options, progress).err();
    let report = ScenarioReport::new(plan, runner.objects, runner.steps, error);
    progress.done(&report);
    report
}

/// Why each step is skipped, by number. A skipped step that would have changed something takes the rest with it, and a
/// cluster that cannot be built as it is meant takes all.
pub fn skips(plan: &Plan, world: &dyn World) -> BTreeMap<usize, String> {
    let offered = world.offers().capabilities;
    if let Some(missing) = plan.needs.difference(&offered).next() {
        return plan.steps.iter().map(|step| (step.number, format!("needs {missing}"))).collect();
    }
    let mut skips = BTreeMap::new();
    let mut cause: Option<usize> = None;
    for step in &plan.steps {
        if let Some(missing) = step.needs.difference(&offered).next() {
            skips.insert(step.number, format!("needs {missing}"));
            let harmless = matches!(step.action, Action::Assert(_));
            if !harmless {
                cause = cause.or(Some(step.number));
            }
        } else if let Some(cause) = cause {
            skips.insert(step.number, format!("follows step {cause}, which is skipped"));
        }
    }
    skips
}

struct Runner<'a> {
    plan: &'a Plan,
    world: &'a mut dyn World,
    flows: BTreeMap<String, FlowId>,
    nodes: Vec<String>,
    objects: BTreeMap<String, String>,
    steps: Vec<StepReport>,
    opinion: Opinion,
}

impl Runner<'_> {
    fn all(
        &mut self,
        skips: &BTreeMap<usize, String>,
        options: RunOptions,
        progress: &mut dyn Progress,
    ) -> Result<(), SetupError> {
        if let Snapshot::Objects(objects) = self.world.inspect(&Query::Objects)? {
            self.objects = objects;
        }
        if self.plan.steps.iter().any(|step| !skips.contains_key(&step.number)) {
            self.world.build(&self.plan.cluster)?;
            if let Snapshot::Nodes(nodes) = self.world.inspect(&Query::Nodes)? {
                self.nodes = nodes;
            }
        }
        let plan = self.plan;
        for step in &plan.steps {
            let (mut report, evidence) = match skips.get(&step.number) {
                Some(why) => (StepReport::skipped(step, why.clone()), None),
                None => self.step(step).map_err(|e| at_step(plan, step, e))?,
            };
            if options.no_skip && report.status == Status::Skipped {
                report.status = Status::Failed;
            }
            progress.step(&report, evidence.as_ref());
            self.steps.push(report);
        }
        Ok(())
    }

    fn step(&mut self, step: &PlannedStep) -> Result<(StepReport, Option<Evidence>), SetupError> {
        match &step.action {
            Action::Start { name, stimulus, until } => {
                let before = self.metrics()?;
                let flow = self.world.start(stimulus, *until)?;
                if let Some(name) = name {
                    self.flows.insert(name.clone(), flow);
                }
                // The flow stands where `until` left it: no time passes here.
                let evidence = self.world.resume(flow, Until::Time(std::time::Duration::ZERO))?;
                self.flow(step, evidence, &before)
            }
            Action::Await(name) => {
                let before = self.metrics()?;
                let flow = self.flows.remove(name).expect("a plan awaits only flows that it opened");
                let evidence = self.world.resume(flow, Until::Done)?;
                self.flow(step, evidence, &before)
            }
            Action::Change(change, objects) => {
                self.world.change(change)?;
                self.opinion.change(change, objects);
                Ok((StepReport::done(step), None))
            }
            Action::Advance(by) => {
                self.world.advance(*by)?;
                Ok((StepReport::done(step), None))
            }
            Action::Assert(assert) => {
                let state = self.state(assert)?;
                let failures = judge::judge_state(assert, &state);
                let failures = self.locate(step, "assert", failures);
                Ok((StepReport::judged(step, failures), None))
            }
        }
    }

    fn flow(
        &mut self,
        step: &PlannedStep,
        evidence: Evidence,
        before: &BTreeMap<String, Vec<Metric>>,
    ) -> Result<(StepReport, Option<Evidence>), SetupError> {
        let counters = growth(before, &self.metrics()?);
        let mut failures = Vec::new();
        if let Some(expect) = &step.expect {
            let conntrack = self.conntrack(&expect.conntrack)?;
            let observed = Observed { evidence: &evidence, counters: &counters, conntrack: &conntrack };
            failures = self.locate(step, "expect", judge::judge(expect, observed));
        }
        let verdict = FlowVerdict::of(&evidence);
        let placement = if self.opinion.concerns(step) { self.placement()? } else { Placement::new() };
        if let Some(mismatch) = self.opinion.judge(step, &evidence, &verdict, &placement) {
            failures.push(Failure::new(&self.plan.file, step.line, mismatch));
        }
        let mut report = StepReport::judged(step, failures);
        report.verdict = Some(verdict);
        report.counters = CounterDelta::list(&counters);
        report.evidence = Some(FlowReport::of(&evidence));
        report.conntrack = NodeConntrack::of_flow(&evidence.flow, self.all_conntrack()?);
        Ok((report, Some(evidence)))
    }

    fn locate(&self, step: &PlannedStep, root: &str, failed: Vec<judge::Mismatch>) -> Vec<Failure> {
        failed
            .into_iter()
            .map(|m| {
                let field = format!("spec.steps[{}].{root}.{}", step.number - 1, m.field);
                Failure::new(&self.plan.file, self.plan.line_of(&field), m)
            })
            .collect()
    }

    /// Counters of every node, if maps can be read.
    fn metrics(&mut self) -> Result<BTreeMap<String, Vec<Metric>>, SetupError> {
        if !self.world.offers().capabilities.contains(&Capability::Inspect) {
            return Ok(BTreeMap::new());
        }
        let mut all = BTreeMap::new();
        for node in self.nodes.clone() {
            let metrics = self.metrics_of(&node)?;
            all.insert(node, metrics);
        }
        Ok(all)
    }

    /// Where each pod is, if that can be seen.
    fn placement(&mut self) -> Result<Placement, SetupError> {
        let mut all = Placement::new();
        if !self.world.offers().capabilities.contains(&Capability::Inspect) {
            return Ok(all);
        }
        for node in self.nodes.clone() {
            match self.world.inspect(&Query::Endpoints { node: node.clone() })? {
                Snapshot::Endpoints(rows) => all.insert(node, rows),
                other => return Err(wrong_answer("endpoints", &other)),
            };
        }
        Ok(all)
    }

    fn metrics_of(&mut self, node: &str) -> Result<Vec<Metric>, SetupError> {
        match self.world.inspect(&Query::Metrics { node: node.to_owned() })? {
            Snapshot::Metrics(metrics) => Ok(metrics),
            other => Err(wrong_answer("metrics", &other)),
        }
    }

    fn conntrack(
        &mut self,
        wanted: &[ConntrackExpect],
    ) -> Result<BTreeMap<String, Vec<ConntrackEntry>>, SetupError> {
        let mut all = BTreeMap::new();
        for expect in wanted {
            if !all.contains_key(&expect.node) {
                all.insert(expect.node.clone(), self.conntrack_of(&expect.node)?);
            }
        }
        Ok(all)
    }

    /// Conntrack of every node, if maps can be read.
    fn all_conntrack(&mut self) -> Result<BTreeMap<String, Vec<ConntrackEntry>>, SetupError> {
        let mut all = BTreeMap::new();
        if self.world.offers().capabilities.contains(&Capability::Inspect) {
            for node in self.nodes.clone() {
                let entries = self.conntrack_of(&node)?;
                all.insert(node, entries);
            }
        }
        Ok(all)
    }

    fn conntrack_of(&mut self, node: &str) -> Result<Vec<ConntrackEntry>, SetupError> {
        match self.world.inspect(&Query::Conntrack { node: node.to_owned() })? {
            Snapshot::Conntrack(entries) => Ok(entries),
            other => Err(wrong_answer("conntrack", &other)),
        }
    }

    fn state(&mut self, assert: &AssertStep) -> Result<State, SetupError> {
        let mut state = State { conntrack: self.conntrack(&assert.conntrack)?, ..State::default() };
        for row in &assert.metrics {
            let metrics = self.metrics_of(&row.node)?;
            state.metrics.insert(row.node.clone(), metrics);
        }
        for row in &assert.ipcache {
            match self.world.inspect(&Query::Ipcache { node: row.node.clone() })? {
                Snapshot::Ipcache(rows) => state.ipcache.insert(row.node.clone(), rows),
                other => return Err(wrong_answer("the ipcache", &other)),
            };
        }
        for row in &assert.policy {
            match self.world.inspect(&Query::Policy { pod: row.pod.clone() })? {
                Snapshot::Policy(rows) => state.policy.insert(row.pod.clone(), rows),
                other => return Err(wrong_answer("policy", &other)),
            };
        }
        for row in &assert.maps {
            match self.world.inspect(&Query::Map { node: row.node.clone(), name: row.name.clone() })? {
                Snapshot::Map(rows) => {
                    state.maps.insert((row.node.clone(), row.name.clone()), rows.len() as u64)
                }
                other => return Err(wrong_answer("a map", &other)),
            };
        }
        Ok(state)
    }
}

/// Where an error came up, if it does not say so itself.
fn at_step(plan: &Plan, step: &PlannedStep, error: SetupError) -> SetupError {
    match error {
        SetupError::Refused(why) => SetupError::input(
            Diagnostic::new(format!("{}: {why}", step.title))
                .in_file(&plan.file)
                .at(step.line, 1)
                .about(format!("spec.steps[{}]", step.number - 1)),
        ),
        SetupError::InvariantBroken(why) => {
            SetupError::InvariantBroken(format!("{why}, at step {} ({})", step.number, step.title))
        }
        input => input,
    }
}

fn wrong_answer(asked: &str, got: &Snapshot) -> SetupError {
    SetupError::InvariantBroken(format!("the World was asked for {asked} and answered {got:?}"))
}

/// By how much counters grew; those that did not are left out.
fn growth(
    before: &BTreeMap<String, Vec<Metric>>,
    after: &BTreeMap<String, Vec<Metric>>,
) -> BTreeMap<String, Vec<Metric>> {
    let mut grown = BTreeMap::new();
    for (node, metrics) in after {
        let old = before.get(node).map(Vec::as_slice).unwrap_or_default();
        let mut rows: Vec<Metric> = metrics
            .iter()
            .map(|m| {
                let was = old.iter().find(|o| o.reason == m.reason && o.direction == m.direction);
                Metric {
                    packets: m.packets.saturating_sub(was.map_or(0, |w| w.packets)),
                    bytes: m.bytes.saturating_sub(was.map_or(0, |w| w.bytes)),
                    ..m.clone()
                }
            })
            .filter(|m| m.packets > 0)
            .collect();
        rows.sort();
        grown.insert(node.clone(), rows);
    }
    grown
}

#[cfg(test)]
mod tests;
