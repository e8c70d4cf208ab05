//! A World that plays back evidence, and the evidence of a SYN from pod to pod: for this crate's own tests.

use crate::error::SetupError;
use crate::evidence::{
    Class, Direction, EndpointFact, Evidence, Fact, HookPoint, Hop, HopKind, Identity, IpcacheFact, Outcome,
    Packets, PolicyDirection, Verdict, Walk,
};
use crate::frame::{FiveTuple, FrameView, MacAddr, OuterView};
use crate::snapshot::{ConntrackDirection, ConntrackEntry, Metric, Query, Snapshot};
use crate::world::{Capability, Change, ClusterSpec, FlowId, Offers, Stimulus, Until, World};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const NODES: [&str; 2] = ["ubuntu-dev2", "ubuntu-dev3"];

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

pub(crate) fn tuple() -> FiveTuple {
    FiveTuple { src: ip("10.42.1.80"), dst: ip("10.42.0.51"), protocol: 6, sport: 49152, dport: 80 }
}

fn curl() -> Identity {
    Identity { number: 256, text: "default/curl".into() }
}

fn httpbin() -> Identity {
    Identity { number: 257, text: "default/httpbin".into() }
}

fn frame(flags: u8, ttl: u8, macs: (u8, u8)) -> FrameView {
    FrameView {
        src_mac: Some(mac(macs.0)),
        dst_mac: Some(mac(macs.1)),
        tuple: Some(tuple()),
        ttl: Some(ttl),
        tcp_flags: Some(flags),
        len: 74,
        ..FrameView::default()
    }
}

fn outer() -> Option<OuterView> {
    Some(OuterView {
        src: ip("192.168.1.12"),
        dst: ip("192.168.1.13"),
        sport: 54321,
        dport: 8472,
        vni: 256,
        ttl: 64,
    })
}

fn program(hook: HookPoint, name: &str, chain: &[&str]) -> HopKind {
    let chain = chain.iter().map(|c| (*c).to_owned()).collect();
    HopKind::Hook { hook, program: name.into(), chain }
}

fn hop(time_us: u64, node: usize, device: &str, kind: HopKind, view: FrameView, verdict: Verdict) -> Hop {
    Hop {
        time_ns: time_us * 1000,
        node: NODES[node].into(),
        device: device.into(),
        kind,
        before: view.clone(),
        after: view,
        src_identity: None,
        dst_identity: None,
        verdict,
        facts: vec![],
    }
}

fn policy(direction: PolicyDirection, remote: Identity, allowed: bool, rule: &str) -> Fact {
    let match_type = if allowed { "L3-L4" } else { "none" };
    Fact::Policy {
        direction,
        remote,
        protocol: 6,
        port: 80,
        allowed,
        match_type: match_type.into(),
        rule: rule.into(),
    }
}

/// The SYN of the walkthrough; denied by ingress policy if `allowed` is not set.
pub(crate) fn syn(allowed: bool) -> Walk {
    let plain = frame(2, 64, (1, 2));
    let tunnelled = FrameView { outer: outer(), len: 124, ..frame(2, 63, (2, 3)) };
    let ct = |status: &str| Fact::Conntrack { status: status.into(), entry: None };

    let mut from_container = hop(
        204,
        0,
        "lxc0a2a0150",
        program(HookPoint::TcIngress, "from_container", &["tail_handle_ipv4", "tail_ipv4_ct_egress"]),
        plain.clone(),
        Verdict::Redirect { to: "skep_vxlan".into(), ingress: false },
    );
    from_container.src_identity = Some(curl());
    from_container.dst_identity = Some(httpbin());
    from_container.facts = vec![
        Fact::Ipcache {
            address: ip("10.42.0.51"),
            entry: Some(IpcacheFact { identity: httpbin(), tunnel_endpoint: Some(ip("192.168.1.13")) }),
        },
        ct("new"),
        policy(PolicyDirection::Egress, httpbin(), true, "no policy selects default/curl for egress"),
        Fact::Tunnel { vni: 256, remote: ip("192.168.1.13") },
    ];
    let mut encap = hop(206, 0, "skep_vxlan", HopKind::Encapsulate, frame(2, 63, (2, 3)), Verdict::Ok);
    encap.after = tunnelled.clone();
    let mut from_overlay = hop(
        310,
        1,
        "skep_vxlan",
        program(HookPoint::TcIngress, "from_overlay", &[]),
        frame(2, 63, (2, 3)),
        Verdict::TailCall { to: "handle_policy".into() },
    );
    from_overlay.src_identity = Some(curl());
    from_overlay.facts = vec![
        Fact::Tunnel { vni: 256, remote: ip("192.168.1.12") },
        Fact::Endpoint {
            address: ip("10.42.0.51"),
            entry: Some(EndpointFact { id: 7, ifindex: 12, mac: mac(5), node_mac: mac(4), host: false }),
        },
    ];
    let mut handle_policy = hop(
        310,
        1,
        "skep_vxlan",
        program(HookPoint::CallPolicy, "handle_policy", &["tail_ipv4_ct_ingress_policy_only"]),
        frame(2, 63, (2, 3)),
        match allowed {
            true => Verdict::Redirect { to: "lxc0a2a0033".into(), ingress: false },
            false => Verdict::Dropped { reason: "POLICY_DENIED".into() },
        },
    );
    handle_policy.src_identity = Some(curl());
    handle_policy.dst_identity = Some(httpbin());
    let rule = match allowed {
        true => "NetworkPolicy default/allow-curl ingress[0]",
        false => "default deny of NetworkPolicy default/deny-all",
    };
    handle_policy.facts = vec![ct("new"), policy(PolicyDirection::Ingress, curl(), allowed, rule)];
    if allowed {
        handle_policy.after = frame(2, 62, (4, 5));
    }
    let mut hops = vec![
        hop(203, 0, "default/curl:eth0", HopKind::Send, plain, Verdict::Ok),
        from_container,
        hop(
            205,
            0,
            "skep_vxlan",
            program(HookPoint::TcEgress, "to_overlay", &[]),
            frame(2, 63, (2, 3)),
            Verdict::Ok,
        ),
        encap,
        hop(207, 0, "eth0", program(HookPoint::TcEgress, "to_netdev", &[]), tunnelled.clone(), Verdict::Ok),
        hop(308, 1, "eth0", program(HookPoint::TcIngress, "from_netdev", &[]), tunnelled, Verdict::Ok),
        from_overlay,
        handle_policy,
    ];
    if allowed {
        hops.push(hop(
            311,
            1,
            "default/httpbin:eth0",
            HopKind::Deliver,
            frame(2, 62, (4, 5)),
            Verdict::Delivered,
        ));
    }
    Walk { direction: Direction::Forward, class: Class::Syn, packet: 1, hops }
}

