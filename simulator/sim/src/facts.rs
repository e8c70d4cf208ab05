//! One run of the vm as hops of a trace: which programs ran, what they read and wrote, what they said.
//!
//! Each value comes from a map access or an event of that run. The agent is asked for words only: the pod behind an
//! identity, the rule behind a policy's verdict.

use crate::node::Host;
use skep_abi::event::{DropNotify, Event, PolicyVerdictNotify, TracePoint};
use skep_abi::map::{
    CALL_POLICY, CT_ANY4_GLOBAL, CT4_GLOBAL, CtEntry, CtTuple4, ENDPOINT_F_HOST, EndpointInfo, EndpointKey,
    FAMILY_IPV4, IPCACHE, IpcacheKey, LXC, METRIC_INGRESS, RemoteEndpointInfo,
};
use skep_agent_core::Agent;
use skep_packet::Tunnel;
use skep_scenario::evidence::{EndpointFact, IpcacheFact};
use skep_scenario::snapshot::ConntrackEntry;
use skep_scenario::{Fact, HookPoint, Identity, MacAddr};
use skep_vm::{Access, Op, Run};
use std::net::{IpAddr, Ipv4Addr};

/// The program that another endpoint's packets are handed to: a hop of its own.
pub(crate) const HANDLE_POLICY: &str = "handle_policy";

/// An entry program, or handle_policy, with the tail calls after it.
pub(crate) struct ProgramRun {
    pub program: String,
    /// Where it runs; none for an entry program, whose hook the net's record tells.
    pub point: Option<HookPoint>,
    pub chain: Vec<String>,
    pub facts: Vec<Fact>,
    pub src_identity: Option<Identity>,
    pub dst_identity: Option<Identity>,
    /// The reason, if it told that it dropped the packet.
    pub dropped: Option<String>,
    /// Whether it answered an ARP request.
    pub answered: bool,
}

/// What the machine knows of a run beside what the vm recorded.
pub(crate) struct Scene<'a> {
    pub host: &'a Host,
    pub agent: &'a Agent,
    pub run: &'a Run,
    pub events: &'a [Event],
    /// The packet's addresses, for the pods' names.
    pub source: Option<Ipv4Addr>,
    pub destination: Option<Ipv4Addr>,
    /// Tunnel metadata before and after the run.
    pub tunnel: [Option<Tunnel>; 2],
    pub now_s: u64,
}

