//! Helpers by number (`enum bpf_func_id`), and the vm's own, which legal code calls.
//!
//! One list says what exists. Knows how rbpf calls; each file beside this one knows one group of helpers.

mod callback;
mod checksum;
mod cookie;
mod format;
mod maps;
mod misc;
mod packet_load;
mod ring;
mod room;
mod route;
mod skb;
pub(crate) mod socket;
mod text;
mod tunnel;
mod xdp;

pub(crate) use callback::element;
pub(crate) use packet_load::load as load_packet;

use crate::scope::{self, Scope};
use crate::{Doing, Errno, FaultKind, MapId};

/// How rbpf calls a helper.
pub(crate) type Function = fn(u64, u64, u64, u64, u64) -> u64;

/// What a helper gives back: r0, or the end of the run.
type Outcome = Result<u64, FaultKind>;

/// `bpf_tail_call`
pub(crate) const TAIL_CALL: i32 = 12;

/// Numbers that no program can call: legal code's own.
const INTERNAL: i32 = 0x4000_0000;
/// With 1, 2 or 4 added: `LD_ABS` of so many bytes.
pub(crate) const PACKET_LOAD: i32 = INTERNAL + 0x1020;
/// Signed division, 64 bits.
pub(crate) const SDIV64: i32 = INTERNAL + 0x1010;
/// Signed remainder, 64 bits.
pub(crate) const SMOD64: i32 = INTERNAL + 0x1011;
/// Signed division, 32 bits.
pub(crate) const SDIV32: i32 = INTERNAL + 0x1012;
/// Signed remainder, 32 bits.
pub(crate) const SMOD32: i32 = INTERNAL + 0x1013;

macro_rules! helpers {
    ($( $number:literal $path:path; )*) => {
        /// The kernel's helpers that exist here.
        const KERNEL: &[(i32, Function)] = &[ $( ($number, {
            fn enter(a: u64, b: u64, c: u64, d: u64, e: u64) -> u64 {
                call(Call { number: $number, arguments: [a, b, c, d, e] }, $path)
            }
            enter
        }), )* ];
    };
}

helpers! {
    1 maps::lookup;
    2 maps::update;
    3 maps::delete;
    4 text::probe_read;
    5 misc::ktime_get_ns;
    6 text::trace_printk;
    7 misc::get_prandom_u32;
    8 misc::get_smp_processor_id;
    9 skb::store_bytes;
    10 checksum::l3_csum_replace;
    11 checksum::l4_csum_replace;
    13 route::clone_redirect;
    14 misc::get_current_pid_tgid;
    15 misc::get_current_uid_gid;
    16 misc::get_current_comm;
    17 misc::zero;
    18 room::vlan_push;
    19 room::vlan_pop;
    20 tunnel::get_key;
    21 tunnel::set_key;
    23 misc::redirect;
    24 misc::route_realm;
    25 maps::perf_event_output;
    26 skb::load_bytes;
    28 checksum::csum_diff;
    29 tunnel::get_options;
    30 tunnel::set_options;
    31 skb::change_proto;
    32 skb::change_type;
    34 skb::get_hash_recalc;
    38 skb::change_tail;
    39 skb::pull_data;
    40 skb::csum_update;
    41 skb::set_hash_invalid;
    42 misc::zero;
    43 skb::change_head;
    44 xdp::adjust_head;
    45 text::probe_read_str;
    46 socket::cookie;
    47 socket::uid;
    48 skb::set_hash;
    49 socket::setsockopt;
    50 room::adjust_room;
    51 xdp::redirect_map;
    52 socket::redirect;
    53 socket::ops_map_update;
    54 xdp::adjust_meta;
    57 socket::getsockopt;
    59 socket::cb_flags_set;
    60 socket::redirect;
    61 socket::msg_apply_bytes;
    62 socket::msg_cork_bytes;
    63 socket::msg_pull_data;
    64 socket::bind;
    65 xdp::adjust_tail;
    68 skb::load_bytes_relative;
    69 route::fib_lookup;
    70 socket::ops_map_update;
    71 socket::redirect;
    72 socket::redirect;
    79 misc::cgroup_id;
    80 misc::cgroup_id;
    84 socket::lookup_tcp;
    85 socket::lookup_udp;
    86 socket::release;
    87 maps::push;
    88 maps::pop;
    89 maps::peek;
    90 socket::msg_push_data;
    91 socket::msg_pop_data;
    93 callback::spin_lock;
    94 callback::spin_unlock;
    95 socket::fullsock;
    96 socket::tcp_sock;
    97 skb::ecn_set_ce;
    98 socket::listener;
    99 socket::skc_lookup_tcp;
    105 text::strtol;
    106 text::strtoul;
    107 socket::storage_get;
    108 socket::storage_delete;
    113 text::probe_read;
    115 text::probe_read_str;
    118 misc::jiffies64;
    122 socket::netns_cookie;
    124 socket::assign;
    125 misc::ktime_get_boot_ns;
    130 ring::output;
    131 ring::reserve;
    132 ring::submit;
    133 ring::discard;
    134 ring::query;
    135 skb::csum_level;
    152 misc::redirect_neigh;
    155 misc::redirect_peer;
    160 misc::ktime_get_ns;
    163 route::check_mtu;
    165 text::snprintf;
    169 callback::timer_init;
    170 callback::timer_set_callback;
    171 callback::timer_start;
    172 callback::timer_cancel;
    177 text::trace_vprintk;
    182 text::strncmp;
    186 misc::get_retval;
    187 misc::set_retval;
    188 xdp::buff_len;
    189 xdp::load_bytes;
    190 xdp::store_bytes;
    192 skb::set_tstamp;
    195 maps::lookup_percpu;
    204 cookie::make_v4;
    205 cookie::make_v6;
    206 cookie::check_v4;
    207 cookie::check_v6;
    208 misc::ktime_get_boot_ns;
}

