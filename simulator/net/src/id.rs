//! Numbers that name things of one [`Net`](crate::Net). They mean nothing in another.

use std::fmt;

/// A hardware address, octets in order.
pub type Mac = [u8; 6];

/// A device's number: unique on its node (in all of the node's namespaces), lowest free first, 1 is the root
/// namespace's loopback.
pub type IfIndex = u32;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A node, in the order in which they were added.
    NodeId(u32), "node#"
);
number!(
    /// A network namespace of one node. Numbers are never used twice.
    NsId(u32), "ns#"
);
number!(
    /// A frame, from the socket, the stack or the injection that made it to its end. It stays the same through
    /// forwarding, encapsulation, decapsulation and any rewriting; copies and fragments have numbers of their own.
    FrameId(u64), "frame#"
);
number!(
    /// A flow that was started by a `start_*` call.
    FlowId(u32), "flow#"
);
number!(
    /// A timer that was set and can be cancelled.
    TimerId(u64), "timer#"
);