impl Scene<'_> {
    /// The hops of the run, in order: never empty.
    pub(crate) fn programs(&self) -> Vec<ProgramRun> {
        let names: Vec<&str> =
            self.run.chain.iter().map(|p| self.host.kernel.program_name(*p).unwrap_or("?")).collect();
        let split = names.iter().skip(1).position(|n| *n == HANDLE_POLICY).map(|i| i + 1);
        let first = split.unwrap_or(names.len());
        let mut runs = vec![self.segment(&names, 0, first, split.is_none(), None)];
        if split.is_some() {
            runs.push(self.segment(&names, first, names.len(), true, Some(HookPoint::CallPolicy)));
        }
        runs
    }

    /// The programs from `from` to `to` of the chain as one hop; `last` if the chain ends with it.
    fn segment(
        &self,
        names: &[&str],
        from: usize,
        to: usize,
        last: bool,
        point: Option<HookPoint>,
    ) -> ProgramRun {
        let chain = &self.run.chain[from..to];
        let accesses = self.run.accesses.iter().filter(|a| chain.contains(&a.program));
        let events: Vec<&Event> = self
            .events
            .iter()
            .filter(|e| if belongs_to_policy(e) { last } else { point.is_none() })
            .collect();
        let mut hop = ProgramRun {
            program: names.get(from).copied().unwrap_or("?").to_owned(),
            point,
            chain: names[(from + 1).min(to)..to].iter().map(|n| (*n).to_owned()).collect(),
            facts: Vec::new(),
            src_identity: None,
            dst_identity: None,
            dropped: None,
            answered: false,
        };
        if point.is_none() {
            self.read_tunnel_before(&mut hop);
        }
        self.read_accesses(&mut hop, accesses, &events);
        for event in &events {
            self.read_event(&mut hop, event);
        }
        if last {
            self.read_tunnel_after(&mut hop);
        }
        if last {
            self.read_missed_tail_calls(&mut hop);
        }
        hop.answered = hop.dropped.is_none() && hop.chain.iter().any(|p| p == "tail_handle_arp");
        hop
    }

    /// The metadata that the packet came with.
    fn read_tunnel_before(&self, hop: &mut ProgramRun) {
        if let Some(tunnel) = self.tunnel[0] {
            hop.facts.push(tunnel_fact(tunnel));
            hop.src_identity = self.identity(tunnel.id, self.source);
        }
    }

    /// The metadata that the programs gave the packet.
    fn read_tunnel_after(&self, hop: &mut ProgramRun) {
        if let [before, Some(tunnel)] = self.tunnel
            && before != Some(tunnel)
        {
            hop.facts.push(tunnel_fact(tunnel));
        }
    }

    fn read_accesses<'a>(
        &self,
        hop: &mut ProgramRun,
        accesses: impl Iterator<Item = &'a Access>,
        events: &[&Event],
    ) {
        let mut conntrack = Conntrack::default();
        for access in accesses {
            let Some(map) = self.host.map_name(access.map) else { continue };
            if map == IPCACHE.name && access.op == Op::Lookup {
                self.read_ipcache(hop, access);
            } else if map == LXC.name && access.op == Op::Lookup {
                self.read_endpoint(hop, access);
            } else if map == CT4_GLOBAL.name || map == CT_ANY4_GLOBAL.name {
                conntrack.read(access, self.now_s);
            }
        }
        let told = events.iter().find_map(|e| match e {
            Event::Trace(t) => t.ct_status().map(|s| s.name()),
            _ => None,
        });
        // Conntrack is asked first.
        let at = hop.facts.iter().take_while(|f| matches!(f, Fact::Tunnel { .. })).count();
        if let Some(fact) = conntrack.fact(told) {
            hop.facts.insert(at, fact);
        }
    }

    fn read_endpoint(&self, hop: &mut ProgramRun, access: &Access) {
        let Some(key) = EndpointKey::from_bytes(&access.key).filter(|k| k.family == FAMILY_IPV4) else {
            return;
        };
        let address = Ipv4Addr::from(key.ip4.octets());
        let info = access.value.as_deref().and_then(EndpointInfo::from_bytes);
        if let Some(info) = info
            && Some(address) == self.destination
        {
            hop.dst_identity = self.identity(info.sec_id, self.destination);
        }
        let entry = info.map(|info| EndpointFact {
            id: info.lxc_id,
            ifindex: info.ifindex,
            mac: MacAddr(info.mac.octets()),
            node_mac: MacAddr(info.node_mac.octets()),
            host: info.flags & ENDPOINT_F_HOST != 0,
        });
        hop.facts.push(Fact::Endpoint { address: IpAddr::V4(address), entry });
    }

    fn read_ipcache(&self, hop: &mut ProgramRun, access: &Access) {
        let Some(key) = IpcacheKey::from_bytes(&access.key).filter(|k| k.family == FAMILY_IPV4) else {
            return;
        };
        let address = Ipv4Addr::from(key.ip4.octets());
        let entry = access.value.as_deref().and_then(RemoteEndpointInfo::from_bytes).map(|info| {
            let tunnel = Ipv4Addr::from(info.tunnel_endpoint.octets());
            IpcacheFact {
                identity: self.name(info.sec_identity, Some(address)),
                tunnel_endpoint: (!tunnel.is_unspecified()).then_some(IpAddr::V4(tunnel)),
            }
        });
        if let Some(entry) = &entry {
            let known = Some(entry.identity.clone());
            if Some(address) == self.destination {
                hop.dst_identity = known;
            } else if Some(address) == self.source {
                hop.src_identity = known;
            }
        }
        let fact = Fact::Ipcache { address: IpAddr::V4(address), entry };
        if !hop.facts.contains(&fact) {
            hop.facts.push(fact);
        }
    }

    fn read_event(&self, hop: &mut ProgramRun, event: &Event) {
        match event {
            Event::Drop(d) => {
                hop.dropped = Some(drop_name(d));
                self.know(hop, d.src_label, d.dst_label);
            }
            Event::Trace(t) => self.know(hop, t.src_label, t.dst_label),
            Event::PolicyVerdict(v) => hop.facts.push(self.policy_fact(v)),
        }
    }

    /// Takes the identities that an event tells; 0 tells nothing.
    fn know(&self, hop: &mut ProgramRun, source: u32, destination: u32) {
        if let Some(identity) = self.identity(source, self.source) {
            hop.src_identity = Some(identity);
        }
        if let Some(identity) = self.identity(destination, self.destination) {
            hop.dst_identity = Some(identity);
        }
    }

    fn policy_fact(&self, verdict: &PolicyVerdictNotify) -> Fact {
        let remote = if verdict.dir() == METRIC_INGRESS { self.source } else { self.destination };
        Fact::policy(verdict, self.name(verdict.remote_label, remote), self.agent.verdict_text(verdict))
    }

    fn read_missed_tail_calls(&self, hop: &mut ProgramRun) {
        for call in self.run.tail_calls.iter().filter(|c| c.target.is_none()) {
            let map = self.host.map_name(call.map).unwrap_or("skep_calls");
            let what = if map == CALL_POLICY.name { "endpoint" } else { "slot" };
            hop.facts.push(Fact::Note(format!("tail call missed: {map}, {what} {}", call.index)));
        }
    }

    /// An identity in words, if it is one.
    fn identity(&self, number: u32, ip: Option<Ipv4Addr>) -> Option<Identity> {
        (number != skep_abi::identity::UNKNOWN).then(|| self.name(number, ip))
    }

    fn name(&self, number: u32, ip: Option<Ipv4Addr>) -> Identity {
        identity(self.agent, number, ip)
    }
}