/// A connection that came through, or that ingress policy denied.
pub(crate) fn evidence(allowed: bool) -> Evidence {
    Evidence {
        flow: tuple(),
        from: "default/curl".into(),
        walks: vec![syn(allowed)],
        outcome: Outcome {
            ended: true,
            completed: allowed,
            established: allowed,
            timed_out: !allowed,
            status: allowed.then_some(200),
            bytes: if allowed { 42 } else { 0 },
            ..Outcome::default()
        },
        packets: Packets { sent: 1, delivered: u64::from(allowed), replied: 0, received: 0 },
    }
}

pub(crate) fn conntrack_entry() -> ConntrackEntry {
    ConntrackEntry {
        protocol: 6,
        direction: ConntrackDirection::Out,
        src: ip("10.42.1.80"),
        dst: ip("10.42.0.51"),
        sport: 49152,
        dport: 80,
        expires_s: 60,
        packets: 1,
        bytes: 74,
        flags: vec!["SeenNonSyn".into()],
        src_identity: 256,
    }
}

/// Plays back the same evidence for every flow, and counts a drop a flow.
pub(crate) struct FakeWorld {
    pub(crate) offers: Vec<Capability>,
    pub(crate) allowed: bool,
    pub(crate) breaks: bool,
    pub(crate) calls: Vec<String>,
    flows: u32,
}

impl FakeWorld {
    pub(crate) fn new(allowed: bool) -> Self {
        Self { offers: Capability::ALL.to_vec(), allowed, breaks: false, calls: vec![], flows: 0 }
    }
}

impl World for FakeWorld {
    fn offers(&self) -> Offers {
        Offers { capabilities: self.offers.iter().copied().collect() }
    }

    fn build(&mut self, cluster: &ClusterSpec) -> Result<(), SetupError> {
        self.calls.push(format!("build seed {}", cluster.seed));
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<(), SetupError> {
        self.calls.push(format!("change {}", serde_json::to_string(change).unwrap()));
        Ok(())
    }

    fn start(&mut self, stimulus: &Stimulus, until: Until) -> Result<FlowId, SetupError> {
        if self.breaks {
            return Err(SetupError::InvariantBroken("frame 7 has no end".into()));
        }
        self.calls.push(format!("start {} {until:?}", stimulus.from()));
        self.flows += 1;
        Ok(FlowId(self.flows - 1))
    }

    fn resume(&mut self, flow: FlowId, until: Until) -> Result<Evidence, SetupError> {
        self.calls.push(format!("resume {} {until:?}", flow.0));
        Ok(evidence(self.allowed))
    }

    fn advance(&mut self, by: Duration) -> Result<(), SetupError> {
        self.calls.push(format!("advance {by:?}"));
        Ok(())
    }

    fn inspect(&mut self, query: &Query) -> Result<Snapshot, SetupError> {
        Ok(match query {
            Query::Objects => Snapshot::Objects(BTreeMap::from([("lxc".into(), "0f".repeat(32))])),
            Query::Nodes => Snapshot::Nodes(NODES.map(str::to_owned).to_vec()),
            Query::Metrics { node } if node == NODES[1] && !self.allowed => Snapshot::Metrics(vec![Metric {
                reason: "POLICY_DENIED".into(),
                direction: PolicyDirection::Ingress,
                packets: u64::from(self.flows),
                bytes: 74 * u64::from(self.flows),
            }]),
            Query::Metrics { .. } => Snapshot::Metrics(vec![]),
            Query::Conntrack { node } if node == NODES[0] => Snapshot::Conntrack(vec![conntrack_entry()]),
            Query::Conntrack { .. } => Snapshot::Conntrack(vec![]),
            Query::Endpoints { .. } => Snapshot::Endpoints(vec![]),
            other => return Err(SetupError::Refused(format!("{other:?}"))),
        })
    }
}
