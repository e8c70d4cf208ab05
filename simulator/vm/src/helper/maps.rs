//! Helpers on maps: the generic ones, and perf events.

use super::{Call, Outcome, map_of, refused, result};
use crate::scope::Scope;
use crate::{Access, Errno, FaultKind, MapId, Op, map_kind};

const CURRENT_CPU: u64 = 0xffff_ffff;
const INDEX_MASK: u64 = 0xffff_ffff;
const CTXLEN_MASK: u64 = 0xf_ffff << 32;

/// The map that an argument names, with the sizes of its keys and values, if programs can look into it.
fn map(call: Call, scope: &Scope<'_>, n: u8) -> Result<(MapId, usize, usize), FaultKind> {
    let fault = |what| FaultKind::Map { helper: call.number, what };
    let id = map_of(call.arg(n)).ok_or_else(|| fault("its argument is no map"))?;
    let map = scope.kernel.maps.get(&id).ok_or_else(|| fault("the map is gone"))?;
    Ok((id, map.def().key_size as usize, map.value_size()))
}

fn values(call: Call, scope: &Scope<'_>) -> Result<(MapId, usize, usize), FaultKind> {
    let found = map(call, scope, 1)?;
    match scope.kernel.map_def(found.0).map(|def| def.kind) {
        Some(map_kind::PROG_ARRAY | map_kind::PERF_EVENT_ARRAY) => {
            Err(FaultKind::Map { helper: call.number, what: "a map of this kind has no values" })
        }
        _ => Ok(found),
    }
}

pub(super) fn lookup(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, key_size, _) = values(call, scope)?;
    let key = call.bytes(scope, 2, key_size)?;
    scope.run.stats.map_lookups += 1;
    let map = scope.kernel.maps.get_mut(&id).expect("found above");
    let found = map.lookup(&key, scope.cpu);
    if scope.kernel.record {
        let size = map.value_size();
        let value = found.map(|at| scope.kernel.arena.slice(at, size).to_vec());
        let result = if found.is_some() { 0 } else { -Errno::ENOENT.0 };
        record(
            scope,
            Access { program: scope.program(), map: id, op: Op::Lookup, key, value, before: None, result },
        );
    }
    Ok(found.map_or(0, |at| scope.kernel.arena.address(at)))
}

fn record(scope: &mut Scope<'_>, access: Access) {
    scope.run.accesses.push(access);
}

pub(super) fn update(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, key_size, value_size) = values(call, scope)?;
    let key = call.bytes(scope, 2, key_size)?;
    let value = call.bytes(scope, 3, value_size)?;
    let (cpu, flags) = (scope.cpu, call.arg(4));
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(&id).expect("found above");
    let before = kernel.record.then(|| map.peek_copy(&key, cpu, &kernel.arena)).flatten();
    let outcome = map.update(&key, &value, flags, cpu, &mut kernel.arena);
    if kernel.record {
        let errno = outcome.err().map_or(0, |e| -e.0);
        let (program, value) = (scope.program(), Some(value));
        record(scope, Access { program, map: id, op: Op::Update, key, value, before, result: errno });
    }
    result(outcome)
}

pub(super) fn delete(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, key_size, _) = values(call, scope)?;
    let key = call.bytes(scope, 2, key_size)?;
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(&id).expect("found above");
    let before = kernel.record.then(|| map.peek_copy(&key, cpu, &kernel.arena)).flatten();
    let outcome = map.delete(&key, &mut kernel.arena);
    if kernel.record {
        let errno = outcome.err().map_or(0, |e| -e.0);
        let program = scope.program();
        record(scope, Access { program, map: id, op: Op::Delete, key, value: None, before, result: errno });
    }
    result(outcome)
}

/// `bpf_skb_event_output` and `__bpf_perf_event_output`. Every slot has a reader, on its own CPU.
pub(super) fn perf_event_output(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    let (id, ..) = map(call, scope, 2)?;
    let (kind, entries) = {
        let def = scope.kernel.map_def(id).expect("found above");
        (def.kind, def.max_entries)
    };
    if kind != map_kind::PERF_EVENT_ARRAY {
        return Err(FaultKind::Map {
            helper: call.number,
            what: "its second argument is no perf event array",
        });
    }
    let (flags, size) = (call.arg(3), call.arg(5) as usize);
    let event = call.bytes(scope, 4, size)?;
    let captured_len = ((flags & CTXLEN_MASK) >> 32) as usize;
    if flags & !(CTXLEN_MASK | INDEX_MASK) != 0 {
        return refused(Errno::EINVAL);
    }
    let packet = scope.packet.as_ref().expect("checked with the context");
    let Some(at) = packet.at(0, captured_len) else { return refused(Errno::EFAULT) };
    let index = match flags & INDEX_MASK {
        CURRENT_CPU => scope.cpu,
        index => index as u32,
    };
    if index >= entries {
        return refused(Errno::E2BIG);
    }
    if index != scope.cpu {
        return refused(Errno::EOPNOTSUPP);
    }
    let captured = scope.kernel.arena.slice(at, captured_len);
    scope.env.emit(id, &event, captured);
    Ok(0)
}
