//! The events that programs write to `skep_events`: Cilium 1.17's DropNotify, TraceNotify and PolicyVerdictNotify.
//!
//! Each is followed by the first `len_cap` bytes of the packet.

use crate::pod::pod;
use crate::{Be16, DropReason, map::CtStatus};

/// In [`DropNotify::kind`].
pub const NOTIFY_DROP: u8 = 1;
/// In [`TraceNotify::kind`].
pub const NOTIFY_TRACE: u8 = 4;
/// In [`PolicyVerdictNotify::kind`].
pub const NOTIFY_POLICY_VERDICT: u8 = 5;

/// The version of all three layouts.
pub const NOTIFY_VERSION: u8 = 1;

/// How many bytes of the packet follow an event at the most (Cilium's `TRACE_PAYLOAD_LEN`).
pub const PAYLOAD_LEN: u32 = 128;

pod! {
    /// A packet was dropped.
    pub struct DropNotify [36] {
        /// [`NOTIFY_DROP`].
        0 kind: u8,
        /// The [`DropReason`]'s number.
        1 subtype: u8,
        /// The endpoint of the program, or 0.
        2 source: u16,
        /// The packet's hash.
        4 hash: u32,
        /// Bytes of the packet.
        8 len_orig: u32,
        /// Bytes that follow.
        12 len_cap: u16,
        /// [`NOTIFY_VERSION`].
        14 version: u8,
        /// Zero.
        15 ext_version: u8,
        /// The source's identity, or 0.
        16 src_label: u32,
        /// The destination's identity, or 0.
        20 dst_label: u32,
        /// The destination's endpoint, or 0.
        24 dst_id: u32,
        /// Zero: skep names the reason, not the source line.
        28 line: u16,
        /// Zero.
        30 file: u8,
        /// Zero.
        31 ext_error: i8,
        /// The device on which the program ran.
        32 ifindex: u32,
    }
}

pod! {
    /// A packet was seen at an observation point, or forwarded from it.
    pub struct TraceNotify [48] {
        /// [`NOTIFY_TRACE`].
        0 kind: u8,
        /// The [`TracePoint`]'s number.
        1 subtype: u8,
        /// The endpoint of the program, or 0.
        2 source: u16,
        /// The packet's hash.
        4 hash: u32,
        /// Bytes of the packet.
        8 len_orig: u32,
        /// Bytes that follow.
        12 len_cap: u16,
        /// [`NOTIFY_VERSION`].
        14 version: u8,
        /// Zero.
        15 ext_version: u8,
        /// The source's identity, or 0.
        16 src_label: u32,
        /// The destination's identity, or 0.
        20 dst_label: u32,
        /// The destination's endpoint, or 0.
        24 dst_id: u16,
        /// A [`CtStatus`]'s number, or [`TRACE_REASON_UNKNOWN`].
        26 reason: u8,
        /// Zero: IPv4.
        27 flags: u8,
        /// The device that the packet goes to, or 0.
        28 ifindex: u32,
        /// Zero, or the address before translation.
        32 orig_ip: [u32; 4],
    }
}

/// In [`TraceNotify::reason`]: conntrack was not asked.
pub const TRACE_REASON_UNKNOWN: u8 = 5;

pod! {
    /// A policy decided about a packet that conntrack called new.
    pub struct PolicyVerdictNotify [32] {
        /// [`NOTIFY_POLICY_VERDICT`].
        0 kind: u8,
        /// Zero.
        1 subtype: u8,
        /// The endpoint whose policy decided.
        2 source: u16,
        /// The packet's hash.
        4 hash: u32,
        /// Bytes of the packet.
        8 len_orig: u32,
        /// Bytes that follow.
        12 len_cap: u16,
        /// [`NOTIFY_VERSION`].
        14 version: u8,
        /// Zero.
        15 ext_version: u8,
        /// The identity of the other end.
        16 remote_label: u32,
        /// 0 allowed, a proxy's port, or a [`DropReason`]'s number negated.
        20 verdict: i32,
        /// The destination port that the policy was asked for.
        24 dst_port: Be16,
        /// The protocol that the policy was asked for.
        26 proto: u8,
        /// Bits 0 and 1: METRIC_INGRESS or METRIC_EGRESS. Bit 2: IPv6. Bits 3 to 5: [`MatchType`].
        27 bits: u8,
        /// Zero.
        28 auth_type: u8,
        /// How many bits of protocol and port the matched key counts: what Cilium's event lacks to name the key.
        29 l4_prefix: u8,
        /// Zero.
        30 pad: u16,
    }
}

/// Which kind of key a policy decision matched (Cilium's `POLICY_MATCH_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MatchType {
    /// No key: the default decided.
    None = 0,
    /// Identity.
    L3Only = 1,
    /// Identity, protocol and port.
    L3L4 = 2,
    /// Protocol and port.
    L4Only = 3,
    /// The wildcard.
    All = 4,
    /// Identity and protocol.
    L3Proto = 5,
    /// Protocol.
    ProtoOnly = 6,
}

impl MatchType {
    /// The type of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::L3Only,
            2 => Self::L3L4,
            3 => Self::L4Only,
            4 => Self::All,
            5 => Self::L3Proto,
            6 => Self::ProtoOnly,
            _ => return None,
        })
    }

    /// The word that Cilium's monitor prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L3Only => "L3-Only",
            Self::L3L4 => "L3-L4",
            Self::L4Only => "L4-Only",
            Self::All => "all",
            Self::L3Proto => "L3-Proto",
            Self::ProtoOnly => "Proto-Only",
        }
    }

    /// Whether the matched key holds the identity of the other end, and not the wildcard.
    pub const fn has_identity(self) -> bool {
        matches!(self, Self::L3Only | Self::L3L4 | Self::L3Proto)
    }
}

