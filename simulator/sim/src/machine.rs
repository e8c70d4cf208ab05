//! The nodes of a run and the net's [`Hooks`]: a hook runs the vm, an observation is recorded, a timer wakes an agent.
//!
//! Knows which node is which and who is to be told. Does not know flows or scenarios.

use crate::capture::Capture;
use crate::control::{DELAY_NS, Mail, Message, SKEW_NS};
use crate::facts::{Scene, tells_drop};
use crate::node::{Hands, Host, Objects};
use crate::recorder::{HookRun, Recorder};
use skep_abi::event::Event as DatapathEvent;
use skep_agent_core::{
    Action, Agent, Config, ContainerPort, Event, PodKey, Protocol, Request, Step, Time, drive, start,
};
use skep_net::{Accountant, Direction, HookAt, Hooks, Net, NsId, Random, Record, TimerId, Verdict, What};
use skep_packet::SkBuff;
use skep_scenario::FrameView;
use skep_vm::{Environment, MapId, RedirectKind, Run};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// TC_ACT_* numbers (`linux/pkt_cls.h`).
mod tc {
    pub(super) const UNSPEC: i32 = -1;
    pub(super) const OK: i32 = 0;
    pub(super) const SHOT: i32 = 2;
    pub(super) const STOLEN: i32 = 4;
    pub(super) const REDIRECT: i32 = 7;
}

/// `BPF_F_INGRESS` of `bpf_redirect`.
const BPF_F_INGRESS: u64 = 1;

/// A node: its kernel and its agent.
pub(crate) struct Member {
    pub host: Host,
    pub agent: Agent,
    /// When its own timer is due, and what takes it back.
    timer: Option<(u64, TimerId, u64)>,
}

/// All nodes, and what was seen of them.
pub(crate) struct Machine {
    pub members: Vec<Member>,
    pub recorder: Recorder,
    pub accountant: Accountant,
    pub capture: Option<Capture>,
    objects: Objects,
    mail: Mail,
    /// Ports of a pod's containers, by pod: what listens once the pod may start.
    ports: BTreeMap<PodKey, Vec<ContainerPort>>,
    started: BTreeMap<PodKey, NsId>,
    tunnel_port: u16,
    start_ns: u64,
    /// What the net's next record of a hook is about.
    last: Option<HookRun>,
    /// What went wrong in a way that no input may cause.
    pub broken: Vec<String>,
    /// Actions that a node refused.
    pub refused: Vec<String>,
}

impl Machine {
    pub(crate) fn new(objects: Objects, capture: bool, tunnel_port: u16, start_ns: u64) -> Self {
        Self {
            members: Vec::new(),
            recorder: Recorder::default(),
            accountant: Accountant::new(),
            capture: capture.then(Capture::default),
            objects,
            mail: Mail::default(),
            ports: BTreeMap::new(),
            started: BTreeMap::new(),
            tunnel_port,
            start_ns,
            last: None,
            broken: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Adds a node whose agent begins now.
    pub(crate) fn add(&mut self, net: &mut Net, host: Host, config: Config) {
        let index = self.members.len();
        self.members.push(Member { host, agent: Agent::new(config), timer: None });
        self.post(net, index, 0, Message::Start);
    }

    /// A new agent in place of a node's old one; the datapath stays. `steps` are told to it alone.
    pub(crate) fn restart(&mut self, net: &mut Net, index: usize, config: Config, steps: Vec<Step>) {
        self.members[index].agent = Agent::new(config);
        self.post(net, index, 0, Message::Start);
        for step in steps {
            let event = match step {
                Step::Broadcast(change) => Event::Resource(change),
                Step::Kubelet { request, .. } => Event::Endpoint(request),
            };
            self.post(net, index, DELAY_NS, Message::Event(event));
        }
    }

    /// Tells the agents, each after its own delay.
    pub(crate) fn tell(&mut self, net: &mut Net, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Broadcast(change) => {
                    for index in 0..self.members.len() {
                        let delay = DELAY_NS + index as u64 * SKEW_NS;
                        self.post(net, index, delay, Message::Event(Event::Resource(change.clone())));
                    }
                }
                Step::Kubelet { node, request } => {
                    if let Some(index) = self.index_of(&node) {
                        let delay = DELAY_NS + index as u64 * SKEW_NS;
                        self.post(net, index, delay, Message::Event(Event::Endpoint(request)));
                    }
                }
            }
        }
    }

    /// What a pod listens at once it may start.
    pub(crate) fn set_ports(&mut self, pod: PodKey, ports: Vec<ContainerPort>) {
        self.ports.insert(pod, ports);
    }

    /// The namespace of a pod that has started.
    pub(crate) fn namespace(&self, pod: &PodKey) -> Option<NsId> {
        self.started.get(pod).copied()
    }

    /// Whether the control plane still has something to tell.
    pub(crate) fn is_busy(&self) -> bool {
        self.mail.is_busy()
    }

