//! What the agent of a node thinks, for whoever puts events into words: an agent that is told the same and changes nothing.
//!
//! Its process cannot be asked for reasons, so they are thought again here, from the same inventory and the same events.

use skep_agent_core::{
    Action, Agent, Config, Datapath, DeviceKind, Event, Node, Outcome, Refused, Time, drive, start,
};
use skep_agent_linux::{LinuxNode, monotonic_ns};

/// A node on which all that is asked for has been done already, by the agent's process.
struct Done<'a> {
    node: &'a mut LinuxNode,
}

impl Node for Done<'_> {
    fn perform(&mut self, action: &Action) -> Result<Outcome, Refused> {
        Ok(match action {
            Action::CreateDevice { link, device } => {
                let mut ends = vec![link];
                if let DeviceKind::Veth { peer, .. } = &device.kind {
                    ends.push(peer);
                }
                let known = |l: &&skep_agent_core::Link| Some(((*l).clone(), *self.node.links().get(*l)?));
                Outcome::Created(ends.iter().filter_map(known).collect())
            }
            Action::CollectConntrack { .. } => Outcome::Collected(Vec::new()),
            _ => Outcome::Done,
        })
    }

    fn inventory(&mut self) -> Result<Datapath, Refused> {
        self.node.inventory()
    }
}

fn now() -> Time {
    Time::from_nanos(monotonic_ns())
}

/// An agent that begins as the node's own has just done.
pub(super) fn begin(config: Config, node: &mut LinuxNode) -> Agent {
    let mut agent = Agent::new(config);
    start(&mut agent, &mut Done { node }, now());
    agent
}

/// Lets it hear what the node's own agent has heard, and done.
pub(super) fn hear(agent: &mut Agent, node: &mut LinuxNode, event: Event) {
    drive(agent, &mut Done { node }, now(), event);
}
