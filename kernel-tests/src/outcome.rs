//! What a run left behind, and in what two runs differ.
//!
//! Knows which fields come from the clock or the kernel's hash: `skep_abi::event::VOLATILE`, and nothing beyond it.

use skep_abi::event::{DropNotify, Event, PolicyVerdictNotify, TraceNotify, VOLATILE, Volatile};
use skep_abi::map::MetricsValue;
use std::collections::BTreeMap;

/// A map's entries by key; a per-CPU map's values summed, 64-bit word by word.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What of the context can be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// `mark`.
    pub mark: u32,
    /// `priority`.
    pub priority: u32,
    /// `ingress_ifindex`.
    pub ingress_ifindex: u32,
    /// `ifindex`.
    pub ifindex: u32,
    /// `cb`.
    pub cb: [u32; 5],
}

/// What a run left behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What the program returned.
    pub return_value: i32,
    /// The packet.
    pub packet: Vec<u8>,
    /// The context.
    pub context: Context,
    /// All maps that hold data, by name; policies as `skep_policy_v2_ID`.
    pub maps: BTreeMap<String, Entries>,
    /// The events in order, each followed by the bytes of the packet that it captured.
    pub events: Vec<Vec<u8>>,
    /// Seconds of the run's clock when it started.
    pub start_s: u32,
    /// The redirect, `(ifindex, flags)`, where the place that ran it can tell.
    pub redirect: Option<Option<(u32, u64)>>,
    /// The programs that ran, in order, where the place that ran it can tell.
    pub chain: Option<Vec<String>>,
}

/// Sums the values of all CPUs.
pub fn sum_cpus(values: &[Vec<u8>]) -> Vec<u8> {
    let word = |v: &[u8], i: usize| {
        v.chunks_exact(8).nth(i).map_or(0, |c| u64::from_le_bytes(c.try_into().unwrap_or_default()))
    };
    (0..MetricsValue::SIZE / 8)
        .flat_map(|i| values.iter().map(|v| word(v, i)).sum::<u64>().to_le_bytes())
        .collect()
}

/// How many bytes an event has, without what a ring pads it with.
pub fn event_len(raw: &[u8]) -> usize {
    let (size, captured) = match Event::from_bytes(raw) {
        Some(Event::Drop(e)) => (DropNotify::SIZE, e.len_cap),
        Some(Event::Trace(e)) => (TraceNotify::SIZE, e.len_cap),
        Some(Event::PolicyVerdict(e)) => (PolicyVerdictNotify::SIZE, e.len_cap),
        None => (raw.len(), 0),
    };
    (size + usize::from(captured)).min(raw.len())
}

/// Every difference between two runs of one row; none if they agree.
pub fn differences(a: &Outcome, b: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, x: &dyn std::fmt::Debug, y: &dyn std::fmt::Debug| {
        found.push(format!("{what}: {x:?} and {y:?}"));
    };
    if a.return_value != b.return_value {
        differ("return value", &a.return_value, &b.return_value);
    }
    if a.packet != b.packet {
        let at = a
            .packet
            .iter()
            .zip(&b.packet)
            .position(|(x, y)| x != y)
            .unwrap_or(a.packet.len().min(b.packet.len()));
        differ(&format!("packet from byte {at}"), &hex(&a.packet), &hex(&b.packet));
    }
    if a.context != b.context {
        differ("context", &a.context, &b.context);
    }
    let names: std::collections::BTreeSet<&String> = a.maps.keys().chain(b.maps.keys()).collect();
    for name in names {
        match (a.maps.get(name), b.maps.get(name)) {
            (Some(x), Some(y)) => map_differences(name, (x, a.start_s), (y, b.start_s), &mut found),
            _ => found.push(format!("{name}: there in one only")),
        }
    }
    event_differences(a, b, &mut found);
    found
}

fn map_differences(
    name: &str,
    (a, a_start): (&Entries, u32),
    (b, b_start): (&Entries, u32),
    found: &mut Vec<String>,
) {
    let keys: std::collections::BTreeSet<&Vec<u8>> = a.keys().chain(b.keys()).collect();
    let structure = if name.starts_with("skep_ct") { "CtEntry" } else { "" };
    for key in keys {
        match (a.get(key), b.get(key)) {
            (Some(x), Some(y)) if equal(structure, (x, a_start), (y, b_start)) => {}
            (x, y) => {
                let show = |v: Option<&Vec<u8>>| v.map_or_else(|| "absent".to_owned(), |v| hex(v));
                found.push(format!("{name}[{}]: {} and {}", hex(key), show(x), show(y)));
            }
        }
    }
}

fn event_differences(a: &Outcome, b: &Outcome, found: &mut Vec<String>) {
    if a.events.len() != b.events.len() {
        found.push(format!("events: {} and {}", a.events.len(), b.events.len()));
    }
    for (i, (x, y)) in a.events.iter().zip(&b.events).enumerate() {
        let structure = match Event::from_bytes(x) {
            Some(Event::Drop(_)) => "DropNotify",
            Some(Event::Trace(_)) => "TraceNotify",
            Some(Event::PolicyVerdict(_)) => "PolicyVerdictNotify",
            None => "",
        };
        if !equal(structure, (x, a.start_s), (y, b.start_s)) {
            found.push(format!(
                "event {i}: {:?} and {:?}; {} and {}",
                Event::from_bytes(x),
                Event::from_bytes(y),
                hex(x),
                hex(y)
            ));
        }
    }
}

