//! The runner and the reports, on a World that plays back evidence.

use super::*;
use crate::fake::FakeWorld;
use crate::plan::PlanOptions;
use crate::report::{Report, TextStyle};
use std::fs;
use std::path::Path;

const SCENARIO: &str = "\
apiVersion: skep.dev/v1alpha1
kind: Scenario
metadata: {name: two-nodes, description: curl to httpbin}
spec:
  seed: 7
  nodes:
    - {name: ubuntu-dev2, address: 192.168.1.12, podCIDR: 10.42.1.0/24}
    - {name: ubuntu-dev3, address: 192.168.1.13, podCIDR: 10.42.0.0/24}
  manifests: [pods.yaml]
  steps:
    - http: {from: default/curl, url: \"http://10.42.0.51:80/get\"}
      expect:
        verdict: allowed
        status: 200
        conntrack:
          - {node: ubuntu-dev2, entry: \"TCP OUT 10.42.1.80:* -> 10.42.0.51:80\"}
    - advance: 6h
    - http: {from: default/curl, to: default/httpbin, name: slow, until: {bytes: 10}}
    - await: slow
      expect: {hooks: [from_container@ubuntu-dev2, \"...\"]}
";

const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: curl}
spec:
  nodeName: ubuntu-dev2
  containers: [{name: curl, image: curl}]
status: {podIP: 10.42.1.80}
---
apiVersion: v1
kind: Pod
metadata: {name: httpbin}
spec:
  nodeName: ubuntu-dev3
  containers: [{name: httpbin, image: httpbin, ports: [{containerPort: 80}]}]
status: {podIP: 10.42.0.51}
";

fn folder(scenario: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("scenario.yaml"), scenario).unwrap();
    fs::write(dir.path().join("pods.yaml"), PODS).unwrap();
    dir
}

fn plan(scenario: &str) -> Plan {
    let dir = folder(scenario);
    let mut plan = Plan::load(dir.path(), &PlanOptions::default())
        .unwrap_or_else(|e| panic!("{}", e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
    // Where the folder stood is no part of what is compared here.
    plan.file = Path::new("two-nodes/scenario.yaml").to_owned();
    plan
}

fn complaints(scenario: &str) -> Vec<String> {
    let dir = folder(scenario);
    let errors = Plan::load(dir.path(), &PlanOptions::default()).unwrap_err();
    let root = format!("{}/", dir.path().display());
    errors.iter().map(|e| e.to_string().replace(&root, "")).collect()
}

const PLAIN: TextStyle = TextStyle { width: 160, color: false };

#[test]
fn steps_become_calls_in_order() {
    let mut world = FakeWorld::new(true);
    let report = run(&plan(SCENARIO), &mut world, RunOptions::default(), &mut Silent);
    assert_eq!(report.status, Status::Passed);
    assert_eq!(
        world.calls,
        [
            "build seed 7",
            "start default/curl Done",
            "resume 0 Time(0ns)",
            "advance 21600s",
            "start default/curl Bytes(10)",
            "resume 1 Time(0ns)",
            "resume 1 Done",
        ]
    );
}

#[test]
fn reports_name_what_failed_and_where() {
    let mut world = FakeWorld::new(false);
    let report = run(&plan(SCENARIO), &mut world, RunOptions::default(), &mut Silent);
    let report = Report::new(vec![report]);
    assert_eq!(report.exit_status(), 1);
    insta::assert_snapshot!("text", report.scenarios[0].to_text(PLAIN) + &report.summary_text(PLAIN));
    insta::assert_snapshot!("json", report.to_json());
    insta::assert_snapshot!("junit", report.to_junit());
}

#[test]
fn what_a_world_does_not_offer_is_a_skip_and_takes_the_rest_with_it() {
    let mut world = FakeWorld::new(true);
    world.offers.retain(|c| *c != Capability::TimeTravel);
    let plan = plan(SCENARIO);
    let known: Vec<_> = skips(&plan, &world).into_iter().collect();
    let follows = "follows step 2, which is skipped".to_owned();
    assert_eq!(known, [(2, "needs time-travel".to_owned()), (3, follows.clone()), (4, follows)]);

    let report = run(&plan, &mut world, RunOptions::default(), &mut Silent);
    assert_eq!((report.status, report.skipped()), (Status::Passed, 3));
    insta::assert_snapshot!("skips", report.to_text(PLAIN));

    let report = run(&plan, &mut world, RunOptions { no_skip: true }, &mut Silent);
    assert_eq!(report.status, Status::Failed);
    assert_eq!(Report::new(vec![report]).exit_status(), 1);
}

#[test]
fn a_cluster_that_a_world_cannot_build_as_it_is_meant_skips_all() {
    let slow = SCENARIO.replace("  seed: 7\n", "  seed: 7\n  network: {latency: 30ms}\n");
    let mut world = FakeWorld::new(true);
    let report = run(&plan(&slow), &mut world, RunOptions::default(), &mut Silent);
    assert_eq!((report.status, report.skipped()), (Status::Passed, 0));

    world = FakeWorld::new(true);
    world.offers.retain(|c| *c != Capability::Latency);
    let report = run(&plan(&slow), &mut world, RunOptions::default(), &mut Silent);
    assert_eq!((report.status, report.skipped()), (Status::Skipped, 4));
    assert!(report.to_text(PLAIN).contains("needs latency"));
    assert_eq!(world.calls, Vec::<String>::new(), "nothing is built");
    let as_usual = SCENARIO.replace("  seed: 7\n", "  seed: 7\n  network: {latency: 100us}\n");
    assert_eq!(skips(&plan(&as_usual), &world).len(), 0, "the default asks for nothing");
}

#[test]
fn a_broken_invariant_ends_with_the_seed_and_a_line_that_reproduces_it() {
    let mut world = FakeWorld::new(true);
    world.breaks = true;
    let report = run(&plan(SCENARIO), &mut world, RunOptions::default(), &mut Silent);
    assert_eq!(report.status, Status::Broken);
    assert_eq!(report.reproduce.as_deref(), Some("skep run two-nodes --seed 7 --trace"));
    insta::assert_snapshot!("broken", report.to_text(PLAIN));
    assert_eq!(Report::new(vec![report]).exit_status(), 3);
}

#[test]
fn names_that_are_not_there_are_found_before_anything_runs() {
    let cases = [
        (
            "from: default/curl, url",
            "from: default/crul, url",
            "no pod default/crul\n  help: did you mean default/curl?",
        ),
        (
            "node: ubuntu-dev2, entry",
            "node: ubuntu-dev9, entry",
            "no node ubuntu-dev9\n  help: did you mean ubuntu-dev2?",
        ),
        ("await: slow", "await: slwo", "no flow slwo is open here\n  help: did you mean slow?"),
        ("10.42.0.51:80/get", "10.42.0.51:99999/get", "\"99999\" is no port"),
        ("pods.yaml", "pod.yaml", "there is no pod.yaml"),
        ("from_container@ubuntu-dev2", "from_contaner@ubuntu-dev2", "did you mean from_container?"),
        (
            "from_container@ubuntu-dev2",
            "tail_handle_ipv4@ubuntu-dev2",
            "a tail call counts as its entry program",
        ),
        ("- advance: 6h", "- advance: 6 parsecs", "not a duration"),
        ("- advance: 6h", "- probe: {port: 80}", "probe is not supported yet"),
        ("- advance: 6h", "- {}", "the step does nothing"),
        ("- advance: 6h", "- {advance: 6h, await: slow}", "the step does await and advance at once"),
        ("- advance: 6h", "- {advance: 6h, expect: {}}", "only a step that sends packets has expectations"),
        ("status: 200", "statsu: 200", "statsu"),
        ("apiVersion: skep.dev/v1alpha1", "apiVersion: skep.dev/v9", "write skep.dev/v1alpha1"),
    ];
    for (from, to, want) in cases {
        assert!(SCENARIO.contains(from), "{from}");
        let got = complaints(&SCENARIO.replacen(from, to, 1)).join("\n");
        assert!(got.contains(want), "{to}:\n{got}");
        assert!(got.starts_with("scenario.yaml:"), "{to}:\n{got}");
    }
    let open = SCENARIO.split("    - await: slow").next().unwrap();
    assert!(complaints(open).join("\n").contains("never awaited"));
}
