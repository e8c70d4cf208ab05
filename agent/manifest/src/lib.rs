//! Files to typed Kubernetes resources, each field with its file and line.
//!
//! Knows which kinds and fields mean something to container networking, and refuses what it does not know. It parses
//! and checks only: what a missing field stands for, which pods a selector selects and which number a named port has
//! is said once by agent/core and once, independently, by the oracle.

mod error;
mod fields;
mod kinds;
mod load;
mod resource;
mod shape;
mod source;
mod tree;
mod valid;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};

pub use error::{Error, Errors, Location};
pub use kinds::{KINDS, KindRow, Use, note};
pub use load::{load, parse, text};
pub use resource::{DEFAULT_NAMESPACE, Key, Loaded, Resource};
pub use source::Source;

pub use k8s_openapi;

/// What the caller decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Kinds to read past although nothing is known about them, as `GROUP/KIND`; the core group is `core` or left out.
    pub ignore_kinds: BTreeSet<String>,
}

/// What the files hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// The objects that are used, in the order of files and documents.
    pub resources: Vec<Loaded>,
    /// How many objects of kinds without effect on networking were read past, by kind.
    pub read_past: BTreeMap<String, usize>,
}
