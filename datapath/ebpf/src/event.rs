//! What every packet leaves behind: metrics and the three events.
//!
//! Knows layouts and when which counter moves. Does not know why a packet came here.

use skep_abi::event::{
    DropNotify, NOTIFY_DROP, NOTIFY_POLICY_VERDICT, NOTIFY_TRACE, NOTIFY_VERSION, PAYLOAD_LEN,
    PolicyVerdictNotify, TRACE_REASON_UNKNOWN, TraceNotify, TracePoint,
};
use skep_abi::map::{METRIC_EGRESS, METRIC_INGRESS, MetricsKey, MetricsValue};
use skep_abi::reason::{METRIC_FORWARDED, METRIC_PLAINTEXT};
use skep_abi::{Be16, DropReason};
use skep_core::Direction;
use skep_core::policy::Decision;

use crate::maps::{EVENTS, METRICS};
use crate::skb::Skb;
use crate::verdict;

/// Conntrack was not asked.
pub const NO_CT: u8 = TRACE_REASON_UNKNOWN;

/// Whom an event is about.
#[derive(Clone, Copy, Default)]
pub struct Ends {
    /// The endpoint of the program, or 0.
    pub source: u16,
    /// The source's identity, or 0.
    pub src: u32,
    /// The destination's identity, or 0.
    pub dst: u32,
    /// The destination's endpoint, or 0.
    pub dst_id: u16,
}

/// Counts a packet.
#[inline(never)]
pub fn count(skb: Skb, reason: u8, dir: u8) {
    let bytes = skb.len() as u64;
    let key = MetricsKey { reason, dir, line: 0, file: 0, reserved: [0; 3] };
    let p = METRICS.find(&key);
    if p.is_null() {
        // Another packet on this CPU cannot come in between; if the map is full the count is lost, not the packet.
        METRICS.set(&key, &MetricsValue { count: 1, bytes });
    } else {
        // SAFETY: not null, so a whole value, and this CPU's own.
        unsafe {
            (*p).count += 1;
            (*p).bytes += bytes;
        }
    }
}

/// Drops the packet; the value to return.
#[inline(never)]
pub fn drop(skb: Skb, reason: DropReason, dir: Direction, ends: &Ends) -> i32 {
    count(skb, reason.number(), dir.metric());
    let len = skb.len();
    let captured = captured(len);
    let event = DropNotify {
        kind: NOTIFY_DROP,
        subtype: reason.number(),
        source: ends.source,
        hash: skb.hash(),
        len_orig: len,
        len_cap: captured as u16,
        version: NOTIFY_VERSION,
        ext_version: 0,
        src_label: ends.src,
        dst_label: ends.dst,
        dst_id: ends.dst_id as u32,
        line: 0,
        file: 0,
        ext_error: 0,
        ifindex: skb.ifindex(),
    };
    EVENTS.output(skb, &event, captured);
    verdict::SHOT
}

/// Notes that the packet was seen or is forwarded, and counts it as Cilium does for that point.
///
/// `reason` is a `CtStatus`'s number or [`NO_CT`], `ifindex` the device that it goes to, or 0.
#[inline(always)]
pub fn trace(skb: Skb, point: TracePoint, ends: &Ends, reason: u8, ifindex: u32) {
    match point {
        TracePoint::ToLxc => count(skb, METRIC_FORWARDED, METRIC_INGRESS),
        TracePoint::ToHost | TracePoint::ToStack | TracePoint::ToOverlay | TracePoint::ToNetwork => {
            count(skb, METRIC_FORWARDED, METRIC_EGRESS);
        }
        TracePoint::FromHost | TracePoint::FromStack | TracePoint::FromOverlay | TracePoint::FromNetwork => {
            count(skb, METRIC_PLAINTEXT, METRIC_INGRESS);
        }
        TracePoint::FromLxc | TracePoint::FromProxy | TracePoint::ToProxy => {}
    }
    notice(skb, point, ends, reason, ifindex);
}

/// [`trace`] without a count, for a point at which another program has counted.
#[inline(never)]
pub fn notice(skb: Skb, point: TracePoint, ends: &Ends, reason: u8, ifindex: u32) {
    let len = skb.len();
    let captured = captured(len);
    let event = TraceNotify {
        kind: NOTIFY_TRACE,
        subtype: point as u8,
        source: ends.source,
        hash: skb.hash(),
        len_orig: len,
        len_cap: captured as u16,
        version: NOTIFY_VERSION,
        ext_version: 0,
        src_label: ends.src,
        dst_label: ends.dst,
        dst_id: ends.dst_id,
        reason,
        flags: 0,
        ifindex,
        orig_ip: [0; 4],
    };
    EVENTS.output(skb, &event, captured);
}

/// What a policy was asked.
#[derive(Clone, Copy)]
pub struct Question {
    /// The endpoint whose policy it is.
    pub endpoint: u16,
    /// The identity of the other end.
    pub remote: u32,
    /// Whether the packet comes to the endpoint or leaves it.
    pub dir: Direction,
    /// The transport protocol.
    pub proto: u8,
    /// The destination port; in ICMP 0.
    pub dport: Be16,
}

/// Reports a policy's decision.
#[inline(never)]
pub fn policy_verdict(skb: Skb, asked: &Question, decision: Decision) {
    let len = skb.len();
    let captured = captured(len);
    let event = PolicyVerdictNotify {
        kind: NOTIFY_POLICY_VERDICT,
        subtype: 0,
        source: asked.endpoint,
        hash: skb.hash(),
        len_orig: len,
        len_cap: captured as u16,
        version: NOTIFY_VERSION,
        ext_version: 0,
        remote_label: asked.remote,
        verdict: decision.code(),
        dst_port: asked.dport,
        proto: asked.proto,
        bits: PolicyVerdictNotify::pack_bits(asked.dir.metric(), decision.match_type),
        auth_type: 0,
        l4_prefix: decision.l4_prefix,
        pad: 0,
    };
    EVENTS.output(skb, &event, captured);
}

#[inline(always)]
fn captured(len: u32) -> u32 {
    if len < PAYLOAD_LEN { len } else { PAYLOAD_LEN }
}
