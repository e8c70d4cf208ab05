//! What can go wrong between a node and its kernel, and what to do about it.

use std::io;

/// Why the kernel could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bpf(2) here.
    #[error("this is not Linux: there is no kernel here to ask. Run the simulator instead (`skep run`)")]
    NotLinux,
    /// The caller may not load programs.
    #[error(
        "the kernel does not let this user load BPF programs. Run as root, or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON; in a container also without a seccomp filter on bpf(2)"
    )]
    NotPermitted,
    /// The kernel was built without bpf(2).
    #[error("this kernel has no bpf(2) (CONFIG_BPF_SYSCALL). Use a kernel that has it")]
    NoBpf,
    /// The bytes are not an object that can be loaded.
    #[error("{object}: not an object that can be loaded: {why}. Rebuild it with `cargo xtask ebpf`")]
    BadObject {
        /// The object's name.
        object: String,
        /// What aya-obj said.
        why: String,
    },
    /// A program or map that was asked for is not in the object.
    #[error("{object}: there is no {what}. It has: {has}")]
    Missing {
        /// The object's name.
        object: String,
        /// What was asked for.
        what: String,
        /// What there is.
        has: String,
    },
    /// The verifier refused a program.
    #[error("{program}: the verifier refused it:\n{log}")]
    Refused {
        /// The program.
        program: String,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// Pins of another layout of the maps are there.
    #[error(
        "{}: these pins are of another version of skep (this one has layout {version}); nothing reads them safely. \
         Remove them with `skep clean`, which cuts this node's pods off until the agent has run", path.display()
    )]
    Layout {
        /// The directory of that version.
        path: std::path::PathBuf,
        /// The version of this build.
        version: u32,
    },
    /// An agent is at work on this node.
    #[error("{}: an agent of this node is at work. Stop it first", path.display())]
    Busy {
        /// What it holds.
        path: std::path::PathBuf,
    },
    /// Where pins should be there is another file system.
    #[error("{}: no BPF file system is mounted there. Mount one: mount -t bpf bpffs {}", path.display(), path.display())]
    NoBpffs {
        /// Where it should be.
        path: std::path::PathBuf,
    },
    /// Another call to the kernel failed.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    #[cfg(target_os = "linux")]
    pub(crate) fn kernel(what: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel { what: what.into(), source }
    }

    /// The capability that is missing on this machine, as ci/skips.toml names it; `None` if something else is wrong.
    pub fn missing_capability(&self) -> Option<&'static str> {
        match self {
            Self::NotLinux => Some("linux"),
            Self::NotPermitted | Self::NoBpf => Some("bpf"),
            _ => None,
        }
    }
}