    pub(crate) fn index_of(&self, node: &str) -> Option<usize> {
        self.members.iter().position(|m| m.host.name == node)
    }

    fn post(&mut self, net: &mut Net, index: usize, delay_ns: u64, message: Message) {
        let token = self.mail.post(index, message);
        net.set_timer(net.now_ns() + delay_ns, token);
    }

    /// Lets an agent handle an event with the node's hands, and starts pods that became ready.
    fn handle(&mut self, net: &mut Net, index: usize, message: Message) {
        let now = Time::from_nanos(net.now_ns());
        let Member { host, agent, .. } = &mut self.members[index];
        if let Message::Event(Event::Endpoint(Request::Add(request))) = &message
            && let Err(e) = host.add_namespace(net, &request.netns)
        {
            self.refused.push(format!("{}: {}: {e}", host.name, request.pod));
        }
        let deleted = match &message {
            Message::Event(Event::Endpoint(Request::Delete { endpoint })) => agent.pod_of(*endpoint).cloned(),
            _ => None,
        };
        let mut hands = Hands { net, host, objects: &self.objects };
        let performed = match message {
            Message::Start => start(agent, &mut hands, now),
            Message::Tick => drive(agent, &mut hands, now, Event::Tick),
            Message::Event(event) => drive(agent, &mut hands, now, event),
        };
        for done in &performed {
            match (&done.action, &done.result) {
                (action, Err(e)) => self.refused.push(format!("{}: {action:?}: {e}", host.name)),
                (Action::EndpointReady { endpoint }, Ok(_)) => {
                    // A new agent says it again of pods that run since long.
                    if let Some(pod) = agent.pod_of(*endpoint).filter(|p| !self.started.contains_key(*p)) {
                        let ports = self.ports.get(pod).map_or(&[][..], Vec::as_slice);
                        match begin_pod(net, host, pod, ports) {
                            Ok(ns) => {
                                self.started.insert(pod.clone(), ns);
                            }
                            Err(e) => self.refused.push(format!("{}: pod {pod}: {e}", host.name)),
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(pod) = deleted {
            self.started.remove(&pod);
            host.remove_namespace(net, &pod.to_string());
        }
        self.wind(net, index);
    }

    /// Sets the timer that the agent wants, and takes back the one that it wanted before.
    fn wind(&mut self, net: &mut Net, index: usize) {
        let wanted = self.members[index].agent.next_timer().map(Time::as_nanos);
        if self.members[index].timer.map(|(at, ..)| at) == wanted {
            return;
        }
        if let Some((_, timer, token)) = self.members[index].timer.take() {
            net.cancel_timer(timer);
            self.mail.take(token);
        }
        if let Some(at) = wanted {
            let token = self.mail.post(index, Message::Tick);
            self.members[index].timer = Some((at, net.set_timer(at, token), token));
        }
    }

    fn capture(&mut self, at: &HookAt, programs: &HookRun, before: &[u8], verdict: &str) {
        let Some(capture) = &mut self.capture else { return };
        let host = &self.members[at.node.0 as usize].host;
        let way = match at.direction {
            Direction::Ingress => "tc ingress",
            Direction::Egress => "tc egress",
        };
        let program = programs.programs.first().map_or("?", |p| p.program.as_str());
        let interface = format!("{} {} {way} {program}", host.name, host.device_name(at.ifindex));
        let time = std::time::Duration::from_nanos(at.now_ns - self.start_ns);
        let dropped = programs.programs.iter().find_map(|p| p.dropped.as_ref().map(|r| (p, r)));
        let comment = match dropped {
            Some((p, reason)) => format!("{}: dropped, {reason}", p.program),
            None => format!("{program}: {verdict}"),
        };
        capture.add(&interface, time, before, comment);
    }
}

/// Starts a pod's stack with what its containers listen at: HTTP at TCP ports, an echo at UDP ports.
fn begin_pod(
    net: &mut Net,
    host: &Host,
    pod: &PodKey,
    ports: &[ContainerPort],
) -> Result<NsId, skep_net::NetError> {
    let name = pod.to_string();
    let ns = host
        .namespace(&name)
        .ok_or_else(|| skep_net::NetError::NotFound(format!("the namespace of {name}")))?;
    net.attach_stack(ns, &name)?;
    for port in ports {
        let served = match port.protocol {
            Protocol::Tcp => net.serve_http(ns, port.port),
            Protocol::Udp => net.serve_udp_echo(ns, port.port),
            Protocol::Sctp => Ok(()),
        };
        match served {
            // Two containers may declare the same port; one of them has it.
            Ok(()) | Err(skep_net::NetError::PortTaken(_)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(ns)
}

/// The world of one run of a program.
struct Moment<'a> {
    now_ns: u64,
    random: &'a mut Random,
    events: Vec<DatapathEvent>,
    unreadable: usize,
}

impl Environment for Moment<'_> {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn random_u32(&mut self) -> u32 {
        self.random.next_u32()
    }

    fn emit(&mut self, _: MapId, event: &[u8], _: &[u8]) {
        match DatapathEvent::from_bytes(event) {
            Some(event) => self.events.push(event),
            None => self.unreadable += 1,
        }
    }
}

/// Who a frame is from and to: of ARP, who asks and who is asked for.
fn ends(view: &FrameView) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
    let v4 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    match (view.tuple, view.arp) {
        (Some(tuple), _) => (v4(tuple.src), v4(tuple.dst)),
        (None, Some(arp)) => (Some(arp.sender), Some(arp.target)),
        (None, None) => (None, None),
    }
}

/// What the kernel's tc layer makes of a run.
fn verdict_of(run: &Run) -> Result<Verdict, String> {
    Ok(match (run.return_value, run.redirect) {
        (tc::UNSPEC, _) => Verdict::Unspec,
        (tc::OK, _) => Verdict::Ok,
        (tc::SHOT, _) => Verdict::Shot,
        (tc::STOLEN, _) => Verdict::Stolen,
        (tc::REDIRECT, Some(r)) => match r.kind {
            RedirectKind::Device => {
                Verdict::Redirect { ifindex: r.ifindex, ingress: r.flags & BPF_F_INGRESS != 0 }
            }
            RedirectKind::Peer => Verdict::RedirectPeer { ifindex: r.ifindex },
            RedirectKind::Neighbour { next_hop } => {
                Verdict::RedirectNeigh { ifindex: r.ifindex, via: next_hop.map(Into::into) }
            }
            RedirectKind::Map { .. } | RedirectKind::Socket(_) => {
                return Err("a redirect to a map or socket, which no tc program can make".to_owned());
            }
        },
        (tc::REDIRECT, None) => return Err("TC_ACT_REDIRECT without a redirect".to_owned()),
        (other, _) => return Err(format!("return value {other} is no TC_ACT")),
    })
}

impl Hooks for Machine {
    fn run(&mut self, at: &HookAt, skb: &mut SkBuff, random: &mut Random) -> Verdict {
        let Member { host, agent, .. } = &mut self.members[at.node.0 as usize];
        let Some(program) = host.program(at.hook) else {
            self.broken.push(format!("{}: no program is attached as {:?}", host.name, at.hook));
            return Verdict::Shot;
        };
        let (bytes, tunnel) = (skb.bytes().to_vec(), skb.tunnel);
        let before = FrameView::ethernet(&bytes, self.tunnel_port);
        let mut moment = Moment { now_ns: at.now_ns, random, events: Vec::new(), unreadable: 0 };
        let outcome = host.kernel.run(program, skb, &mut moment);
        let Moment { events, unreadable, .. } = moment;
        let run = match outcome {
            Ok(run) => run,
            Err(fault) => {
                self.broken.push(format!("{}: {fault}", host.name));
                return Verdict::Shot;
            }
        };
        if unreadable > 0 {
            self.broken.push(format!("{}: {unreadable} events of an unknown layout", host.name));
        }
        let verdict = verdict_of(&run).unwrap_or_else(|why| {
            self.broken.push(format!("{}: {why}", host.name));
            Verdict::Shot
        });
        if verdict == Verdict::Shot && !tells_drop(&events) {
            let name = host.kernel.program_name(program).unwrap_or("?").to_owned();
            self.broken.push(format!("{}: {name} dropped a packet without an event", host.name));
        }
        let (source, destination) = ends(&before);
        let scene = Scene {
            host,
            agent,
            run: &run,
            events: &events,
            source,
            destination,
            tunnel: [tunnel, skb.tunnel],
            now_s: at.now_ns / 1_000_000_000,
        };
        let ran = HookRun { before, programs: scene.programs() };
        if self.capture.is_some() {
            let text = match verdict {
                Verdict::Redirect { ifindex, ingress } => {
                    let way = if ingress { "ingress" } else { "egress" };
                    format!(
                        "redirect to {way} of {}",
                        self.members[at.node.0 as usize].host.device_name(ifindex)
                    )
                }
                other => format!("{other:?}").to_lowercase(),
            };
            self.capture(at, &ran, &bytes, &text);
        }
        self.last = Some(ran);
        verdict
    }

    fn observe(&mut self, record: &Record, frame: &SkBuff) {
        self.accountant.feed(record);
        let hook = if matches!(record.what, What::Hook { .. }) { self.last.take() } else { None };
        let view = FrameView::ethernet(frame.bytes(), self.tunnel_port);
        self.recorder.add(record.clone(), view, hook);
    }

    fn timer(&mut self, net: &mut Net, token: u64) {
        if let Some((index, message)) = self.mail.take(token) {
            if matches!(message, Message::Tick) {
                self.members[index].timer = None;
            }
            self.handle(net, index, message);
        }
    }
}
