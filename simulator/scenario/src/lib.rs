//! A scenario: its schema, its plan, the [`World`] that carries it out, the evidence, the judge and the reports.
//!
//! Knows neither the vm nor the net nor a kernel: whoever can build a cluster and move packets implements [`World`].
//! Takes no decision about a packet: it compares what a World recorded with what a scenario expects.

pub mod compare;
pub mod error;
pub mod evidence;
#[cfg(test)]
mod fake;
pub mod frame;
pub mod judge;
pub mod matcher;
mod names;
mod opinion;
mod packet;
pub mod plan;
pub mod reasons;
pub mod report;
pub mod run;
pub mod schema;
pub mod snapshot;
pub mod suggest;
pub mod tables;
pub mod trace;
pub mod units;
pub mod world;

pub use error::{Diagnostic, SetupError};
pub use evidence::{
    Class, Direction, Drop, Evidence, Fact, HookPoint, Hop, HopKind, Identity, Outcome, Verdict, Walk,
};
pub use frame::{FiveTuple, FrameView, MacAddr};
pub use snapshot::{Query, Snapshot};
pub use tables::Tables;
pub use world::{
    Capability, Change, ClusterSpec, Fault, FlowId, Network, NodeEntry, Offers, Routing, Stimulus, Target,
    Until, World,
};