/// A run takes less than this many seconds; two clocks may stand on both sides of a second's turn.
const CLOCK_TOLERANCE: u32 = 1;

/// Whether two values are equal but for what is volatile in them.
fn equal(structure: &str, (a, a_start): (&[u8], u32), (b, b_start): (&[u8], u32)) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    for (_, offset, width, source) in VOLATILE.iter().filter(|(s, ..)| *s == structure) {
        let field = *offset..*offset + *width;
        let (Some(x), Some(y)) = (read(&a, field.clone()), read(&b, field.clone())) else { return false };
        let agree = match source {
            Volatile::Hash => true,
            // 0 is "never", whatever the clock says.
            Volatile::Clock if x == 0 || y == 0 => x == y,
            Volatile::Clock => {
                let (x, y) = (x.wrapping_sub(a_start), y.wrapping_sub(b_start));
                x.wrapping_sub(y).min(y.wrapping_sub(x)) <= CLOCK_TOLERANCE
            }
        };
        if !agree {
            return false;
        }
        a[field.clone()].fill(0);
        b[field].fill(0);
    }
    a == b
}

fn read(bytes: &[u8], field: std::ops::Range<usize>) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(field)?.try_into().ok()?))
}

/// Moves the times in a conntrack entry from "since the start" to the run's clock; 0 stays 0.
pub fn started_at(value: &mut [u8], start_s: u32) {
    for (_, offset, width, _) in VOLATILE.iter().filter(|(s, ..)| *s == "CtEntry") {
        let field = *offset..*offset + *width;
        if let Some(since @ 1..) = read(value, field.clone()) {
            value[field].copy_from_slice(&since.wrapping_add(start_s).to_le_bytes());
        }
    }
}

/// Bytes as hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_abi::map::{CtEntry, MetricsKey};

    fn outcome(start_s: u32) -> Outcome {
        let entry =
            CtEntry { packets: 1, lifetime: start_s + 60, last_tx_report: start_s, ..CtEntry::default() };
        let drop = DropNotify { kind: 1, subtype: 133, len_cap: 2, hash: start_s, ..DropNotify::default() };
        let mut event = drop.to_bytes().to_vec();
        event.extend_from_slice(&[7, 8]);
        Outcome {
            return_value: 2,
            packet: vec![1, 2, 3],
            context: Context::default(),
            maps: [("skep_ct4_global".to_owned(), [(vec![1], entry.to_bytes().to_vec())].into())].into(),
            events: vec![event],
            start_s,
            redirect: None,
            chain: None,
        }
    }

    fn entry(o: &mut Outcome) -> &mut Vec<u8> {
        o.maps.get_mut("skep_ct4_global").unwrap().get_mut(&vec![1]).unwrap()
    }

    #[test]
    fn runs_at_other_times_and_with_other_hashes_agree() {
        assert_eq!(differences(&outcome(1000), &outcome(5000)), Vec::<String>::new());
    }

    #[test]
    fn every_part_that_differs_is_found() {
        let right = outcome(1000);
        let alterations: [fn(&mut Outcome); 12] = [
            |o| o.return_value = 0,
            |o| o.packet[2] = 0,
            |o| o.packet.push(0),
            |o| o.context.mark = 1,
            |o| o.context.cb[4] = 1,
            |o| o.events.clear(),
            |o| o.events[0][1] = 181,
            |o| *o.events[0].last_mut().unwrap() = 0,
            |o| o.maps.clear(),
            |o| entry(o)[16] = 2,
            // 60 seconds more, and "never" instead of "at the start".
            |o| entry(o)[32] = entry(o)[32].wrapping_add(60),
            |o| entry(o)[48..52].fill(0),
        ];
        for (i, alter) in alterations.iter().enumerate() {
            let mut wrong = outcome(1000);
            alter(&mut wrong);
            assert_ne!(differences(&right, &wrong), Vec::<String>::new(), "alteration {i}");
        }
    }

    #[test]
    fn values_of_cpus_are_summed_by_word() {
        let value = |count, bytes| MetricsValue { count, bytes }.to_bytes().to_vec();
        assert_eq!(sum_cpus(&[value(1, 60), value(2, 40)]), value(3, 100));
        assert_eq!(MetricsKey::SIZE, 8);
    }

    #[test]
    fn an_events_length_is_without_padding() {
        let mut event = outcome(0).events.remove(0);
        let len = event.len();
        event.extend_from_slice(&[0; 6]);
        assert_eq!(event_len(&event), len);
    }

    #[test]
    fn times_of_an_entry_move_with_the_clock() {
        let mut value = CtEntry { lifetime: 50, ..CtEntry::default() }.to_bytes();
        started_at(&mut value, 1000);
        let moved = CtEntry::from_bytes(&value).unwrap();
        assert_eq!((moved.lifetime, moved.last_rx_report), (1050, 0));
    }
}
