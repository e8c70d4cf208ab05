//! Helpers on maps: the generic ones, queues and stacks, and perf events.

use super::{Call, Outcome, map_handle, map_of, refused, result};
use crate::map::Found;
use crate::scope::Scope;
use crate::sock::SocketId;
use crate::{Access, Errno, FaultKind, MapId, Op, Region, map_kind};

const CURRENT_CPU: u64 = 0xffff_ffff;
const INDEX_MASK: u64 = 0xffff_ffff;
const CTXLEN_MASK: u64 = 0xf_ffff << 32;

/// The map that an argument names, with the sizes of its keys and values.
pub(super) fn map(call: Call, scope: &Scope<'_>, n: u8) -> Result<(MapId, usize, usize), FaultKind> {
    let fault = |what| FaultKind::Map { helper: call.number, what };
    let id = map_of(call.arg(n)).ok_or_else(|| fault("its argument is no map"))?;
    let map = scope.kernel.maps.get(id).ok_or_else(|| fault("the map is gone"))?;
    Ok((id, map.key_size(), map.value_size()))
}

/// The same of a map of one of these kinds.
pub(super) fn map_of_kind(
    call: Call,
    scope: &Scope<'_>,
    n: u8,
    kinds: &[u32],
    what: &'static str,
) -> Result<(MapId, usize, usize), FaultKind> {
    let found = map(call, scope, n)?;
    if scope.kernel.map_def(found.0).is_some_and(|def| kinds.contains(&def.kind)) {
        return Ok(found);
    }
    Err(FaultKind::Map { helper: call.number, what })
}

const NO_VALUES: &str = "a map of this kind has no values by key";

/// A map that the verifier lets programs look into by key.
fn values(call: Call, scope: &Scope<'_>) -> Result<(MapId, usize, usize), FaultKind> {
    let found = map(call, scope, 1)?;
    if scope.kernel.maps.get(found.0).is_some_and(|map| map.has_values()) {
        return Ok(found);
    }
    Err(FaultKind::Map { helper: call.number, what: NO_VALUES })
}

/// A map that programs may also change.
fn writable(call: Call, scope: &Scope<'_>) -> Result<(MapId, usize, usize), FaultKind> {
    let found = values(call, scope)?;
    match scope.kernel.map_def(found.0).map(|def| def.kind) {
        Some(
            map_kind::ARRAY_OF_MAPS
            | map_kind::HASH_OF_MAPS
            | map_kind::DEVMAP
            | map_kind::DEVMAP_HASH
            | map_kind::CPUMAP
            | map_kind::XSKMAP,
        ) => Err(FaultKind::Map { helper: call.number, what: "programs cannot change a map of this kind" }),
        _ => Ok(found),
    }
}

/// A socket's address as programs see it; 0 for one that is gone.
pub(super) fn socket_address(scope: &Scope<'_>, id: SocketId) -> u64 {
    scope.kernel.sockets.place(id).map_or(0, |at| scope.kernel.arena.address(at))
}

fn address(scope: &Scope<'_>, found: Option<Found>) -> u64 {
    match found {
        None => 0,
        Some(Found::Place(at)) => scope.kernel.arena.address(at),
        Some(Found::Map(id)) => map_handle(id),
        Some(Found::Socket(number)) => socket_address(scope, SocketId(number)),
    }
}

pub(super) fn lookup(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let cpu = scope.cpu;
    lookup_on(scope, call, cpu)
}

/// `bpf_map_lookup_percpu_elem`
pub(super) fn lookup_percpu(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, ..) = map(call, scope, 1)?;
    let cpu = call.arg32(3);
    let kind = scope.kernel.map_def(id).map(|def| def.kind);
    if !kind.is_some_and(map_kind::is_per_cpu) {
        return Err(FaultKind::Map { helper: call.number, what: "its argument has no values a CPU" });
    }
    if cpu >= scope.kernel.cpus {
        return Ok(0);
    }
    lookup_on(scope, call, cpu)
}

fn lookup_on(scope: &mut Scope<'_>, call: Call, cpu: u32) -> Outcome {
    let fault = |what| FaultKind::Map { helper: call.number, what };
    let id = map_of(call.arg(1)).ok_or_else(|| fault("its argument is no map"))?;
    let map = scope.kernel.maps.get(id).ok_or_else(|| fault("the map is gone"))?;
    if !map.has_values() {
        return Err(fault(NO_VALUES));
    }
    let key_size = map.key_size();
    let key_at = call.source(scope, 2, key_size)?;
    scope.run.stats.map_lookups += 1;
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    let found = map.lookup(kernel.arena.slice(key_at, key_size), cpu, &kernel.arena);
    let size = map.value_size();
    if kernel.record {
        let key = kernel.arena.slice(key_at, key_size).to_vec();
        let value = match found {
            Some(Found::Place(at)) => Some(kernel.arena.slice(at, size).to_vec()),
            _ => None,
        };
        let result = if found.is_some() { 0 } else { -Errno::ENOENT.0 };
        let access =
            Access { program: scope.program(), map: id, op: Op::Lookup, key, value, before: None, result };
        scope.run.accesses.push(access);
    }
    scope.made = match found {
        Some(Found::Place(_)) => Some((size as u64, Region::MapValue(id))),
        Some(Found::Socket(_)) => Some((super::socket::BYTES, Region::Given)),
        _ => None,
    };
    Ok(address(scope, found))
}

