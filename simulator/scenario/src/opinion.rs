//! The second opinion: what the text of the NetworkPolicies says of a flow, against what the bytecode did.
//!
//! Asks the oracle, which shares no code with the agent. Has none where faults lose packets, where packets are made by
//! hand, and about the rest of a flow that began under other policies.

use crate::evidence::Evidence;
use crate::judge::{FlowVerdict, Mismatch};
use crate::plan::{Action, PlannedStep};
use crate::schema::ExpectedVerdict;
use crate::snapshot::EndpointRow;
use crate::world::{Change, Labelled, NodeEntry, Stimulus, Target};
use skep_abi::DropReason;
use skep_manifest::{Loaded, Resource};
use skep_oracle::{Answer, Decision, Flow, Oracle, Peer, PodName, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Endpoints by node, as a World shows them.
pub(crate) type Placement = BTreeMap<String, Vec<EndpointRow>>;

/// The objects of the cluster as they stand, for the oracle.
pub(crate) struct Opinion {
    objects: Vec<Loaded>,
    nodes: Vec<NodeEntry>,
    /// Something happened that the oracle cannot judge: it keeps silent from then on.
    silent: bool,
}

impl Opinion {
    pub(crate) fn new(objects: &[Loaded], nodes: &[NodeEntry]) -> Self {
        Self { objects: objects.to_vec(), nodes: nodes.to_vec(), silent: false }
    }

    /// Follows a change of the cluster.
    pub(crate) fn change(&mut self, change: &Change, objects: &[Loaded]) {
        let named = |l: &Loaded| objects.iter().any(|o| o.key() == l.key());
        match change {
            Change::Apply(_) => {
                self.objects.retain(|l| !named(l));
                self.objects.extend_from_slice(objects);
            }
            Change::Delete(_) => self.objects.retain(|l| !named(l)),
            Change::Relabel { object, labels } => self.silent |= !self.relabel(object, labels),
            Change::Fault(_) => self.silent = true,
            Change::RestartAgent { .. } => {}
        }
    }

    /// Whether the object that bears the labels is known; a workload's pod is not.
    fn relabel(&mut self, object: &Labelled, labels: &BTreeMap<String, Option<String>>) -> bool {
        let wanted = |r: &Resource| match (object, r) {
            (Labelled::Pod(name), Resource::Pod(_)) => *name == format!("{}/{}", r.namespace(), r.name()),
            (Labelled::Namespace(name), Resource::Namespace(_)) => name == r.name(),
            _ => false,
        };
        let Some(loaded) = self.objects.iter_mut().find(|l| wanted(&l.resource)) else { return false };
        let metadata = match &mut loaded.resource {
            Resource::Pod(pod) => &mut pod.metadata,
            Resource::Namespace(namespace) => &mut namespace.metadata,
            _ => return false,
        };
        let all = metadata.labels.get_or_insert_default();
        for (key, value) in labels {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        true
    }

    /// Whether the oracle has a word to say about a step.
    pub(crate) fn concerns(&self, step: &PlannedStep) -> bool {
        !self.silent && question(step).is_some()
    }

    /// A disagreement between the policies' text and what was observed.
    pub(crate) fn judge(
        &self,
        step: &PlannedStep,
        evidence: &Evidence,
        verdict: &FlowVerdict,
        placement: &Placement,
    ) -> Option<Mismatch> {
        if !self.concerns(step) {
            return None;
        }
        let mut flow = question(step)?;
        if let (Peer::Pod(_), IpAddr::V4(address)) = (&flow.destination, evidence.flow.dst) {
            flow.destination = Peer::Address(address);
        }
        let answer = self.oracle(placement).allows(&flow).ok()?;
        let denied = verdict.reason.as_deref().and_then(DropReason::from_name);
        let denied = matches!(denied, Some(DropReason::POLICY_DENIED | DropReason::POLICY_DENY));
        let expected = match (answer.allows(), denied) {
            (true, true) => "allowed: no policy that isolates either end leaves it out",
            (false, false) => "denied",
            _ => return None,
        };
        let got = match (verdict.verdict, &verdict.reason) {
            (ExpectedVerdict::Dropped, Some(reason)) => format!("dropped ({reason})"),
            (other, _) => other.name().to_owned(),
        };
        Some(Mismatch { field: "policy".into(), expected: expected.to_owned() + &who(&answer), got })
    }

    fn oracle(&self, placement: &Placement) -> Oracle {
        let mut oracle = Oracle::new(&self.objects);
        for node in &self.nodes {
            if let Some(address) = node.address {
                oracle.add_node(&node.name, address);
            }
        }
        for (node, rows) in placement {
            for row in rows {
                if let (Some((namespace, name)), IpAddr::V4(address)) = (row.pod.split_once('/'), row.address)
                {
                    // A pod that the oracle does not know leaves its opinion about the others as it is.
                    let _ = oracle.place(&PodName::new(namespace, name), node, address);
                }
            }
        }
        oracle
    }
}

/// Which policies deny.
fn who(answer: &Answer) -> String {
    let part = |way: &str, decision: &Decision| match decision {
        Decision::Denied(policies) => format!(" by {way} ({})", policies.join(", ")),
        _ => String::new(),
    };
    part("egress", &answer.egress) + &part("ingress", &answer.ingress)
}

/// The flow that a step opens, as the policies see it.
fn question(step: &PlannedStep) -> Option<Flow> {
    let Action::Start { stimulus, .. } = &step.action else { return None };
    let (to, protocol, port) = match stimulus {
        Stimulus::Http { to, port, .. } | Stimulus::Connect { to, port, .. } => (to, Protocol::Tcp, *port),
        Stimulus::Udp { to, port, .. } => (to, Protocol::Udp, *port),
        Stimulus::Ping { to, .. } => (to, Protocol::Icmp, 0),
        Stimulus::Send { .. } => return None,
    };
    let pod = |name: &str| {
        let (namespace, name) = name.split_once('/')?;
        Some(Peer::Pod(PodName::new(namespace, name)))
    };
    let destination = match to {
        Target::Pod(name) => pod(name)?,
        Target::Address(IpAddr::V4(address)) => Peer::Address(*address),
        Target::Address(IpAddr::V6(_)) => return None,
    };
    Some(Flow { source: pod(stimulus.from())?, destination, protocol, port })
}

#[cfg(test)]
mod tests;
