//! The oracle against playback: it must speak up when the bytecode and the text differ, and keep silent when it may not.

use super::*;
use crate::fake;
use crate::judge::FlowVerdict;
use crate::world::{Fault, Until};
use std::collections::BTreeSet;

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {matchLabels: {app: httpbin}}, policyTypes: [Ingress]}
";

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: curl, labels: {app: curl}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.42.1.80}
---
apiVersion: v1
kind: Pod
metadata: {name: httpbin, labels: {app: httpbin}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.42.0.51}
";

fn objects(text: &str) -> Vec<Loaded> {
    skep_manifest::parse("objects.yaml", text, &skep_manifest::Options::default()).unwrap().resources
}

fn step() -> PlannedStep {
    let stimulus = Stimulus::Connect {
        from: "default/curl".into(),
        to: Target::Address("10.42.0.51".parse().unwrap()),
        port: 80,
    };
    PlannedStep {
        number: 1,
        line: 1,
        title: String::new(),
        action: Action::Start { name: None, stimulus, until: Until::Done },
        expect: None,
        needs: BTreeSet::new(),
    }
}

fn disagrees(opinion: &Opinion, allowed: bool) -> Option<String> {
    let evidence = fake::evidence(allowed);
    let mismatch = opinion.judge(&step(), &evidence, &FlowVerdict::of(&evidence), &Placement::new());
    mismatch.map(|m| format!("{}; {}", m.expected, m.got))
}

#[test]
fn it_agrees_with_what_the_text_says_and_with_nothing_else() {
    let mut opinion = Opinion::new(&objects(PODS), &[]);
    assert_eq!(disagrees(&opinion, true), None);
    assert!(disagrees(&opinion, false).is_some_and(|m| m.ends_with("dropped (POLICY_DENIED)")));

    let deny = objects(DENY);
    opinion.change(&Change::Apply(vec![]), &deny);
    assert_eq!(disagrees(&opinion, false), None);
    assert_eq!(disagrees(&opinion, true).as_deref(), Some("denied by ingress (default/deny-all); allowed"));

    let relabel = |value: Option<&str>| Change::Relabel {
        object: Labelled::Pod("default/httpbin".into()),
        labels: BTreeMap::from([("app".to_owned(), value.map(str::to_owned))]),
    };
    opinion.change(&relabel(None), &[]);
    assert_eq!(disagrees(&opinion, true), None);
    opinion.change(&relabel(Some("httpbin")), &[]);
    assert!(disagrees(&opinion, true).is_some());

    opinion.change(&Change::Delete(vec![]), &deny);
    assert_eq!(disagrees(&opinion, true), None);
}

#[test]
fn it_keeps_silent_where_the_network_is_at_fault() {
    let mut opinion = Opinion::new(&objects(&format!("{PODS}---{DENY}")), &[]);
    assert!(disagrees(&opinion, true).is_some());
    opinion.change(&Change::Fault(Fault { loss_ppm: Some(1), latency: None }), &[]);
    assert_eq!(disagrees(&opinion, true), None);
}
