//! The simulator's [`World`]: builds the cluster, lets time pass, and keeps account of every frame.

use crate::capture::Capture;
use crate::evidence;
use crate::flow::{self, Flow, Running, nanos};
use crate::inspect;
use crate::machine::Machine;
use crate::node::{Host, Objects, Parsed, UPLINK};
use skep_abi::Mac;
use skep_abi::program::Object;
use skep_agent_core::{Cluster, Config, NodeInfo, PodKey, Switches, model};
use skep_manifest::{Errors, Loaded, Options};
use skep_net::{Net, NetError};
use skep_object::ObjectSet;
use skep_object::verified::Verified;
use skep_scenario::world::{Labelled, Network, Target};
use skep_scenario::{
    Capability, Change, ClusterSpec, Diagnostic, Evidence, Fault, FlowId, Offers, Query, SetupError,
    Snapshot, Stimulus, Tables, Until, World,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What the clocks show when a cluster is built: the nodes have been up for an hour, as conntrack's lifetimes count
/// on the monotonic clock and a clock at zero would hide what depends on it.
const START_NS: u64 = 3_600 * 1_000_000_000;
/// The prefix of the network between the nodes.
const NODE_NETWORK_PREFIX: u8 = 24;
/// How long nothing must move until a flow that has ended is left alone: longer than a delayed ACK.
const QUIET: Duration = Duration::from_millis(250);
/// How long after its end a flow's last frames are waited for.
const LINGER: Duration = Duration::from_secs(15);
/// How long agents may take to do what they were told.
const CONVERGENCE: Duration = Duration::from_secs(10);

/// What the simulator needs to know beside the scenario.
#[derive(Clone, Debug, Default)]
pub struct SimOptions {
    /// Take the objects from this folder, and not those that were built in.
    pub objects: Option<PathBuf>,
    /// Keep every packet at every hook, for [`SimWorld::write_capture`].
    pub capture: bool,
    /// What executes the programs. `Auto` takes the JIT for objects that a kernel is known to have verified
    /// (`verified.json`) where there is one, else the checked interpreter; [`SimWorld::engines`] says which.
    pub engine: skep_vm::EngineKind,
}

/// The simulator.
pub struct SimWorld {
    options: SimOptions,
    objects: Objects,
    hashes: BTreeMap<Object, String>,
    cluster: Option<Built>,
}

/// A cluster that was built.
struct Built {
    net: Net,
    machine: Machine,
    cluster: Cluster,
    flows: Vec<Flow>,
    ignore_kinds: Vec<String>,
    network: Network,
}

impl SimWorld {
    /// Reads the objects. An object that cannot be read or parsed is an error that names it.
    pub fn new(options: SimOptions) -> Result<Self, SetupError> {
        let set = ObjectSet::new(options.objects.as_deref())
            .map_err(|e| SetupError::input(Diagnostic::new(e.to_string())))?;
        let mut objects = Objects::new();
        let mut hashes = BTreeMap::new();
        let known = Verified::built_in();
        for object in Object::ALL {
            let parsed = skep_vm::Object::parse(set.bytes(*object)).map_err(|e| {
                let mut what = Diagnostic::new(e.to_string()).help(
                    "build it anew (cargo xtask ebpf), or leave --object out to use the built-in objects",
                );
                let file = format!("{}.o", object.name());
                what.file =
                    Some(options.objects.as_ref().map_or_else(|| file.clone().into(), |dir| dir.join(&file)));
                SetupError::input(what)
            })?;
            let sha256 = set.sha256(*object);
            objects.insert(*object, Parsed { object: parsed, verified: known.knows(&sha256) });
            hashes.insert(*object, sha256);
        }
        Ok(Self { options, objects, hashes, cluster: None })
    }

    /// What executes each object's programs.
    pub fn engines(&self) -> impl Iterator<Item = (Object, skep_vm::EngineKind)> {
        self.objects.iter().map(|(object, parsed)| (*object, self.options.engine.chosen(parsed.verified)))
    }

    /// Writes everything that passed a hook since `build` as pcapng; nothing without [`SimOptions::capture`].
    pub fn write_capture(&self, out: impl std::io::Write) -> std::io::Result<()> {
        let empty = Capture::default();
        let capture = self.cluster.as_ref().and_then(|b| b.machine.capture.as_ref());
        capture.unwrap_or(&empty).write(out)
    }

    fn built(&mut self) -> Result<&mut Built, SetupError> {
        self.cluster.as_mut().ok_or_else(|| SetupError::Refused("the cluster was not built".to_owned()))
    }
}

fn config(node: &NodeInfo, network: &Network, hashes: &BTreeMap<Object, String>) -> Config {
    Config {
        node: node.name.clone(),
        uplink: UPLINK.to_owned(),
        uplink_mac: Mac::from_octets(uplink_mac(node.address)),
        objects: hashes.clone(),
        switches: Switches {
            tunnel_port: network.tunnel_port,
            mtu: u32::from(network.mtu),
            endpoint_routes: network.endpoint_routes,
        },
    }
}

fn diagnostics(errors: Errors) -> SetupError {
    SetupError::from(errors)
}

fn load(paths: &[PathBuf], ignore_kinds: &[String]) -> Result<Vec<Loaded>, SetupError> {
    let options = Options { ignore_kinds: ignore_kinds.iter().cloned().collect() };
    skep_manifest::load(paths, &options).map(|m| m.resources).map_err(diagnostics)
}

fn refused(e: NetError) -> SetupError {
    SetupError::Refused(e.to_string())
}

/// The card's address: locally administered, from the node's own.
fn uplink_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x52, 0x54, a, b, c, d]
}

