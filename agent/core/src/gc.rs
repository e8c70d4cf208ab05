//! Conntrack's garbage collection: when, and what is expired. The sweep itself is the node's.
//!
//! The interval follows what a sweep found, by Cilium's rule (`pkg/maps/ctmap`, `GetInterval`): many expired entries
//! shorten it, few lengthen it.

use crate::action::Swept;
use skep_abi::map::{self, CtEntry};
use std::time::Duration;

/// From the agent's start to the first sweep.
pub const FIRST_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The shortest interval.
pub const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// The longest interval, for maps that evict by themselves.
pub const MAX_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

/// The maps that are swept.
pub const MAPS: [&map::MapSpec; 2] = [&map::CT4_GLOBAL, &map::CT_ANY4_GLOBAL];

/// Whether a sweep at `now_s` deletes an entry: its lifetime lies before.
///
/// `now_s` are seconds of the clock that programs read. Bytes that are no conntrack entry are expired.
pub fn expired(ct_entry: &[u8], now_s: u64) -> bool {
    CtEntry::from_bytes(ct_entry).is_none_or(|e| u64::from(e.lifetime) < now_s)
}

/// The interval to the next sweep after one that found this.
///
/// What counts is the largest share of a map's capacity that was deleted: above a quarter the interval shrinks by that
/// share (nine tenths at the most), below a twentieth it grows by half, and with nothing deleted it stays.
pub fn next_interval(previous: Duration, swept: &[Swept]) -> Duration {
    let ratio = swept
        .iter()
        .filter_map(|s| {
            let spec = map::by_name(&s.map)?;
            Some(s.deleted as f64 / f64::from(spec.max_entries.max(1)))
        })
        .fold(0.0, f64::max);
    let next = if ratio == 0.0 {
        previous
    } else if ratio > 0.25 {
        previous.mul_f64(1.0 - ratio.min(0.9))
    } else if ratio < 0.05 {
        previous.mul_f64(1.5)
    } else {
        previous
    };
    let rounded = Duration::from_secs((next.as_secs_f64()).round() as u64);
    rounded.clamp(MIN_INTERVAL, MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(deleted: u64) -> [Swept; 1] {
        [Swept { map: "skep_ct4_global".to_owned(), alive: 1, deleted }]
    }

    #[test]
    fn an_entry_expires_after_its_last_second() {
        let entry = CtEntry { lifetime: 100, ..Default::default() }.to_bytes();
        assert!(!expired(&entry, 99));
        assert!(!expired(&entry, 100));
        assert!(expired(&entry, 101));
        assert!(expired(&entry[..20], 0));
    }

    #[test]
    fn the_interval_follows_what_was_found() {
        let s = Duration::from_secs;
        assert_eq!(next_interval(s(300), &[]), s(300));
        assert_eq!(next_interval(s(300), &swept(0)), s(300));
        assert_eq!(next_interval(s(300), &swept(1)), s(450), "under a twentieth: half as much more");
        assert_eq!(next_interval(s(300), &swept(52_429)), s(300), "a tenth: stays");
        assert_eq!(next_interval(s(300), &swept(262_144)), s(150), "a half: half");
        assert_eq!(next_interval(s(300), &swept(524_288)), s(30), "all: a tenth");
        assert_eq!(next_interval(s(20), &swept(524_288)), MIN_INTERVAL);
        assert_eq!(next_interval(MAX_INTERVAL, &swept(1)), MAX_INTERVAL);
    }
}
