//! An agent at work on its node: events in, and time.

use skep_agent_core::{Agent, Config, Event, Performed, Time, drive, start};
use skep_agent_linux::{LinuxNode, monotonic_ns};
use std::time::Duration;

/// A node, and its agent once it has begun.
pub struct Pilot {
    /// The node. Namespaces of pods are made known to it before the agent is told of the pods.
    pub node: LinuxNode,
    agent: Option<(Config, Agent)>,
}

fn now() -> Time {
    Time::from_nanos(monotonic_ns())
}

impl Pilot {
    /// A node without an agent: nothing happens on it.
    pub fn new(node: LinuxNode) -> Self {
        Self { node, agent: None }
    }

    /// Lets an agent begin that knows nothing yet but what it finds on the node, in place of one that was there.
    pub fn begin(&mut self, config: Config) -> Vec<Performed> {
        let mut agent = Agent::new(config.clone());
        let performed = start(&mut agent, &mut self.node, now());
        self.agent = Some((config, agent));
        performed
    }

    /// What the agent was told when it began.
    pub fn config(&self) -> Option<&Config> {
        self.agent.as_ref().map(|(config, _)| config)
    }

    /// Whether the agent knows what the node has: not while it waits to try again.
    pub fn is_on_course(&self) -> bool {
        self.agent.as_ref().is_some_and(|(_, agent)| agent.datapath().is_some())
    }

    /// Tells the agent, and does all that it asks. Nothing before it has begun.
    pub fn tell(&mut self, event: Event) -> Vec<Performed> {
        match &mut self.agent {
            Some((_, agent)) => drive(agent, &mut self.node, now(), event),
            None => Vec::new(),
        }
    }

    /// Lets the agent do what is due by itself.
    pub fn tick(&mut self) -> Vec<Performed> {
        if self.rest(Duration::MAX).is_zero() { self.tell(Event::Tick) } else { Vec::new() }
    }

    /// How long nothing is due, at the most `limit`.
    pub fn rest(&self, limit: Duration) -> Duration {
        let due = self.agent.as_ref().and_then(|(_, agent)| agent.next_timer());
        let left = due.map(|at| Duration::from_nanos(at.as_nanos().saturating_sub(now().as_nanos())));
        left.map_or(limit, |left| left.min(limit))
    }
}