impl World for SimWorld {
    fn offers(&self) -> Offers {
        Offers { capabilities: Capability::ALL.into_iter().collect() }
    }

    fn build(&mut self, spec: &ClusterSpec) -> Result<(), SetupError> {
        let manifests = load(&spec.manifests, &spec.ignore_kinds)?;
        let nodes: Vec<skep_agent_core::NodeEntry> = spec
            .nodes
            .iter()
            .map(|n| skep_agent_core::NodeEntry {
                name: n.name.clone(),
                address: n.address,
                pod_cidr: n.pod_cidr,
            })
            .collect();
        let (cluster, steps) = Cluster::build(&nodes, &manifests).map_err(diagnostics)?;
        let mut net = Net::new(spec.seed, START_NS);
        net.set_latency(nanos(spec.network.latency));
        let mut machine =
            Machine::new(self.objects.clone(), self.options.capture, spec.network.tunnel_port, START_NS);
        for node in cluster.nodes().values() {
            let id = net.add_node(&node.name);
            let address = Some((node.address, NODE_NETWORK_PREFIX));
            net.add_uplink(id, UPLINK, uplink_mac(node.address), address, u32::from(spec.network.mtu))
                .map_err(refused)?;
            let host = Host::new(&net, id, &node.name, self.options.engine);
            machine.add(&mut net, host, config(node, &spec.network, &self.hashes));
        }
        let mut built = Built {
            net,
            machine,
            cluster,
            flows: Vec::new(),
            ignore_kinds: spec.ignore_kinds.clone(),
            network: spec.network.clone(),
        };
        built.tell(steps)?;
        self.cluster = Some(built);
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<(), SetupError> {
        let hashes = self.hashes.clone();
        self.built()?.change(change, &hashes)
    }

    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError> {
        self.built()?.start(stimulus, until)
    }

    fn resume(&mut self, flow: FlowId, until: Until) -> Result<Evidence, SetupError> {
        self.built()?.resume(flow, until)
    }

    fn advance(&mut self, by: Duration) -> Result<(), SetupError> {
        let built = self.built()?;
        built.machine.recorder.flow = None;
        built.net.run_for(&mut built.machine, nanos(by));
        built.settle()?;
        built.check()
    }

    fn inspect(&mut self, query: &Query) -> Result<Snapshot, SetupError> {
        if *query == Query::Objects {
            let named = self.hashes.iter().map(|(o, hash)| (o.name().to_owned(), hash.clone()));
            return Ok(Snapshot::Objects(named.collect()));
        }
        self.built()?.inspect(query)
    }
}

impl Built {
    /// Tells the agents, and lets time pass until all have done what it asks.
    fn tell(&mut self, steps: Vec<skep_agent_core::Step>) -> Result<(), SetupError> {
        for pod in self.cluster.pods().values() {
            self.machine.set_ports(pod.key.clone(), pod.ports.clone());
        }
        self.machine.tell(&mut self.net, steps);
        self.converge()
    }

    fn converge(&mut self) -> Result<(), SetupError> {
        self.machine.recorder.flow = None;
        let deadline = self.net.now_ns() + nanos(CONVERGENCE);
        while self.machine.is_busy() && self.net.step(&mut self.machine, deadline) {}
        let refused = std::mem::take(&mut self.machine.refused);
        if !refused.is_empty() {
            return Err(SetupError::Refused(refused.join("\n")));
        }
        self.check()
    }

