//! Helpers that call functions of the program, and timers.
//!
//! A callback runs outside of any borrow of the scope, as a tail call does.

use super::{Call, Outcome, callback_of, map_of, refused};
use crate::scope::{self, Argument, Scope, with};
use crate::timer::Armed;
use crate::{Errno, FaultKind, MapId, Timer, map_kind};

/// `BPF_MAX_LOOPS`
const LOOPS_MAX: u32 = 8 * 1024 * 1024;
/// `for_each_map_elem`
pub(super) const FOR_EACH: i32 = 164;
/// `loop`
pub(super) const LOOP: i32 = 181;

fn failure(errno: Errno) -> u64 {
    i64::from(-errno.0) as u64
}

fn fail(number: i32, what: &'static str) -> u64 {
    with(|scope| scope.fail(FaultKind::Map { helper: number, what }));
    0
}

/// Counts the call and finds the function; `None` when the run has to end.
fn begin(number: i32, handle: u64, arguments: [u64; 5]) -> Option<scope::Callback> {
    let found = with(|scope| {
        if scope.failed() {
            return None;
        }
        scope.run.stats.helper_calls += 1;
        Some(scope.callback(handle, arguments))
    })?;
    if found.is_none() {
        fail(number, "its argument is no function, or the stack has no room for it");
    }
    found
}

/// `bpf_loop(nr_loops, callback, ctx, flags)`: how often the function was called.
pub(super) fn run_loop(count: u64, handle: u64, context: u64, flags: u64, e: u64) -> u64 {
    let Some(function) = begin(LOOP, handle, [count, handle, context, flags, e]) else { return 0 };
    let count = count as u32;
    if flags != 0 {
        return failure(Errno::EINVAL);
    }
    if count > LOOPS_MAX {
        return failure(Errno::E2BIG);
    }
    let none = Argument::Number(0);
    for i in 0..count {
        let number = Argument::Number(u64::from(i));
        match function.call([number, Argument::Given(3), none, none, none]) {
            None => return 0,
            // Anything but zero ends the loop.
            Some(0) => {}
            Some(_) => return u64::from(i) + 1,
        }
    }
    u64::from(count)
}

/// `bpf_for_each_map_elem(map, callback, ctx, flags)`: how many elements the function has seen.
pub(super) fn for_each(map: u64, handle: u64, context: u64, flags: u64, e: u64) -> u64 {
    let Some(function) = begin(FOR_EACH, handle, [map, handle, context, flags, e]) else { return 0 };
    let kind = map_of(map).and_then(|id| with(|s| s.kernel.map_def(id).map(|def| (id, def.kind))));
    let Some((id, kind)) = kind else { return fail(FOR_EACH, "its first argument is no map") };
    let walks = [
        map_kind::HASH,
        map_kind::PERCPU_HASH,
        map_kind::LRU_HASH,
        map_kind::LRU_PERCPU_HASH,
        map_kind::ARRAY,
        map_kind::PERCPU_ARRAY,
    ];
    if !walks.contains(&kind) {
        return fail(FOR_EACH, "it does not go through a map of this kind");
    }
    if flags != 0 {
        return failure(Errno::EINVAL);
    }
    let (mut number, mut seen) = (0, 0);
    while let Some((at, [key, value])) = with(|s| element(s, id, number)) {
        seen += 1;
        let arguments = [Argument::Number(map), key, value, Argument::Given(3), Argument::Number(0)];
        match function.call(arguments) {
            None => return 0,
            Some(0) => {}
            Some(_) => break,
        }
        number = at + 1;
    }
    seen
}

/// The next element: its number, and its key and value as a function is given them.
pub(crate) fn element(scope: &mut Scope<'_>, id: MapId, number: u32) -> Option<(u32, [Argument; 2])> {
    let cpu = scope.cpu;
    let map = scope.kernel.maps.get(id)?;
    let (at, key, value) = map.element(number, cpu)?;
    let size = map.key_size();
    let key = match key {
        Some(key) => key,
        None => {
            // An array's index stands nowhere.
            let place = scope.slots().frame + 8;
            scope.kernel.arena.slice_mut(place, 4).copy_from_slice(&at.to_le_bytes());
            place
        }
    };
    let arena = &scope.kernel.arena;
    let key = Argument::MapKey { address: arena.address(key), size };
    Some((at, [key, Argument::MapValue { map: id, address: arena.address(value) }]))
}

