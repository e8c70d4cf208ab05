//! The loop of a node's agent, and two ways to tell it what it should know: files ([`Pilot`] in `skep-agent`), or another
//! process that writes into a socket ([`control`]).
//!
//! agent/core decides, agent/linux does; this crate waits, and hands over.

#[cfg(target_os = "linux")]
pub mod control;
#[cfg(target_os = "linux")]
mod pilot;

#[cfg(target_os = "linux")]
pub use pilot::Pilot;
