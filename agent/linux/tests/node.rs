//! A node in namespaces of its own: what an agent asked for is there, a new agent finds it, and all of it can go.
//!
//! Where the kernel cannot be asked this is one skip, which ci/skips.toml lists.
#![cfg(target_os = "linux")]

use skep_abi::program::Object;
use skep_abi::{LAYOUT_VERSION, Mac};
use skep_agent_core::{
    Action, Agent, Change, Config, EndpointRequest, Event, Identity, IdentityLabels, Link, Node as _,
    NodeInfo, Performed, PodAt, PodKey, Request, Switches, Time, diff, drive, start,
};
use skep_agent_linux::{
    Error, LinuxNode, Netlink, Netns, NewEnd, NodeLock, clean, link_ids, monotonic_ns, mount_bpffs,
    private_mounts, probe,
};
use skep_object::ObjectSet;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

const BPFFS: &str = "/sys/fs/bpf";
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// Runs `test` on a thread with namespaces and mounts of its own and an `eth0`; says so if the kernel cannot be asked.
fn on_a_node(test: impl FnOnce() + Send + 'static) {
    if let Err(e) = probe() {
        let capability = e.missing_capability().unwrap_or("bpf");
        writeln!(std::io::stdout(), "\nSKIP node-inventory: {capability}").expect("stdout is open");
        return;
    }
    let thread = std::thread::spawn(|| {
        private_mounts().expect("mounts of its own");
        Netns::new().expect("a namespace").enter().expect("it can be entered");
        mount_bpffs(Path::new(BPFFS)).expect("a bpffs");
        let mut netlink = Netlink::open().expect("rtnetlink");
        let (card, wire) = (
            NewEnd { name: "eth0", mac: MAC, mtu: 1500, netns: None },
            NewEnd { name: "wire", mac: [0x52, 0x54, 0, 0, 0, 2], mtu: 1500, netns: None },
        );
        netlink.add_veth(&card, &wire).expect("a card");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn objects() -> Arc<ObjectSet> {
    Arc::new(ObjectSet::built_in())
}

fn node() -> LinuxNode {
    LinuxNode::new(objects(), Path::new(BPFFS)).expect("a node")
}

fn agent() -> Agent {
    let objects = objects();
    Agent::new(Config {
        node: "node-1".into(),
        uplink: "eth0".into(),
        uplink_mac: Mac::from_octets(MAC),
        objects: Object::ALL.iter().map(|o| (*o, objects.sha256(*o))).collect(),
        switches: Switches::default(),
    })
}

fn pod() -> PodKey {
    PodKey::new("default", "web")
}

/// Tells an agent of a cluster of one node and one pod.
fn tell(agent: &mut Agent, node: &mut LinuxNode) -> Vec<Performed> {
    let now = || Time::from_nanos(monotonic_ns());
    let mut performed = start(agent, node, now());
    let info = NodeInfo {
        name: "node-1".into(),
        address: "192.168.0.1".parse().expect("an address"),
        pod_cidr: "10.0.1.0/24".parse().expect("a network"),
    };
    let ip = "10.0.1.10".parse().expect("an address");
    let labels = Arc::new(IdentityLabels::default());
    let request = EndpointRequest { endpoint: 7, pod: pod(), ip, netns: pod().to_string() };
    for event in [
        Event::Resource(Change::Node(info)),
        Event::Resource(Change::Identity(Identity { id: 256, labels })),
        Event::Resource(Change::Pod(PodAt { key: pod(), ip, node: "node-1".into(), identity: 256 })),
        Event::Endpoint(Request::Add(request)),
        Event::Resource(Change::Synced),
    ] {
        performed.extend(drive(agent, node, now(), event));
    }
    for done in &performed {
        assert!(done.result.is_ok(), "{:?}: {:?}", done.action, done.result);
    }
    performed
}

#[test]
fn an_agent_finds_what_another_has_left_and_asks_for_nothing() {
    on_a_node(|| {
        let netns = Netns::new().expect("a pod's namespace");
        let mut first = node();
        first.add_namespace("default/web", netns.try_clone().expect("a copy")).expect("it can be entered");
        let mut one = agent();
        assert!(tell(&mut one, &mut first).len() > 30, "a datapath is more than that");
        let found = first.inventory().expect("an inventory");
        let want = one.desired().datapath.clone();
        assert_eq!(diff::diff(&found, &want), [], "what was asked for is there");
        assert_eq!(diff::canonical(&found, &found.links), diff::canonical(&want, &found.links));
        drop((first, one));

        let mut second = node();
        second.add_namespace("default/web", netns).expect("it can be entered");
        let performed = tell(&mut agent(), &mut second);
        let asked: Vec<_> = performed.iter().map(|p| &p.action).collect();
        assert_eq!(asked, [&Action::EndpointReady { endpoint: 7 }], "its kubelet may not have heard");
        assert_eq!(second.inventory().expect("an inventory"), found);
    });
}

/// What is gone behind the agent's back is made anew, and nothing else.
#[test]
fn a_device_that_was_deleted_by_hand_comes_back() {
    on_a_node(|| {
        let mut first = node();
        first.add_namespace("default/web", Netns::new().expect("a namespace")).expect("it can be entered");
        let mut one = agent();
        tell(&mut one, &mut first);
        Netlink::open().expect("rtnetlink").delete_link("skep_vxlan").expect("it is there");
        let found = first.inventory().expect("an inventory");
        assert!(!found.devices.contains_key(&Link::root("skep_vxlan")));
        assert!(
            !found.attachments.keys().any(|p| p.link == Link::root("skep_vxlan")),
            "its hooks went with it"
        );
        tell(&mut agent(), &mut first);
        let found = first.inventory().expect("an inventory");
        assert_eq!(diff::diff(&found, &one.desired().datapath), []);
    });
}

#[test]
fn nothing_is_left_after_clean() {
    on_a_node(|| {
        let before = link_ids().expect("the kernel's links");
        let mut first = node();
        first.add_namespace("default/web", Netns::new().expect("a namespace")).expect("it can be entered");
        tell(&mut agent(), &mut first);
        let mine = |ids: Vec<u32>| ids.into_iter().filter(|id| !before.contains(id)).count();
        assert!(mine(link_ids().expect("the kernel's links")) >= 7, "each hook has a link");
        drop(first);
        let removed = clean(Path::new(BPFFS)).expect("it can be removed");
        assert!(removed.contains(&"device skep_vxlan".to_owned()), "{removed:?}");
        assert_eq!(clean(Path::new(BPFFS)).expect("again"), Vec::<String>::new());
        let names: Vec<String> = Netlink::open()
            .expect("rtnetlink")
            .devices()
            .expect("devices")
            .into_iter()
            .map(|d| d.name)
            .collect();
        assert!(!names.iter().any(|n| n.starts_with("skep_") || n.starts_with("lxc")), "{names:?}");
        assert!(!Path::new(BPFFS).join("skep").exists());
    });
}

#[test]
fn pins_of_another_layout_are_refused_with_what_to_do() {
    on_a_node(|| {
        let other = LAYOUT_VERSION + 1;
        std::fs::create_dir_all(format!("{BPFFS}/skep/v{other}/maps")).expect("a bpffs takes directories");
        let refused = LinuxNode::new(objects(), Path::new(BPFFS)).expect_err("another version's pins");
        assert!(matches!(refused, Error::Layout { version: LAYOUT_VERSION, .. }), "{refused}");
        assert!(refused.to_string().contains("skep clean"), "{refused}");
        clean(Path::new(BPFFS)).expect("clean knows every version");
        node();
    });
}

#[test]
fn what_is_remembered_is_replaced_at_once_and_goes_with_the_rest() {
    on_a_node(|| {
        let first = node();
        assert_eq!(first.remembered("cluster").expect("it can be asked"), None);
        for bytes in [&b"one"[..], b"another, and longer"] {
            first.remember("cluster", bytes).expect("it can be pinned");
            assert_eq!(node().remembered("cluster").expect("another agent asks").as_deref(), Some(bytes));
        }
        clean(Path::new(BPFFS)).expect("it can be removed");
        assert_eq!(node().remembered("cluster").expect("it can be asked"), None);
    });
}

#[test]
fn a_node_is_locked_by_one() {
    on_a_node(|| {
        let bpffs = Path::new(BPFFS);
        drop(NodeLock::take(bpffs).expect("nothing is there to lock"));
        node();
        let lock = NodeLock::take(bpffs).expect("nobody has it");
        assert!(matches!(NodeLock::take(bpffs), Err(Error::Busy { .. })));
        assert!(matches!(clean(bpffs), Err(Error::Busy { .. })), "an agent would make it all anew");
        drop(lock);
        clean(bpffs).expect("nobody has it any more");
        let elsewhere = LinuxNode::new(objects(), Path::new("/tmp")).expect_err("that is no bpffs");
        assert!(elsewhere.to_string().contains("mount -t bpf bpffs /tmp"), "{elsewhere}");
    });
}
