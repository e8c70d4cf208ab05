//! The command line. Knows flags and their help, and does nothing.

use crate::prog::ProgArgs;
use clap::{Parser, Subcommand, ValueEnum};
use skep_vm::EngineKind;
use std::path::PathBuf;

/// Container networking for Kubernetes in eBPF, and a simulator that runs its real bytecode.
#[derive(Parser, Debug)]
#[command(name = "skep", version, propagate_version = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run scenarios and compare what happens with what they expect
    ///
    /// Exit status: 0 as expected (skips are counted aloud), 1 an expectation failed, 2 the input or the set-up is
    /// wrong, 3 an internal invariant broke.
    Run(RunArgs),
    /// Ask the running kernel's verifier about every program (Linux, root)
    Verify(VerifyArgs),
    /// Compare skep-vm with the running kernel on random cases
    #[command(subcommand)]
    Fuzz(FuzzCommand),
    /// Remove everything that skep has on this node: programs, devices, pins (Linux, root)
    ///
    /// `skep run --on kernel` leaves nothing behind, even if it is killed; this is for what an agent made.
    Clean,
    /// Look into any BPF object and run its programs: no root, no kernel
    Prog(ProgArgs),
    /// Explain a drop reason; without one, list all
    Explain {
        /// A reason's name, such as POLICY_DENIED, or Hubble's number of it
        reason: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct RunArgs {
    /// Folders that hold a scenario.yaml, or such files
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Where to run them; `sim,kernel` runs them on both and compares what was recorded
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sim")]
    pub(crate) on: Vec<On>,
    /// Print the walk of each flow, hop by hop
    #[arg(long)]
    pub(crate) trace: bool,
    /// What to print on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Take this seed instead of the scenario's own
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Write every packet at every hook to this pcapng file, one interface a hook
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Take the objects (lxc.o, host.o, overlay.o) from this folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    pub(crate) object: Option<PathBuf>,
    /// What executes the programs: checked (checks every access), rbpf or rbpf-jit (both check nothing), or auto: rbpf-jit
    /// for objects that a kernel has verified, else checked
    #[arg(long, value_name = "ENGINE", default_value_t)]
    pub(crate) engine: EngineKind,
    /// Treat a skipped step as a failure
    #[arg(long)]
    pub(crate) no_skip: bool,
    /// Read past a kind that skep does not know; can be given several times
    #[arg(long, value_name = "GROUP/KIND")]
    pub(crate) ignore_kind: Vec<String>,
    /// Columns of a trace; otherwise the terminal's, or COLUMNS, or 160
    #[arg(long)]
    pub(crate) width: Option<usize>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Take the objects (lxc.o, host.o, overlay.o) from this folder instead of the built-in ones
    #[arg(long, value_name = "DIR")]
    pub(crate) object: Option<PathBuf>,
    /// What to print on stdout
    #[arg(short, long, value_enum, default_value_t = VerifyOutput::Text)]
    pub(crate) output: VerifyOutput,
}

#[derive(Subcommand, Debug)]
pub(crate) enum FuzzCommand {
    /// Random packets, contexts and map contents through every program, in skep-vm and on this kernel (Linux, root)
    ///
    /// Both must agree in return value, packet, context, maps and events, but for what comes from the clock and the
    /// kernel's hash. Exit status: 0 they agree, 1 they differ, 2 the kernel cannot be asked.
    Kernel(FuzzKernelArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct FuzzKernelArgs {
    /// The seed of all cases: the same seed, the same cases
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many cases
    #[arg(long, default_value_t = 100_000)]
    pub(crate) cases: u64,
    /// How many frames to send through real devices, a VXLAN device among them; otherwise one for fifty cases
    #[arg(long)]
    pub(crate) frames: Option<u64>,
    /// Only cases that enter this program, and no frames unless --frames asks for some
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) program: Option<String>,
    /// What executes the programs in skep-vm: rbpf, rbpf-jit, checked or auto
    #[arg(long, value_name = "ENGINE", default_value_t)]
    pub(crate) engine: EngineKind,
    /// Run on so many threads; otherwise one a CPU
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Write the smallest case of each difference to this folder; `cargo test` replays those in kernel-tests/cases
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// What to print on stdout
    #[arg(short, long, value_enum, default_value_t = VerifyOutput::Text)]
    pub(crate) output: VerifyOutput,
}

/// Where scenarios run.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    /// In the simulator: no root, no kernel
    Sim,
    /// On the running kernel, in namespaces of its own (Linux, root)
    Kernel,
}

impl On {
    /// The word on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Kernel => "kernel",
        }
    }
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// For people
    Text,
    /// Schema skep.dev/report/v1; the same run gives the same bytes
    Json,
    /// For CI
    Junit,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum VerifyOutput {
    /// For people: a line a program
    Text,
    /// The same as JSON
    Json,
}
