//! The one door: build, check, compare. `cargo xtask check` is what CI runs and what a person runs.
//!
//! Knows the workspace's folders and tools. Does not know the datapath, and depends on no crate of ours, so that it
//! still builds when they do not.

mod c_objects;
mod capability;
mod command;
mod ebpf;
mod edges;
mod kernels;
mod skips;
mod tidy;

use clap::{Parser, Subcommand};
use command::cargo;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a step ends with: nothing, or what is wrong, a line a finding.
type Outcome = Result<(), String>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and compares what is in this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// All checks: fmt, clippy, edges, tidy, test
    Check {
        /// Leave the tests out (CI runs them by the README's own command)
        #[arg(long)]
        no_test: bool,
    },
    /// Is everything formatted?
    Fmt,
    /// Lints, warnings being errors
    Clippy,
    /// Do the crates depend on each other as ARCHITECTURE.md says?
    Edges,
    /// File headers, lengths, forbidden words, links
    Tidy,
    /// All tests, and whether what they skipped may be skipped
    Test,
    /// Is every skip in these logs listed in ci/skips.toml, and its capability really missing?
    Skips {
        /// What `cargo test` or `.ci/run` printed; without one only the list itself is checked
        logs: Vec<PathBuf>,
    },
    /// Builds the eBPF objects into datapath/object/objects (needs ci/toolchain.sh)
    Ebpf {
        /// Build elsewhere and compare with the committed objects instead
        #[arg(long)]
        check: bool,
    },
    /// Builds the objects in C of skep-vm's tests with clang 19 (needs ci/toolchain.sh)
    CObjects {
        /// Build elsewhere and compare with the committed objects instead
        #[arg(long)]
        check: bool,
    },
    /// Every program and packet table on other kernels, in QEMU (`cargo xtask kernels --help`)
    #[command(disable_help_flag = true)]
    Kernels {
        /// What `kernels` of kernel-tests takes: [SERIES...] [--update] [--markdown] [--object DIR] [--self-test]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Check { no_test } => check(no_test),
        Task::Fmt => fmt(),
        Task::Clippy => clippy(),
        Task::Edges => edges::check(),
        Task::Tidy => tidy::check(),
        Task::Test => test(),
        Task::Skips { logs } => skips::check_files(&logs),
        Task::Ebpf { check: false } => ebpf::build(),
        Task::Ebpf { check: true } => ebpf::check(),
        Task::CObjects { check } => c_objects::build(check),
        Task::Kernels { arguments } => kernels::kernels(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every step, also after one that failed, and says at the end which did.
fn check(no_test: bool) -> Outcome {
    type Step = (&'static str, fn() -> Outcome);
    let steps: [Step; 5] =
        [("fmt", fmt), ("edges", edges::check), ("tidy", tidy::check), ("clippy", clippy), ("test", test)];
    let mut failed = Vec::new();
    for (name, step) in steps.into_iter().filter(|(name, _)| !(no_test && *name == "test")) {
        eprintln!("== xtask {name}");
        if let Err(what) = step() {
            eprintln!("{what}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("xtask check: failed: {}", failed.join(", ")))
}

/// A tool that a bare installation of Rust may lack is a skip, which must be listed.
fn component(name: &str) -> bool {
    let there = capability::is_there(name) == Some(true);
    if !there {
        println!("SKIP xtask-{name}: {name}");
    }
    there
}

fn fmt() -> Outcome {
    if !component("rustfmt") {
        return Ok(());
    }
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["fmt", "--manifest-path", "datapath/ebpf/Cargo.toml", "--", "--check"])
}

fn clippy() -> Outcome {
    if !component("clippy") {
        return Ok(());
    }
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    // What only this feature compiles.
    cargo(&["clippy", "-p", "skep", "--features", "kernel", "--all-targets", "--", "-D", "warnings"])
}

fn test() -> Outcome {
    let log = command::cargo_logged(&["test", "--workspace"])?;
    skips::check_log("cargo test --workspace", &log)
}
