//! A node that is not real, agents that talk to such nodes, and objects from text.
#![expect(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod universe;

use skep_agent_core::{
    Action, Agent, Cluster, Config, Datapath, DeviceKind, Event, Link, Node, NodeEntry, Outcome, Performed,
    Refused, Step, Switches, Time, diff, drive, start,
};
use skep_manifest::{Loaded, Options};
use std::collections::BTreeMap;

/// A node whose datapath is a model. It gives devices indexes, and can refuse.
#[derive(Clone, Debug)]
pub(crate) struct FakeNode {
    pub(crate) datapath: Datapath,
    pub(crate) next_ifindex: u32,
    /// How many more actions it performs before it refuses all.
    pub(crate) budget: Option<usize>,
    pub(crate) swept: Vec<skep_agent_core::Swept>,
    pub(crate) log: Vec<Action>,
    /// The datapath after each action, if somebody wants to know.
    pub(crate) snapshots: Option<Vec<Datapath>>,
}

impl Default for FakeNode {
    fn default() -> Self {
        let mut datapath = Datapath::default();
        datapath.links.insert(Link::root("eth0"), 2);
        Self { datapath, next_ifindex: 3, budget: None, swept: Vec::new(), log: Vec::new(), snapshots: None }
    }
}

impl Node for FakeNode {
    fn perform(&mut self, action: &Action) -> Result<Outcome, Refused> {
        if let Some(budget) = &mut self.budget {
            if *budget == 0 {
                return Err(Refused::new("the node is out of order"));
            }
            *budget -= 1;
        }
        // As a real node, it knows bytes only.
        let mut action = action.clone();
        let links = self.datapath.links.clone();
        let missing = |link: Link| Refused::new(format!("there is no device {link}"));
        match &mut action {
            Action::MapUpdate { value, .. } => {
                *value = skep_agent_core::Value::plain(value.resolve(&links).map_err(missing)?);
            }
            Action::Load { load, .. } => {
                for value in load.globals.values_mut() {
                    *value = skep_agent_core::Value::plain(value.resolve(&links).map_err(missing)?);
                }
            }
            Action::Attach { point, .. } if !links.contains_key(&point.link) => {
                return Err(missing(point.link.clone()));
            }
            _ => {}
        }
        diff::apply(&mut self.datapath, &action)?;
        self.log.push(action.clone());
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.push(self.datapath.clone());
        }
        Ok(match action {
            Action::CreateDevice { link, device } => {
                let mut ends = vec![link];
                if let DeviceKind::Veth { peer, .. } = device.kind {
                    ends.push(peer);
                }
                let mut made = BTreeMap::new();
                for end in ends {
                    made.insert(end, self.next_ifindex);
                    self.next_ifindex += 1;
                }
                self.datapath.links.extend(made.clone());
                Outcome::Created(made)
            }
            Action::CollectConntrack { .. } => Outcome::Collected(self.swept.clone()),
            _ => Outcome::Done,
        })
    }

    fn inventory(&mut self) -> Result<Datapath, Refused> {
        if self.budget == Some(0) {
            return Err(Refused::new("the node is out of order"));
        }
        Ok(self.datapath.clone())
    }
}

pub(crate) fn config(node: &str) -> Config {
    Config {
        node: node.to_owned(),
        uplink: "eth0".to_owned(),
        uplink_mac: skep_abi::Mac::from_octets([2, 0, 0, 0, 0, 1]),
        objects: skep_abi::program::Object::ALL
            .iter()
            .map(|o| (*o, format!("sha256-of-{}", o.name())))
            .collect(),
        switches: Switches::default(),
    }
}

/// A cluster whose nodes are all fake.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) cluster: Cluster,
    pub(crate) nodes: BTreeMap<String, (Agent, FakeNode)>,
}

impl World {
    pub(crate) fn new(entries: &[NodeEntry], text: &str) -> (Self, BTreeMap<String, Vec<Performed>>) {
        let (cluster, steps) = Cluster::build(entries, &objects(text)).expect("the cluster is right");
        let now = Time::from_secs(1);
        let nodes = cluster
            .nodes()
            .keys()
            .map(|name| {
                let (mut agent, mut node) = (Agent::new(config(name)), FakeNode::default());
                assert!(start(&mut agent, &mut node, now).is_empty(), "nothing is known yet");
                (name.clone(), (agent, node))
            })
            .collect();
        let mut world = Self { now, cluster, nodes };
        let done = world.tell(&steps);
        (world, done)
    }

    pub(crate) fn tell(&mut self, steps: &[Step]) -> BTreeMap<String, Vec<Performed>> {
        let mut done = BTreeMap::<String, Vec<Performed>>::new();
        for step in steps {
            for (name, (agent, node)) in &mut self.nodes {
                let Some(event) = event(step, name) else { continue };
                done.entry(name.clone()).or_default().extend(drive(agent, node, self.now, event));
            }
        }
        done
    }

    pub(crate) fn apply(&mut self, text: &str) -> BTreeMap<String, Vec<Performed>> {
        let steps = self.cluster.apply(&objects(text)).expect("the objects are right");
        self.tell(&steps)
    }

    /// A node has exactly what its agent wants.
    pub(crate) fn assert_converged(&self, node: &str) {
        let (agent, node) = &self.nodes[node];
        let links = &node.datapath.links;
        let have = diff::canonical(&node.datapath, links);
        assert!(
            have == diff::canonical(&agent.desired().datapath, links),
            "{}",
            self.first_difference(&have, agent)
        );
    }

    fn first_difference(&self, have: &Datapath, agent: &Agent) -> String {
        let actions = diff::diff(have, &agent.desired().datapath);
        format!("{} actions to go: {:#?}", actions.len(), actions.iter().take(3).collect::<Vec<_>>())
    }

    pub(crate) fn agent(&self, node: &str) -> &Agent {
        &self.nodes[node].0
    }

    pub(crate) fn datapath(&self, node: &str) -> &Datapath {
        &self.nodes[node].1.datapath
    }
}

/// What a step means for a node.
pub(crate) fn event(step: &Step, name: &str) -> Option<Event> {
    match step {
        Step::Broadcast(change) => Some(Event::Resource(change.clone())),
        Step::Kubelet { node, request } => (node == name).then(|| Event::Endpoint(request.clone())),
    }
}

pub(crate) fn objects(text: &str) -> Vec<Loaded> {
    let parsed = skep_manifest::parse("objects.yaml", text, &Options::default());
    parsed.expect("the text is right").resources
}

pub(crate) fn entry(name: &str, address: &str, pod_cidr: &str) -> NodeEntry {
    NodeEntry {
        name: name.to_owned(),
        address: Some(address.parse().expect("an address")),
        pod_cidr: Some(pod_cidr.parse().expect("a network")),
    }
}

/// The walkthrough's two nodes.
pub(crate) fn two_nodes() -> [NodeEntry; 2] {
    [
        entry("ubuntu-dev2", "192.168.1.12", "10.42.1.0/24"),
        entry("ubuntu-dev3", "192.168.1.13", "10.42.0.0/24"),
    ]
}

pub(crate) const CURL_AND_HTTPBIN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: curl, labels: {app: curl}}
spec:
  nodeName: ubuntu-dev2
  containers: [{name: c, image: curl}]
status: {podIP: 10.42.1.80}
---
apiVersion: v1
kind: Pod
metadata: {name: httpbin, labels: {app: httpbin}}
spec:
  nodeName: ubuntu-dev3
  containers: [{name: c, image: httpbin, ports: [{name: http, containerPort: 80}]}]
status: {podIP: 10.42.0.51}
";