/// An identity in words.
pub(crate) fn identity(agent: &Agent, number: u32, ip: Option<Ipv4Addr>) -> Identity {
    Identity { number, text: agent.identity_name(number, ip) }
}

/// Whether an event is that of the policy program where a run has two hops: what is about ingress, and the end of the
/// way, a drop or the delivery.
fn belongs_to_policy(event: &Event) -> bool {
    match event {
        Event::Drop(_) => true,
        Event::Trace(t) => t.point() == Some(TracePoint::ToLxc),
        Event::PolicyVerdict(v) => v.dir() == METRIC_INGRESS,
    }
}

fn drop_name(drop: &DropNotify) -> String {
    drop.reason().map_or_else(|| format!("DROP_REASON_{}", drop.subtype), |r| r.name().to_owned())
}

fn tunnel_fact(tunnel: Tunnel) -> Fact {
    Fact::Tunnel { vni: tunnel.id, remote: IpAddr::V4(tunnel.remote.into()) }
}

/// What a program did with conntrack: the reverse direction is looked up first, the forward one second.
#[derive(Default)]
struct Conntrack {
    lookups: usize,
    found: Option<(&'static str, String)>,
    made: Option<String>,
}

impl Conntrack {
    fn read(&mut self, access: &Access, now_s: u64) {
        let Some(key) = CtTuple4::from_bytes(&access.key) else { return };
        let text = |value: Option<&[u8]>| {
            let entry = value.and_then(CtEntry::from_bytes).unwrap_or_default();
            ConntrackEntry::decode(&key, &entry, now_s).tuple()
        };
        match access.op {
            Op::Lookup => {
                self.lookups += 1;
                if let (Some(value), None) = (&access.value, &self.found) {
                    let status = if self.lookups == 1 { "reply" } else { "established" };
                    self.found = Some((status, text(Some(value))));
                }
            }
            Op::Update if access.result == 0 && access.before.is_none() && self.made.is_none() => {
                self.made = Some(text(access.value.as_deref()));
            }
            Op::Update | Op::Delete => {}
        }
    }

    /// `told` is the status that a TraceNotify carried.
    fn fact(self, told: Option<&str>) -> Option<Fact> {
        if self.lookups == 0 && self.made.is_none() {
            return None;
        }
        let seen = self.found.as_ref().map_or("new", |(status, _)| status);
        Some(Fact::Conntrack {
            status: told.unwrap_or(seen).to_owned(),
            entry: self.found.map(|(_, entry)| entry).or(self.made),
        })
    }
}

/// Whether an event tells of a drop.
pub(crate) fn tells_drop(events: &[Event]) -> bool {
    events.iter().any(|e| matches!(e, Event::Drop(_)))
}
