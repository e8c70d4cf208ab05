//! The event queue: what is due, in the order of (time, sequence). It knows no meaning of an event but its time.

use crate::frame::Frame;
use crate::{DropReason, IfIndex, NodeId, NsId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// When an event is due, and its place among those of the same time.
pub(crate) type Due = (u64, u64);

/// What can be due.
pub(crate) enum Event {
    /// A frame reaches a device from its driver, from a veth's other end or from the backlog.
    Receive { node: NodeId, ifindex: IfIndex, frame: Frame },
    /// A frame that was made by hand begins its way.
    Inject { node: NodeId, ifindex: IfIndex, received: bool, frame: Frame },
    /// A packet that was made by hand is to be routed.
    SendIp { ns: NsId, frame: Frame },
    /// A packet of a namespace to itself, where no loopback device has a number.
    Local { ns: NsId, frame: Frame },
    /// A frame has lost its place: its device or namespace was deleted.
    Drop { node: NodeId, ns: NsId, ifindex: Option<IfIndex>, frame: Frame, reason: DropReason },
    /// A neighbour has not answered in time.
    Neighbour { ns: NsId, ifindex: IfIndex, address: Ipv4Addr },
    /// Fragments have waited for long enough.
    Fragments { ns: NsId, key: crate::stack::FragmentKey },
    /// The sockets of a namespace have something to do.
    Host { ns: NsId },
    /// A timer of the caller's.
    Timer { token: u64 },
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    events: BTreeMap<Due, Event>,
    next: u64,
}

impl Queue {
    /// Puts an event behind all others of its time.
    pub(crate) fn push(&mut self, at_ns: u64, event: Event) -> Due {
        let due = (at_ns, self.next);
        self.next += 1;
        self.events.insert(due, event);
        due
    }

    /// The time of the first event.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.events.keys().next().map(|due| due.0)
    }

    /// Takes the first event.
    pub(crate) fn pop(&mut self) -> Option<(Due, Event)> {
        self.events.pop_first()
    }

    /// Takes an event out before its time.
    pub(crate) fn cancel(&mut self, due: Due) -> bool {
        self.events.remove(&due).is_some()
    }

    /// Takes out the timer of this sequence number.
    pub(crate) fn cancel_timer(&mut self, sequence: u64) -> bool {
        let is = |(due, event): &(&Due, &Event)| due.1 == sequence && matches!(event, Event::Timer { .. });
        let due = self.events.iter().find(is).map(|(due, _)| *due);
        due.is_some_and(|due| self.cancel(due))
    }
}
