//! Pods from workloads, nodes, addresses, identities; and what is wrong, where, and what to do.
mod common;

use common::{CURL_AND_HTTPBIN, entry, objects, two_nodes};
use skep_agent_core::{Change, Cluster, NodeEntry, PodKey, Request, Step};
use skep_manifest::Key;
use std::collections::BTreeMap;

fn build(text: &str) -> Cluster {
    Cluster::build(&two_nodes(), &objects(text)).expect("it is right").0
}

/// Pods as `NAME NODE IP ENDPOINT IDENTITY`.
fn pods(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.pods().values();
    pods.map(|p| format!("{} {} {} {} {}", p.key, p.node, p.ip, p.endpoint, p.identity)).collect()
}

#[test]
fn workloads_become_pods_spread_over_the_nodes() {
    let cluster = build(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: c, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {hostNetwork: true, containers: [{name: c, image: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: c, image: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {containers: [{name: c, image: c}]}
",
    );
    assert_eq!(
        pods(&cluster),
        [
            "default/a ubuntu-dev2 10.42.1.4 3 257",
            "default/agent-0 ubuntu-dev2 192.168.1.12 0 1",
            "default/agent-1 ubuntu-dev3 192.168.1.13 0 1",
            "default/b ubuntu-dev3 10.42.0.3 2 257",
            "shop/web-0 ubuntu-dev2 10.42.1.2 1 256",
            "shop/web-1 ubuntu-dev3 10.42.0.2 1 256",
            "shop/web-2 ubuntu-dev2 10.42.1.3 2 256",
        ]
    );
    let text = cluster.identities()[0].labels.text();
    assert_eq!(
        text,
        [
            "k8s:app=web",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=default",
            "k8s:io.kubernetes.pod.namespace=shop",
        ]
    );
}

#[test]
fn what_a_pod_was_given_it_keeps_and_what_is_free_is_given_again() {
    let mut cluster = build(CURL_AND_HTTPBIN);
    assert_eq!(
        pods(&cluster),
        ["default/curl ubuntu-dev2 10.42.1.80 1 256", "default/httpbin ubuntu-dev3 10.42.0.51 1 257"]
    );
    let third = "
apiVersion: v1
kind: Pod
metadata: {name: third, labels: {app: third}}
spec: {nodeName: ubuntu-dev2, containers: [{name: c, image: c}]}
";
    cluster.apply(&objects(third)).expect("it is right");
    assert_eq!(pods(&cluster)[2], "default/third ubuntu-dev2 10.42.1.2 2 258");
    let curl = Key { kind: "Pod", namespace: "default".to_owned(), name: "curl".to_owned() };
    let steps = cluster.delete_key(&curl).expect("it is right");
    assert_eq!(
        steps,
        [
            Step::Kubelet { node: "ubuntu-dev2".to_owned(), request: Request::Delete { endpoint: 1 } },
            Step::Broadcast(Change::PodGone(PodKey::new("default", "curl"))),
            Step::Broadcast(Change::IdentityGone(256)),
        ]
    );
    let fourth = third.replace("third", "fourth");
    cluster.apply(&objects(&fourth)).expect("it is right");
    assert_eq!(pods(&cluster)[0], "default/fourth ubuntu-dev2 10.42.1.3 1 256");
    assert!(cluster.apply(&objects(&fourth)).expect("it is right").is_empty(), "nothing changed");
}

#[test]
fn labels_given_by_hand_last_until_the_object_is_applied_again() {
    let mut cluster = build(CURL_AND_HTTPBIN);
    let curl = PodKey::new("default", "curl");
    let labels = BTreeMap::from([("app".to_owned(), None), ("x".to_owned(), Some("1".to_owned()))]);
    cluster.relabel(&curl, &labels).expect("it is right");
    assert_eq!(cluster.pods()[&curl].labels, BTreeMap::from([("x".to_owned(), "1".to_owned())]));
    assert_eq!(cluster.pods()[&curl].identity, 258);
    let error = cluster.relabel(&PodKey::new("default", "kurl"), &labels).unwrap_err();
    assert!(error.to_string().contains("there is no pod default/kurl"), "{error}");
    cluster.apply(&objects(CURL_AND_HTTPBIN)).expect("it is right");
    assert_eq!(cluster.pods()[&curl].labels, BTreeMap::from([("app".to_owned(), "curl".to_owned())]));
    assert_eq!(cluster.pods()[&curl].identity, 256);
}

#[test]
fn a_namespaces_labels_are_part_of_its_pods_identities() {
    let mut cluster = build(CURL_AND_HTTPBIN);
    let namespace = "
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {team: a}}
";
    let steps = cluster.apply(&objects(namespace)).expect("it is right");
    assert_eq!(cluster.identities().iter().map(|i| i.id).collect::<Vec<_>>(), [258, 259]);
    assert_eq!(steps.len(), 6, "two identities, two pods, two identities gone: {steps:?}");
}

#[test]
fn pods_that_number_a_named_port_differently_are_told_apart() {
    let pod = |name: &str, port: u16| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\n\
             spec: {{containers: [{{name: c, image: c, ports: [{{name: http, containerPort: {port}}}]}}]}}\n"
        )
    };
    let cluster = build(&[pod("a", 80), pod("b", 80), pod("c", 8080)].concat());
    let ids: Vec<u32> = cluster.pods().values().map(|p| p.identity).collect();
    assert_eq!(ids, [256, 256, 257]);
}

