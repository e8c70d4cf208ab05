//! Helpers on time, randomness, CPUs, text and redirects.

use super::{Call, Outcome};
use crate::scope::Scope;
use crate::{ProgramKind, Redirect, RedirectKind};

/// `TC_ACT_SHOT`
const SHOT: u64 = 2;
/// `TC_ACT_REDIRECT`
const REDIRECT: u64 = 7;
/// `BPF_F_INGRESS`
const INGRESS: u64 = 1;
/// Bytes of `struct bpf_redir_neigh`.
const NEIGHBOUR: usize = 20;
const AF_INET: u32 = 2;

pub(super) fn ktime_get_ns(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.now_ns())
}

pub(super) fn ktime_get_boot_ns(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.boot_ns())
}

pub(super) fn get_prandom_u32(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(u64::from(scope.env.random_u32()))
}

pub(super) fn get_smp_processor_id(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(u64::from(scope.cpu))
}

/// Four milliseconds a tick: `CONFIG_HZ=250`.
pub(super) fn jiffies64(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.now_ns() / 4_000_000)
}

/// `bpf_get_numa_node_id`: there is one.
pub(super) fn zero(_: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(0)
}

pub(super) fn get_current_pid_tgid(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.pid_tgid())
}

pub(super) fn get_current_uid_gid(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.uid_gid())
}

pub(super) fn get_current_comm(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(2) as usize;
    let to = call.room(scope, 1, size)?;
    let command = scope.env.command();
    let place = scope.kernel.arena.slice_mut(to, size);
    place.fill(0);
    let fits = size.saturating_sub(1).min(command.len());
    place[..fits].copy_from_slice(&command[..fits]);
    Ok(0)
}

pub(super) fn cgroup_id(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(scope.env.cgroup_id())
}

pub(super) fn route_realm(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(u64::from(scope.env.route_realm()))
}

/// `bpf_get_retval` of control group programs.
pub(super) fn get_retval(scope: &mut Scope<'_>, _: Call) -> Outcome {
    Ok(i64::from(scope.run.retval) as u64)
}

pub(super) fn set_retval(scope: &mut Scope<'_>, call: Call) -> Outcome {
    scope.run.retval = call.arg(1) as i32;
    Ok(0)
}

/// `XDP_REDIRECT`
const XDP_REDIRECT: u64 = 4;

pub(super) fn redirect(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (ifindex, flags) = (call.arg32(1), call.arg(2));
    let xdp = scope.packet.as_ref().is_some_and(|p| p.kind() == ProgramKind::Xdp);
    if xdp && flags != 0 {
        // `XDP_ABORTED`
        return Ok(0);
    }
    if flags & !INGRESS != 0 {
        return Ok(SHOT);
    }
    scope.run.redirect = Some(Redirect { ifindex, flags, kind: RedirectKind::Device });
    Ok(if xdp { XDP_REDIRECT } else { REDIRECT })
}

pub(super) fn redirect_peer(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (ifindex, flags) = (call.arg32(1), call.arg(2));
    if flags != 0 {
        return Ok(SHOT);
    }
    scope.run.redirect = Some(Redirect { ifindex, flags, kind: RedirectKind::Peer });
    Ok(REDIRECT)
}

pub(super) fn redirect_neigh(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (ifindex, len, flags) = (call.arg32(1), call.arg32(3) as usize, call.arg(4));
    if len != 0 && len < NEIGHBOUR || flags != 0 {
        return Ok(SHOT);
    }
    let params = call.bytes(scope, 2, len)?;
    let next_hop = match params.get(..8) {
        None => None,
        Some(p) if p[..4] == AF_INET.to_le_bytes() => Some([p[4], p[5], p[6], p[7]]),
        Some(_) => {
            let what = "next hops other than IPv4 are not supported here";
            return Err(crate::FaultKind::Unsupported { helper: call.number, what });
        }
    };
    scope.run.redirect = Some(Redirect { ifindex, flags, kind: RedirectKind::Neighbour { next_hop } });
    Ok(REDIRECT)
}
