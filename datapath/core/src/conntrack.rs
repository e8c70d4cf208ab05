//! Conntrack's transitions: a new entry, an entry after one more packet, what a look-up found.
//!
//! Knows `CtEntry` as a value. Does not know the map, nor the clock: `now` is an argument, in seconds of the
//! monotonic clock. Nothing here reads an entry's lifetime: an expired one still matches until the agent deletes it.
//! Transitions and numbers are those of Cilium 1.17 (`bpf/lib/conntrack.h`).

use skep_abi::map::{CT_REPORT_INTERVAL, CtEntry, CtStatus, ct_flag, ct_lifetime};

use crate::tuple::tcp;
use crate::{Direction, protocol};

/// What conntrack learns from one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The transport protocol.
    pub proto: u8,
    /// The TCP flags, 0 for all else.
    pub tcp_flags: u8,
    /// Whether the packet comes to the endpoint or leaves it.
    pub dir: Direction,
    /// Seconds of the monotonic clock.
    pub now: u32,
}

/// What two look-ups found: of the entry that the packet answers, and of the one whose way it goes.
///
/// The second need not have been made if the first found something.
#[inline(always)]
pub const fn status(answered: bool, followed: bool, related: bool) -> CtStatus {
    match (answered || followed, related) {
        (false, _) => CtStatus::New,
        (true, true) => CtStatus::Related,
        (true, false) if answered => CtStatus::Reply,
        (true, false) => CtStatus::Established,
    }
}

/// Whether a policy is asked: established is no bypass.
#[inline(always)]
pub const fn asks_policy(status: CtStatus) -> bool {
    matches!(status, CtStatus::New | CtStatus::Established)
}

/// The entry that a packet makes; `bytes` is the packet's length, `src_sec_id` its source's identity.
#[inline(always)]
pub const fn created(seen: &Seen, src_sec_id: u32, bytes: u32) -> CtEntry {
    let entry = CtEntry {
        reserved0: 0,
        backend_id: 0,
        packets: 1,
        bytes: bytes as u64,
        lifetime: 0,
        flags: 0,
        rev_nat_index: 0,
        nat_port: skep_abi::Be16::from_bits(0),
        tx_flags_seen: 0,
        rx_flags_seen: 0,
        src_sec_id,
        last_tx_report: 0,
        last_rx_report: 0,
    };
    // In the middle of a stream there is no SYN; the entry begins as if there had been one, and lives on if more
    // than that is seen.
    let flags = if seen.proto == protocol::TCP { seen.tcp_flags | tcp::SYN } else { seen.tcp_flags };
    prolonged(entry, &Seen { proto: seen.proto, tcp_flags: flags, dir: seen.dir, now: seen.now })
}

/// The entry for error messages about the connection of `entry`.
#[inline(always)]
pub const fn created_for_errors(entry: CtEntry) -> CtEntry {
    let mut entry = entry;
    // There is no SYN in ICMP.
    entry.flags |= ct_flag::SEEN_NON_SYN;
    entry
}

/// The entry after one more packet. `packets` and `bytes` are left alone: the map counts them atomically.
#[inline(always)]
pub const fn updated(entry: CtEntry, seen: &Seen) -> CtEntry {
    let mut entry = if is_alive(&entry) { prolonged(entry, seen) } else { entry };
    if seen.proto != protocol::TCP {
        return entry;
    }
    if seen.tcp_flags & (tcp::FIN | tcp::RST) != 0 {
        if seen.tcp_flags & tcp::RST != 0 && !both_syns_seen(&entry) {
            // Reset before it began: nobody will close the other half.
            entry.flags |= ct_flag::RX_CLOSING | ct_flag::TX_CLOSING;
        } else {
            entry.flags |= match seen.dir {
                Direction::Ingress => ct_flag::RX_CLOSING,
                Direction::Egress => ct_flag::TX_CLOSING,
            };
        }
        if !is_alive(&entry) {
            entry = expiring(entry, ct_lifetime::CLOSE, seen);
        }
    } else if seen.tcp_flags & tcp::SYN != 0 && is_closing(&entry) {
        // The ports are used anew while the old connection closes.
        entry.flags &= !(ct_flag::RX_CLOSING | ct_flag::TX_CLOSING | ct_flag::SEEN_NON_SYN);
        entry.tx_flags_seen = 0;
        entry.rx_flags_seen = 0;
        entry = prolonged(entry, seen);
    }
    entry
}

/// Whether one end may still send.
#[inline(always)]
pub const fn is_alive(entry: &CtEntry) -> bool {
    const BOTH: u16 = ct_flag::RX_CLOSING | ct_flag::TX_CLOSING;
    entry.flags & BOTH != BOTH
}

/// Whether one end has closed.
#[inline(always)]
pub const fn is_closing(entry: &CtEntry) -> bool {
    entry.flags & (ct_flag::RX_CLOSING | ct_flag::TX_CLOSING) != 0
}

#[inline(always)]
const fn both_syns_seen(entry: &CtEntry) -> bool {
    entry.rx_flags_seen & entry.tx_flags_seen & tcp::SYN != 0
}

/// The entry with the lifetime that its state gives it.
#[inline(always)]
const fn prolonged(entry: CtEntry, seen: &Seen) -> CtEntry {
    let mut entry = entry;
    let lifetime = if seen.proto == protocol::TCP {
        if seen.tcp_flags & tcp::SYN == 0 {
            entry.flags |= ct_flag::SEEN_NON_SYN;
        }
        if entry.flags & ct_flag::SEEN_NON_SYN != 0 { ct_lifetime::TCP } else { ct_lifetime::SYN }
    } else {
        ct_lifetime::ANY
    };
    expiring(entry, lifetime, seen)
}

/// The entry with an end in `lifetime` seconds, and what was seen noted for its direction.
#[inline(always)]
const fn expiring(entry: CtEntry, lifetime: u32, seen: &Seen) -> CtEntry {
    let mut entry = entry;
    entry.lifetime = seen.now.wrapping_add(lifetime);
    match seen.dir {
        Direction::Ingress => {
            let flags = entry.rx_flags_seen | seen.tcp_flags;
            if is_reported(entry.last_rx_report, entry.rx_flags_seen, flags, seen.now) {
                entry.rx_flags_seen = flags;
                entry.last_rx_report = seen.now;
            }
        }
        Direction::Egress => {
            let flags = entry.tx_flags_seen | seen.tcp_flags;
            if is_reported(entry.last_tx_report, entry.tx_flags_seen, flags, seen.now) {
                entry.tx_flags_seen = flags;
                entry.last_tx_report = seen.now;
            }
        }
    }
    entry
}

/// Whether a packet is one to report: it shows new flags, or the last report is a while ago.
#[inline(always)]
const fn is_reported(last: u32, before: u8, after: u8, now: u32) -> bool {
    last.wrapping_add(CT_REPORT_INTERVAL) < now || before != after
}

#[cfg(test)]
#[path = "conntrack_tests.rs"]
mod tests;
