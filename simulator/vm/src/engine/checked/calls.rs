//! What happens around a helper: what it is given, what became of memory meanwhile, and what it gave back.

use super::regions::{NUMBER, Regions, Tag};
use crate::helper::{self, Function};
use crate::scope::{self, Argument, Scope};
use crate::{FaultKind, Region};

/// Helpers behind which pointers into the packet are void, whether it moved or not (`bpf_helper_changes_pkt_data`).
const CHANGES_PACKET: &[i32] =
    &[9, 10, 11, 13, 18, 19, 31, 38, 39, 43, 44, 50, 54, 63, 65, 73, 74, 75, 76, 90, 91, 143];
/// map_lookup_elem, map_lookup_percpu_elem.
const LOOKUPS: &[i32] = &[1, 195];
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;
const RINGBUF_DISCARD: i32 = 133;
const SK_RELEASE: i32 = 86;
/// sk_lookup_tcp, sk_lookup_udp, sk_fullsock, tcp_sock, get_listener_sock, skc_lookup_tcp, skc_to_tcp6_sock and so on.
const SOCKETS: &[i32] = &[84, 85, 95, 96, 98, 99, 136, 137, 138, 139, 140];
/// Bytes of the larger of `struct bpf_sock` and `struct bpf_tcp_sock`, which programs read.
const SOCKET: u64 = 128;
/// get_local_storage, sk_storage_get.
const STORAGE: &[i32] = &[81, 107];

/// What a helper left behind.
pub(super) struct After {
    pub(super) r0: u64,
    pub(super) tag: Tag,
}

/// Calls a helper. The regions are with the scope meanwhile.
pub(super) fn call(
    number: i32,
    function: Function,
    arguments: [u64; 5],
    tags: [Tag; 5],
    held: &mut Option<Box<Regions>>,
    frame: (u64, &mut i64),
) -> Result<After, FaultKind> {
    let [a, b, c, d, e] = arguments;
    let back = helper::CALLS_BACK.contains(&number);
    let depth = held.as_ref().map_or(0, |r| r.depth());
    if let Some(regions) = held {
        regions.give_tags(Some(tags));
    }
    let (pointer, fuel) = frame;
    scope::with(|s| {
        s.kernel.regions = held.take();
        if back {
            s.set_frame_cell(pointer);
            s.set_fuel(pointer, *fuel);
        }
    });
    let r0 = function(a, b, c, d, e);
    scope::with(|s| {
        let mut regions = s.kernel.regions.take().expect("whoever takes the regions puts them back");
        regions.give_tags(None);
        regions.leave_frames(depth);
        if back {
            *fuel = s.fuel(pointer);
        }
        regions.after_helper(s.packet_bounds(), CHANGES_PACKET.contains(&number));
        s.kernel.arena.drain_freed(|start, len| regions.end(start, len, deleted));
        let tag = given_back(s, number, arguments, r0, &mut regions);
        *held = Some(regions);
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
fn given_back(scope: &Scope<'_>, number: i32, arguments: [u64; 5], r0: u64, regions: &mut Regions) -> Tag {
    if matches!(number, RINGBUF_SUBMIT | RINGBUF_DISCARD | SK_RELEASE) {
        regions.end(arguments[0], 1, |r| (r == Region::Given).then_some(Region::GivenBack));
    }
    if r0 == 0 {
        return NUMBER;
    }
    if LOOKUPS.contains(&number) || STORAGE.contains(&number) {
        let map = helper::map_of(arguments[0]).filter(|_| helper::map_of(r0).is_none());
        let size = map.and_then(|id| scope.kernel.maps.get(id)).map(|m| m.value_size());
        return map.zip(size).map_or(NUMBER, |(id, size)| regions.make(r0, size as u64, Region::MapValue(id)));
    }
    if number == RINGBUF_RESERVE {
        return regions.make(r0, arguments[1], Region::Given);
    }
    if SOCKETS.contains(&number) {
        return regions.make(r0, SOCKET, Region::Given);
    }
    NUMBER
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
