//! Other kernels than the running one, each booted in QEMU with one static binary as its whole user space.
//!
//! Knows packages, modules, the initramfs, QEMU, and the lines that a guest says; and the committed table of what each
//! kernel's verifier makes of each program. Does not know what is checked inside: that is the guest's
//! (`src/bin/guest.rs`), which calls the same libraries as `skep verify` and the packet tables.

pub mod boot;
pub mod canary;
pub mod config;
pub mod cpio;
pub mod module;
pub mod package;
pub mod protocol;
pub mod table;

use std::fmt;

/// What went wrong, and what to do about it.
#[derive(Debug)]
pub struct Problem(pub String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// A result that says its problem in words.
pub type Result<T> = std::result::Result<T, Problem>;

/// Adds to an error what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Problem(format!("{what}: {e}")))
    }
}
