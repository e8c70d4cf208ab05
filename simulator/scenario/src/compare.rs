//! Compares what two Worlds recorded about the same scenario.
//!
//! Equal must be: verdict, reason and place of a flow's end, its application's result, and of the first packet of each
//! class in each direction the programs that it met, what each decided, the identities that it told, the rules that it
//! named, time to live and tunnel; counters, conntrack and numbers of packets where a step fixes them.
//!
//! Not compared is what Worlds are free in: times, source ports, identifiers of echoes and sequence numbers (which
//! evidence does not hold), when acknowledgements go alone, whether a neighbour is asked for anew, and hops outside of
//! programs, as taps differ. What only one of them can know (look-ups in maps) is not compared either.
//! Knows neither World.

use crate::evidence::{
    Class, Direction, Evidence, Fact, Hop, HopKind, Identity, Verdict, Walk, first_to_meet_a_program,
};
use crate::plan::{Action, PlannedStep};
use crate::report::{Status, StepReport};
use crate::snapshot::ConntrackEntry;
use crate::world::{Stimulus, Until};
use std::fmt;

/// What one World made of a step.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The report.
    pub report: StepReport,
    /// The evidence, if the step is about a flow.
    pub evidence: Option<Evidence>,
}

impl Observation {
    /// What became of a flow, in a few words; none if there was none.
    pub fn summary(&self) -> Option<String> {
        let (evidence, verdict) = (self.evidence.as_ref()?, self.report.verdict.as_ref()?);
        let hooks = |direction| crate::judge::hooks_of(evidence, direction).len();
        let reason = verdict.reason.as_ref().map(|r| format!(" {r}")).unwrap_or_default();
        let (forward, reply) = (hooks(Direction::Forward), hooks(Direction::Reply));
        Some(format!("{}{reason}, {forward} hooks there, {reply} back", verdict.verdict.name()))
    }
}

/// A value in which two Worlds differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The step, from 1.
    pub step: usize,
    /// Which value, such as `forward SYN: from_container@node-1: verdict`.
    pub field: String,
    /// What the first World has.
    pub left: String,
    /// What the second one has.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}: {} | {}", self.step, self.field, self.left, self.right)
    }
}

/// Whether a step fixes how many packets there are.
pub fn is_counted(step: &PlannedStep) -> bool {
    let Action::Start { stimulus, until, .. } = &step.action else { return false };
    *until == Until::Done && !matches!(stimulus, Stimulus::Http { .. })
}

/// Everything in which two observations of a step differ, what comes first on a packet's way first.
///
/// A step that one World skipped is not compared.
pub fn differences(left: &Observation, right: &Observation, counted: bool) -> Vec<Difference> {
    let mut all = Comparison { step: left.report.number, found: Vec::new() };
    // How many segments it takes to close a connection is the stack's business.
    let open = |o: &Observation| o.evidence.as_ref().is_some_and(|e| e.outcome.established);
    let counted = counted && !open(left) && !open(right);
    if [left, right].iter().any(|o| o.report.status == Status::Skipped) {
        return all.found;
    }
    if let (Some(a), Some(b)) = (&left.evidence, &right.evidence) {
        all.walks(a, b);
        all.outcome(a, b);
        if counted {
            all.value("packets", &a.packets, &b.packets);
        }
    }
    let verdict = |o: &Observation| {
        let v = o.report.verdict.as_ref();
        v.map(|v| (v.verdict.name(), v.reason.clone(), v.at.clone(), v.rule.clone()))
    };
    all.value("verdict", &verdict(left), &verdict(right));
    if counted {
        // Bytes too: no header is translated away.
        let counters = |o: &Observation| -> Vec<String> {
            let rows = o.report.counters.iter();
            rows.map(|c| format!("{} {} at {}: {}", c.reason, c.direction.name(), c.node, c.packets))
                .collect()
        };
        all.value("counters", &counters(left), &counters(right));
    }
    let conntrack = |o: &Observation| -> Vec<String> {
        let of_node = o.report.conntrack.iter();
        let mut rows: Vec<String> =
            of_node.flat_map(|n| n.entries.iter().map(|e| entry(&n.node, e, counted))).collect();
        rows.sort();
        rows
    };
    all.value("conntrack", &conntrack(left), &conntrack(right));
    all.found
}

