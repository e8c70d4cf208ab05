//! Flows as scenarios name them: how each is started in the net, and when it has come as far as was asked.
//!
//! Does not know what the packets of a flow went through: that is [`crate::evidence`].

use skep_agent_core::PodKey;
use skep_net::{FlowId, FlowOptions, FlowState, FrameId, Hold, HttpRequest, Net, NetError, NsId};
use skep_scenario::world::{CONNECT_TIMEOUT, HTTP_TIMEOUT, PING_INTERVAL, SEND_SETTLE};
use skep_scenario::{FiveTuple, FrameView, Outcome, Stimulus, Until};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A flow that was started.
pub(crate) struct Flow {
    /// The pod that acts.
    pub from: PodKey,
    /// How it runs in the net.
    pub run: Running,
    /// How many entries the recorder had when it began.
    pub mark: usize,
    /// What it asked for.
    pub kind: Kind,
    /// Addresses of its first packet.
    pub tuple: FiveTuple,
}

/// What a flow is, as far as its outcome depends on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Other,
}

/// What of the net a flow is.
pub(crate) enum Running {
    /// Sockets of a pod.
    Sockets(FlowId),
    /// Packets as they were given, watched until `end_ns`.
    Packets { frames: Vec<FrameId>, end_ns: u64 },
}

/// Nanoseconds of a duration; the clock's end if it is beyond it.
pub(crate) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Starts a flow from a pod's namespace towards `to`.
pub(crate) fn start(
    net: &mut Net,
    ns: NsId,
    stimulus: &Stimulus,
    to: Option<Ipv4Addr>,
    until: Until,
) -> Result<(Running, Kind, FiveTuple), NetError> {
    let hold = match until {
        Until::Established => Some(Hold::Established),
        Until::Bytes(bytes) => Some(Hold::Bytes(bytes)),
        Until::Done | Until::Time(_) | Until::Quiet(_) => None,
    };
    let options =
        |timeout: Duration| FlowOptions { timeout_ns: Some(nanos(timeout)), hold, ..FlowOptions::default() };
    let address = || to.ok_or_else(|| NetError::Invalid("the flow has no destination".to_owned()));
    let (id, kind) = match stimulus {
        Stimulus::Http { port, path, .. } => {
            let address = address()?;
            let host = if *port == 80 { address.to_string() } else { format!("{address}:{port}") };
            let request = HttpRequest { address, port: *port, host, path: path.clone() };
            (net.start_http(ns, request, options(HTTP_TIMEOUT))?, Kind::Http)
        }
        Stimulus::Connect { port, .. } => {
            (net.start_connect(ns, address()?, *port, options(CONNECT_TIMEOUT))?, Kind::Other)
        }
        Stimulus::Udp { port, len, .. } => {
            let payload = vec![0; usize::from(*len)];
            (net.start_udp(ns, address()?, *port, &payload, options(SEND_SETTLE))?, Kind::Other)
        }
        Stimulus::Ping { count, .. } => {
            let options = FlowOptions { interval_ns: Some(nanos(PING_INTERVAL)), ..options(PING_INTERVAL) };
            (net.start_ping(ns, address()?, u32::from(*count), options)?, Kind::Other)
        }
        Stimulus::Send { packets, .. } => return send(net, ns, packets),
    };
    let tuple =
        net.flow(id).map(|f| tuple_of(&f.tuple)).ok_or_else(|| NetError::NotFound("the flow".to_owned()))?;
    Ok((Running::Sockets(id), kind, tuple))
}

fn send(net: &mut Net, ns: NsId, packets: &[Vec<u8>]) -> Result<(Running, Kind, FiveTuple), NetError> {
    let mut frames = Vec::new();
    for packet in packets {
        frames.push(net.send_ip(ns, packet)?);
    }
    let tuple = packets.first().and_then(|p| FrameView::ip(p).tuple).unwrap_or(FiveTuple {
        src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        protocol: 0,
        sport: 0,
        dport: 0,
    });
    let end_ns = net.now_ns().saturating_add(nanos(SEND_SETTLE));
    Ok((Running::Packets { frames, end_ns }, Kind::Other, tuple))
}

fn tuple_of(t: &skep_net::FiveTuple) -> FiveTuple {
    FiveTuple {
        src: IpAddr::V4(t.source),
        dst: IpAddr::V4(t.destination),
        protocol: t.protocol,
        sport: t.source_port,
        dport: t.destination_port,
    }
}

impl Flow {
    /// The flow's state in the net, if sockets carry it.
    pub(crate) fn state<'n>(&self, net: &'n Net) -> Option<&'n FlowState> {
        match self.run {
            Running::Sockets(id) => net.flow(id),
            Running::Packets { .. } => None,
        }
    }

    /// Whether nothing of it is to come.
    pub(crate) fn has_ended(&self, net: &Net) -> bool {
        match &self.run {
            Running::Sockets(_) => self.state(net).is_none_or(|f| f.outcome.is_some()),
            Running::Packets { end_ns, .. } => net.now_ns() >= *end_ns,
        }
    }

    /// Whether it has come as far as `until` says; times are for the caller.
    pub(crate) fn has_reached(&self, net: &Net, until: Until) -> bool {
        if self.has_ended(net) {
            return true;
        }
        let Some(state) = self.state(net) else { return false };
        match until {
            Until::Established => state.established,
            Until::Bytes(bytes) => state.bytes >= bytes,
            Until::Done | Until::Time(_) | Until::Quiet(_) => false,
        }
    }

    /// What the application saw. `delivered` says whether all packets of a `send` reached a stack.
    pub(crate) fn outcome(&self, net: &Net, delivered: bool) -> Outcome {
        use skep_net::Outcome as End;
        let Some(state) = self.state(net) else {
            let ended = self.has_ended(net);
            return Outcome { ended, completed: ended && delivered, ..Outcome::default() };
        };
        // Port unreachable, RFC 792: the datagram's refusal.
        const DESTINATION_UNREACHABLE: u8 = 3;
        const PORT_UNREACHABLE: u8 = 3;
        Outcome {
            ended: state.outcome.is_some(),
            completed: state.outcome == Some(End::Completed),
            established: state.established,
            refused: matches!(
                state.outcome,
                Some(
                    End::Refused | End::Unreachable { kind: DESTINATION_UNREACHABLE, code: PORT_UNREACHABLE }
                )
            ),
            timed_out: state.outcome == Some(End::TimedOut),
            status: state.status,
            bytes: state.bytes,
        }
    }
}
