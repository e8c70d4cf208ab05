//! What was seen on all nodes: the datapath's events, and frames at the pods' devices.
//!
//! Knows how a frame is told from others. Does not know flows.

use skep_abi::event::Event;
use skep_scenario::Fact;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One thing that was seen.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub(super) time_ns: u64,
    /// At which node, by number.
    pub(super) node: usize,
    /// Orders what one node saw at one time.
    pub(super) sequence: u64,
    /// What.
    pub(super) what: What,
}

/// What was seen. Frames are cut to their first bytes; `len` is their whole length.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A program told of a packet.
    Event { cpu: u32, event: Event, policy: Option<Fact>, bytes: Vec<u8>, len: usize },
    /// A pod's device sent or received a frame.
    Frame { pod: String, device: &'static str, outgoing: bool, bytes: Vec<u8>, len: usize },
    /// A stack dropped a packet; `bytes` begin with the IP header.
    Dropped { pod: Option<String>, ifindex: u32, reason: String, bytes: Vec<u8>, len: usize },
}

/// All records of a run, and what went wrong with recording.
#[derive(Default)]
pub(super) struct Log {
    records: Mutex<Vec<Record>>,
    complaints: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    pub(super) fn add(&self, record: Record) {
        lock(&self.records).push(record);
    }

    pub(super) fn complain(&self, what: String) {
        lock(&self.complaints).push(what);
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.records).len()
    }

    /// The records from a mark on, in the order of time.
    pub(super) fn since(&self, mark: usize) -> Vec<Record> {
        let mut all = lock(&self.records).get(mark..).unwrap_or_default().to_vec();
        all.sort_by_key(|r| (r.time_ns, r.node, r.sequence));
        all
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.complaints))
    }
}

/// A frame of which the first bytes are known, with zeros for the rest, so that its headers can be parsed.
pub(super) fn whole(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut all = bytes.to_vec();
    all.resize(len.max(bytes.len()), 0);
    all
}

/// What tells a packet from others and stays as it is on its way, but for what translates or answers it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// An IPv4 packet: addresses, protocol, identification, total length, fragment, and the part of the transport
    /// header that names it.
    Ip(Vec<u8>),
    /// An ARP packet: operation, who asks or answers, and who is asked for or answered.
    Arp { operation: u16, sender: [u8; 4], target: [u8; 4] },
    /// The copy that a host gives to itself of an IPv4 packet that it sends to many.
    Copy(Vec<u8>),
    /// Something else.
    Other(Vec<u8>),
}

/// EtherTypes.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const ETHERNET: usize = 14;
const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;

impl Key {
    /// Of a frame; of one in a VXLAN packet, the inner one.
    pub(super) fn ethernet(bytes: &[u8], tunnel_port: u16) -> Self {
        let word = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        let four = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
        match word(12) {
            IPV4 => Self::ip(bytes.get(ETHERNET..).unwrap_or_default(), tunnel_port),
            ARP => Self::Arp { operation: word(20), sender: four(28), target: four(38) },
            _ => Self::Other(bytes.iter().take(64).copied().collect()),
        }
    }

    /// Of an IP packet.
    pub(super) fn ip(bytes: &[u8], tunnel_port: u16) -> Self {
        let header = usize::from(bytes.first().copied().unwrap_or(0) & 15) * 4;
        let (Some(ip), Some(rest)) = (bytes.get(..20), bytes.get(header..)) else {
            return Self::Other(bytes.to_vec());
        };
        let protocol = ip[9];
        let port = rest.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
        if protocol == 17 && tunnel_port != 0 && port == tunnel_port {
            return Self::ethernet(rest.get(UDP_HEADER + VXLAN_HEADER..).unwrap_or_default(), 0);
        }
        let mut key = [&ip[12..20], &ip[2..8], &[protocol]].concat();
        // Checksums are left out: they may be filled in on the way.
        let named: &[(usize, usize)] = match protocol {
            6 => &[(0, 14)],
            17 => &[(0, 6)],
            1 => &[(0, 2), (4, 8)],
            _ => &[(0, 4)],
        };
        for (from, to) in named {
            key.extend(rest.get(*from..*to).unwrap_or_default());
        }
        Self::Ip(key)
    }

    /// Of an IP packet that the stack of a pod has dropped. What goes to many can only be the pod's own copy there.
    pub(super) fn dropped_by_pod(bytes: &[u8], tunnel_port: u16) -> Self {
        let many = bytes.get(16..20).is_some_and(|d| d[0] >> 4 == 14 || d == [255; 4]);
        match Self::ip(bytes, tunnel_port) {
            Self::Ip(key) if many => Self::Copy(key),
            key => key,
        }
    }

    /// The key of the request that an ARP answer answers.
    pub(super) fn asked(&self) -> Option<Self> {
        match self {
            Self::Arp { operation: 2, sender, target } => {
                Some(Self::Arp { operation: 1, sender: *target, target: *sender })
            }
            _ => None,
        }
    }
}
