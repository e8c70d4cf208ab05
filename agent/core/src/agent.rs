//! The agent of a node: events in, actions out.
//!
//! It keeps what it knows of the cluster ([`Inputs`]), and what its node has as it last heard. Whenever either changes
//! and no action is under way, it asks for the difference. A restart is no special case: the first event of every
//! agent is an inventory.

use crate::action::{Action, ActionId, Outcome, Refused};
use crate::change::{Change, PodKey, Request};
use crate::desired::{Config, Desired, Inputs, Networks, desired, ipcache_key};
use crate::diff::{apply, diff};
use crate::explain::History;
use crate::gc;
use crate::model::Datapath;
use crate::policy::compile::networks_of;
use crate::time::Time;
use ipnet::Ipv4Net;
use skep_abi::identity;
use skep_abi::map::{self, IpcacheKey, RemoteEndpointInfo};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

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

/// How long the agent waits after the first refusal in a row; each further one doubles it.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// How long it waits at the most.
const RETRY_MAX: Duration = Duration::from_secs(32);

/// The agent of a node.
#[derive(Clone, Debug)]
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) inputs: Inputs,
    pub(crate) networks: Networks,
    pub(crate) desired: Desired,
    pub(crate) history: History,
    /// What the node has; `None` while only an inventory can tell.
    have: Option<Datapath>,
    /// Whether the cluster's initial state has been told in full.
    synced: bool,
    /// Whether something changed since the last difference was asked for.
    dirty: bool,
    under_way: BTreeMap<ActionId, Action>,
    next_id: u64,
    /// Endpoints whose kubelet has its answer.
    ready: BTreeSet<u16>,
    retry: Option<Retry>,
    gc: Gc,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Time,
    wait: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Gc {
    interval: Duration,
    /// When the next sweep is due; `None` before the first inventory and during a sweep.
    due: Option<Time>,
}

impl Agent {
    /// An agent that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            inputs: Inputs::default(),
            networks: Networks::new(),
            desired: Desired::default(),
            history: History::default(),
            have: None,
            synced: false,
            dirty: false,
            under_way: BTreeMap::new(),
            next_id: 0,
            ready: BTreeSet::new(),
            retry: None,
            gc: Gc { interval: gc::FIRST_INTERVAL, due: None },
        }
    }

    /// Takes an event and says what to do: actions to be performed in order, each answered by [`Event::Done`].
    ///
    /// Until the inventory and [`Change::Synced`] have come it asks for nothing, as it would have to remove what it
    /// has only not heard of yet.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<(ActionId, Action)>) {
        match event {
            Event::Resource(change) => {
                self.synced |= matches!(change, Change::Synced);
                self.inputs.change(change);
                self.dirty = true;
            }
            Event::Endpoint(Request::Add(request)) => {
                self.ready.remove(&request.endpoint);
                self.inputs.endpoints.insert(request.endpoint, request);
                self.dirty = true;
            }
            Event::Endpoint(Request::Delete { endpoint }) => {
                self.ready.remove(&endpoint);
                self.inputs.endpoints.remove(&endpoint);
                self.dirty = true;
            }
            Event::Found(found) => self.found(now, found),
            Event::Done(id, result) => self.done(now, id, result),
            Event::Tick => {}
        }
        if self.dirty && self.synced && self.under_way.is_empty() {
            self.reconcile(out);
        }
        if self.have.is_some() && self.gc.due.is_some_and(|due| due <= now) {
            self.gc.due = None;
            let maps = gc::MAPS.iter().map(|m| m.name.to_owned()).collect();
            self.ask(Action::CollectConntrack { maps, now_s: now.as_secs() }, out);
        }
    }

    /// When the agent wants an [`Event::Tick`], if nothing happens before.
    pub fn next_timer(&self) -> Option<Time> {
        let retry = self.retry.filter(|_| self.have.is_none()).map(|r| r.at);
        let gc = self.gc.due.filter(|_| self.have.is_some());
        retry.into_iter().chain(gc).min()
    }

    /// Whether the agent waits for an inventory of its node ([`Event::Found`]): at its start, and some time after a
    /// refused action.
    pub fn wants_inventory(&self, now: Time) -> bool {
        self.have.is_none() && self.under_way.is_empty() && self.retry.is_none_or(|r| r.at <= now)
    }

    /// The inventory could not be had: the agent asks again later.
    pub fn inventory_refused(&mut self, now: Time) {
        self.back_off(now);
    }

    /// What the node has, as far as the agent knows; `None` while only an inventory can tell.
    pub fn datapath(&self) -> Option<&Datapath> {
        self.have.as_ref()
    }

    /// What the node should have, and why.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// All that the agent knows of the cluster.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    fn ask(&mut self, action: Action, out: &mut Vec<(ActionId, Action)>) {
        let id = ActionId(self.next_id);
        self.next_id += 1;
        self.under_way.insert(id, action.clone());
        out.push((id, action));
    }

    fn found(&mut self, now: Time, found: Datapath) {
        // Networks keep the identities that the node's ipcache gives them, or flows would be judged anew.
        for (network, id) in local_networks(&found) {
            if !self.networks.contains_key(&network) && !self.networks.values().any(|i| *i == id) {
                self.networks.insert(network, id);
            }
        }
        self.have = Some(found);
        self.dirty = true;
        if self.gc.due.is_none() && !self.collecting() {
            self.gc.due = Some(now.after(self.gc.interval));
        }
    }

    fn collecting(&self) -> bool {
        self.under_way.values().any(|a| matches!(a, Action::CollectConntrack { .. }))
    }

    fn done(&mut self, now: Time, id: ActionId, result: Result<Outcome, Refused>) {
        let Some(action) = self.under_way.remove(&id) else { return };
        if let Action::CollectConntrack { .. } = action {
            if let Ok(Outcome::Collected(swept)) = &result {
                self.gc.interval = gc::next_interval(self.gc.interval, swept);
            }
            self.gc.due = Some(now.after(self.gc.interval));
            return;
        }
        match (result, &mut self.have) {
            (Ok(outcome), Some(have)) => {
                if apply(have, &action).is_err() {
                    // The node did what by our account it could not: our account is wrong.
                    self.lost_track(now);
                    return;
                }
                if let Outcome::Created(links) = outcome {
                    have.links.extend(links);
                }
                if let Action::EndpointReady { endpoint } = action {
                    self.ready.insert(endpoint);
                }
                if self.under_way.is_empty() {
                    self.retry = None;
                }
            }
            (Ok(_), None) => {}
            (Err(_), _) => self.lost_track(now),
        }
    }

    /// What the node has is not known any more: an inventory must tell, after a while.
    fn lost_track(&mut self, now: Time) {
        // The refusals of a batch are one failure.
        if self.have.take().is_some() {
            self.back_off(now);
        }
    }

    fn back_off(&mut self, now: Time) {
        let wait = self.retry.map_or(RETRY_MIN, |r| (r.wait * 2).min(RETRY_MAX));
        self.retry = Some(Retry { at: now.after(wait), wait });
    }

    fn reconcile(&mut self, out: &mut Vec<(ActionId, Action)>) {
        let Some(have) = &self.have else { return };
        self.networks =
            allocate(&self.networks, networks_of(self.inputs.policies.values().map(AsRef::as_ref)));
        let Some(desired) = desired(&self.config, &self.inputs, &self.networks) else { return };
        self.dirty = false;
        self.history.learn(&desired.policies);
        let mut actions = diff(have, &desired.datapath);
        let ready = desired.datapath.published.keys().filter(|e| !self.ready.contains(e));
        actions.extend(ready.map(|&endpoint| Action::EndpointReady { endpoint }));
        self.desired = desired;
        if actions.is_empty() {
            self.retry = None;
        }
        for action in actions {
            self.ask(action, out);
        }
    }

    /// The identity that the node's ipcache should give an address.
    pub fn identity_of(&self, ip: Ipv4Addr) -> u32 {
        let Some(ipcache) = self.desired.datapath.maps.get(map::IPCACHE.name) else {
            return identity::UNKNOWN;
        };
        (0..=32)
            .rev()
            .filter_map(|bits| Ipv4Net::new(ip, bits).ok())
            .find_map(|net| ipcache.entries.get(&ipcache_key(&net.trunc())))
            .and_then(|value| RemoteEndpointInfo::from_bytes(&value.bytes))
            .map_or(identity::UNKNOWN, |info| info.sec_identity)
    }

    /// The pod of an endpoint of this node.
    pub fn pod_of(&self, endpoint: u16) -> Option<&PodKey> {
        self.inputs.endpoints.get(&endpoint).map(|e| &e.pod)
    }

    /// The pod that has an address, anywhere in the cluster.
    pub fn pod_at(&self, ip: Ipv4Addr) -> Option<&PodKey> {
        self.inputs.pods.values().find(|p| p.ip == ip).map(|p| &p.key)
    }
}

