//! Desired state to what to do: no I/O, no clock, no threads.
//!
//! [`Cluster`] stands in for Kubernetes' controllers: objects in, [`Step`]s out, which tell every node's [`Agent`] what
//! the cluster is. An agent computes what its node's datapath should be ([`desired`]), compares it with what is there
//! ([`diff`]) and asks its [`Node`] for [`Action`]s, in an order in which no packet meets half a change. [`drive`] is
//! the loop between the two.
//!
//! Knows neither aya nor the simulator. Time is an argument.

mod action;
mod agent;
mod change;
pub mod cluster;
pub mod desired;
pub mod diff;
mod explain;
pub mod gc;
pub mod model;
pub mod policy;
mod time;

pub use action::{Action, ActionId, Node, Outcome, Performed, Refused, Swept, drive, start};
pub use agent::{Agent, Event};
pub use change::{
    Change, ContainerPort, EndpointRequest, Identity, IdentityLabels, Labels, NamedPorts, NodeInfo, PodAt,
    PodKey, Protocol, Request, Step,
};
pub use cluster::{Cluster, Given, GivenPod, NodeEntry, PodInfo};
pub use desired::{Config, Switches};
pub use explain::Explanation;
pub use model::{
    Attachment, Datapath, Device, DeviceKind, End, HookPoint, Link, Load, LoadId, Map, Netns, Route,
    RouteKey, Value,
};
pub use policy::{Direction, Policy, PolicyKey, RuleRef};
pub use skep_manifest::{Error, Errors};
pub use time::Time;
