//! One run: what goes in beside the packet, what comes out, and the scope in which helpers find their world.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use skep_packet::SkBuff;

use crate::engine::Program;
use crate::input::{self, Input};
use crate::packet::SLOT;
use crate::scope::Scope;
use crate::sock::SocketId;
use crate::{Fault, FaultKind, Kernel, MapId, ProgramId, ProgramKind, Region};

/// What the world gives a run: time, randomness, a CPU, and a place for events.
pub trait Environment {
    /// `bpf_ktime_get_ns`: nanoseconds of the monotonic clock.
    fn now_ns(&mut self) -> u64;
    /// `bpf_ktime_get_boot_ns`: the same with time spent asleep.
    fn boot_ns(&mut self) -> u64 {
        self.now_ns()
    }
    /// `bpf_get_prandom_u32`.
    fn random_u32(&mut self) -> u32;
    /// `bpf_get_smp_processor_id`; below the kernel's number of CPUs.
    fn cpu(&mut self) -> u32 {
        0
    }
    /// `bpf_perf_event_output`: `event` as the program wrote it, and the first bytes of the packet that it asked for.
    fn emit(&mut self, map: MapId, event: &[u8], captured: &[u8]);
    /// `bpf_trace_printk`: one formatted text.
    fn trace(&mut self, _text: &str) {}
    /// `bpf_fib_lookup`: the route and neighbour of a packet, or a `BPF_FIB_LKUP_RET_*` number. At first there is no route.
    fn fib_lookup(&mut self, _question: &FibQuestion) -> Result<FibAnswer, FibRefusal> {
        Err(FibRefusal { number: 4, mtu: 0 })
    }
    /// The MTU of a device, bytes; `None` for a device that is not there.
    fn mtu(&mut self, _ifindex: u32) -> Option<u32> {
        Some(1500)
    }
    /// `bpf_sk_lookup_tcp` and its like. `None` leaves it to the sockets of the kernel.
    fn socket_lookup(&mut self, _question: &SocketQuestion) -> Option<Option<SocketId>> {
        None
    }
    /// `bpf_get_cgroup_classid` and `bpf_skb_cgroup_id`: where the packet's socket belongs.
    fn cgroup_id(&mut self) -> u64 {
        1
    }
    /// `bpf_get_route_realm`.
    fn route_realm(&mut self) -> u32 {
        0
    }
    /// `bpf_get_current_pid_tgid`.
    fn pid_tgid(&mut self) -> u64 {
        0
    }
    /// `bpf_get_current_uid_gid`.
    fn uid_gid(&mut self) -> u64 {
        0
    }
    /// `bpf_get_current_comm`.
    fn command(&mut self) -> [u8; 16] {
        [0; 16]
    }
}

/// What `bpf_fib_lookup` asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FibQuestion {
    /// The device that the packet is at.
    pub ifindex: u32,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The protocol above IP.
    pub protocol: u8,
    /// Ports, in host byte order.
    pub source_port: u16,
    /// As `source_port`.
    pub destination_port: u16,
    /// Type of service, of IPv4; flow label and class, of IPv6.
    pub tos: u32,
    /// `skb->mark`, where `BPF_FIB_LOOKUP_MARK` asks for it; else 0.
    pub mark: u32,
    /// The table, where one was named.
    pub table: Option<u32>,
    /// `BPF_FIB_LOOKUP_*`.
    pub flags: u32,
}

/// A route and its neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FibAnswer {
    /// The device that it leaves by.
    pub ifindex: u32,
    /// The next hop; the destination where there is no gateway.
    pub next_hop: IpAddr,
    /// The source that the route prefers, for `BPF_FIB_LOOKUP_SRC`.
    pub source: Option<IpAddr>,
    /// The route's metric.
    pub metric: u32,
    /// The route's MTU; 0 for none of its own.
    pub mtu: u32,
    /// Hardware addresses of the device and of the next hop; `None` where the neighbour is not known.
    pub macs: Option<([u8; 6], [u8; 6])>,
}

/// Why there is no route: a `BPF_FIB_LKUP_RET_*` number, and the MTU where that is the reason (8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FibRefusal {
    /// `BPF_FIB_LKUP_RET_*`; negative for an error number.
    pub number: i32,
    /// Bytes.
    pub mtu: u32,
}