/// An entry without the port or identifier that the client's stack chose.
fn entry(node: &str, e: &ConntrackEntry, counted: bool) -> String {
    let packets = if counted { format!(" packets={}", e.packets) } else { String::new() };
    let (protocol, direction, dport) = (e.protocol, e.direction.name(), e.dport);
    let port = if protocol == 1 { String::new() } else { format!(":{dport}") };
    let mut flags = e.flags.clone();
    flags.sort();
    let flags = flags.join(" ");
    format!(
        "{node} {protocol} {direction} {} -> {}{port}{packets} [{flags}] {}",
        e.src, e.dst, e.src_identity
    )
}

struct Comparison {
    step: usize,
    found: Vec<Difference>,
}

impl Comparison {
    fn value<T: PartialEq + fmt::Debug>(&mut self, field: &str, left: &T, right: &T) {
        if left != right {
            let text = |v: &T| format!("{v:?}");
            self.differ(field, text(left), text(right));
        }
    }

    fn differ(&mut self, field: &str, left: String, right: String) {
        self.found.push(Difference { step: self.step, field: field.to_owned(), left, right });
    }

    fn outcome(&mut self, left: &Evidence, right: &Evidence) {
        let (a, b) = (&left.outcome, &right.outcome);
        self.value("result: ended", &a.ended, &b.ended);
        self.value("result: completed", &a.completed, &b.completed);
        self.value("result: established", &a.established, &b.established);
        self.value("result: refused", &a.refused, &b.refused);
        self.value("result: timed out", &a.timed_out, &b.timed_out);
        self.value("result: status", &a.status, &b.status);
        if a.completed && b.completed {
            self.value("result: bytes", &a.bytes, &b.bytes);
        }
    }

    fn walks(&mut self, left: &Evidence, right: &Evidence) {
        for direction in [Direction::Forward, Direction::Reply] {
            for class in CLASSES {
                let is_meant = |w: &Walk| w.direction == direction && w.class == class;
                let first = |e: &Evidence| first_to_meet_a_program(&e.walks, is_meant).cloned();
                let way = if direction == Direction::Forward { "forward" } else { "reply" };
                let name = format!("{way} {}", class.name());
                match (first(left), first(right)) {
                    // How a broadcast spreads, and how often it is repeated, is the network's business.
                    (Some(a), Some(b)) if class == Class::Arp && !(is_answered(&a) && is_answered(&b)) => {}
                    (Some(a), Some(b)) => self.walk(&name, &a, &b),
                    (None, None) => {}
                    (a, b) if is_required(class) && left.outcome.ended && right.outcome.ended => {
                        let text = |w: &Option<Walk>| if w.is_some() { "was seen" } else { "was not seen" };
                        self.differ(&name, text(&a).to_owned(), text(&b).to_owned());
                    }
                    _ => {}
                }
            }
        }
    }

    fn walk(&mut self, name: &str, left: &Walk, right: &Walk) {
        let hooks = |w: &Walk| -> Vec<String> { hooks_of(w).map(|h| h.place().to_string()).collect() };
        let (a, b) = (hooks(left), hooks(right));
        if a != b {
            return self.differ(&format!("{name}: hooks"), a.join(", "), b.join(", "));
        }
        for (a, b) in hooks_of(left).zip(hooks_of(right)) {
            self.hop(&format!("{name}: {}", a.place()), a, b);
        }
        self.value(&format!("{name}: end"), &end(left), &end(right));
    }

    fn hop(&mut self, name: &str, left: &Hop, right: &Hop) {
        self.value(&format!("{name}: verdict"), &left.verdict, &right.verdict);
        self.value(&format!("{name}: device"), &left.device, &right.device);
        let ttl = |h: &Hop| (h.before.ttl, h.after.ttl);
        self.value(&format!("{name}: ttl"), &ttl(left), &ttl(right));
        let macs = |h: &Hop| (h.after.src_mac, h.after.dst_mac);
        if left.after.outer.is_none() {
            self.value(&format!("{name}: addresses of the frame"), &macs(left), &macs(right));
        }
        let outer = |h: &Hop| h.before.outer.map(|o| (o.src, o.dst, o.dport, o.vni, o.ttl));
        self.value(&format!("{name}: tunnel"), &outer(left), &outer(right));
        // One World may know more: it sees look-ups, the other only what a program tells.
        let both = |a: &Option<Identity>, b: &Option<Identity>| match (a, b) {
            (Some(a), Some(b)) => (Some(a.clone()), Some(b.clone())),
            _ => (None, None),
        };
        let (a, b) = both(&left.src_identity, &right.src_identity);
        self.value(&format!("{name}: source's identity"), &a, &b);
        let (a, b) = both(&left.dst_identity, &right.dst_identity);
        self.value(&format!("{name}: destination's identity"), &a, &b);
        self.value(&format!("{name}: policy"), &policies(left), &policies(right));
        let (a, b) = (conntrack(left), conntrack(right));
        if a.is_some() && b.is_some() {
            self.value(&format!("{name}: conntrack"), &a, &b);
        }
    }
}

