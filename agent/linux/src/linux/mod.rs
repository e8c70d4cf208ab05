//! The parts that need bpf(2).

mod btf;
mod clsact;
mod device;
mod drops;
mod load;
mod map;
mod netlink;
mod netns;
mod node;
mod perf;
mod pin;
mod raw;
mod signals;
mod sys;
mod tap;
mod test_run;
mod verify;

pub use device::{FoundDevice, FoundRoute, NewEnd};
pub use drops::{DropMonitor, StackDrop, Watched};
pub use load::{Loaded, Program, Spec, Statistics, load, shapes};
pub use map::{Entry, Map, MapShape};
pub use netlink::Netlink;
pub use netns::{Netns, mount_bpffs, private_mounts};
pub use node::{LinuxNode, NodeLock, clean};
pub use perf::{Events, PerfReader};
pub use pin::{LinkInfo, TcxHook, TcxLink, link_ids, unpin};
pub use raw::{RawMap, RawProgram, RawRan, RawShape};
pub use signals::{Signal, Signals, Woken};
pub use sys::{kernel_release, monotonic_ns, possible_cpus, probe, stay_on_cpu};
pub use tap::{FrameSender, Tap, TappedFrame, hear_icmp_errors, set_offloads_off};
pub use test_run::{Ran, SkbContext};
pub(crate) use verify::verify;
