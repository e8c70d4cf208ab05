//! The control plane of the simulated cluster: what agents are told reaches them through the net's own queue.
//!
//! Knows which message goes to which node and when. Does not know what a message means.

use skep_agent_core::Event;
use std::collections::BTreeMap;

/// How long a change takes from the cluster to an agent, nanoseconds. Each further node hears of it
/// [`SKEW_NS`] later, so that nodes are out of step as they are in a real cluster.
pub(crate) const DELAY_NS: u64 = 1_000_000;
/// See [`DELAY_NS`].
pub(crate) const SKEW_NS: u64 = 150_000;

/// What is to happen at a node when a timer falls due.
pub(crate) enum Message {
    /// The agent hears of something.
    Event(Event),
    /// The agent's own timer.
    Tick,
    /// The agent begins, and takes the node's inventory.
    Start,
}

/// Messages on their way.
#[derive(Default)]
pub(crate) struct Mail {
    next: u64,
    waiting: BTreeMap<u64, (usize, Message)>,
}

impl Mail {
    /// Takes a message for a node and gives the token of the timer that delivers it.
    pub(crate) fn post(&mut self, node: usize, message: Message) -> u64 {
        let token = self.next;
        self.next += 1;
        self.waiting.insert(token, (node, message));
        token
    }

    /// The message of a token; none if it was taken back.
    pub(crate) fn take(&mut self, token: u64) -> Option<(usize, Message)> {
        self.waiting.remove(&token)
    }

    /// Whether anything but agents' own timers is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.values().any(|(_, m)| !matches!(m, Message::Tick))
    }
}
