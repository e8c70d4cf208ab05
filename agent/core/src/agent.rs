//! The agent of a node: events in, actions out.

use crate::action::{Action, ActionId, Outcome, Refused};
use crate::change::{Change, PodKey, Request};
use crate::desired::Config;
use crate::explain::Explanation;
use crate::model::Datapath;
use crate::time::Time;
use skep_abi::event::PolicyVerdictNotify;
use std::net::Ipv4Addr;

/// What an agent is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Something of the cluster changed.
    Resource(Change),
    /// The node's kubelet asks for something.
    Endpoint(Request),
    /// The node's inventory.
    Found(Datapath),
    /// What became of an action.
    Done(ActionId, Result<Outcome, Refused>),
    /// Time passed.
    Tick,
}

/// The agent of a node.
pub struct Agent {
}

impl Agent {
    /// An agent that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let _ = config;
        todo!()
    }
    /// Takes an event and says what to do. Actions are to be performed in order, each answered by [`Event::Done`].
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<(ActionId, Action)>) {
        let _ = (now, event, out);
        todo!()
    }
    /// When the agent wants a [`Event::Tick`], if nothing happens before.
    pub fn next_timer(&self) -> Option<Time> {
        todo!()
    }
    /// Whether the agent waits for an inventory of its node ([`Event::Found`]): at its start, and some time after a
    /// refused action.
    pub fn wants_inventory(&self, now: Time) -> bool {
        let _ = now;
        todo!()
    }
    /// The inventory could not be had: the agent asks again later.
    pub fn inventory_refused(&mut self, now: Time, refused: Refused) {
        let _ = (now, refused);
    }
    /// Why a policy decided as it did; `None` if the endpoint is not known.
    pub fn explain_verdict(&self, verdict: &PolicyVerdictNotify) -> Option<Explanation> {
        let _ = verdict;
        todo!()
    }
    /// The labels of an identity, as `k8s:app=curl`, `reserved:host` or `cidr:10.0.0.0/8`.
    pub fn identity_text(&self, id: u32) -> Vec<String> {
        let _ = id;
        todo!()
    }
    /// The identity that the node's ipcache should give an address.
    pub fn identity_of(&self, ip: Ipv4Addr) -> u32 {
        let _ = ip;
        todo!()
    }
    /// The pod of an endpoint of this node.
    pub fn pod_of(&self, endpoint: u16) -> Option<&PodKey> {
        let _ = endpoint;
        todo!()
    }
    /// The pod that has an address, anywhere in the cluster.
    pub fn pod_at(&self, ip: Ipv4Addr) -> Option<&PodKey> {
        let _ = ip;
        todo!()
    }
    /// What the agent last knew its node's datapath to be.
    pub fn datapath(&self) -> &Datapath {
        todo!()
    }
}
