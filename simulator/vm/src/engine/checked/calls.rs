//! What happens around a helper: what it is given, what became of memory meanwhile, and what it gave back.

use super::regions::{NUMBER, Regions, Shared, Tag};
use super::run::R10;
use crate::helper::{self, Function};
use crate::scope::{self, Argument, Scope};
use crate::{FaultKind, Region};

/// Helpers behind which pointers into the packet are void, whether it moved or not (`bpf_helper_changes_pkt_data`).
const CHANGES_PACKET: &[i32] =
    &[9, 10, 11, 13, 18, 19, 31, 38, 39, 43, 44, 50, 54, 63, 65, 73, 74, 75, 76, 90, 91, 143];
/// Natures of helpers, a bit each.
const CALLS_BACK: i32 = 1;
const MOVES_PACKET: i32 = 2;
const TAKES_BACK: i32 = 4;

/// What of a helper the interpreter has to know beforehand.
pub(super) fn nature(number: i32) -> i32 {
    let bit = |is: bool, bit: i32| if is { bit } else { 0 };
    bit(helper::CALLS_BACK.contains(&number), CALLS_BACK)
        | bit(CHANGES_PACKET.contains(&number), MOVES_PACKET)
        | bit(matches!(number, RINGBUF_SUBMIT | RINGBUF_DISCARD | SK_RELEASE), TAKES_BACK)
}

const RINGBUF_SUBMIT: i32 = 132;
const RINGBUF_DISCARD: i32 = 133;
const SK_RELEASE: i32 = 86;
/// What a helper left behind.
pub(super) struct After {
    pub(super) r0: u64,
    pub(super) tag: Tag,
}

/// Calls a helper, by function and nature, with the registers and their tags.
pub(super) fn call(
    (function, nature): (Function, i32),
    r: &[u64; 16],
    t: &[Tag; 16],
    mut regions: Shared,
    fuel: &mut i64,
) -> Result<After, FaultKind> {
    let back = nature & CALLS_BACK != 0;
    let pointer = r[R10];
    regions.give_tags([t[1], t[2], t[3], t[4], t[5]]);
    let depth = regions.depth();
    if back {
        scope::with(|s| {
            s.set_frame_cell(pointer);
            s.set_fuel(pointer, *fuel);
        });
    }
    let r0 = function(r[1], r[2], r[3], r[4], r[5]);
    scope::with(|s| {
        regions.take_tags();
        regions.leave_frames(depth);
        if back {
            *fuel = s.fuel(pointer);
        }
        regions.after_helper(s.packet_bounds(), nature & MOVES_PACKET != 0);
        s.kernel.arena.drain_freed(|start, len| regions.end(start, len, deleted));
        let tag = given_back(s, nature, r[1], r0, &mut regions);
        // The scope has noted the fault; what is said here is not looked at.
        if s.failed() { Err(FaultKind::Engine) } else { Ok(After { r0, tag }) }
    })
}

fn deleted(region: Region) -> Option<Region> {
    match region {
        Region::MapValue(map) => Some(Region::DeletedValue(map)),
        _ => None,
    }
}

/// What a helper's result points to.
fn given_back(scope: &mut Scope<'_>, nature: i32, first: u64, r0: u64, regions: &mut Regions) -> Tag {
    if nature & TAKES_BACK != 0 {
        regions.end(first, 1, |r| (r == Region::Given).then_some(Region::GivenBack));
    }
    if r0 == 0 {
        scope.made = None;
        return NUMBER;
    }
    scope.made.take().map_or(NUMBER, |(len, is)| regions.make(r0, len, is))
}

/// What a function that a helper calls is given.
pub(super) fn argument(argument: Argument, given: [Tag; 5], scope: &Scope<'_>, regions: &mut Regions) -> Tag {
    match argument {
        Argument::Number(_) => NUMBER,
        Argument::Context(_) => super::regions::CONTEXT,
        Argument::Memory(_) => super::regions::MEMORY,
        Argument::Given(n) => given[usize::from(n) - 1],
        Argument::MapValue { map, address } => {
            let size = scope.kernel.maps.get(map).map_or(0, |m| m.value_size());
            regions.make(address, size as u64, Region::MapValue(map))
        }
        Argument::MapKey { address, size } => regions.make(address, size as u64, Region::MapKey),
    }
}