/// What `bpf_sk_lookup_tcp` and its like ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketQuestion {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u32,
    /// The packet's source.
    pub source: SocketAddr,
    /// The packet's destination.
    pub destination: SocketAddr,
    /// The device that the packet is at.
    pub ifindex: u32,
    /// The network namespace; -1 for the packet's own.
    pub netns: i64,
    /// Whether sockets that are only requests or in TIME_WAIT are wanted too (`bpf_skc_lookup_tcp`).
    pub any_state: bool,
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The lower half of r0: a `TC_ACT_*` number.
    pub return_value: i32,
    /// The last redirect that a helper recorded; it counts if the return value is `TC_ACT_REDIRECT` (7).
    pub redirect: Option<Redirect>,
    /// The entry program, and each program that was tail called, in order.
    pub chain: Vec<ProgramId>,
    /// Every attempt to tail call, in order.
    pub tail_calls: Vec<TailCall>,
    /// Map accesses in order, if [`Kernel::record_accesses`] is on.
    pub accesses: Vec<Access>,
    /// What `bpf_set_retval` said that the system call gives back.
    pub retval: i32,
    /// The socket that `bpf_sk_assign` chose.
    pub assigned: Option<SocketId>,
    /// What `bpf_clone_redirect` sent.
    pub clones: Vec<(SkBuff, Redirect)>,
    /// Timers that were started, in order.
    pub timers: Vec<Timer>,
    /// What it took.
    pub stats: Stats,
    /// Every instruction in order, if [`Kernel::trace_instructions`] is on and the engine is `checked`.
    pub trace: Vec<Step>,
}

/// One executed instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The program.
    pub program: ProgramId,
    /// Counted as in [`crate::Error::Instruction`].
    pub instruction: usize,
    /// How many functions deep: 0 is the program that was entered first.
    pub depth: usize,
    /// What the destination register, and r0 of a call, held before: a number, or an offset into a region.
    pub destination: (Region, i64),
    /// The same of the source register.
    pub source: (Region, i64),
}

/// A timer that was started (`bpf_timer_start`). The vm has no clock: whoever has one calls [`Kernel::run_timers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// The map that it stands in.
    pub map: MapId,
    /// Nanoseconds from now, or on the clock with `BPF_F_TIMER_ABS` (1).
    pub nanoseconds: u64,
    /// `BPF_F_TIMER_*`.
    pub flags: u64,
}

/// Counts of one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Instructions of the object that were executed, a 16-byte load as one.
    pub instructions: u64,
    /// Helper calls, tail calls included.
    pub helper_calls: u64,
    /// Calls of `bpf_map_lookup_elem`.
    pub map_lookups: u64,
}

impl Stats {
    fn add(&mut self, run: &Self) {
        // One by one: a wide load of what was just counted in parts waits for it.
        self.instructions += std::hint::black_box(run.instructions);
        self.helper_calls += std::hint::black_box(run.helper_calls);
        self.map_lookups += std::hint::black_box(run.map_lookups);
    }
}

/// A redirect, as a helper recorded it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The device.
    pub ifindex: u32,
    /// The flags that the program gave; 1 is `BPF_F_INGRESS`.
    pub flags: u64,
    /// Which helper it was.
    pub kind: RedirectKind,
}

/// Which helper recorded a redirect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectKind {
    /// `bpf_redirect`.
    Device,
    /// `bpf_redirect_peer`.
    Peer,
    /// `bpf_redirect_map` into a map of devices, CPUs or AF_XDP sockets. [`Redirect::ifindex`] is the device, else 0.
    Map {
        /// The map.
        map: MapId,
        /// The key.
        key: u32,
    },
    /// `bpf_sk_redirect_map`, `bpf_msg_redirect_hash` and their like.
    Socket(SocketId),
    /// `bpf_redirect_neigh`; with the IPv4 next hop, octets in order, if one was given.
    Neighbour {
        /// The next hop that was given instead of the packet's destination.
        next_hop: Option<[u8; 4]>,
    },
}

/// An attempt to tail call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailCall {
    /// The program array.
    pub map: MapId,
    /// The slot that was asked for.
    pub index: u32,
    /// What ran; `None` if the slot was empty, does not exist, or the limit of 33 tail calls was reached.
    pub target: Option<ProgramId>,
}

