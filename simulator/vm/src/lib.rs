//! Runs one BPF program as the kernel would: no root, no kernel.
//!
//! An [`Object`] is linked, legalised (rewritten so that rbpf's interpreter executes it exactly as RFC 9669 and the
//! kernel do) and loaded into a [`Kernel`], which owns maps, programs and the memory that they stand in. One
//! [`Kernel::run`] runs one program, and the programs that it tail calls, over one packet.
//!
//! Knows BPF: instructions, helpers, maps, `struct __sk_buff`. Knows nothing of skep's maps, of topology or of
//! Kubernetes: a redirect is recorded and not followed, and time, randomness and events are an [`Environment`].
//!
//! The behaviour followed is that of Linux 6.18. Where a run cannot equal
//! `BPF_PROG_TEST_RUN`:
//!
//! - `get_hash_recalc`: the kernel's flow hash has a random key. Here it is a hash of the frame's flow, the same in
//!   both directions and in every run.
//! - SYN cookies have a secret that is known, so each is another number than in any kernel.
//! - An LRU map evicts exactly the least recently used entry, unless [`KernelConfig::eviction`] asks for the kernel's way.
//! - Every slot of a perf event array has a reader.
//! - Sockets are those that the kernel's owner adds ([`Kernel::add_socket`]); a packet without one has a null `sk`.
//! - Routes, neighbours and devices are the environment's; timers run when [`Kernel::run_timers`] is
//!   called, and one whose element is overwritten from outside is gone.
//! - A bloom filter has seed 0, as with `BPF_F_ZERO_SEED`.
//! - `change_tail` keeps the network header, as for every packet from the stack. `BPF_PROG_TEST_RUN`'s packets have no
//!   transport header, and after `change_head` has moved them the kernel takes garbage for one.
//! - The addresses that a program sees differ, so a program that leaks a pointer leaks another number.

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod arena;
mod context;
mod disassembly;
mod engine;
mod error;
mod helper;
mod input;
mod insn;
mod kernel;
mod kind;
mod legal;
mod link;
mod load;
mod map;
mod object;
mod packet;
mod run;
mod scope;
mod sock;
mod test_run;
mod timer;

#[cfg(test)]
mod tests;

pub use disassembly::{Line, Listing, helper_name, map_kind_name};
pub use engine::EngineKind;
pub use error::{BadAccess, Doing, Errno, Error, Fault, FaultKind, Region, Why};
pub use input::{Input, SkMsg, SockAddr, SockOps, Sockopt, XdpBuff};
pub use kernel::{Kernel, KernelConfig, LoadSpec, Loaded, MapId, ProgramId, UpdateMode};
pub use kind::ProgramKind;
pub use map::{Eviction, kind as map_kind};
pub use object::{Global, InitialValue, MapDef, Object, SourceLine};
pub use run::{
    Access, Environment, FibAnswer, FibQuestion, FibRefusal, Op, Redirect, RedirectKind, Run, SocketQuestion,
    Stats, Step, TailCall, Timer,
};
pub use skep_packet::{Checksum, PacketType, SkBuff, Tunnel, VlanTag};
pub use sock::{Socket, SocketId};
pub use test_run::{TestError, TestInput, TestOutput};
