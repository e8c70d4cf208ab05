//! Conntrack: the two maps, asked and written as `skep_core::conntrack` decides.
//!
//! Knows which map holds which protocol and which fields of an entry a packet changes.

use aya_ebpf::helpers::generated as helper;
use skep_abi::DropReason;
use skep_abi::map::{CtEntry, CtStatus, CtTuple4};
use skep_core::conntrack::{self, Seen};
use skep_core::tuple::{self, Flow};
use skep_core::{Direction, protocol};

use crate::maps::{self, CT_ANY4_GLOBAL, CT4_GLOBAL};
use crate::skb::Skb;

/// What the maps know of the packet's connection; the entry that is found is updated.
#[inline(always)]
pub fn look_up(skb: Skb, flow: &Flow, dir: Direction) -> CtStatus {
    let seen = seen(flow, dir);
    let bytes = skb.len();
    let answered = found(&tuple::answering(flow, dir), &seen, bytes);
    let followed = !answered && found(&tuple::making(flow, dir), &seen, bytes);
    conntrack::status(answered, followed, flow.related)
}

/// Makes the entry of a packet that a policy allowed, and the one for error messages about it.
///
/// # Errors
/// CT_MAP_INSERTION_FAILED if the kernel refuses either.
#[inline(always)]
pub fn create(skb: Skb, flow: &Flow, dir: Direction, src_sec_id: u32) -> Result<(), DropReason> {
    let key = tuple::making(flow, dir);
    let entry = conntrack::created(&seen(flow, dir), src_sec_id, skb.len());
    let made = if flow.proto == protocol::TCP {
        CT4_GLOBAL.set(&key, &entry)
    } else {
        CT_ANY4_GLOBAL.set(&key, &entry)
    };
    if made && CT_ANY4_GLOBAL.set(&tuple::errors_about(key), &conntrack::created_for_errors(entry)) {
        Ok(())
    } else {
        Err(DropReason::CT_MAP_INSERTION_FAILED)
    }
}

#[inline(always)]
fn seen(flow: &Flow, dir: Direction) -> Seen {
    // SAFETY: the helper takes nothing.
    let ns = unsafe { helper::bpf_ktime_get_ns() };
    Seen { proto: flow.proto, tcp_flags: flow.tcp_flags, dir, now: (ns / 1_000_000_000) as u32 }
}

/// Whether there is an entry of `key`, which is then updated.
#[inline(never)]
fn found(key: &CtTuple4, seen: &Seen, bytes: u32) -> bool {
    let p = if seen.proto == protocol::TCP { CT4_GLOBAL.find(key) } else { CT_ANY4_GLOBAL.find(key) };
    if p.is_null() {
        return false;
    }
    // SAFETY: not null, so a whole value. Other CPUs may write to it, as in Cilium: the last one wins.
    unsafe {
        let before: CtEntry = p.read();
        let after = conntrack::updated(before, seen);
        (*p).lifetime = after.lifetime;
        (*p).flags = after.flags;
        match seen.dir {
            Direction::Ingress => {
                (*p).rx_flags_seen = after.rx_flags_seen;
                (*p).last_rx_report = after.last_rx_report;
            }
            Direction::Egress => {
                (*p).tx_flags_seen = after.tx_flags_seen;
                (*p).last_tx_report = after.last_tx_report;
            }
        }
        maps::add(&raw mut (*p).packets, 1);
        maps::add(&raw mut (*p).bytes, bytes as u64);
    }
    true
}