/// The order in which a flow's classes are compared.
const CLASSES: [Class; 11] = [
    Class::Arp,
    Class::Syn,
    Class::SynAck,
    Class::Ack,
    Class::Data,
    Class::Fin,
    Class::Rst,
    Class::Datagram,
    Class::Icmp,
    Class::IcmpError,
    Class::Other,
];

/// Whether a packet of this class is there or not does not depend on a stack's timing, nor on who is known already.
fn is_required(class: Class) -> bool {
    !matches!(class, Class::Arp | Class::Ack | Class::Rst | Class::Fin)
}

/// The programs that a packet met; of one that was answered, up to the answer, as nobody tells of the answer's own way.
fn hooks_of(walk: &Walk) -> impl Iterator<Item = &Hop> {
    let answered = walk.hops.iter().position(|h| h.verdict == Verdict::Answered);
    let met = &walk.hops[..answered.map_or(walk.hops.len(), |at| at + 1)];
    met.iter().filter(|h| h.kind.program().is_some())
}

fn is_answered(walk: &Walk) -> bool {
    walk.hops.iter().any(|h| h.verdict == Verdict::Answered)
}

/// What became of a packet in a pod's stack or between nodes; none where only one World could have seen it.
fn end(walk: &Walk) -> Option<String> {
    let last = walk.hops.last()?;
    match (&last.kind, &last.verdict) {
        (HopKind::Hook { .. }, _) => None,
        (_, Verdict::Dropped { reason }) => Some(format!("{reason} at {}", last.place())),
        _ => None,
    }
}

fn policies(hop: &Hop) -> Vec<&Fact> {
    hop.facts.iter().filter(|f| matches!(f, Fact::Policy { .. })).collect()
}

fn conntrack(hop: &Hop) -> Option<&str> {
    hop.facts.iter().find_map(|f| match f {
        Fact::Conntrack { status, .. } => Some(status.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::judge::FlowVerdict;

    fn observation(change: impl FnOnce(&mut Evidence)) -> Observation {
        let mut evidence = fake::evidence(true);
        change(&mut evidence);
        let report = StepReport {
            number: 1,
            title: "connect".into(),
            status: Status::Passed,
            skip: None,
            verdict: Some(FlowVerdict::of(&evidence)),
            failures: vec![],
            counters: vec![],
            evidence: None,
            conntrack: vec![],
        };
        Observation { report, evidence: Some(evidence) }
    }

    fn fields(change: impl FnOnce(&mut Evidence)) -> Vec<String> {
        let found = differences(&observation(|_| {}), &observation(change), true);
        found.into_iter().map(|d| d.field).collect()
    }

    /// The hop at which the first program ran.
    fn first_hook(evidence: &mut Evidence) -> &mut Hop {
        let hops = evidence.walks[0].hops.iter_mut();
        hops.into_iter().find(|h| h.kind.program().is_some()).expect("a SYN meets programs")
    }

    #[test]
    fn equal_is_equal_whatever_the_times_and_ports() {
        assert_eq!(fields(|_| {}), Vec::<String>::new());
        assert_eq!(
            fields(|e| {
                e.flow.sport += 1;
                e.walks[0].hops.iter_mut().for_each(|h| h.time_ns += 7);
            }),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_value_that_differs_is_named() {
        let one = |change: fn(&mut Evidence), field: &str| {
            let found = fields(change);
            assert!(found.iter().any(|f| f.ends_with(field)), "{field} in {found:?}");
        };
        one(|e| e.outcome.bytes += 1, "result: bytes");
        one(|e| e.outcome.completed = false, "result: completed");
        one(|e| first_hook(e).before.ttl = Some(1), "ttl");
        one(|e| first_hook(e).verdict = Verdict::Ok, "verdict");
        one(|e| first_hook(e).device.push('x'), "device");
        one(|e| first_hook(e).node.push('x'), "hooks");
        one(|e| e.walks.clear(), "forward SYN");
        let identity = |e: &mut Evidence| {
            first_hook(e).src_identity = Some(Identity { number: 9, text: "someone".into() });
        };
        one(identity, "source's identity");
    }

    #[test]
    fn what_one_world_skipped_is_not_compared() {
        let mut skipped = observation(|e| e.walks.clear());
        skipped.report.status = Status::Skipped;
        assert_eq!(differences(&observation(|_| {}), &skipped, true), []);
    }
}