    fn change(&mut self, change: &Change, hashes: &BTreeMap<Object, String>) -> Result<(), SetupError> {
        match change {
            Change::Apply(paths) => {
                let objects = load(paths, &self.ignore_kinds)?;
                let steps = self.cluster.apply(&objects).map_err(diagnostics)?;
                self.tell(steps)
            }
            Change::Delete(paths) => {
                let objects = load(paths, &self.ignore_kinds)?;
                let steps = self.cluster.delete(&objects).map_err(diagnostics)?;
                self.tell(steps)
            }
            Change::Relabel { object: Labelled::Pod(pod), labels } => {
                let pod = pod_key(pod)?;
                let steps = self.cluster.relabel(&pod, labels).map_err(diagnostics)?;
                self.tell(steps)
            }
            Change::Relabel { object: Labelled::Namespace(namespace), labels } => {
                let _ = labels;
                Err(SetupError::Refused(format!(
                    "namespace {namespace}: relabel is for pods; apply its manifest with the new labels"
                )))
            }
            Change::RestartAgent { node } => {
                let index = self.member(node)?;
                let steps = self.cluster.replay(node);
                let info = &self.cluster.nodes()[node];
                self.machine.restart(&mut self.net, index, config(info, &self.network, hashes), steps);
                self.converge()
            }
            Change::Fault(fault) => {
                self.fault(fault);
                Ok(())
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        if let Some(ppm) = fault.loss_ppm {
            self.net.set_loss(f64::from(ppm) / 1e6);
        }
        if let Some(latency) = fault.latency {
            self.net.set_latency(nanos(latency));
        }
    }

    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError> {
        let from = pod_key(stimulus.from())?;
        let ns = self
            .machine
            .namespace(&from)
            .ok_or_else(|| SetupError::Refused(format!("pod {from} has not started")))?;
        let to = match stimulus {
            Stimulus::Http { to, .. }
            | Stimulus::Connect { to, .. }
            | Stimulus::Udp { to, .. }
            | Stimulus::Ping { to, .. } => Some(self.address(to)?),
            Stimulus::Send { .. } => None,
        };
        let number = self.flows.len() as u32;
        let mark = self.machine.recorder.len();
        self.machine.recorder.flow = Some(number);
        let (run, kind, tuple) = flow::start(&mut self.net, ns, stimulus, to, until).map_err(refused)?;
        self.flows.push(Flow { from, run, mark, kind, tuple });
        self.carry(number, until)?;
        Ok(FlowId(number))
    }

    fn resume(&mut self, id: FlowId, until: Until) -> Result<Evidence, SetupError> {
        let flow = self
            .flows
            .get(id.0 as usize)
            .ok_or_else(|| SetupError::Refused(format!("flow {} was not started", id.0)))?;
        if let (Running::Sockets(socket), Until::Done) = (&flow.run, until) {
            self.net.release(*socket);
        }
        self.carry(id.0, until)?;
        let flow = &self.flows[id.0 as usize];
        Ok(evidence::of_flow(id.0, flow, &self.net, &self.machine, START_NS))
    }

    /// Lets time pass until the flow is as far as asked.
    fn carry(&mut self, number: u32, until: Until) -> Result<(), SetupError> {
        self.machine.recorder.flow = Some(number);
        let flow = &self.flows[number as usize];
        let ended_before = flow.has_ended(&self.net);
        match until {
            Until::Time(time) => self.net.run_for(&mut self.machine, nanos(time)),
            Until::Quiet(quiet) => self.until_quiet(quiet, Duration::MAX),
            Until::Done | Until::Established | Until::Bytes(_) => {
                let deadline = self.deadline(number);
                while !self.flows[number as usize].has_reached(&self.net, until)
                    && self.net.step(&mut self.machine, deadline)
                {}
                if let Running::Packets { end_ns, .. } = self.flows[number as usize].run {
                    let left = end_ns.saturating_sub(self.net.now_ns());
                    self.net.run_for(&mut self.machine, left);
                }
            }
        }
        if until == Until::Done && !ended_before {
            self.settle()?;
        }
        self.machine.recorder.flow = None;
        self.check()
    }

    /// Until when a flow may take: the end of a `send`'s watch; sockets give up by themselves.
    fn deadline(&self, number: u32) -> u64 {
        match self.flows[number as usize].run {
            Running::Packets { end_ns, .. } => end_ns,
            Running::Sockets(_) => u64::MAX,
        }
    }

    /// Lets the last frames of what has ended come to their ends.
    fn settle(&mut self) -> Result<(), SetupError> {
        // A stack keeps what it has no neighbour's address for, for seconds in which nothing moves.
        let limit = self.net.now_ns().saturating_add(nanos(LINGER));
        while self.net.waits_for_neighbour() && self.net.step(&mut self.machine, limit) {}
        self.until_quiet(QUIET, LINGER);
        Ok(())
    }

    /// Lets time pass until no frame moved for `quiet`, at the most `limit`.
    fn until_quiet(&mut self, quiet: Duration, limit: Duration) {
        let end = self.net.now_ns().saturating_add(nanos(limit));
        let mut moved_ns = self.net.now_ns();
        loop {
            let until = moved_ns.saturating_add(nanos(quiet)).min(end);
            let seen = self.machine.recorder.len();
            if !self.net.step(&mut self.machine, until) {
                self.net.run_for(&mut self.machine, until.saturating_sub(self.net.now_ns()));
                return;
            }
            if self.machine.recorder.len() > seen {
                moved_ns = self.net.now_ns();
            }
        }
    }

    /// Every frame has exactly one end, and no program did what none may do.
    fn check(&mut self) -> Result<(), SetupError> {
        let mut broken = std::mem::take(&mut self.machine.broken);
        let account = &self.machine.accountant;
        broken.extend(account.faults().iter().map(|(frame, what)| format!("{frame} {what}")));
        if self.net.in_flight() == 0 {
            for (frame, last) in account.unaccounted() {
                let node = last.node.and_then(|n| self.net.node_name(n)).unwrap_or("the fabric");
                broken.push(format!("{frame} has no end; last seen at {node}: {:?}", last.what));
            }
        }
        if broken.is_empty() { Ok(()) } else { Err(SetupError::InvariantBroken(broken.join("\n"))) }
    }

    fn address(&self, target: &Target) -> Result<Ipv4Addr, SetupError> {
        match target {
            Target::Address(IpAddr::V4(ip)) => Ok(*ip),
            Target::Address(IpAddr::V6(ip)) => {
                Err(SetupError::Refused(format!("{ip}: the simulator has IPv4 only")))
            }
            Target::Pod(pod) => {
                let key = pod_key(pod)?;
                let pod = self.cluster.pods().get(&key);
                pod.map(|p| p.ip).ok_or_else(|| SetupError::Refused(format!("pod {key} does not exist")))
            }
        }
    }

    fn member(&self, node: &str) -> Result<usize, SetupError> {
        self.machine.index_of(node).ok_or_else(|| SetupError::Refused(format!("node {node} does not exist")))
    }

    fn inspect(&self, query: &Query) -> Result<Snapshot, SetupError> {
        let member = |node: &str| self.member(node).map(|i| &self.machine.members[i]);
        Ok(match query {
            Query::Objects => Snapshot::Objects(BTreeMap::new()),
            Query::Nodes => Snapshot::Nodes(self.cluster.nodes().keys().cloned().collect()),
            Query::Metrics { node } => Snapshot::Metrics(read(member(node)?.metrics())),
            Query::Conntrack { node } => {
                Snapshot::Conntrack(read(member(node)?.conntrack(self.net.now_ns() / 1_000_000_000)))
            }
            Query::Policy { pod } => {
                let (node, endpoint) = inspect::endpoint_of(&self.cluster, &pod_key(pod)?)
                    .ok_or_else(|| SetupError::Refused(format!("pod {pod} has no endpoint")))?;
                Snapshot::Policy(read(member(&node)?.policy(&model::policy_map_name(endpoint))))
            }
            Query::Ipcache { node } => Snapshot::Ipcache(read(member(node)?.ipcache())),
            Query::Endpoints { node } => {
                Snapshot::Endpoints(inspect::endpoints(member(node)?, &self.cluster))
            }
            Query::Map { node, name } => Snapshot::Map(
                read(member(node)?.bytes(name))
                    .ok_or_else(|| SetupError::Refused(format!("node {node} has no map {name}")))?,
            ),
        })
    }
}

/// The vm's maps can always be read.
fn read<T>(answer: Result<T, Infallible>) -> T {
    let Ok(answer) = answer;
    answer
}

fn pod_key(name: &str) -> Result<PodKey, SetupError> {
    PodKey::parse(name).ok_or_else(|| SetupError::Refused(format!("{name}: a pod is named NAMESPACE/NAME")))
}
