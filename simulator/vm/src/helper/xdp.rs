//! Helpers of XDP programs.

use super::maps::map_of_kind;
use super::{Call, Outcome, refused};
use crate::map::Found;
use crate::packet::Packet;
use crate::scope::Scope;
use crate::{Errno, FaultKind, Redirect, RedirectKind, map_kind};

/// `XDP_REDIRECT`
const REDIRECT: u64 = 4;
/// `BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS`
const BROADCAST: u64 = 1 << 3;
const EXCLUDE_INGRESS: u64 = 1 << 4;

fn moved(
    scope: &mut Scope<'_>,
    call: Call,
    how: impl FnOnce(&mut Packet<'_>, i32, &mut crate::arena::Arena) -> bool,
) -> Outcome {
    call.check_context(scope)?;
    let packet = scope.packet.as_mut().expect("checked with the context");
    let done = how(packet, call.arg(2) as i32, &mut scope.kernel.arena);
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::EINVAL) }
}

pub(super) fn adjust_head(scope: &mut Scope<'_>, call: Call) -> Outcome {
    moved(scope, call, |packet, by, arena| packet.adjust_head(by, arena))
}

pub(super) fn adjust_meta(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let packet = super::skb::packet(scope, call)?;
    let adjusted = packet.adjust_meta(call.arg(2) as i32);
    scope.refresh();
    super::result(adjusted)
}

pub(super) fn adjust_tail(scope: &mut Scope<'_>, call: Call) -> Outcome {
    moved(scope, call, |packet, by, arena| packet.adjust_tail(by, arena))
}

pub(super) fn buff_len(scope: &mut Scope<'_>, call: Call) -> Outcome {
    Ok(super::skb::packet(scope, call)?.len() as u64)
}

/// Where bytes of the packet stand (`bpf_xdp_pointer`).
fn pointer(scope: &mut Scope<'_>, call: Call, len: usize) -> Result<Result<usize, Errno>, FaultKind> {
    let offset = call.arg32(2) as usize;
    let packet = super::skb::packet(scope, call)?;
    if offset > 0xffff || len > 0xffff {
        return Ok(Err(Errno::EFAULT));
    }
    Ok(packet.at(offset, len).ok_or(Errno::EINVAL))
}

pub(super) fn load_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let len = call.arg32(4) as usize;
    let to = call.room(scope, 3, len)?;
    match pointer(scope, call, len)? {
        Ok(at) => {
            scope.kernel.arena.copy(at, to, len);
            Ok(0)
        }
        Err(errno) => refused(errno),
    }
}

pub(super) fn store_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let len = call.arg32(4) as usize;
    let from = call.source(scope, 3, len)?;
    match pointer(scope, call, len)? {
        Ok(at) => {
            scope.kernel.arena.copy(from, at, len);
            Ok(0)
        }
        Err(errno) => refused(errno),
    }
}

/// `bpf_xdp_redirect_map`: the lower bits of the flags are what is returned if there is nothing.
pub(super) fn redirect_map(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let kinds = [map_kind::DEVMAP, map_kind::DEVMAP_HASH, map_kind::CPUMAP, map_kind::XSKMAP];
    let (id, ..) = map_of_kind(call, scope, 1, &kinds, "it does not redirect into a map of this kind")?;
    let (key, flags) = (call.arg32(2), call.arg(3));
    let kind = scope.kernel.map_def(id).map_or(0, |def| def.kind);
    let devices = matches!(kind, map_kind::DEVMAP | map_kind::DEVMAP_HASH);
    let allowed = if devices { 3 | BROADCAST | EXCLUDE_INGRESS } else { 3 };
    if flags & !allowed != 0 {
        return Ok(0);
    }
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    let found = map.lookup(&key.to_le_bytes(), scope.cpu, &kernel.arena);
    if found.is_none() && flags & BROADCAST == 0 {
        scope.run.redirect = None;
        return Ok(flags & 3);
    }
    let ifindex = match found {
        Some(Found::Place(at)) if devices => crate::context::get32(kernel.arena.slice(at, 4), 0),
        _ => 0,
    };
    scope.run.redirect = Some(Redirect { ifindex, flags, kind: RedirectKind::Map { map: id, key } });
    Ok(REDIRECT)
}
