//! What the API text says should happen, and packet checkers.
//!
//! Judges what agent/core and the bytecode do, so it shares no code with them: [`Oracle`] is written from the text of
//! the NetworkPolicy API, [`check`] and [`stream`] from the RFCs, with etherparse. Knows no map, no identity and no
//! program. IPv4.
//!
//! Where the API text leaves a choice, the choice is that of the datapath's contract (docs/datapath.md): `ipBlock`
//! is about addresses outside the cluster and matches neither pods nor nodes; a pod's own node always reaches it.

pub mod check;
mod cluster;
mod policy;
mod select;
pub mod stream;

pub use cluster::{Pod, PodName, Port};
pub use policy::{Answer, Decision, Flow, Oracle, Peer, Protocol, Rule, UnknownPod};
