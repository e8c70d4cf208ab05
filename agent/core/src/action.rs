//! What the agent asks of a node, what a node answers, and the loop between them.

use crate::agent::{Agent, Event};
use crate::model::{Attachment, Datapath, Device, HookPoint, Link, Load, LoadId, Route, RouteKey, Value};
use crate::time::Time;
use skep_abi::map::MapSpec;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Names an action in the agent's conversation with its node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActionId(pub u64);

/// One thing to do. Each is whole or not done at all, and doing it again does no harm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Writes a setting; the path is below /proc/sys.
    SetSysctl {
        /// The path, such as `net/ipv4/ip_forward`.
        name: String,
        /// The value.
        value: String,
    },
    /// Makes a device with its addresses and sets it up; of a veth pair both ends, each in its namespace.
    CreateDevice {
        /// The device, of a pair the host-side end.
        link: Link,
        /// What to make.
        device: Device,
    },
    /// Deletes a device; of a pair both ends. Attachments and routes go with it. That it is gone, for instance with
    /// its pod's namespace, is no error.
    DeleteDevice {
        /// The device, of a pair the host-side end.
        link: Link,
    },
    /// Adds or replaces a route.
    SetRoute {
        /// Which.
        key: RouteKey,
        /// Where it leads.
        route: Route,
    },
    /// Deletes a route; that there is none is no error.
    DeleteRoute {
        /// Which.
        key: RouteKey,
    },
    /// Creates (and pins) an empty map.
    CreateMap {
        /// Its name on the node.
        name: String,
        /// What it is.
        spec: MapSpec,
    },
    /// Deletes a map and its pin.
    DeleteMap {
        /// Its name on the node.
        name: String,
    },
    /// Writes an entry (BPF_ANY).
    MapUpdate {
        /// The map's name on the node.
        map: String,
        /// The key.
        key: Vec<u8>,
        /// The value; the node fills the indexes of devices in.
        value: Value,
    },
    /// Deletes an entry; that there is none is no error.
    MapDelete {
        /// The map's name on the node.
        map: String,
        /// The key.
        key: Vec<u8>,
    },
    /// Loads an object and fills its own calls map. No packet meets it yet.
    Load {
        /// Names the load from now on.
        id: LoadId,
        /// What to load.
        load: Load,
    },
    /// Lets a load go that is neither published nor attached.
    Unload {
        /// Which.
        id: LoadId,
    },
    /// Puts a load's handle_policy into the endpoint's slot of `skep_call_policy`.
    Publish {
        /// The endpoint's id, which is the slot.
        endpoint: u16,
        /// Whose handle_policy.
        load: LoadId,
    },
    /// Clears an endpoint's slot of `skep_call_policy`.
    Unpublish {
        /// The endpoint's id, which is the slot.
        endpoint: u16,
    },
    /// Attaches a program; one that stands there is replaced in one step.
    Attach {
        /// Where.
        point: HookPoint,
        /// What.
        attachment: Attachment,
    },
    /// Detaches what stands at a hook.
    Detach {
        /// Where.
        point: HookPoint,
    },
    /// Tells who asked for the endpoint that its pod may start. After a restart of the agent this is said again, as it
    /// cannot know whether it was heard.
    EndpointReady {
        /// The endpoint's id.
        endpoint: u16,
    },
    /// Deletes expired conntrack entries ([`crate::gc::expired`]) from these maps.
    CollectConntrack {
        /// Their names on the node.
        maps: Vec<String>,
        /// Now, in seconds of the clock that lifetimes count on.
        now_s: u64,
    },
}

/// What a sweep of one conntrack map found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swept {
    /// The map's name on the node.
    pub map: String,
    /// Entries that stay.
    pub alive: u64,
    /// Entries that were deleted.
    pub deleted: u64,
}

/// What an action that was performed brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// A device was made: the indexes of its ends.
    Created(BTreeMap<Link, u32>),
    /// Conntrack was swept.
    Collected(Vec<Swept>),
}

/// Why a node did not perform an action.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The reason, for people.
    pub why: String,
}

impl Refused {
    /// A refusal with its reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

/// A node as the agent sees it: simulated or real.
pub trait Node {
    /// Performs one action.
    fn perform(&mut self, action: &Action) -> Result<Outcome, Refused>;
    /// All that skep has on the node, whoever made it.
    fn inventory(&mut self) -> Result<Datapath, Refused>;
}

/// An action and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Performed {
    /// Its id.
    pub id: ActionId,
    /// The action.
    pub action: Action,
    /// What became of it.
    pub result: Result<Outcome, Refused>,
}

/// Hands an event to the agent, performs what it asks, and hands the results back until it asks no more.
///
/// After a refusal the rest of what was asked in the same breath is not performed, as it may rest on what was
/// refused; the agent takes a new inventory at [`Agent::next_timer`] and goes on from there.
pub fn drive(agent: &mut Agent, node: &mut dyn Node, now: Time, event: Event) -> Vec<Performed> {
    let mut performed = Vec::new();
    let mut out = Vec::new();
    agent.handle(now, event, &mut out);
    let mut queue: VecDeque<(ActionId, Action)> = out.drain(..).collect();
    loop {
        let mut refused = false;
        while let Some((id, action)) = queue.pop_front() {
            let result = if refused {
                Err(Refused::new("not tried, as an action before it was refused"))
            } else {
                node.perform(&action)
            };
            refused |= result.is_err();
            agent.handle(now, Event::Done(id, result.clone()), &mut out);
            performed.push(Performed { id, action, result });
        }
        if out.is_empty() && agent.wants_inventory(now) {
            match node.inventory() {
                Ok(found) => agent.handle(now, Event::Found(found), &mut out),
                Err(_) => agent.inventory_refused(now),
            }
        }
        if out.is_empty() {
            return performed;
        }
        queue.extend(out.drain(..));
    }
}

/// Begins the conversation with a new agent: takes the node's inventory.
pub fn start(agent: &mut Agent, node: &mut dyn Node, now: Time) -> Vec<Performed> {
    drive(agent, node, now, Event::Tick)
}