const OWN: &[(i32, Function)] = &[
    (TAIL_CALL, |_, map, index, _, _| scope::tail_call(map, index as u32)),
    (callback::FOR_EACH, callback::for_each),
    (callback::LOOP, callback::run_loop),
    (PACKET_LOAD + 1, |_, offset, _, _, _| packet_load::load(offset as i32, 1)),
    (PACKET_LOAD + 2, |_, offset, _, _, _| packet_load::load(offset as i32, 2)),
    (PACKET_LOAD + 4, |_, offset, _, _, _| packet_load::load(offset as i32, 4)),
    (SDIV64, |a, b, _, _, _| {
        (a as i64).checked_div(b as i64).map_or(if b == 0 { 0 } else { a }, |v| v as u64)
    }),
    (SMOD64, |a, b, _, _, _| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }),
    (SDIV32, |a, b, _, _, _| u64::from(sdiv32(a as i32, b as i32) as u32)),
    (SMOD32, |a, b, _, _, _| {
        let (a, b) = (a as i32, b as i32);
        u64::from(if b == 0 { a } else { a.wrapping_rem(b) } as u32)
    }),
];

fn sdiv32(a: i32, b: i32) -> i32 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

/// Everything that an engine has to know.
pub(crate) fn all() -> impl Iterator<Item = (i32, Function)> {
    KERNEL.iter().chain(OWN).copied()
}

/// What a call of one of legal code's own helpers does, as text.
pub(crate) fn own_name(number: i32) -> Option<String> {
    let name = match number {
        SDIV64 => "sdiv64",
        SMOD64 => "smod64",
        SDIV32 => "sdiv32",
        SMOD32 => "smod32",
        _ if (PACKET_LOAD..=PACKET_LOAD + 4).contains(&number) => "load from the packet",
        _ => return None,
    };
    Some(format!("[{name}]"))
}

/// What a number stands for.
pub(crate) fn function(number: i32) -> Option<Function> {
    all().find(|(n, _)| *n == number).map(|(_, function)| function)
}

/// Helpers that call a function of the program: for_each_map_elem, timer_set_callback, find_vma, loop,
/// user_ringbuf_drain.
pub(crate) const CALLS_BACK: &[i32] = &[164, 170, 180, 181, 209];

/// How many arguments helpers have, by how many: a program must have written all of them, numbers too. Of
/// `bpf_trace_printk` those that its format does not name do not count.
const ARGUMENTS: [&[i32]; 5] = [
    &[17, 19, 24, 34, 41, 46, 47, 79, 86, 93, 94, 95, 96, 97, 98, 122, 172, 187, 188],
    &[
        1, 3, 6, 16, 23, 32, 39, 40, 44, 48, 54, 59, 61, 62, 65, 88, 89, 108, 132, 133, 134, 135, 155, 170,
        206, 207,
    ],
    &[
        4, 12, 13, 18, 29, 30, 31, 38, 43, 45, 51, 64, 87, 113, 115, 124, 131, 169, 171, 182, 192, 195, 204,
        205,
    ],
    &[
        2, 20, 21, 26, 50, 52, 53, 60, 63, 69, 70, 71, 72, 90, 91, 105, 106, 107, 130, 152, 164, 177, 181,
        189, 190,
    ],
    &[9, 10, 11, 25, 28, 49, 57, 68, 84, 85, 99, 163, 165],
];

/// The registers that a helper reads, as bits.
pub(crate) fn reads(number: i32) -> u16 {
    let count = ARGUMENTS.iter().position(|of| of.contains(&number)).map_or(0, |at| at + 1);
    ((1 << count) - 1) << 1
}

