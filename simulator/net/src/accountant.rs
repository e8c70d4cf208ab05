//! Whether every frame had exactly one end. It sees records and nothing else: no queue, no device, no counter.

use crate::{FrameId, Record, What};
use std::collections::BTreeMap;

/// The end of a frame, and where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// The record that ended it.
    pub record: Record,
}

/// Keeps account of frames.
#[derive(Clone, Default, Debug)]
pub struct Accountant {
    open: BTreeMap<FrameId, Record>,
    ended: BTreeMap<FrameId, End>,
    faults: Vec<(FrameId, String)>,
}

impl Accountant {
    /// An empty account.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record.
    pub fn feed(&mut self, record: &Record) {
        let id = record.frame;
        let begins = matches!(record.what, What::Sent { .. });
        if self.ended.contains_key(&id) {
            self.faults.push((id, format!("{:?} after its end", record.what)));
        } else if begins == self.open.contains_key(&id) {
            let fault = if begins { "was sent twice" } else { "is seen before it was sent" };
            self.faults.push((id, fault.to_owned()));
        }
        if record.what.is_end() {
            self.open.remove(&id);
            self.ended.insert(id, End { record: record.clone() });
        } else if !self.ended.contains_key(&id) {
            self.open.insert(id, record.clone());
        }
    }

    /// Frames without an end, with the last thing that is known of each. What is still on its way is among them: ask
    /// when [`Net::in_flight`](crate::Net::in_flight) is 0.
    pub fn unaccounted(&self) -> Vec<(FrameId, &Record)> {
        self.open.iter().map(|(id, record)| (*id, record)).collect()
    }

    /// Frames whose records contradict each other: two ends, or something after the end.
    pub fn faults(&self) -> &[(FrameId, String)] {
        &self.faults
    }

    /// How a frame ended, if it has.
    pub fn end(&self, frame: FrameId) -> Option<&End> {
        self.ended.get(&frame)
    }

    /// How many frames ended.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DropReason, Origin};

    fn record(frame: u64, what: What) -> Record {
        Record { time_ns: 0, seq: 0, frame: FrameId(frame), node: None, ns: None, ifindex: None, what }
    }

    #[test]
    fn a_frame_without_an_end_and_one_with_two_are_found() {
        let mut a = Accountant::new();
        let sent = What::Sent { origin: Origin::Udp };
        a.feed(&record(1, sent.clone()));
        a.feed(&record(2, sent));
        a.feed(&record(2, What::Dropped { reason: DropReason::NoSocket }));
        assert_eq!(a.unaccounted().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [FrameId(1)]);
        assert!(a.faults().is_empty());
        a.feed(&record(2, What::Dropped { reason: DropReason::NoSocket }));
        a.feed(&record(3, What::Rx));
        assert_eq!(a.faults().len(), 2);
    }
}
