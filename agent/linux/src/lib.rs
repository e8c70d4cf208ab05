//! What a Linux node does with the datapath's objects: loads them, and says what its kernel's verifier made of them.
//!
//! Knows bpf(2), aya-obj's view of an object and the kernel's perf rings. Does not know what the maps mean, which
//! pod or policy an object is for, or what a packet is: callers hand over bytes.
//!
//! Elsewhere than on Linux there is no kernel to ask: [`verify_running_kernel`] is then [`Error::NotLinux`], and the
//! modules that need bpf(2) are not compiled.

mod error;
#[cfg(target_os = "linux")]
mod linux;
mod report;

pub use error::Error;
#[cfg(target_os = "linux")]
pub use linux::{
    DropMonitor, Entry, Events, FoundDevice, FoundRoute, FrameSender, LinkInfo, LinuxNode, Loaded, Map,
    MapShape, Netlink, Netns, NewEnd, NodeLock, PerfReader, Program, Ran, RawMap, RawProgram, RawRan,
    RawShape, Signal, Signals, SkbContext, Spec, StackDrop, Statistics, Tap, TappedFrame, TcxHook, TcxLink,
    Watched, Woken, clean, hear_icmp_errors, kernel_release, link_ids, load, monotonic_ns, mount_bpffs,
    possible_cpus, private_mounts, probe, set_offloads_off, shapes, stay_on_cpu, unpin,
};
pub use report::{ObjectReport, ProgramReport, Report, Verdict};

use skep_object::ObjectSet;

/// Hands every program of every object to the running kernel's verifier and reports each verdict.
///
/// A refusal is part of the report, not an error.
///
/// # Errors
///
/// Where the kernel cannot be asked: not Linux, no permission, no BPF; or where an object is not one.
pub fn verify_running_kernel(objects: &ObjectSet) -> Result<Report, Error> {
    #[cfg(target_os = "linux")]
    return linux::verify(objects);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = objects;
        Err(Error::NotLinux)
    }
}