#[test]
fn with_no_node_there_is_node_1_and_entries_complete_objects() {
    let (cluster, _) = Cluster::build(&[], &[]).expect("it is right");
    assert_eq!(cluster.nodes().keys().collect::<Vec<_>>(), ["node-1"]);
    let node = "
apiVersion: v1
kind: Node
metadata: {name: node}
spec: {podCIDR: 10.7.0.0/24}
";
    let scenario = NodeEntry { pod_cidr: None, ..entry("node", "192.168.1.9", "10.0.0.0/8") };
    let (cluster, _) = Cluster::build(&[scenario], &objects(node)).expect("it is right");
    assert_eq!(cluster.nodes()["node"].router().to_string(), "10.7.0.1");
}

/// Builds, and expects one error: its text up to the help.
fn error(nodes: &[NodeEntry], text: &str) -> String {
    let errors = Cluster::build(nodes, &objects(text)).expect_err("it is wrong");
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(errors.0[0].help.is_some(), "{errors}");
    errors.to_string().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn errors_name_file_line_and_field() {
    let nodes = two_nodes();
    let pod = |name: &str, node: &str, ip: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  nodeName: {node}\n  \
             containers: [{{name: c, image: c}}]\nstatus:\n  podIP: {ip}\n"
        )
    };
    let cases: Vec<(&[NodeEntry], String, &str)> = vec![
        (
            &nodes,
            pod("a", "nowhere", "10.42.1.5"),
            "objects.yaml:7:13: spec.nodeName: there is no node nowhere",
        ),
        (
            &nodes,
            pod("a", "ubuntu-dev2", "10.42.0.5"),
            "objects.yaml:10:10: status.podIP: 10.42.0.5 is outside the podCIDR 10.42.1.0/24 of node ubuntu-dev2",
        ),
        (
            &nodes,
            pod("a", "ubuntu-dev2", "10.42.1.1"),
            "objects.yaml:10:10: status.podIP: 10.42.1.1 is the gateway of node ubuntu-dev2",
        ),
        (
            &nodes,
            pod("a", "ubuntu-dev2", "10.42.1.5") + &pod("b", "ubuntu-dev2", "10.42.1.5"),
            "objects.yaml:20:10: status.podIP: pod default/a has the address 10.42.1.5 too, at objects.yaml:10:10",
        ),
        (
            &[],
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: node\n".to_owned()
                + "status: {addresses: [{type: InternalIP, address: 1.2.3.4}]}\n",
            "objects.yaml:1:1: metadata.name: node node has no podCIDR",
        ),
        (
            &nodes,
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: ubuntu-dev2\nspec:\n  podCIDR: 10.9.0.0/24\n"
                .to_owned(),
            "objects.yaml:6:12: spec.podCIDR: 10.9.0.0/24 differs from 10.42.1.0/24 at scenario.yaml \
             spec.nodes[0].podCIDR",
        ),
    ];
    for (nodes, text, expected) in cases {
        assert_eq!(error(nodes, &text), expected, "{text}");
    }
    // The parser finds two of a name in what it reads at once; they can also be read one by one.
    let one_by_one = [objects(&pod("a", "ubuntu-dev2", "10.42.1.5")), objects(CURL_AND_HTTPBIN)].concat();
    let again = [one_by_one.clone(), objects(&pod("a", "ubuntu-dev2", "10.42.1.6"))].concat();
    assert!(Cluster::build(&nodes, &one_by_one).is_ok());
    let errors = Cluster::build(&nodes, &again).expect_err("it is wrong").to_string();
    let expected = "objects.yaml:5:9: metadata.name: Pod default/a is declared a second time";
    assert!(errors.starts_with(expected), "{errors}");

    let twice = [entry("a", "192.168.1.1", "10.1.0.0/24"), entry("b", "192.168.1.1", "10.2.0.0/24")];
    assert_eq!(
        error(&twice, ""),
        "scenario.yaml: spec.nodes[1].address: node a has the address 192.168.1.1 too"
    );
    let overlap = [entry("a", "192.168.1.1", "10.1.0.0/16"), entry("b", "192.168.1.2", "10.1.2.0/24")];
    let expected =
        "scenario.yaml: spec.nodes[1].podCIDR: 10.1.2.0/24 overlaps the podCIDR 10.1.0.0/16 of node a";
    assert_eq!(error(&overlap, ""), expected);
    let small = [entry("a", "192.168.1.1", "10.1.0.0/30")];
    let two =
        pod("a", "a", "10.1.0.2") + &pod("b", "a", "10.1.0.9").replace("status:\n  podIP: 10.1.0.9\n", "");
    let expected =
        "objects.yaml:15:9: metadata.name: no address of 10.1.0.0/30 is free on node a for default/b";
    assert_eq!(error(&small, &two), expected);
}

