//! Flags of `skep prog` and their help. Does nothing.

use clap::{Subcommand, ValueEnum};
use skep_vm::{EngineKind, ProgramKind};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(crate) struct ProgArgs {
    #[command(subcommand)]
    pub(super) command: ProgCommand,
}

#[derive(Subcommand, Debug)]
pub(super) enum ProgCommand {
    /// List an object's programs, maps, globals and what its maps hold from the beginning
    List(ListArgs),
    /// Print a program's instructions: as the object has them, and beside them what is executed
    ///
    /// Jumps name the instruction that they go to; maps, globals, functions and helpers go by their names. On the right
    /// stands the legal form that an engine executes. [count N] is the vm's own: it counts N instructions and ends a
    /// run that takes too long.
    Dump(DumpArgs),
    /// Run a program over a packet, as `bpftool prog run` does, without root and without a kernel
    ///
    /// Exit status: 0 the program ran (whatever it returned), 1 it misbehaved, 2 the input is wrong.
    ///
    /// Packets and contexts are raw bytes; make some with `xxd -r -p`. Maps are JSON, see --map-load. The output of one
    /// run goes into the next: --data-out of one as --data-in of the other, --map-dump as --map-load.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Run a program and tell which source lines were executed, from BTF's line information
    ///
    /// What the program is given is told by the flags of `run`. A line counts as executed if one of its instructions
    /// was. Programs that were tail called count, too. Exit status as `run`.
    Cover(Box<CoverArgs>),
    /// Run the cases of a bpf_conformance table; the last line says `N passed, M failed`
    ///
    /// The table has a header line and then, tabs between them: name, CPU version, memory, expected r0, program; the
    /// last three in hexadecimal. Exit status: 0 all passed, 1 some failed, 2 the input is wrong.
    Conformance(ConformanceArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  A packet through a TC program, the result as JSON:
    skep prog run policy.o --program policy --data-in syn.bin -o json
  A thousand runs over maps that were filled before, and what is in the maps afterwards:
    skep prog run policy.o --data-in syn.bin --map-load before.json --repeat 1000 --map-dump after.json

A file for --map-load (bytes in hexadecimal, in the order in which they stand in memory):
    {
      \"maps\": {
        \"groups\":   [{\"key\": \"18000000 0a000000\", \"value\": \"07000000\"}],
        \"counters\": [{\"key\": \"00000000\", \"values\": [\"of CPU 0\", \"of CPU 1\"]}],
        \"calls\":    [{\"key\": \"02000000\", \"program\": \"tail_ipv4\"}]
      },
      \"globals\": {\"default_group\": \"07000000\"}
    }
--map-dump writes the same form, and what `bpftool map dump -j` prints for keys and values is read, too.";

#[derive(clap::Args, Debug)]
pub(super) struct ObjectArgs {
    /// The object file; - is stdin
    #[arg(value_name = "OBJECT")]
    pub(super) object: PathBuf,
    /// Do CO-RE relocations for the kernel with this BTF (/sys/kernel/btf/vmlinux, or a copy of another machine's)
    #[arg(long, value_name = "FILE")]
    pub(super) btf: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) object: ObjectArgs,
    /// What to print on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(clap::Args, Debug)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub(super) object: ObjectArgs,
    /// This program only; otherwise all
    #[arg(short, long, value_name = "NAME")]
    pub(super) program: Option<String>,
    /// Print the source line before its instructions, where the object has BTF
    #[arg(long)]
    pub(super) source: bool,
    /// Print the bytes of each instruction
    #[arg(long)]
    pub(super) opcodes: bool,
    /// Only the object's own instructions
    #[arg(long)]
    pub(super) original: bool,
}

