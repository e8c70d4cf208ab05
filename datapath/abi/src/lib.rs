//! The contract between the datapath's programs and everything that reads or writes what they read: map keys and
//! values, the lists of maps, programs, globals and drop reasons, the events, marks, identities and limits.
//!
//! Knows layouts and numbers. Does not know what decides on them: that is `skep-core`.
//!
//! Layouts follow Cilium 1.17 where Cilium has the structure; names are Cilium's with `skep_` for `cilium_`.
//! Every structure is free of padding and of a size and of offsets that are asserted at compile time, and converts
//! to and from bytes safely, so that user space can open maps as arrays of bytes.
#![no_std]

pub mod event;
pub mod global;
pub mod identity;
pub mod map;
pub mod mark;
mod order;
mod pod;
pub mod program;
pub mod reason;

pub use order::{Be16, Be32, Mac};
pub use pod::{Field, Pod};
pub use reason::DropReason;

/// The version of everything in this crate that a pinned map or a loaded object depends on.
///
/// It is raised by any change to a layout, a map's type or a number. Whoever opens a pinned map of another version
/// migrates it or refuses it.
pub const LAYOUT_VERSION: u32 = 1;
