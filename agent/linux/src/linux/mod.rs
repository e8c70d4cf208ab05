//! The parts that need bpf(2).

mod load;
mod map;
mod perf;
mod raw;
mod sys;
mod test_run;
mod verify;

pub use load::{Loaded, Program, Spec, Statistics, load, shapes};
pub use map::{Entry, Map, MapShape};
pub use perf::{Events, PerfReader};
pub use raw::{RawMap, RawProgram, RawRan, RawShape};
pub use sys::{kernel_release, monotonic_ns, possible_cpus, probe, stay_on_cpu};
pub use test_run::{Ran, SkbContext};
pub(crate) use verify::verify;
