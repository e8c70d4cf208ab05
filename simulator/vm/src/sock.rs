//! Sockets of a simulated kernel, as far as programs see them.
//!
//! Knows `struct bpf_sock` and `struct bpf_tcp_sock`, and how `bpf_sk_lookup_*` finds a socket by its addresses. Knows no
//! protocol: whoever owns the kernel says which sockets there are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::arena::Arena;
use crate::context::{put16, put32, put64};

/// A socket of one [`crate::Kernel`]; also its cookie, unless [`Socket::cookie`] says another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub(crate) u64);

impl SocketId {
    /// The number: a key of `sk_storage` and the value that a sockmap gives. The first of a kernel is 1.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// `SOCK_STREAM`
const STREAM: u32 = 1;
/// `TCP_LISTEN`
pub(crate) const LISTEN: u32 = 10;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// A socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// `SOCK_*`: 1 is a stream, 2 datagrams.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// Its own address; unspecified and 0 where not bound. Says the family.
    pub local: SocketAddr,
    /// Whom it is connected to.
    pub remote: Option<SocketAddr>,
    /// `TCP_*`; of what is not TCP 1 if connected, else 7.
    pub state: u32,
    /// The device that it is bound to; 0 for any.
    pub bound_dev_if: u32,
    /// `SO_MARK`.
    pub mark: u32,
    /// `SO_PRIORITY`.
    pub priority: u32,
    /// The receive queue; -1 for none.
    pub rx_queue_mapping: i32,
    /// `bpf_get_socket_cookie`; 0 stands for the socket's number.
    pub cookie: u64,
    /// `bpf_get_netns_cookie`.
    pub netns_cookie: u64,
    /// Who owns it (`bpf_get_socket_uid`).
    pub uid: u32,
    /// `bpf_sock_ops_cb_flags`.
    pub cb_flags: u32,
    /// The fields of `struct bpf_tcp_sock`, by name; what is left out is 0.
    pub tcp: BTreeMap<&'static str, u64>,
    /// Options by level and name, as `getsockopt` gives them.
    pub options: BTreeMap<(i32, i32), Vec<u8>>,
}

impl Default for Socket {
    fn default() -> Self {
        Self {
            kind: STREAM,
            protocol: 6,
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            remote: None,
            state: 7,
            bound_dev_if: 0,
            mark: 0,
            priority: 0,
            rx_queue_mapping: -1,
            cookie: 0,
            netns_cookie: 1,
            uid: 0,
            cb_flags: 0,
            tcp: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }
}

/// Bytes of `struct bpf_sock`.
pub(crate) const SOCK_SIZE: usize = 80;
/// Bytes of `struct bpf_tcp_sock`, and where each field stands and how long it is.
pub(crate) const TCP_SIZE: usize = 112;
pub(crate) const TCP_FIELDS: &[(&str, usize, usize)] = &[
    ("snd_cwnd", 0, 4),
    ("srtt_us", 4, 4),
    ("rtt_min", 8, 4),
    ("snd_ssthresh", 12, 4),
    ("rcv_nxt", 16, 4),
    ("snd_nxt", 20, 4),
    ("snd_una", 24, 4),
    ("mss_cache", 28, 4),
    ("ecn_flags", 32, 4),
    ("rate_delivered", 36, 4),
    ("rate_interval_us", 40, 4),
    ("packets_out", 44, 4),
    ("retrans_out", 48, 4),
    ("total_retrans", 52, 4),
    ("segs_in", 56, 4),
    ("data_segs_in", 60, 4),
    ("segs_out", 64, 4),
    ("data_segs_out", 68, 4),
    ("lost_out", 72, 4),
    ("sacked_out", 76, 4),
    ("bytes_received", 80, 8),
    ("bytes_acked", 88, 8),
    ("dsack_dups", 96, 4),
    ("delivered", 100, 4),
    ("delivered_ce", 104, 4),
    ("icsk_retransmits", 108, 4),
];
const BLOCK: usize = SOCK_SIZE + TCP_SIZE;

/// The four bytes of an IPv4 address, or the 16 of an IPv6 one.
pub(crate) fn octets(address: IpAddr) -> ([u8; 4], [u8; 16]) {
    match address {
        IpAddr::V4(a) => (a.octets(), [0; 16]),
        IpAddr::V6(a) => ([0; 4], a.octets()),
    }
}

impl Socket {
    /// `AF_INET` or `AF_INET6`.
    pub fn family(&self) -> u32 {
        if self.local.is_ipv4() { AF_INET } else { AF_INET6 }
    }

