//! The [`skep_scenario::World`] made of the vm and the net: a cluster whose nodes run skep's own bytecode.
//!
//! Joins what knows nothing of each other: the net asks for a verdict at a hook, the vm runs the program that the agent
//! attached there, and what both recorded becomes evidence. Takes no decision about a packet, and changes a map only
//! where an agent's action asks for it ([`node`]). Time, randomness and order come from the net's one queue, so that
//! the same cluster, seed and steps give the same evidence, byte for byte.

mod capture;
mod control;
mod evidence;
mod facts;
mod flow;
mod inspect;
mod machine;
mod node;
mod recorder;
mod world;

pub use world::{SimOptions, SimWorld};
