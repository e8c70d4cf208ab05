//! Where the caller's programs meet the frames, and what they may answer.

use crate::{FrameId, IfIndex, Mac, Net, NodeId, NsId, Random, Record};
use skep_packet::SkBuff;
use std::net::Ipv4Addr;

/// A number that the caller chose for what it attached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HookId(pub u32);

/// Which way a frame passes a device: `Ingress` before the stack of the device's namespace, `Egress` before the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// tc ingress.
    Ingress,
    /// tc egress.
    Egress,
}

/// Where and when a hook runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HookAt {
    /// The node.
    pub node: NodeId,
    /// The namespace of the device.
    pub ns: NsId,
    /// The device.
    pub ifindex: IfIndex,
    /// Ingress or egress.
    pub direction: Direction,
    /// What was attached.
    pub hook: HookId,
    /// The clock, nanoseconds.
    pub now_ns: u64,
    /// The frame.
    pub frame: FrameId,
}

/// What a tc program answers (`TC_ACT_*`, with what `bpf_redirect*` asked for).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// TC_ACT_UNSPEC: no opinion; the frame goes on.
    Unspec,
    /// TC_ACT_OK: the frame goes on.
    Ok,
    /// TC_ACT_SHOT: dropped, SKB_DROP_REASON_TC_INGRESS or _EGRESS.
    Shot,
    /// TC_ACT_STOLEN: taken by the program.
    Stolen,
    /// `bpf_redirect`: to the egress of a device of the same namespace, or with `ingress` (BPF_F_INGRESS) as if it
    /// had been received there, through the backlog.
    Redirect {
        /// The target.
        ifindex: IfIndex,
        /// BPF_F_INGRESS.
        ingress: bool,
    },
    /// `bpf_redirect_peer`: into the namespace of the veth's other end, without its host side's egress hook and
    /// without the backlog. Only from ingress.
    RedirectPeer {
        /// The host side of the veth.
        ifindex: IfIndex,
    },
    /// `bpf_redirect_neigh`: to the egress of a device with the Ethernet header filled in from the neighbour table;
    /// no routing hop, so the TTL stays.
    RedirectNeigh {
        /// The target.
        ifindex: IfIndex,
        /// The next hop; none: the packet's destination is looked up in the routes.
        via: Option<Ipv4Addr>,
    },
}

/// The caller: programs, observer and timers. Each call that lets time pass takes one.
pub trait Hooks {
    /// Runs what is attached at a device. The frame is complete with its Ethernet header; `at.ifindex` is in
    /// `skb.ifindex` too. All that is random in the program must come from `random`.
    fn run(&mut self, at: &HookAt, skb: &mut SkBuff, random: &mut Random) -> Verdict;

    /// Is told everything that happens to a frame, in order, with the frame as it stands then. The record of a hook
    /// follows its run, with the frame as the program left it.
    fn observe(&mut self, record: &Record, frame: &SkBuff) {
        let _ = (record, frame);
    }

    /// A timer is due that [`Net::set_timer`] set with this token.
    fn timer(&mut self, net: &mut Net, token: u64) {
        let _ = (net, token);
    }
}

/// Nothing is attached, nobody listens.
impl Hooks for () {
    fn run(&mut self, _: &HookAt, _: &mut SkBuff, _: &mut Random) -> Verdict {
        Verdict::Unspec
    }
}

/// A hardware address as people write it: `02:00:0a:00:00:01`.
pub fn format_mac(mac: Mac) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