    pub(crate) fn write(&self, place: &mut [u8]) {
        let (src4, src6) = octets(self.local.ip());
        let remote = self.remote.map(|r| (octets(r.ip()), r.port()));
        let ((dst4, dst6), dst_port) = remote.unwrap_or_default();
        put32(place, 0, self.bound_dev_if);
        put32(place, 4, self.family());
        put32(place, 8, self.kind);
        put32(place, 12, self.protocol);
        put32(place, 16, self.mark);
        put32(place, 20, self.priority);
        place[24..28].copy_from_slice(&src4);
        place[28..44].copy_from_slice(&src6);
        put32(place, 44, u32::from(self.local.port()));
        put16(place, 48, dst_port.to_be());
        place[52..56].copy_from_slice(&dst4);
        place[56..72].copy_from_slice(&dst6);
        put32(place, 72, self.state);
        put32(place, 76, self.rx_queue_mapping as u32);
        for (name, at, size) in TCP_FIELDS {
            let value = self.tcp.get(name).copied().unwrap_or(0);
            match size {
                4 => put32(place, SOCK_SIZE + at, value as u32),
                _ => put64(place, SOCK_SIZE + at, value),
            }
        }
    }
}

/// The sockets of a kernel, each with a place in the arena.
#[derive(Default)]
pub(crate) struct Sockets {
    all: BTreeMap<u64, (Socket, usize)>,
    last: u64,
}

impl Sockets {
    pub(crate) fn add(&mut self, socket: Socket, arena: &mut Arena) -> Option<SocketId> {
        let at = arena.alloc(BLOCK)?;
        socket.write(arena.slice_mut(at, BLOCK));
        self.last += 1;
        self.all.insert(self.last, (socket, at));
        Some(SocketId(self.last))
    }

    pub(crate) fn remove(&mut self, id: SocketId, arena: &mut Arena) -> Option<Socket> {
        let (socket, at) = self.all.remove(&id.0)?;
        arena.free(at, BLOCK);
        Some(socket)
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.all.get(&id.0).map(|(s, _)| s)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.all.get_mut(&id.0).map(|(s, _)| s)
    }

    /// Where its `struct bpf_sock` stands.
    pub(crate) fn place(&self, id: SocketId) -> Option<usize> {
        self.all.get(&id.0).map(|(_, at)| *at)
    }

    /// Writes what helpers changed.
    pub(crate) fn refresh(&self, id: SocketId, arena: &mut Arena) {
        if let Some((socket, at)) = self.all.get(&id.0) {
            socket.write(arena.slice_mut(*at, BLOCK));
        }
    }

    /// The socket whose `struct bpf_sock` or `struct bpf_tcp_sock` stands here.
    pub(crate) fn at(&self, place: usize) -> Option<SocketId> {
        let here = |(_, (_, at)): &(&u64, &(Socket, usize))| *at == place || *at + SOCK_SIZE == place;
        self.all.iter().find(here).map(|(id, _)| SocketId(*id))
    }

    /// As `inet_lookup`: a connected socket of exactly these addresses, else the bound one that fits best: its address
    /// before any address, its device before any device.
    pub(crate) fn lookup(
        &self,
        protocol: u32,
        source: SocketAddr,
        destination: SocketAddr,
        ifindex: u32,
    ) -> Option<SocketId> {
        let device = |s: &Socket| s.bound_dev_if == 0 || s.bound_dev_if == ifindex;
        let of = || self.all.iter().filter(|(_, (s, _))| s.protocol == protocol && device(s));
        let connected =
            of().find(|(_, (s, _))| s.local == destination && s.remote == Some(source) && s.state != LISTEN);
        let score = |s: &Socket| {
            let open = s.remote.is_none() && (protocol != 6 || s.state == LISTEN);
            let any = s.local.ip().is_unspecified();
            let fits = open
                && s.local.port() == destination.port()
                && (any && s.local.is_ipv4() == destination.is_ipv4() || s.local.ip() == destination.ip());
            fits.then_some((!any, s.bound_dev_if != 0))
        };
        let bound =
            || of().filter_map(|e| Some((score(&e.1.0)?, e))).max_by_key(|(s, e)| (*s, u64::MAX - e.0));
        connected.or_else(|| bound().map(|(_, e)| e)).map(|(id, _)| SocketId(*id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_most_exact_socket_is_found() {
        let mut arena = Arena::new(0);
        let mut sockets = Sockets::default();
        let mut add = |local, remote: Option<&str>, state| {
            let remote = remote.map(at);
            sockets.add(Socket { local: at(local), remote, state, ..Socket::default() }, &mut arena).unwrap()
        };
        let any = add("0.0.0.0:80", None, LISTEN);
        let own = add("10.0.0.1:80", None, LISTEN);
        let connected = add("10.0.0.1:80", Some("10.0.0.2:5000"), 1);
        let find = |s: &str, d: &str| sockets.lookup(6, at(s), at(d), 1);
        assert_eq!(find("10.0.0.2:5000", "10.0.0.1:80"), Some(connected));
        assert_eq!(find("10.0.0.2:5001", "10.0.0.1:80"), Some(own));
        assert_eq!(find("10.0.0.2:5001", "10.0.0.9:80"), Some(any));
        assert_eq!(find("10.0.0.2:5001", "10.0.0.9:81"), None);
        assert_eq!(find("[::1]:5001", "[::1]:80"), None);
    }
}