/// Whether a program may call this number.
pub(crate) fn exists(number: i32) -> bool {
    matches!(number, TAIL_CALL | callback::FOR_EACH | callback::LOOP)
        || KERNEL.iter().any(|(n, _)| *n == number)
}

/// What a program has in its hands for a map: no address, and the same in every run.
pub(crate) fn map_handle(map: MapId) -> u64 {
    HANDLE | u64::from(map.0)
}

const HANDLE: u64 = 0x6d61_7021 << 32;

/// What a program has in its hands for one of its functions.
pub(crate) fn callback_handle(function: usize) -> u64 {
    CALLBACK | function as u64
}

const CALLBACK: u64 = 0x6362_6b21 << 32;

/// The function that a handle stands for, by its first instruction.
pub(crate) fn callback_of(handle: u64) -> Option<usize> {
    (handle >> 32 == CALLBACK >> 32).then_some(handle as u32 as usize)
}

/// The map that a handle stands for, if it is one.
pub(crate) fn map_of(handle: u64) -> Option<MapId> {
    (handle >> 32 == HANDLE >> 32).then_some(MapId(handle as u32))
}

/// One call of a helper.
#[derive(Clone, Copy)]
struct Call {
    number: i32,
    arguments: [u64; 5],
}

fn call(call: Call, helper: impl for<'s> FnOnce(&mut Scope<'s>, Call) -> Outcome) -> u64 {
    scope::with(|scope| {
        if scope.failed() {
            return 0;
        }
        scope.run.stats.helper_calls += 1;
        helper(scope, call).unwrap_or_else(|kind| {
            scope.fail(kind);
            0
        })
    })
}

impl Call {
    /// An argument, counted from 1.
    fn arg(self, n: u8) -> u64 {
        self.arguments[usize::from(n) - 1]
    }

    fn arg32(self, n: u8) -> u32 {
        self.arg(n) as u32
    }

    /// Where an argument points, if `size` bytes stand there that the helper may read. Nothing needs to stand at a
    /// pointer to nothing.
    fn place(self, scope: &mut Scope<'_>, n: u8, size: usize) -> Result<usize, FaultKind> {
        self.check(scope, n, size, Doing::Load)?;
        self.offset(scope, n, size)
    }

    /// Where an argument points, if `size` bytes stand there that the helper may write; all of them count as written.
    fn room(self, scope: &mut Scope<'_>, n: u8, size: usize) -> Result<usize, FaultKind> {
        self.check(scope, n, size, Doing::Store)?;
        self.offset(scope, n, size)
    }

    /// What the engine `checked` knows about the bytes that an argument points to.
    fn check(self, scope: &mut Scope<'_>, n: u8, size: usize, doing: Doing) -> Result<(), FaultKind> {
        let Some(regions) = scope.kernel.regions.as_mut().filter(|_| size > 0) else { return Ok(()) };
        let checked = regions.check_argument(n, self.arg(n), size, doing);
        checked.map_err(|access| FaultKind::Given { helper: self.number, argument: n, access })
    }

    /// Where an argument points, if `size` bytes stand there that the helper may read.
    fn source(self, scope: &mut Scope<'_>, n: u8, size: usize) -> Result<usize, FaultKind> {
        self.check(scope, n, size, Doing::Load)?;
        self.offset(scope, n, size)
    }

    fn offset(self, scope: &Scope<'_>, n: u8, size: usize) -> Result<usize, FaultKind> {
        if size == 0 {
            return Ok(0);
        }
        let place = scope.kernel.arena.offset(self.arg(n), size);
        place.ok_or(FaultKind::Argument { helper: self.number, argument: n, size })
    }

    /// A copy of the bytes that an argument points to.
    fn bytes(self, scope: &mut Scope<'_>, n: u8, size: usize) -> Result<Vec<u8>, FaultKind> {
        let at = self.place(scope, n, size)?;
        Ok(scope.kernel.arena.slice(at, size).to_vec())
    }

    /// Refuses what is not the context.
    fn check_any_context(self, scope: &Scope<'_>) -> Result<(), FaultKind> {
        let known = [scope.kernel.arena.address(scope.slots().context), scope.memory.0];
        if known.contains(&self.arg(1)) { Ok(()) } else { Err(FaultKind::Context { helper: self.number }) }
    }

    /// Refuses what is not the context of a packet.
    fn check_context(self, scope: &Scope<'_>) -> Result<(), FaultKind> {
        let context = scope.kernel.arena.address(scope.slots().context);
        if scope.packet.is_some() && self.arg(1) == context {
            return Ok(());
        }
        Err(FaultKind::Context { helper: self.number })
    }
}

/// An error number as a helper gives it back.
fn refused(errno: Errno) -> Outcome {
    Ok(i64::from(-errno.0) as u64)
}

fn result(result: Result<(), Errno>) -> Outcome {
    result.map_or_else(refused, |()| Ok(0))
}
