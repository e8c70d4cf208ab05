//! The world around a program: frame, device, node, fabric, clock, faults.
//!
//! Knows Ethernet, ARP, IPv4, ICMP, UDP, TCP, VXLAN, namespaces, routes and what Linux does with them. Knows no
//! Kubernetes and no BPF: what is attached at a device is a [`Hooks`] of the caller's.
//!
//! A frame moves as it does on a node: a device, its tc hook, the namespace's stack, another device, the fabric. All
//! that happens is an event of one queue, ordered by time and sequence, on one virtual clock in nanoseconds; all that
//! is random comes from one seeded generator. What happens to a frame is told in [`Record`]s, from which the
//! [`Accountant`] says whether every frame had an end.
//!
//! ```
//! use skep_net::{FlowOptions, Net, NetError, Outcome};
//! # fn main() -> Result<(), NetError> {
//! let mut net = Net::new(1, 0);
//! let (a, b) = (net.add_node("a"), net.add_node("b"));
//! net.add_uplink(a, "eth0", [2, 0, 0, 0, 0, 1], Some(([192, 168, 1, 1].into(), 24)), 1500)?;
//! net.add_uplink(b, "eth0", [2, 0, 0, 0, 0, 2], Some(([192, 168, 1, 2].into(), 24)), 1500)?;
//! let root = net.root(a)?;
//! net.attach_stack(root, "a")?;
//! let ping = net.start_ping(root, [192, 168, 1, 2].into(), 1, FlowOptions::default())?;
//! // () attaches nothing and does not look; a caller with programs implements `Hooks`.
//! net.run_for(&mut (), 1_000_000_000);
//! assert_eq!(net.flow(ping).and_then(|state| state.outcome), Some(Outcome::Completed));
//! # Ok(())
//! # }
//! ```

mod accountant;
mod builder;
mod device;
mod error;
mod fabric;
mod flow;
mod frame;
mod hooks;
mod host;

mod id;
mod namespace;
mod net;
mod queue;
mod random;
mod record;
mod stack;
mod topology;
mod traffic;
mod transit;
mod vxlan;
mod wire;

pub use accountant::{Accountant, End};
pub use error::NetError;
pub use flow::{FiveTuple, FlowOptions, FlowState, Hold, HttpRequest, Outcome};
pub use hooks::{Direction, HookAt, HookId, Hooks, Verdict, format_mac};
pub use id::{FlowId, FrameId, IfIndex, Mac, NodeId, NsId, TimerId};
pub use net::{Net, RunEnd};
pub use random::Random;
pub use record::{DropReason, Origin, Record, Socket, Taker, What};
pub use topology::{DeviceInfo, DeviceKind, Neighbour, Route, Scope, VethEnd};

/// The packet and what goes with it, as skep-packet has it.
pub use skep_packet::SkBuff;
