//! The API text in cases: manifests as people write them, and who may reach whom by which rule.

use skep_manifest::{Options, parse};
use skep_oracle::{Decision, Flow, Oracle, Peer, PodName, Protocol};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 192.168.1.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
status: {addresses: [{type: InternalIP, address: 192.168.1.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: node-1
  containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]
status: {podIP: 10.0.1.2}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: node-2, containers: [{name: c, ports: [{name: http, containerPort: 9090}]}]}
status: {podIP: 10.0.2.2}
---
apiVersion: v1
kind: Pod
metadata: {name: curl, labels: {app: curl}}
spec: {nodeName: node-2, containers: [{name: c}]}
status: {podIP: 10.0.2.3}
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: curl}}
spec: {nodeName: node-2, hostNetwork: true, containers: [{name: c}]}
---
"#;

fn oracle(policies: &str) -> Oracle {
    let text = format!("{CLUSTER}{policies}");
    let manifests = parse("t.yaml", &text, &Options::default()).unwrap_or_else(|errors| panic!("{errors}"));
    Oracle::new(&manifests.resources)
}

/// `SPEC` of a NetworkPolicy called p in the namespace shop.
fn policy(spec: &str) -> Oracle {
    let meta =
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n";
    oracle(&format!("{meta}spec: {spec}\n"))
}

fn peer(text: &str) -> Peer {
    match text.split_once('/') {
        Some((namespace, name)) => Peer::Pod(PodName::new(namespace, name)),
        None => Peer::Address(text.parse().expect("an address")),
    }
}

/// `tcp/80`, `icmp`.
fn flow(from: &str, to: &str, what: &str) -> Flow {
    let (protocol, port) = what.split_once('/').unwrap_or((what, "0"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => Protocol::Icmp,
    };
    Flow { source: peer(from), destination: peer(to), protocol, port: port.parse().expect("a port") }
}

/// Each row: from, to, what, whether egress and ingress allow.
fn check(oracle: &Oracle, rows: &[(&str, &str, &str, bool, bool)]) {
    for (from, to, what, egress, ingress) in rows {
        let answer = oracle.allows(&flow(from, to, what)).expect("the pods are there");
        let got = (answer.egress.allows(), answer.ingress.allows());
        assert_eq!(got, (*egress, *ingress), "{from} -> {to} {what}: {answer:?}");
    }
}

#[test]
fn without_policies_everything_passes() {
    let oracle = oracle("");
    check(
        &oracle,
        &[("default/curl", "shop/web", "tcp/80", true, true), ("1.1.1.1", "shop/web", "udp/1", true, true)],
    );
    let answer = oracle.allows(&flow("1.1.1.1", "shop/web", "tcp/80")).unwrap();
    assert_eq!((answer.egress, answer.ingress), (Decision::NoPod, Decision::NotIsolated));
    assert!(oracle.allows(&flow("default/no", "shop/web", "tcp/80")).is_err());
}

#[test]
fn an_empty_policy_isolates_ingress_only() {
    for spec in
        ["{podSelector: {}}", "{}", "{policyTypes: [Ingress], ingress: []}", "{podSelector: {}, egress: []}"]
    {
        check(
            &policy(spec),
            &[
                ("default/curl", "shop/web", "tcp/80", true, false),
                ("shop/web", "default/curl", "tcp/80", true, true),
                ("shop/web", "shop/web", "tcp/80", true, true),
                // Its own node, by address and from a pod in that node's network; the other node is nobody special.
                ("192.168.1.1", "shop/web", "tcp/80", true, true),
                ("192.168.1.2", "shop/web", "tcp/80", true, false),
                ("default/host", "shop/db", "tcp/80", true, true),
                ("default/host", "shop/web", "tcp/80", true, false),
            ],
        );
    }
    let answer = policy("{}").allows(&flow("default/curl", "shop/web", "tcp/80")).unwrap();
    assert_eq!(answer.ingress, Decision::Denied(vec!["shop/p".into()]));
    assert_eq!(answer.egress, Decision::NotIsolated);
}

#[test]
fn policy_types_have_their_defaults() {
    // Egress rules make the policy one of egress, and still one of ingress.
    check(
        &policy("{egress: [{}]}"),
        &[
            ("shop/web", "default/curl", "tcp/80", true, true),
            ("default/curl", "shop/web", "tcp/80", true, false),
        ],
    );
    // A type that is not named makes its rules idle.
    check(
        &policy("{policyTypes: [Egress], ingress: [{}]}"),
        &[
            ("shop/web", "default/curl", "tcp/80", false, true),
            ("default/curl", "shop/web", "tcp/80", true, true),
        ],
    );
}

#[test]
fn peers_are_pods_of_namespaces() {
    let from = |peer: &str| {
        policy(&format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{peer}]}}]}}"))
    };
    for (peer, curl, db) in [
        ("{podSelector: {}}", false, true),
        ("{podSelector: {matchLabels: {app: curl}}}", false, false),
        ("{namespaceSelector: {}}", true, true),
        ("{namespaceSelector: {matchLabels: {team: a}}}", false, true),
        ("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}}", true, false),
        ("{namespaceSelector: {}, podSelector: {matchLabels: {app: curl}}}", true, false),
        ("{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}", true, false),
        // Addresses outside the cluster only: neither pods nor nodes.
        ("{ipBlock: {cidr: 0.0.0.0/0}}", false, false),
    ] {
        check(
            &from(peer),
            &[
                ("default/curl", "shop/web", "tcp/80", true, curl),
                ("10.0.2.3", "shop/web", "tcp/80", true, curl),
                ("shop/db", "shop/web", "tcp/80", true, db),
                ("default/host", "shop/web", "tcp/80", true, false),
                ("192.168.1.2", "shop/web", "tcp/80", true, false),
            ],
        );
    }
    // No list is everybody, other nodes included.
    check(&policy("{ingress: [{}]}"), &[("192.168.1.2", "shop/web", "icmp", true, true)]);
}

