//! What a caller can ask for and not get.

use crate::{IfIndex, NodeId, NsId};
use std::fmt;

/// Why a change of the network was refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetError {
    /// No node has this number.
    NoSuchNode(NodeId),
    /// No namespace has this number, or it was deleted.
    NoSuchNamespace(NsId),
    /// The node has no device of this number.
    NoSuchDevice(NodeId, IfIndex),
    /// A device of this name stands in the namespace already (EEXIST).
    NameTaken(String),
    /// What was to be deleted is not there (ENOENT, ESRCH).
    NotFound(String),
    /// What was asked for makes no sense here (EINVAL); the text says why.
    Invalid(String),
    /// No sysctl of this name is simulated.
    NoSuchSysctl(String),
    /// The namespace has no stack attached, so that it can have no sockets.
    NoStack(NsId),
    /// A server listens at this port already (EADDRINUSE).
    PortTaken(u16),
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchNode(node) => write!(f, "{node} does not exist"),
            Self::NoSuchNamespace(ns) => write!(f, "{ns} does not exist"),
            Self::NoSuchDevice(node, ifindex) => write!(f, "{node} has no device {ifindex}"),
            Self::NameTaken(name) => write!(f, "there is a device {name} already"),
            Self::NotFound(what) => write!(f, "{what} is not there"),
            Self::Invalid(why) => f.write_str(why),
            Self::NoSuchSysctl(name) => write!(f, "sysctl {name} is not simulated"),
            Self::NoStack(ns) => write!(f, "{ns} has no stack: attach one first"),
            Self::PortTaken(port) => write!(f, "port {port} is in use"),
        }
    }
}

impl std::error::Error for NetError {}