impl PolicyVerdictNotify {
    /// [`Self::bits`] of an IPv4 verdict.
    #[inline(always)]
    pub const fn pack_bits(dir: u8, match_type: MatchType) -> u8 {
        (dir & 3) | (match_type as u8) << 3
    }

    /// METRIC_INGRESS or METRIC_EGRESS.
    pub const fn dir(&self) -> u8 {
        self.bits & 3
    }

    /// Which kind of key was matched.
    pub const fn match_type(&self) -> Option<MatchType> {
        MatchType::from_number(self.bits >> 3 & 7)
    }
}

macro_rules! trace_points {
    ($( $(#[doc = $doc:literal])+ $name:ident = $number:literal $text:literal, )*) => {
        /// Where a packet was seen (Hubble's `TraceObservationPoint`, Cilium's `trace_point`).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum TracePoint { $( $(#[doc = $doc])+ $name = $number, )* }

        impl TracePoint {
            /// All points.
            pub const ALL: &'static [TracePoint] = &[$( TracePoint::$name, )*];
            /// The name as Hubble prints it, such as `to-endpoint`.
            pub const fn name(self) -> &'static str {
                match self { $( TracePoint::$name => $text, )* }
            }
        }
    };
}

trace_points! {
    /// Delivered to a pod.
    ToLxc = 0 "to-endpoint",
    /// To the proxy.
    ToProxy = 1 "to-proxy",
    /// To the host.
    ToHost = 2 "to-host",
    /// Left to the network stack.
    ToStack = 3 "to-stack",
    /// Into the tunnel.
    ToOverlay = 4 "to-overlay",
    /// Came from a pod.
    FromLxc = 5 "from-endpoint",
    /// Came from the proxy.
    FromProxy = 6 "from-proxy",
    /// Came from the host.
    FromHost = 7 "from-host",
    /// Came from the network stack.
    FromStack = 8 "from-stack",
    /// Came out of the tunnel.
    FromOverlay = 9 "from-overlay",
    /// Came from the network.
    FromNetwork = 10 "from-network",
    /// To the network.
    ToNetwork = 11 "to-network",
}

impl TracePoint {
    /// The point of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| *p as u8 == number)
    }
}

/// An event as it was read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A packet was dropped.
    Drop(DropNotify),
    /// A packet was seen or forwarded.
    Trace(TraceNotify),
    /// A policy decided.
    PolicyVerdict(PolicyVerdictNotify),
}

impl Event {
    /// Reads an event; `None` if it is truncated or of another kind.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match *bytes.first()? {
            NOTIFY_DROP => DropNotify::from_bytes(bytes).map(Self::Drop),
            NOTIFY_TRACE => TraceNotify::from_bytes(bytes).map(Self::Trace),
            NOTIFY_POLICY_VERDICT => PolicyVerdictNotify::from_bytes(bytes).map(Self::PolicyVerdict),
            _ => None,
        }
    }
}

impl DropNotify {
    /// The reason.
    pub fn reason(&self) -> Option<DropReason> {
        DropReason::from_number(self.subtype)
    }
}

impl TraceNotify {
    /// The observation point.
    pub fn point(&self) -> Option<TracePoint> {
        TracePoint::from_number(self.subtype)
    }

    /// What conntrack said, if it was asked.
    pub fn ct_status(&self) -> Option<CtStatus> {
        CtStatus::from_number(self.reason)
    }
}

/// Where a value comes from that two runs of the same packet need not agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Volatile {
    /// The clock: compared as an offset from the start of the run.
    Clock,
    /// The kernel's flow hash: not compared.
    Hash,
}

/// A field that a comparison of two runs treats as [`Volatile`]: structure, offset, width in bytes, source.
///
/// Every other byte of every map value and event is compared exactly.
pub const VOLATILE: &[(&str, usize, usize, Volatile)] = &[
    ("CtEntry", 32, 4, Volatile::Clock),
    ("CtEntry", 48, 4, Volatile::Clock),
    ("CtEntry", 52, 4, Volatile::Clock),
    ("DropNotify", 4, 4, Volatile::Hash),
    ("TraceNotify", 4, 4, Volatile::Hash),
    ("PolicyVerdictNotify", 4, 4, Volatile::Hash),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_events_apart() {
        let drop = DropNotify { kind: NOTIFY_DROP, subtype: 133, ..Default::default() };
        assert_eq!(Event::from_bytes(&drop.to_bytes()), Some(Event::Drop(drop)));
        assert_eq!(drop.reason(), Some(DropReason::POLICY_DENIED));
        assert_eq!(Event::from_bytes(&drop.to_bytes()[..35]), None);
        assert_eq!(Event::from_bytes(&[9; 64]), None);
    }

    #[test]
    fn a_verdicts_bits_hold_direction_and_match() {
        let bits = PolicyVerdictNotify::pack_bits(2, MatchType::ProtoOnly);
        let v = PolicyVerdictNotify { bits, ..Default::default() };
        assert_eq!((v.dir(), v.match_type()), (2, Some(MatchType::ProtoOnly)));
    }
}