#[test]
fn blocks_have_exceptions() {
    let spec = "{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {ipBlock: {cidr: \"::/0\"}}]}]}";
    check(
        &policy(spec),
        &[
            ("shop/web", "10.8.0.1", "tcp/80", true, true),
            ("shop/web", "10.9.0.1", "tcp/80", false, true),
            ("shop/web", "11.0.0.1", "tcp/80", false, true),
            // In the range, and a pod.
            ("shop/web", "10.0.2.3", "tcp/80", false, true),
        ],
    );
}

#[test]
fn ports_have_protocols_ranges_and_names() {
    let ports = |ports: &str| policy(&format!("{{ingress: [{{ports: [{ports}]}}]}}"));
    for (spec, what, web, db) in [
        ("{port: 80}", "tcp/80", true, true),
        ("{port: 80}", "udp/80", false, false),
        ("{port: 80}", "icmp", false, false),
        ("{protocol: UDP}", "udp/5", true, true),
        ("{protocol: UDP}", "tcp/5", false, false),
        ("{}", "tcp/5", true, true),
        ("{}", "udp/5", false, false),
        ("{port: 80, endPort: 90}", "tcp/90", true, true),
        ("{port: 80, endPort: 90}", "tcp/91", false, false),
        // Each pod's own number, and the protocol is part of the name's meaning.
        ("{port: http}", "tcp/8080", true, false),
        ("{port: http}", "tcp/9090", false, true),
        ("{port: dns}", "udp/53", false, false),
        ("{port: dns, protocol: UDP}", "udp/53", true, false),
    ] {
        check(
            &ports(spec),
            &[("default/curl", "shop/web", what, true, web), ("default/curl", "shop/db", what, true, db)],
        );
    }
    check(&policy("{ingress: [{ports: []}]}"), &[("default/curl", "shop/web", "icmp", true, true)]);
    // In egress rules a name is the destination's too; addresses outside have none.
    check(
        &policy("{policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"),
        &[
            ("shop/web", "shop/db", "tcp/9090", true, true),
            ("shop/web", "shop/db", "tcp/8080", false, true),
            ("shop/web", "1.1.1.1", "tcp/8080", false, true),
        ],
    );
}

#[test]
fn policies_add_up_and_name_their_rules() {
    let policies = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: shop}
spec:
  ingress:
    - ports: [{port: 1}]
    - ports: [{port: 2}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: b, namespace: shop}
spec:
  ingress:
    - from: [{namespaceSelector: {}}]
      ports: [{port: 2}, {port: 3}]
"#;
    let oracle = oracle(policies);
    let ask =
        |port: u16| oracle.allows(&flow("default/curl", "shop/web", &format!("tcp/{port}"))).unwrap().ingress;
    let rules = |decision: Decision| match decision {
        Decision::Allowed(rules) => {
            rules.iter().map(|r| format!("{} {} {}", r.policy, r.path, r.location.line)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let start = CLUSTER.lines().count() + 1;
    assert_eq!(rules(ask(1)), [format!("shop/a spec.ingress[0] {}", start + 6)]);
    assert_eq!(
        rules(ask(2)),
        [format!("shop/a spec.ingress[1] {}", start + 7), format!("shop/b spec.ingress[0] {}", start + 14)]
    );
    assert_eq!(ask(4), Decision::Denied(vec!["shop/a".into(), "shop/b".into()]));
}

#[test]
fn workloads_stand_for_pods_and_a_named_pod_comes_first() {
    let text = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api-1, labels: {app: api}}
spec: {containers: [{name: c}]}
status: {podIP: 10.0.9.9}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: api-abc
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: api, uid: x, controller: true}]
spec:
  selector: {matchLabels: {app: api}}
  template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c}]}}
"#;
    let oracle = oracle(text);
    let names: Vec<_> =
        oracle.pods().filter(|p| p.name.name.starts_with("api")).map(|p| p.name.to_string()).collect();
    assert_eq!(names, ["default/api-0", "default/api-1"]);
    let mut oracle = oracle;
    oracle.place(&PodName::new("default", "api-0"), "node-3", "10.0.9.8".parse().unwrap()).unwrap();
    oracle.add_node("node-3", "192.168.1.3".parse().unwrap());
    let answer = oracle.allows(&flow("192.168.1.3", "10.0.9.8", "tcp/80")).unwrap();
    assert_eq!(answer.ingress, Decision::OwnNode);
    let placed = oracle.pods().find(|pod| pod.name.name == "api-1").unwrap();
    assert_eq!(placed.address, Some("10.0.9.9".parse().unwrap()));
}