/// What an access did to a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// `bpf_map_lookup_elem`.
    Lookup,
    /// `bpf_map_update_elem`.
    Update,
    /// `bpf_map_delete_elem`.
    Delete,
}

/// One access of a program to a map through a helper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// The program that did it.
    pub program: ProgramId,
    /// The map.
    pub map: MapId,
    /// What it did.
    pub op: Op,
    /// The key it gave.
    pub key: Vec<u8>,
    /// Look-up: what was found, as it was then. Update: what was to be written. Delete: nothing.
    pub value: Option<Vec<u8>>,
    /// Update and delete: what stood there before.
    pub before: Option<Vec<u8>>,
    /// 0, or the error number negated. A look-up that finds nothing is -2 (`ENOENT`).
    pub result: i32,
}

impl Run {
    /// Empty, and its lists keep their memory.
    pub(crate) fn reset(&mut self) {
        (self.return_value, self.redirect, self.retval, self.assigned) = (0, None, 0, None);
        self.chain.clear();
        self.tail_calls.clear();
        self.accesses.clear();
        self.clones.clear();
        self.timers.clear();
        self.trace.clear();
        self.stats = Stats::default();
    }
}

pub(crate) fn run(
    kernel: &mut Kernel,
    program: ProgramId,
    input: Input<'_>,
    env: &mut dyn Environment,
) -> Result<Run, Fault> {
    let mut run = Run::default();
    run_again(kernel, program, input, env, &mut run).map(|()| run)
}

pub(crate) fn run_again(
    kernel: &mut Kernel,
    program: ProgramId,
    input: Input<'_>,
    env: &mut dyn Environment,
    into: &mut Run,
) -> Result<(), Fault> {
    run_repeated(kernel, program, input, env, 1, into).map(drop)
}

/// Runs it so many times over what was put into the arena once, and gives what all runs took together.
pub(crate) fn run_repeated(
    kernel: &mut Kernel,
    program: ProgramId,
    input: Input<'_>,
    env: &mut dyn Environment,
    repeat: u32,
    into: &mut Run,
) -> Result<Stats, Fault> {
    let entry = kernel.program(program)?;
    let (packet, rest) = input::enter(kernel, entry.kind(), input).map_err(|kind| Fault {
        program: entry.name().to_owned(),
        instruction: None,
        kind,
    })?;
    into.reset();
    let mut scope = Scope::new(kernel, env, packet, std::mem::take(into));
    scope.rest = rest;
    let (mut total, mut r0, mut fault) = (Stats::default(), 0, None);
    for n in 0..repeat.max(1) {
        if n > 0 {
            scope.again();
        }
        match scope.execute(program, &entry) {
            Ok(value) => r0 = value,
            Err(stopped) => {
                fault = Some(stopped);
                break;
            }
        }
        total.add(&scope.run.stats);
    }
    let Scope { kernel, packet, rest, run, running, .. } = scope;
    *into = run;
    kernel.running = running;
    kernel.running.clear();
    if let Some(fault) = fault {
        return Err(fault);
    }
    input::leave(kernel, packet, rest);
    into.return_value = r0 as i32;
    Ok(total)
}

pub(crate) fn run_memory(
    kernel: &mut Kernel,
    program: ProgramId,
    memory: &mut [u8],
    env: &mut dyn Environment,
) -> Result<u64, Fault> {
    let entry = entry(kernel, program, ProgramKind::Memory)?;
    let at = kernel.slots.packet;
    if memory.len() > SLOT {
        let kind = FaultKind::PacketTooLong(memory.len());
        return Err(Fault { program: entry.name().to_owned(), instruction: None, kind });
    }
    kernel.arena.slice_mut(at, memory.len()).copy_from_slice(memory);
    let address = if memory.is_empty() { 0 } else { kernel.arena.address(at) };
    let mut scope = Scope::new(kernel, env, None, Run::default());
    scope.memory = (address, memory.len() as u64);
    let r0 = scope.execute(program, &entry)?;
    memory.copy_from_slice(scope.kernel.arena.slice(at, memory.len()));
    Ok(r0)
}

fn entry(kernel: &Kernel, program: ProgramId, kind: ProgramKind) -> Result<Rc<Program>, Fault> {
    let entry = kernel.program(program)?;
    if entry.kind() == kind {
        return Ok(entry);
    }
    Err(Fault { program: entry.name().to_owned(), instruction: None, kind: FaultKind::NoProgram })
}