#[test]
fn a_change_with_an_error_changes_nothing() {
    let mut cluster = build(CURL_AND_HTTPBIN);
    let before = pods(&cluster);
    let bad = CURL_AND_HTTPBIN.replace("10.42.1.80", "10.42.0.80").replace("{app: httpbin}", "{app: other}");
    let error = cluster.apply(&objects(&bad)).unwrap_err();
    assert!(error.to_string().contains("outside the podCIDR"), "{error}");
    assert_eq!(pods(&cluster), before);
    assert!(cluster.delete(&objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")).is_err());
}

/// A new process that reads the same files must not number the pods of a cluster with a history anew.
#[test]
fn what_was_given_outlives_who_gave_it() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
             spec: {{containers: [{{name: c, image: c, ports: [{{containerPort: 80, name: http}}]}}]}}\n"
        )
    };
    let text = |names: &[&str]| names.iter().map(|n| pod(n)).collect::<String>();
    let mut cluster = build(&text(&["a", "b", "c"]));
    cluster.replace(&objects(&text(&["b", "c", "d"]))).expect("it is right");
    cluster.replace(&objects(&text(&["d", "c", "b", "e"]))).expect("it is right");

    let json = serde_json::to_string(&cluster.given()).expect("it is data");
    assert_eq!(
        serde_json::from_str::<skep_agent_core::Given>(&json).expect("its own words"),
        cluster.given()
    );
    let last = objects(&text(&["d", "c", "b", "e"]));
    let anew = Cluster::build(&two_nodes(), &last).expect("it is right").0;
    assert_ne!(pods(&anew), pods(&cluster), "without what was given, numbers are others");
    let (resumed, steps) = Cluster::resume(&cluster.given(), &two_nodes(), &last).expect("it is right");
    assert_eq!(pods(&resumed), pods(&cluster));
    assert_eq!(resumed.identities(), cluster.identities());
    assert_eq!(resumed.given(), cluster.given());
    let all: Vec<Step> = ["ubuntu-dev2", "ubuntu-dev3"].iter().flat_map(|n| cluster.replay(n)).collect();
    assert!(steps.iter().all(|s| all.contains(s)), "an agent is told what one of the old cluster would be");
    assert_eq!(steps.last(), Some(&Step::Broadcast(Change::Synced)));
}

#[test]
fn what_cannot_have_been_given_is_not_kept() {
    let mut given = build(CURL_AND_HTTPBIN).given();
    let right = given.clone();
    let mut twice = given.pods[0].clone();
    twice.key = PodKey::new("default", "twin");
    given.pods.push(twice);
    given.pods.push(skep_agent_core::GivenPod { endpoint: 0, ..given.pods[0].clone() });
    given.identities.push(skep_agent_core::Identity { id: 1, labels: given.identities[0].labels.clone() });
    let (resumed, _) =
        Cluster::resume(&given, &two_nodes(), &objects(CURL_AND_HTTPBIN)).expect("it is right");
    assert_eq!(resumed.given(), right);
}
