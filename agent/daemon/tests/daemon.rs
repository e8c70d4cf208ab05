//! The agent as a process on a node in namespaces of its own: killed in the middle of a connection, started again, and
//! told other things by the folder that it reads.
//!
//! Where the kernel cannot be asked this is one skip, which ci/skips.toml lists.
#![cfg(target_os = "linux")]

mod rig;

use rig::{CURL, Rig, WEB, manifests, on_a_node, on_two_nodes, two_nodes};
use std::sync::mpsc::channel;

/// Web receives nothing.
const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
";

#[test]
fn a_connection_outlives_the_agent_and_the_next_agent_finds_all_as_it_should_be() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        let first = rig.agent();
        first.until("in sync, ");
        let mut flow = rig.connect(CURL, WEB).expect("nothing forbids it");
        assert_eq!(flow.say(b"while it runs"), b"while it runs");

        first.kill();
        assert_eq!(flow.say(b"while nobody is there"), b"while nobody is there");
        rig.connect(CURL, WEB).expect("new ones come through, too");

        let second = rig.agent();
        assert!(second.until("in sync").contains("in sync, no change"), "there was nothing to do");
        assert_eq!(flow.say(b"after it came back"), b"after it came back");

        rig.write("deny.yaml", DENY);
        second.until("in sync, ");
        rig.connect(CURL, WEB).expect_err("the policy forbids it");
        rig.remove("deny.yaml");
        second.until("in sync, ");
        rig.connect(CURL, WEB).expect("it is gone");

        assert_eq!(second.end(), Some(0));
        rig.connect(CURL, WEB).expect("the datapath stays");
    });
}

/// Two agents that read the same files and know nothing else of each other: a cluster.
#[test]
fn two_nodes_tunnel_and_one_of_them_denies() {
    let (tell, told) = channel();
    let (answer, answered) = channel();
    let next = move || told.recv().expect("the other node goes on");
    let done = move || answer.send(()).expect("the other node listens");
    on_two_nodes(
        move |rig: &Rig| {
            let go_on = |what: &'static str| {
                tell.send(what).expect("the other node listens");
                answered.recv().expect("the other node goes on");
            };
            rig.write("cluster.yaml", &two_nodes());
            let agent = rig.agent();
            agent.until("in sync, ");
            go_on("begin");
            let web = "10.0.2.9".parse().expect("an address");
            let mut flow = rig.connect_to(CURL, web).expect("through the tunnel");
            agent.kill();
            go_on("kill");
            assert_eq!(flow.say(b"nobody is there"), b"nobody is there");
            assert!(rig.agent().until("in sync").contains("in sync, no change"));
            go_on("deny");
            rig.connect_to(CURL, web).expect_err("the policy forbids it, at the other node");
            tell.send("end").expect("the other node listens");
        },
        move |rig: &Rig| {
            rig.write("cluster.yaml", &two_nodes());
            let mut agent = None;
            loop {
                match next() {
                    "begin" => {
                        let begun = agent.insert(rig.agent());
                        begun.until("in sync, ");
                        assert_eq!(rig.address(WEB).map(|ip| ip.to_string()).as_deref(), Some("10.0.2.9"));
                    }
                    "kill" => agent.take().expect("it was started").kill(),
                    "deny" => {
                        rig.write("deny.yaml", DENY);
                        agent.insert(rig.agent()).until("in sync, ");
                    }
                    _ => break,
                }
                done();
            }
        },
    );
}

#[test]
fn a_bad_file_is_told_with_its_place_and_changes_nothing() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        let agent = rig.agent();
        agent.until("in sync, ");
        rig.write("deny.yaml", &DENY.replace("matchLabels", "matchLabel"));
        let told = agent.until_warned("deny.yaml:");
        assert!(told.contains("deny.yaml:6:"), "the line: {told}");
        assert!(told.contains("spec.podSelector.matchLabel"), "the field: {told}");
        rig.connect(CURL, WEB).expect("what was right before still holds");

        // An agent that has never seen right files leaves alone what is there.
        agent.kill();
        let another = rig.agent();
        another.until_warned("deny.yaml:6:");
        rig.connect(CURL, WEB).expect("and so does what is there after a crash");
        rig.write("deny.yaml", DENY);
        another.until("in sync, ");
        rig.connect(CURL, WEB).expect_err("the policy forbids it");
        // Half a write is no removal.
        rig.write("deny.yaml", "");
        rig.write("deny.yaml", DENY);
        rig.connect(CURL, WEB).expect_err("the policy still forbids it");
    });
}

/// Numbers depend on what was there before: a new process must not give others.
#[test]
fn numbers_with_a_history_are_found_again() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["aaa", "curl", "web"]));
        let agent = rig.agent();
        assert!(agent.until("in sync, ").contains("1 pods wait"));
        let mut flow = rig.connect(CURL, WEB).expect("nothing forbids it");
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        agent.until("in sync, ");
        agent.kill();
        let another = rig.agent();
        assert!(another.until("in sync").contains("in sync, no change"), "aaa's numbers stay free");
        assert_eq!(flow.say(b"still there"), b"still there");
    });
}

#[test]
fn a_namespace_that_goes_and_another_that_comes_are_noticed() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        rig.hide(WEB);
        let agent = rig.agent();
        assert!(agent.until("in sync, ").contains("1 pods wait"), "there is no namespace for it");
        rig.connect(CURL, WEB).expect_err("nobody is there");
        rig.show(WEB);
        agent.until("default/web is connected");
        rig.connect(CURL, WEB).expect("now it is");
        rig.hide(WEB);
        agent.until("1 pods wait");
        assert_eq!(rig.devices("lxc"), 1, "its device went with it");
    });
}

#[test]
fn a_node_has_one_agent() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        let agent = rig.agent();
        agent.until("in sync, ");
        for arguments in [&["--clean"][..], &["--once", "--node", "node-1", "manifests"]] {
            let (status, text) = rig.run(arguments);
            assert_eq!(status, Some(2), "{text}");
            assert!(text.contains("an agent of this node is at work"), "{text}");
        }
        agent.kill();
        let (status, text) = rig.run(&["--clean"]);
        assert_eq!(status, Some(0), "a lock ends with who took it: {text}");
    });
}

#[test]
fn once_says_by_its_status_how_it_went() {
    on_a_node(|rig: &Rig| {
        rig.write("cluster.yaml", &manifests(&["curl", "web"]));
        let once = |node: &str| rig.run(&["--once", "--netns", "netns", "--node", node, "manifests"]);
        let (status, text) = once("node-7");
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains("there is no Node node-7") && text.contains("node-1"), "{text}");
        let (status, text) = once("node-1");
        assert_eq!(status, Some(0), "{text}");
        rig.connect(CURL, WEB).expect("it was connected, and stays so");
        let again = rig.run(&["--verbose", "--once", "--netns", "netns", "--node", "node-1", "manifests"]).1;
        assert!(again.contains("in sync, no change"), "{again}");
        let (status, text) = rig.run(&["--bpffs", "netns", "--node", "node-1", "manifests"]);
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains("mount -t bpf"), "{text}");
    });
}
