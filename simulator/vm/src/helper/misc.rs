//! Helpers on time, randomness, CPUs, text and redirects.

use super::{Call, Outcome, format, refused};
use crate::scope::Scope;
use crate::{Errno, Redirect, RedirectKind};

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

pub(super) fn trace_printk(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let text = call.bytes(scope, 1, call.arg32(2) as usize)?;
    match format::format(&text, &call.arguments[2..]) {
        Some(text) => {
            scope.env.trace(&text);
            Ok(text.len() as u64)
        }
        None => refused(Errno::EINVAL),
    }
}

pub(super) fn redirect(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (ifindex, flags) = (call.arg32(1), call.arg(2));
    if flags & !INGRESS != 0 {
        return Ok(SHOT);
    }
    scope.run.redirect = Some(Redirect { ifindex, flags, kind: RedirectKind::Device });
    Ok(REDIRECT)
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
