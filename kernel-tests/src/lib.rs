//! What a real kernel does with the same programs: tables of {packet, context, maps} in and {verdict, packet,
//! context, maps, events} out, a row a case, run through skep-vm and through BPF_PROG_TEST_RUN.
//!
//! Knows the datapath's contract (docs/datapath.md), from which every expectation is written, and both ways to run a
//! program. Does not know how either runs it, nor topologies: a row is one packet at one hook.

pub mod alter;
pub mod frame;
pub mod fuzz;
#[cfg(target_os = "linux")]
pub mod kernel;
#[cfg(target_os = "linux")]
pub mod live;
pub mod outcome;
pub mod qemu;
pub mod row;
pub mod rows;
pub mod vm;
pub mod world;
