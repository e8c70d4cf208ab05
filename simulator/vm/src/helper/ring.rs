//! Helpers on ring buffers.

use super::maps::map_of_kind;
use super::{Call, Outcome, refused};
use crate::map::{Map, Ring};
use crate::scope::Scope;
use crate::{Errno, FaultKind, MapId, Region, map_kind};

/// `BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP`
const WAKEUP: u64 = 3;

fn ring(call: Call, scope: &Scope<'_>) -> Result<MapId, FaultKind> {
    let what = "its first argument is no ring buffer";
    Ok(map_of_kind(call, scope, 1, &[map_kind::RINGBUF], what)?.0)
}

fn reserve_in(scope: &mut Scope<'_>, id: MapId, size: u64) -> Option<usize> {
    let kernel = &mut *scope.kernel;
    kernel.maps.get_mut(id).and_then(Map::ring)?.reserve(size, &mut kernel.arena)
}

pub(super) fn reserve(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = ring(call, scope)?;
    if call.arg(3) != 0 {
        return Ok(0);
    }
    let at = reserve_in(scope, id, call.arg(2));
    Ok(at.map_or(0, |at| {
        scope.reserved.push((id, at));
        scope.made = Some((call.arg(2), Region::Given));
        scope.kernel.arena.address(at)
    }))
}

pub(super) fn submit(scope: &mut Scope<'_>, call: Call) -> Outcome {
    end(scope, call, false)
}

pub(super) fn discard(scope: &mut Scope<'_>, call: Call) -> Outcome {
    end(scope, call, true)
}

fn end(scope: &mut Scope<'_>, call: Call, discard: bool) -> Outcome {
    let at = scope.kernel.arena.offset(call.arg(1), 1);
    let known = at.and_then(|at| scope.reserved.iter().position(|(_, place)| *place == at));
    let Some(known) = known else {
        return Err(FaultKind::Map { helper: call.number, what: "nothing is reserved there" });
    };
    let (id, at) = scope.reserved.swap_remove(known);
    if let Some(ring) = scope.kernel.maps.get_mut(id).and_then(Map::ring) {
        ring.commit(at, discard);
    }
    Ok(0)
}

pub(super) fn output(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = ring(call, scope)?;
    let (size, flags) = (call.arg(3), call.arg(4));
    let from = call.source(scope, 2, size as usize)?;
    if flags & !WAKEUP != 0 {
        return refused(Errno::EINVAL);
    }
    let Some(at) = reserve_in(scope, id, size) else { return refused(Errno::EAGAIN) };
    scope.kernel.arena.copy(from, at, size as usize);
    if let Some(ring) = scope.kernel.maps.get_mut(id).and_then(Map::ring) {
        ring.commit(at, false);
    }
    Ok(0)
}

pub(super) fn query(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = ring(call, scope)?;
    let ring = scope.kernel.maps.get_mut(id).and_then(Map::ring);
    Ok(ring.map_or(0, |ring: &mut Ring| ring.query(call.arg(2))))
}
