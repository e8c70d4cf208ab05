//! The [`World`] of real namespaces: a cluster whose nodes are namespaces of the running kernel, each with the real agent,
//! and whose pods talk through real sockets.
//!
//! Knows how namespaces, agents and sockets make a cluster. Takes no decision about a packet. All of it ends with this
//! process, however it ends: nothing has a name, and what is pinned is pinned in mounts that nobody else has.

mod drops;
mod evidence;
mod fabric;
mod inspect;
mod member;
mod mirror;
mod pod;
mod process;
mod record;
mod traffic;
mod walk;

use drops::DropWatch;
use evidence::Carried;
use fabric::{Fabric, UPLINK, uplink_mac};
use member::{Member, Plan};
use pod::Pod;
use record::Log;
use skep_abi::program::Object;
use skep_agent::control::{Answer, Begin};
use skep_agent_core::desired::{POD_DEVICE, VXLAN_DEVICE};
use skep_agent_core::{Cluster, Event, NodeEntry, NodeInfo, PodInfo, PodKey, Request, Step, model};
use skep_agent_linux::{Error, monotonic_ns, probe, set_offloads_off};
use skep_manifest::{Loaded, Options};
use skep_object::ObjectSet;
use skep_scenario::world::{Labelled, Target};
use skep_scenario::{
    Capability, Change, ClusterSpec, Diagnostic, Evidence, FlowId, Network, Offers, Query, SetupError,
    Snapshot, Stimulus, Tables, Until, World,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walk::{Reader, Words};

pub use process::{AGENT_ARGUMENT, agent_process};

/// How long nothing must be seen until what has ended is taken to be over: longer than a delayed acknowledgement.
const QUIET: Duration = Duration::from_millis(90);
/// How long after its end a flow's last frames are waited for.
const LINGER: Duration = Duration::from_secs(2);
/// How long a stack may take to give up a neighbour: three requests, a second apart.
const NEIGHBOUR: Duration = Duration::from_millis(3500);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// What the running kernel can do of what scenarios ask for. Time passes by itself, and nothing loses frames.
const OFFERED: [Capability; 6] = [
    Capability::RawPackets,
    Capability::Udp,
    Capability::Ping,
    Capability::OpenFlows,
    Capability::RestartAgent,
    Capability::Inspect,
];

/// The running kernel.
pub struct LiveWorld {
    objects: Arc<ObjectSet>,
    /// Where the objects were read, if they are not the built-in ones.
    folder: Option<PathBuf>,
    cluster: Option<Built>,
}

/// A cluster that was built. Fields are dropped in order: pods' sockets before their namespaces' nodes.
struct Built {
    flows: Vec<Carried>,
    pods: BTreeMap<PodKey, Pod>,
    members: Vec<Member>,
    drops: DropWatch,
    _fabric: Fabric,
    cluster: Cluster,
    log: Arc<Log>,
    network: Network,
    ignore_kinds: Vec<String>,
    start_ns: u64,
}

impl LiveWorld {
    /// A World with the objects of a folder, or the built-in ones.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let this user load programs or make namespaces, and what to do then; and for objects
    /// that cannot be read.
    pub fn new(objects: Option<&Path>) -> Result<Self, SetupError> {
        let folder = objects.map(Path::to_owned);
        let objects =
            ObjectSet::new(objects).map_err(|e| SetupError::input(Diagnostic::new(e.to_string())))?;
        let allowed = probe().and_then(|()| skep_agent_linux::Netns::new().map(drop));
        allowed.map_err(|e| {
            let help = "run it as root on a kernel with BPF, or without `--on kernel` in the simulator";
            SetupError::input(Diagnostic::new(e.to_string()).help(help))
        })?;
        Ok(Self { objects: Arc::new(objects), folder, cluster: None })
    }

    fn built(&mut self) -> Result<&mut Built, SetupError> {
        self.cluster.as_mut().ok_or_else(|| SetupError::Refused("the cluster was not built".to_owned()))
    }
}

fn refused(e: Error) -> SetupError {
    SetupError::Refused(e.to_string())
}

fn load(paths: &[PathBuf], ignore_kinds: &[String]) -> Result<Vec<Loaded>, SetupError> {
    let options = Options { ignore_kinds: ignore_kinds.iter().cloned().collect() };
    skep_manifest::load(paths, &options).map(|m| m.resources).map_err(SetupError::from)
}

fn pod_key(name: &str) -> Result<PodKey, SetupError> {
    PodKey::parse(name).ok_or_else(|| SetupError::Refused(format!("{name}: a pod is named NAMESPACE/NAME")))
}

fn begin(node: &NodeInfo, network: &Network) -> Begin {
    Begin {
        node: node.name.clone(),
        uplink: UPLINK.to_owned(),
        uplink_mac: uplink_mac(node.address),
        tunnel_port: network.tunnel_port,
        mtu: u32::from(network.mtu),
        endpoint_routes: network.endpoint_routes,
    }
}

impl World for LiveWorld {
    fn offers(&self) -> Offers {
        Offers { capabilities: OFFERED.into_iter().collect() }
    }

    fn build(&mut self, spec: &ClusterSpec) -> Result<(), SetupError> {
        let manifests = load(&spec.manifests, &spec.ignore_kinds)?;
        let nodes: Vec<NodeEntry> = spec
            .nodes
            .iter()
            .map(|n| NodeEntry { name: n.name.clone(), address: n.address, pod_cidr: n.pod_cidr })
            .collect();
        let (cluster, steps) = Cluster::build(&nodes, &manifests).map_err(SetupError::from)?;
        let mut built = Built::new(cluster, self, spec).map_err(refused)?;
        for index in 0..built.members.len() {
            let answer = built.members[index].call(member::Site::begin).map_err(refused)?;
            built.done(index, answer)?;
        }
        built.tell(steps)?;
        built.settle();
        self.cluster = Some(built);
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<(), SetupError> {
        self.built()?.change(change)
    }

    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError> {
        self.built()?.start(stimulus, until)
    }

    fn resume(&mut self, flow: FlowId, until: Until) -> Result<Evidence, SetupError> {
        self.built()?.resume(flow, until)
    }

    fn advance(&mut self, by: Duration) -> Result<(), SetupError> {
        let _ = by;
        Err(SetupError::Refused("time passes by itself on a kernel".to_owned()))
    }

    fn inspect(&mut self, query: &Query) -> Result<Snapshot, SetupError> {
        if *query == Query::Objects {
            let named = Object::ALL.iter().map(|o| (o.name().to_owned(), self.objects.sha256(*o)));
            return Ok(Snapshot::Objects(named.collect()));
        }
        self.built()?.inspect(query)
    }
}

impl Built {
    /// Namespaces and threads; no agent has begun.
    fn new(cluster: Cluster, world: &LiveWorld, spec: &ClusterSpec) -> Result<Self, Error> {
        let mut fabric = Fabric::new()?;
        let log = Arc::new(Log::default());
        let drops = DropWatch::start(Arc::clone(&log))?;
        let mut members = Vec::new();
        for (index, node) in cluster.nodes().values().enumerate() {
            let netns = fabric.plug_in(node, u32::from(spec.network.mtu))?;
            drops.watch(&netns, index, None)?;
            members.push(Member::start(Plan {
                index,
                netns,
                objects: Arc::clone(&world.objects),
                folder: world.folder.clone(),
                begin: begin(node, &spec.network),
                log: Arc::clone(&log),
            })?);
        }
        Ok(Self {
            flows: Vec::new(),
            pods: BTreeMap::new(),
            members,
            drops,
            _fabric: fabric,
            cluster,
            log,
            network: spec.network.clone(),
            ignore_kinds: spec.ignore_kinds.clone(),
            start_ns: monotonic_ns(),
        })
    }

    fn index_of(&self, node: &str) -> Result<usize, SetupError> {
        let index = self.members.iter().position(|m| m.name == node);
        index.ok_or_else(|| SetupError::Refused(format!("node {node} does not exist")))
    }

    /// Tells the agents, one after the other, and lets each do all of what it asks.
    fn tell(&mut self, steps: Vec<Step>) -> Result<(), SetupError> {
        for step in steps {
            match step {
                Step::Broadcast(change) => {
                    for index in 0..self.members.len() {
                        self.event(index, Event::Resource(change.clone()))?;
                    }
                }
                Step::Kubelet { node, request } => {
                    let index = self.index_of(&node)?;
                    self.event(index, Event::Endpoint(request))?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, index: usize, event: Event) -> Result<(), SetupError> {
        let mut deleted = None;
        match &event {
            Event::Endpoint(Request::Add(request)) if !self.pods.contains_key(&request.pod) => {
                let netns = fabric::namespace().map_err(refused)?;
                self.drops.watch(&netns, index, Some(request.pod.to_string())).map_err(refused)?;
                let (name, copy) = (request.netns.clone(), netns.try_clone().map_err(refused)?);
                self.pods.insert(request.pod.clone(), Pod::new(netns));
                self.members[index].call(move |site| site.add_namespace(&name, copy)).map_err(refused)?;
            }
            Event::Endpoint(Request::Delete { endpoint }) => {
                let endpoint = *endpoint;
                deleted = self.members[index].call(move |site| site.agent.pod_of(endpoint).cloned());
            }
            _ => {}
        }
        let answer = self.members[index].call(move |site| site.handle(event)).map_err(refused)?;
        self.done(index, answer)?;
        if let Some(pod) = deleted {
            self.pods.remove(&pod);
            let removed = self.members[index].call(move |site| site.remove_namespace(&pod.to_string()));
            removed.map_err(refused)?;
        }
        Ok(())
    }

    /// Starts pods that became ready; an action that was refused is the World's failure.
    fn done(&mut self, index: usize, answer: Answer) -> Result<(), SetupError> {
        let member = &self.members[index];
        if let Some(why) = answer.refused.first() {
            return Err(SetupError::Refused(format!("{}: {why}", member.name)));
        }
        if answer.made.iter().any(|device| device == VXLAN_DEVICE) {
            member.call(|_| set_offloads_off(VXLAN_DEVICE)).map_err(refused)?;
        }
        for endpoint in answer.ready {
            let pod = member.call(move |site| site.agent.pod_of(endpoint).cloned());
            let known = pod.and_then(|key| Some((self.pods.get_mut(&key)?, self.cluster.pods().get(&key)?)));
            if let Some((pod, info)) = known {
                pod.start(&info.ports).map_err(refused)?;
            }
        }
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<(), SetupError> {
        let steps = match change {
            Change::Apply(paths) => {
                let objects = load(paths, &self.ignore_kinds)?;
                self.cluster.apply(&objects).map_err(SetupError::from)?
            }
            Change::Delete(paths) => {
                let objects = load(paths, &self.ignore_kinds)?;
                self.cluster.delete(&objects).map_err(SetupError::from)?
            }
            Change::Relabel { object: Labelled::Pod(pod), labels } => {
                self.cluster.relabel(&pod_key(pod)?, labels).map_err(SetupError::from)?
            }
            Change::Relabel { object: Labelled::Namespace(namespace), .. } => {
                let why = format!("namespace {namespace}: relabel is for pods; apply its manifest anew");
                return Err(SetupError::Refused(why));
            }
            Change::RestartAgent { node } => return self.restart(node),
            Change::Fault(_) => {
                return Err(SetupError::Refused("this kernel has no faults to offer".to_owned()));
            }
        };
        self.tell(steps)
    }

    fn restart(&mut self, node: &str) -> Result<(), SetupError> {
        let index = self.index_of(node)?;
        let answer = self.members[index].call(member::Site::restart).map_err(refused)?;
        self.done(index, answer)?;
        for step in self.cluster.replay(node) {
            let event = match step {
                Step::Broadcast(change) => Event::Resource(change),
                Step::Kubelet { request, .. } => Event::Endpoint(request),
            };
            self.event(index, event)?;
        }
        Ok(())
    }

    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError> {
        let from = pod_key(stimulus.from())?;
        let to = match stimulus {
            Stimulus::Http { to, .. }
            | Stimulus::Connect { to, .. }
            | Stimulus::Udp { to, .. }
            | Stimulus::Ping { to, .. } => Some(self.address(to)?),
            Stimulus::Send { .. } => None,
        };
        let gone = || SetupError::Refused(format!("pod {from} has not started"));
        let (pod, info) =
            (self.pods.get(&from).ok_or_else(gone)?, self.cluster.pods().get(&from).ok_or_else(gone)?);
        let (mark, since) = (self.log.len(), monotonic_ns());
        let flow = traffic::start(&pod.netns, info.ip, stimulus, to, until).map_err(refused)?;
        self.flows.push(Carried { from: from.to_string(), flow, mark, times: Vec::new() });
        let number = self.flows.len() - 1;
        self.carry(number, until, since)?;
        Ok(FlowId(number as u32))
    }

    fn resume(&mut self, id: FlowId, until: Until) -> Result<Evidence, SetupError> {
        let number = id.0 as usize;
        if number >= self.flows.len() {
            return Err(SetupError::Refused(format!("flow {} was not started", id.0)));
        }
        if until == Until::Done {
            self.flows[number].flow.release();
        }
        if until != Until::Time(Duration::ZERO) {
            self.carry(number, until, monotonic_ns())?;
        }
        Ok(self.evidence(number))
    }

    /// Lets time pass until the flow is as far as asked.
    fn carry(&mut self, number: usize, until: Until, since: u64) -> Result<(), SetupError> {
        match until {
            Until::Time(time) => std::thread::sleep(time),
            Until::Quiet(quiet) => self.until_quiet(quiet, Duration::MAX),
            Until::Done | Until::Established | Until::Bytes(_) => self.flows[number].flow.wait(until),
        }
        self.flows[number].times.push((since, u64::MAX));
        if self.flows[number].flow.outcome().ended {
            self.settle();
            self.until_ended(number)?;
        }
        if let Some(time) = self.flows[number].times.last_mut() {
            time.1 = monotonic_ns();
        }
        let wrong = self.log.complaints();
        if wrong.is_empty() { Ok(()) } else { Err(SetupError::InvariantBroken(wrong.join("\n"))) }
    }

    fn settle(&self) {
        self.until_quiet(QUIET, LINGER);
    }

    /// Lets time pass until nothing was seen for `quiet`, at the most `limit`.
    fn until_quiet(&self, quiet: Duration, limit: Duration) {
        let begun = Instant::now();
        let (mut seen, mut moved) = (self.log.len(), begun);
        while moved.elapsed() < quiet && begun.elapsed() < limit {
            std::thread::sleep(LOOK);
            let now = self.log.len();
            if now > seen {
                (seen, moved) = (now, Instant::now());
            }
        }
    }

    /// Lets time pass until every packet of a flow has an end, at the most [`NEIGHBOUR`].
    fn until_ended(&self, number: usize) -> Result<(), SetupError> {
        let begun = Instant::now();
        let own = self.own_addresses();
        while begun.elapsed() < NEIGHBOUR {
            let (nodes, carried) = (self.words(), &self.flows[number]);
            if !evidence::in_flight(carried, &self.reader(&nodes), &self.log.since(carried.mark), &own) {
                return Ok(());
            }
            std::thread::sleep(QUIET);
        }
        Ok(())
    }

    /// The addresses of nodes: what reaches them ends in their stack.
    fn own_addresses(&self) -> Vec<IpAddr> {
        self.cluster.nodes().values().flat_map(|n| [n.address, n.router()]).map(IpAddr::V4).collect()
    }

    fn reader<'a>(&self, nodes: &'a [Words]) -> Reader<'a> {
        let (tunnel_port, endpoint_routes) = (self.network.tunnel_port, self.network.endpoint_routes);
        Reader { nodes, tunnel_port, endpoint_routes, start_ns: self.start_ns }
    }

    /// What is needed to put records into words, with all records taken in.
    fn words(&self) -> Vec<Words> {
        let mut nodes = Vec::new();
        for member in &self.members {
            let (agent, devices) = member.call(|site| {
                site.drain();
                (site.agent.clone(), site.device_names())
            });
            nodes.push(Words { name: member.name.clone(), agent, devices, uplink: UPLINK.to_owned() });
        }
        nodes
    }

    fn evidence(&self, number: usize) -> Evidence {
        let (nodes, carried) = (self.words(), &self.flows[number]);
        evidence::of_flow(carried, &self.reader(&nodes), &self.log.since(carried.mark), &self.own_addresses())
    }

    fn address(&self, target: &Target) -> Result<Ipv4Addr, SetupError> {
        match target {
            Target::Address(IpAddr::V4(ip)) => Ok(*ip),
            Target::Address(IpAddr::V6(ip)) => {
                Err(SetupError::Refused(format!("{ip}: there is only IPv4 here")))
            }
            Target::Pod(pod) => {
                let key = pod_key(pod)?;
                let pod = self.cluster.pods().get(&key);
                pod.map(|p| p.ip).ok_or_else(|| SetupError::Refused(format!("pod {key} does not exist")))
            }
        }
    }

    fn inspect(&self, query: &Query) -> Result<Snapshot, SetupError> {
        let member = |node: &str| self.index_of(node).map(|i| &self.members[i]);
        Ok(match query {
            Query::Objects => Snapshot::Objects(BTreeMap::new()),
            Query::Nodes => Snapshot::Nodes(self.cluster.nodes().keys().cloned().collect()),
            Query::Metrics { node } => {
                Snapshot::Metrics(member(node)?.call(|s| s.metrics()).map_err(refused)?)
            }
            Query::Conntrack { node } => {
                let now_s = monotonic_ns() / 1_000_000_000;
                Snapshot::Conntrack(member(node)?.call(move |s| s.conntrack(now_s)).map_err(refused)?)
            }
            Query::Policy { pod } => {
                let info = self.cluster.pods().get(&pod_key(pod)?).filter(|p| !p.host_network);
                let info = info.ok_or_else(|| SetupError::Refused(format!("pod {pod} has no endpoint")))?;
                let map = model::policy_map_name(info.endpoint);
                Snapshot::Policy(member(&info.node)?.call(move |s| s.policy(&map)).map_err(refused)?)
            }
            Query::Ipcache { node } => {
                Snapshot::Ipcache(member(node)?.call(|s| s.ipcache()).map_err(refused)?)
            }
            Query::Endpoints { node } => {
                let here = |p: &&PodInfo| p.node == *node && !p.host_network;
                let pods: Vec<PodInfo> = self.cluster.pods().values().filter(here).cloned().collect();
                Snapshot::Endpoints(member(node)?.call(move |s| inspect::endpoints(s, &pods)))
            }
            Query::Map { node, name } => {
                let wanted = name.clone();
                let map = member(node)?.call(move |s| s.bytes(&wanted)).map_err(refused)?;
                Snapshot::Map(
                    map.ok_or_else(|| SetupError::Refused(format!("node {node} has no map {name}")))?,
                )
            }
        })
    }
}

impl Pod {
    /// Opens the pod's ports, once it may start.
    fn start(&mut self, ports: &[skep_agent_core::ContainerPort]) -> Result<(), Error> {
        if self.has_started() {
            return Ok(());
        }
        self.netns
            .within(|| fabric::keep_neighbours(POD_DEVICE).and_then(|()| set_offloads_off(POD_DEVICE)))??;
        self.serve(ports)
    }
}