#[derive(clap::Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) object: ObjectArgs,
    /// Which program; can be left out if there is only one
    #[arg(short, long, value_name = "NAME")]
    pub(super) program: Option<String>,
    /// What kind of program it is, if its section does not tell
    #[arg(long, value_enum, value_name = "KIND")]
    pub(super) r#type: Option<Kind>,
    /// The packet, from its Ethernet header on; - is stdin
    #[arg(long, value_name = "FILE")]
    pub(super) data_in: PathBuf,
    /// The context (struct __sk_buff); what it lacks is zero
    #[arg(long, value_name = "FILE")]
    pub(super) ctx_in: Option<PathBuf>,
    /// Write the packet here as the program leaves it
    #[arg(long, value_name = "FILE")]
    pub(super) data_out: Option<PathBuf>,
    /// Write the context here as the program leaves it
    #[arg(long, value_name = "FILE")]
    pub(super) ctx_out: Option<PathBuf>,
    /// How often to run it, each time over what the time before has left
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
    /// Fill maps and globals from this file before the first run; can be given several times
    #[arg(long, value_name = "FILE")]
    pub(super) map_load: Vec<PathBuf>,
    /// Write all maps and globals to this file after the last run; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(super) map_dump: Option<PathBuf>,
    /// How many CPUs the simulated kernel has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) cpus: u32,
    /// The CPU that it runs on, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) cpu: u32,
    /// Which engine executes
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    pub(super) engine: Engine,
    /// What the monotonic clock shows, in nanoseconds; it stands still
    #[arg(long, value_name = "NS", default_value_t = 1_000_000_000)]
    pub(super) now: u64,
    /// Where random numbers begin; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// What to print on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

#[derive(clap::Args, Debug)]
pub(super) struct CoverArgs {
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Write the coverage to this file in LCOV's form, for genhtml and editors; - is stdout
    #[arg(long, value_name = "FILE")]
    pub(super) lcov: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(super) struct ConformanceArgs {
    /// The table; - is stdin
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Which engine executes
    #[arg(long, value_enum, default_value_t = Engine::Checked)]
    pub(super) engine: Engine,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// For people
    Text,
    /// For programs; the same input gives the same bytes
    Json,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Engine {
    /// rbpf-jit for an object that a kernel is known to have verified, else checked
    Auto,
    /// Ours: checks every access, finds what is read before it was written, knows what ran
    Checked,
    /// rbpf's interpreter: checks next to nothing
    Rbpf,
    /// rbpf's JIT, on x86-64: checks nothing, for programs that a kernel has verified
    RbpfJit,
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Auto => Self::Auto,
            Engine::Checked => Self::Checked,
            Engine::Rbpf => Self::Rbpf,
            Engine::RbpfJit => Self::RbpfJit,
        }
    }
}

/// Kinds of programs by the names of `bpftool prog load`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A TC classifier
    SchedCls,
    /// A TC action
    Action,
    /// XDP
    Xdp,
    /// A cgroup's packets, from their network headers on
    CgroupSkb,
    /// A cgroup's sockets, as they are made, bound or released
    CgroupSock,
    /// A cgroup's addresses: bind, connect, sendmsg and their like
    CgroupSockAddr,
    /// A cgroup's socket options
    CgroupSockopt,
    /// Events of TCP connections
    SockOps,
    /// Messages on sockets in maps
    SkMsg,
    /// Streams of sockets in maps
    SkSkb,
    /// A socket filter
    SocketFilter,
}

impl From<Kind> for ProgramKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::SchedCls => Self::SchedClassifier,
            Kind::Action => Self::SchedAction,
            Kind::Xdp => Self::Xdp,
            Kind::CgroupSkb => Self::CgroupSkb,
            Kind::CgroupSock => Self::CgroupSock,
            Kind::CgroupSockAddr => Self::CgroupSockAddr,
            Kind::CgroupSockopt => Self::CgroupSockopt,
            Kind::SockOps => Self::SockOps,
            Kind::SkMsg => Self::SkMsg,
            Kind::SkSkb => Self::SkSkb,
            Kind::SocketFilter => Self::SocketFilter,
        }
    }
}