impl Inputs {
    fn change(&mut self, change: Change) {
        match change {
            Change::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Change::NodeGone(name) => {
                self.nodes.remove(&name);
            }
            Change::Identity(identity) => {
                self.identities.insert(identity.id, identity.labels);
            }
            Change::IdentityGone(id) => {
                self.identities.remove(&id);
            }
            Change::Pod(pod) => {
                self.pods.insert(pod.key.clone(), pod);
            }
            Change::PodGone(key) => {
                self.pods.remove(&key);
            }
            Change::Policy(policy) => {
                self.policies.insert(policy.key.clone(), policy);
            }
            Change::PolicyGone(key) => {
                self.policies.remove(&key);
            }
            Change::Synced => {}
        }
    }
}

/// The networks that an inventory's ipcache gives an identity of this node's own.
fn local_networks(found: &Datapath) -> Networks {
    let entries = found.maps.get(map::IPCACHE.name).into_iter().flat_map(|m| &m.entries);
    entries
        .filter_map(|(key, value)| {
            let id = RemoteEndpointInfo::from_bytes(&value.bytes)?.sec_identity;
            let key = IpcacheKey::from_bytes(key)?;
            let bits = u8::try_from(key.prefixlen.checked_sub(IpcacheKey::STATIC_PREFIX)?).ok()?;
            let network = Ipv4Net::new(key.ip4.octets().into(), bits).ok()?;
            (id & identity::SCOPE_CIDR != 0).then_some((network.trunc(), id))
        })
        .collect()
}

/// Gives every network an identity of this node's own, the lowest free one above [`identity::SCOPE_CIDR`].
///
/// A number that becomes free here is not given again here: for a while both networks would have it.
fn allocate(before: &Networks, wanted: BTreeSet<Ipv4Net>) -> Networks {
    let mut taken: BTreeSet<u32> = before.values().copied().collect();
    let mut next = identity::SCOPE_CIDR + 1;
    let mut out = Networks::from([(Ipv4Net::default(), identity::WORLD)]);
    for network in wanted {
        out.entry(network).or_insert_with(|| {
            before.get(&network).copied().unwrap_or_else(|| {
                while !taken.insert(next) {
                    next += 1;
                }
                next
            })
        });
    }
    out
}