pub(super) fn update(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, key_size, value_size) = writable(call, scope)?;
    let flags = call.arg(4);
    if scope.kernel.map_def(id).is_some_and(|d| matches!(d.kind, map_kind::SOCKMAP | map_kind::SOCKHASH)) {
        return super::socket::map_update(scope, call, id);
    }
    let (key_at, value_at) = (call.source(scope, 2, key_size)?, call.source(scope, 3, value_size)?);
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let mut copy = std::mem::take(&mut kernel.scratch);
    copy.clear();
    copy.extend_from_slice(kernel.arena.slice(key_at, key_size));
    copy.extend_from_slice(kernel.arena.slice(value_at, value_size));
    let (key, value) = copy.split_at(key_size);
    let map = kernel.maps.get_mut(id).expect("found above");
    let before = kernel.record.then(|| map.peek_copy(key, cpu, &kernel.arena)).flatten();
    let outcome = map.update(key, value, flags, cpu, &mut kernel.arena);
    if kernel.record {
        let result = outcome.err().map_or(0, |e| -e.0);
        let (key, value) = (key.to_vec(), Some(value.to_vec()));
        let program = scope.program();
        scope.run.accesses.push(Access { program, map: id, op: Op::Update, key, value, before, result });
    }
    scope.kernel.scratch = copy;
    result(outcome)
}

pub(super) fn delete(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, key_size, _) = writable(call, scope)?;
    let key_at = call.source(scope, 2, key_size)?;
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let mut key = std::mem::take(&mut kernel.scratch);
    key.clear();
    key.extend_from_slice(kernel.arena.slice(key_at, key_size));
    let map = kernel.maps.get_mut(id).expect("found above");
    let before = kernel.record.then(|| map.peek_copy(&key, cpu, &kernel.arena)).flatten();
    let outcome = map.delete(&key, &mut kernel.arena);
    if kernel.record {
        let result = outcome.err().map_or(0, |e| -e.0);
        let (program, key) = (scope.program(), key.clone());
        let access = Access { program, map: id, op: Op::Delete, key, value: None, before, result };
        scope.run.accesses.push(access);
    }
    scope.kernel.scratch = key;
    result(outcome)
}

const WITHOUT_KEYS: &[u32] = &[map_kind::QUEUE, map_kind::STACK, map_kind::BLOOM_FILTER];
const NO_QUEUE: &str = "its argument is no queue, stack or bloom filter";

pub(super) fn push(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, _, size) = map_of_kind(call, scope, 1, WITHOUT_KEYS, NO_QUEUE)?;
    let value_at = call.source(scope, 2, size)?;
    let kernel = &mut *scope.kernel;
    let mut value = std::mem::take(&mut kernel.scratch);
    value.clear();
    value.extend_from_slice(kernel.arena.slice(value_at, size));
    let map = kernel.maps.get_mut(id).expect("found above");
    let outcome = map.push(&value, call.arg(3), &mut kernel.arena);
    kernel.scratch = value;
    result(outcome)
}

pub(super) fn pop(scope: &mut Scope<'_>, call: Call) -> Outcome {
    front(scope, call, true)
}

pub(super) fn peek(scope: &mut Scope<'_>, call: Call) -> Outcome {
    front(scope, call, false)
}

/// What a queue or stack gives next; zeros if it is empty.
fn front(scope: &mut Scope<'_>, call: Call, pop: bool) -> Outcome {
    let (id, _, size) = map_of_kind(call, scope, 1, WITHOUT_KEYS, NO_QUEUE)?;
    let is_read = !pop && scope.kernel.map_def(id).is_some_and(|def| def.kind == map_kind::BLOOM_FILTER);
    let to = if is_read { call.place(scope, 2, size)? } else { call.room(scope, 2, size)? };
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    if !pop && let Some(there) = map.contains(kernel.arena.slice(to, size)) {
        return if there { Ok(0) } else { refused(Errno::ENOENT) };
    }
    match map.front(pop) {
        Ok(at) => {
            kernel.arena.copy(at, to, size);
            Ok(0)
        }
        Err(errno) => {
            kernel.arena.slice_mut(to, size).fill(0);
            refused(errno)
        }
    }
}

/// `bpf_skb_event_output`, `bpf_xdp_event_output` and, without a packet, `bpf_perf_event_output`. Every slot has a reader,
/// on its own CPU.
pub(super) fn perf_event_output(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_any_context(scope)?;
    let what = "its second argument is no perf event array";
    let (id, ..) = map_of_kind(call, scope, 2, &[map_kind::PERF_EVENT_ARRAY], what)?;
    let entries = scope.kernel.map_def(id).map_or(0, |def| def.max_entries);
    let (flags, size) = (call.arg(3), call.arg(5) as usize);
    let event_at = call.source(scope, 4, size)?;
    let captured_len = ((flags & CTXLEN_MASK) >> 32) as usize;
    if flags & !(CTXLEN_MASK | INDEX_MASK) != 0 || scope.packet.is_none() && captured_len > 0 {
        return refused(Errno::EINVAL);
    }
    let at = match &scope.packet {
        Some(packet) => packet.at(0, captured_len),
        None => Some(0),
    };
    let Some(at) = at else { return refused(Errno::EFAULT) };
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
    let arena = &scope.kernel.arena;
    scope.env.emit(id, arena.slice(event_at, size), arena.slice(at, captured_len));
    Ok(0)
}
