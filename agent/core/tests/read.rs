//! What of a NetworkPolicy cannot be meant: where it stands and what to do. The parser refuses most of it before; the
//! compiler relies on nobody.
mod common;

use common::objects;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_agent_core::policy::{Direction, Policy, WhichPorts, read};
use skep_manifest::{Errors, Resource};

const TEXT: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: p
spec:
  podSelector: {}
  ingress:
    - from:
        - podSelector: {}
      ports:
        - port: 80
";

fn read_with(change: impl FnOnce(&mut NetworkPolicySpec)) -> Result<Policy, Errors> {
    let loaded = objects(TEXT).remove(0);
    let Resource::NetworkPolicy(mut policy) = loaded.resource else { panic!("it is a policy") };
    change(policy.spec.as_mut().expect("it has a spec"));
    read("default", &policy, &loaded.source)
}

fn peer(spec: &mut NetworkPolicySpec) -> &mut NetworkPolicyPeer {
    &mut spec.ingress.as_mut().expect("ingress")[0].from.as_mut().expect("from")[0]
}

fn port(spec: &mut NetworkPolicySpec) -> &mut NetworkPolicyPort {
    &mut spec.ingress.as_mut().expect("ingress")[0].ports.as_mut().expect("ports")[0]
}

fn block(cidr: &str, except: &[&str]) -> Option<IPBlock> {
    Some(IPBlock { cidr: cidr.to_owned(), except: Some(except.iter().map(|e| (*e).to_owned()).collect()) })
}

type Change = fn(&mut NetworkPolicySpec);

#[test]
fn what_cannot_be_meant_is_an_error_with_its_place() {
    let cases: &[(Change, &str)] = &[
        (
            |s| s.policy_types = Some(vec!["Sideways".to_owned()]),
            "6:1: spec.policyTypes[0]: \"Sideways\" is no policy type",
        ),
        (
            |s| peer(s).ip_block = block("10.0.0.0/8", &[]),
            "10:11: spec.ingress[0].from[0]: ipBlock stands beside a selector",
        ),
        (
            |s| *peer(s) = NetworkPolicyPeer::default(),
            "10:11: spec.ingress[0].from[0]: the peer says nothing",
        ),
        (
            |s| *peer(s) = NetworkPolicyPeer { ip_block: block("10.0.0.0/33", &[]), ..Default::default() },
            "10:11: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0/33\" is no network",
        ),
        (
            |s| *peer(s) = NetworkPolicyPeer { ip_block: block("fd00::/8", &[]), ..Default::default() },
            "10:11: spec.ingress[0].from[0].ipBlock.cidr: fd00::/8 is IPv6",
        ),
        (
            |s| {
                *peer(s) =
                    NetworkPolicyPeer { ip_block: block("10.0.0.0/8", &["11.0.0.0/9"]), ..Default::default() }
            },
            "10:11: spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/9 is not a part of 10.0.0.0/8",
        ),
        (|s| port(s).port = Some(IntOrString::Int(0)), "12:17: spec.ingress[0].ports[0].port: 0 is no port"),
        (|s| port(s).end_port = Some(70000), "12:11: spec.ingress[0].ports[0].endPort: 70000 is no port"),
        (
            |s| port(s).end_port = Some(79),
            "12:11: spec.ingress[0].ports[0].endPort: endPort 79 is below port 80",
        ),
        (
            |s| *port(s) = NetworkPolicyPort { end_port: Some(80), ..Default::default() },
            "12:11: spec.ingress[0].ports[0].endPort: endPort without a numeric port",
        ),
        (
            |s| port(s).protocol = Some("ICMP".to_owned()),
            "12:11: spec.ingress[0].ports[0].protocol: \"ICMP\" is no protocol",
        ),
        (
            |s| {
                let like = LabelSelectorRequirement {
                    key: "a".to_owned(),
                    operator: "Like".to_owned(),
                    values: None,
                };
                let selector = LabelSelector { match_expressions: Some(vec![like]), ..Default::default() };
                s.pod_selector = Some(selector);
            },
            "7:3: spec.podSelector.matchExpressions[0].operator: \"Like\" is no operator",
        ),
    ];
    for (change, expected) in cases {
        let errors = read_with(change).expect_err(expected);
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert!(errors.0[0].help.is_some(), "{errors}");
        let text = errors.to_string();
        let first = text.lines().next().unwrap_or_default();
        assert_eq!(first, format!("objects.yaml:{expected}"));
    }
}

#[test]
fn defaults_are_the_apis() {
    let policy = read_with(|_| ()).expect("it is right");
    assert_eq!(policy.directions, [Direction::Ingress]);
    let rule = &policy.rules[0];
    assert_eq!(
        (rule.origin.line, rule.origin.to_string().as_str()),
        (9, "default/p ingress[0] (objects.yaml:9)")
    );
    let port = &rule.ports.as_ref().expect("ports")[0];
    assert_eq!((port.protocol.name(), &port.which), ("TCP", &WhichPorts::Range(80, 80)));

    let both = read_with(|s| s.egress = Some(Vec::new())).expect("it is right");
    assert_eq!(both.directions, Direction::ALL);
    let egress = read_with(|s| s.policy_types = Some(vec!["Egress".to_owned()])).expect("it is right");
    assert_eq!(egress.directions, [Direction::Egress]);
    assert!(egress.rules.is_empty(), "a section that policyTypes does not name has no effect");
    let all = read_with(|s| *port_list(s) = Some(Vec::new())).expect("it is right");
    assert_eq!(all.rules[0].ports, None, "an empty list is as good as none");
}

fn port_list(spec: &mut NetworkPolicySpec) -> &mut Option<Vec<NetworkPolicyPort>> {
    &mut spec.ingress.as_mut().expect("ingress")[0].ports
}