/// Bytes of a `struct bpf_timer`. Its first word here says what was done: 1 made, 2 with a function; then the map.
const TIMER: usize = 16;
/// `BPF_F_TIMER_ABS`
const ABSOLUTE: u64 = 1;

fn timer(scope: &mut Scope<'_>, call: Call) -> Result<(usize, u32, MapId), FaultKind> {
    let at = call.room(scope, 1, TIMER)?;
    let bytes = scope.kernel.arena.slice(at, 8);
    let word = |n: usize| u32::from_le_bytes(bytes[n..n + 4].try_into().expect("four bytes"));
    Ok((at, word(0), MapId(word(4))))
}

fn set_timer(scope: &mut Scope<'_>, at: usize, state: u32, map: MapId) {
    let place = scope.kernel.arena.slice_mut(at, 8);
    place[..4].copy_from_slice(&state.to_le_bytes());
    place[4..].copy_from_slice(&map.0.to_le_bytes());
}

pub(super) fn timer_init(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (at, state, _) = timer(scope, call)?;
    let map = map_of(call.arg(2));
    let map = map.ok_or(FaultKind::Map { helper: call.number, what: "its second argument is no map" })?;
    /// `CLOCK_REALTIME`, `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME`.
    const CLOCKS: [u64; 3] = [0, 1, 7];
    if !CLOCKS.contains(&call.arg(3)) {
        return refused(Errno::EINVAL);
    }
    if state != 0 {
        return refused(Errno::EBUSY);
    }
    set_timer(scope, at, 1, map);
    Ok(0)
}

pub(super) fn timer_set_callback(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (at, state, map) = timer(scope, call)?;
    if state == 0 {
        return refused(Errno::EINVAL);
    }
    let Some(function) = callback_of(call.arg(2)) else {
        return Err(FaultKind::Map { helper: call.number, what: "its second argument is no function" });
    };
    let (id, program) = scope.holder();
    let due = scope.kernel.timers.get(&at).and_then(|t| t.due);
    scope.kernel.timers.insert(at, Armed { map, id, program, function, due });
    set_timer(scope, at, 2, map);
    Ok(0)
}

pub(super) fn timer_start(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (at, state, map) = timer(scope, call)?;
    let (nanoseconds, flags) = (call.arg(2), call.arg(3));
    if flags > 3 || state < 2 {
        return refused(Errno::EINVAL);
    }
    let now = if flags & ABSOLUTE != 0 { 0 } else { scope.env.now_ns() };
    if let Some(armed) = scope.kernel.timers.get_mut(&at) {
        armed.due = Some(now.saturating_add(nanoseconds));
    }
    scope.run.timers.push(Timer { map, nanoseconds, flags });
    Ok(0)
}

pub(super) fn timer_cancel(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (at, state, map) = timer(scope, call)?;
    if state == 0 {
        return refused(Errno::EINVAL);
    }
    let started = scope.kernel.timers.remove(&at).is_some_and(|t| t.due.is_some());
    set_timer(scope, at, 1, map);
    Ok(u64::from(started))
}

/// One CPU runs a program from its start to its end, so a lock only has to be used rightly.
pub(super) fn spin_lock(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let at = call.room(scope, 1, 4)?;
    if scope.kernel.arena.slice(at, 4) != [0; 4] {
        return Err(FaultKind::Map { helper: call.number, what: "the lock is held" });
    }
    scope.kernel.arena.slice_mut(at, 4).copy_from_slice(&1u32.to_le_bytes());
    Ok(0)
}

pub(super) fn spin_unlock(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let at = call.room(scope, 1, 4)?;
    if scope.kernel.arena.slice(at, 4) == [0; 4] {
        return Err(FaultKind::Map { helper: call.number, what: "the lock is not held" });
    }
    scope.kernel.arena.slice_mut(at, 4).fill(0);
    Ok(0)
}
