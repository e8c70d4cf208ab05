//! Traffic that a namespace's applications make: what can be asked for and what became of it.

use std::net::Ipv4Addr;

/// An HTTP/1.1 GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRequest {
    /// The server.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// The Host header, and the origin part of the `url` that the server reports.
    pub host: String,
    /// The path with its query, beginning with a slash.
    pub path: String,
}

/// Where a TCP client stops and waits for [`Net::release`](crate::Net::release).
///
/// A held client does nothing: it sends no request and reads nothing, so that the receive window closes and the
/// server stops. Its kernel goes on: segments in flight arrive and are acknowledged, window probes are answered. The
/// time that it is held does not count towards its timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// When the connection is established, before anything is sent.
    Established,
    /// When it has read at least so many bytes of the body.
    Bytes(u64),
}

/// How a flow behaves; the default is what scenario steps ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowOptions {
    /// After how many nanoseconds it is given up; none: HTTP 3 s, connect 900 ms, UDP 1 s after the datagram, ping
    /// 1 s after the last request.
    pub timeout_ns: Option<u64>,
    /// Where it is held.
    pub hold: Option<Hold>,
    /// The source port; none: the next ephemeral one (32768 to 60999).
    pub source_port: Option<u16>,
    /// Between the requests of a ping, nanoseconds; none: 1 s.
    pub interval_ns: Option<u64>,
}

/// How a flow ended for the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has what it wanted: the whole response, a connection, an answer, all echo replies.
    Completed,
    /// A reset answered the SYN (ECONNREFUSED).
    Refused,
    /// A reset ended the established connection (ECONNRESET), or the server closed it too early.
    Reset,
    /// It was given up.
    TimedOut,
    /// An ICMP error ended it (EHOSTUNREACH, ECONNREFUSED for UDP).
    Unreachable {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// The namespace itself could not send: no route or a neighbour that does not answer.
    NoRoute,
}

/// Addresses of a flow as its client has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FiveTuple {
    /// IP protocol: 6, 17 or 1.
    pub protocol: u8,
    /// The client.
    pub source: Ipv4Addr,
    /// The client's port; ICMP: the identifier.
    pub source_port: u16,
    /// The server as the client addressed it.
    pub destination: Ipv4Addr,
    /// The server's port; ICMP: 0.
    pub destination_port: u16,
}

/// How far a flow is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowState {
    /// Its addresses.
    pub tuple: FiveTuple,
    /// Whether the TCP connection was established (now or before).
    pub established: bool,
    /// Whether it is held now.
    pub held: bool,
    /// Bytes read: HTTP of the body, UDP of the answer.
    pub bytes: u64,
    /// Requests sent: ping echo requests, else 1.
    pub sent: u32,
    /// Replies received: ping echo replies, UDP answers.
    pub received: u32,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The body, as far as it was read; at most its first 64 KiB.
    pub body: Vec<u8>,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

/// A flow as the network keeps it.
pub(crate) struct Flow {
    pub(crate) ns: crate::NsId,
    pub(crate) state: FlowState,
    pub(crate) hold: Option<Hold>,
    pub(crate) held_since_ns: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) kind: Kind,
    /// The last ICMP error that did not end it.
    pub(crate) error: Option<Outcome>,
}

/// What a flow has left to do outside of TCP.
pub(crate) enum Kind {
    Tcp,
    /// The datagram, until it is sent.
    Udp {
        payload: Option<Vec<u8>>,
    },
    Ping {
        count: u32,
        next_ns: u64,
        interval_ns: u64,
        timeout_ns: u64,
    },
}

impl Flow {
    /// When it has something to do by itself: its deadline, or its next echo request.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        if self.state.outcome.is_some() || self.state.held {
            return None;
        }
        match &self.kind {
            Kind::Udp { payload: Some(_) } => Some(0),
            Kind::Ping { count, next_ns, .. } if self.state.sent < *count => Some(*next_ns),
            _ => Some(self.deadline_ns),
        }
    }

    /// Ends it, unless it has ended.
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        self.state.held = false;
        self.state.outcome.get_or_insert(outcome);
    }
}
