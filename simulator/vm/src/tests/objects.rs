//! The objects that skep ships, and what is left of them when bytes are damaged. Nothing here knows what they do.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::Error;

fn bytes(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datapath/object/objects");
    std::fs::read(folder.join(name)).expect("the objects are committed")
}

const OBJECTS: [&str; 3] = ["lxc.o", "host.o", "overlay.o"];

/// Every program over a packet, with empty maps: result, packet, events.
fn all(name: &str) -> Vec<(String, Run, SkBuff, usize)> {
    let object = Object::parse(&bytes(name)).unwrap();
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    let one = |(name, id): (&String, &ProgramId)| {
        let (mut skb, mut world) = (frame(), World::default());
        let run = kernel.run(*id, &mut skb, &mut world).unwrap();
        (name.clone(), run, skb, world.events.len())
    };
    loaded.programs.iter().map(one).collect()
}

#[test]
fn every_program_runs_and_two_kernels_agree() {
    for name in OBJECTS {
        let runs = all(name);
        assert!(runs.iter().all(|(_, run, ..)| run.stats.instructions > 0));
        assert_eq!(runs, all(name));
    }
}

#[test]
fn a_slot_that_was_not_filled_is_a_missed_tail_call() {
    let runs = all("lxc.o");
    let (_, run, ..) = runs.iter().find(|(name, ..)| name == "from_container").unwrap();
    assert!(run.tail_calls.iter().any(|call| call.target.is_none()), "{run:?}");
}

#[test]
fn globals_and_maps_are_checked_by_name_and_size() {
    let object = Object::parse(&bytes("lxc.o")).unwrap();
    let mut kernel = kernel();
    let mut refused = |spec: LoadSpec| kernel.load(&object, &spec).unwrap_err().to_string();
    let global = |name: &str, value: &[u8]| LoadSpec {
        globals: [(name.to_owned(), value.to_vec())].into(),
        ..LoadSpec::default()
    };
    assert_eq!(refused(global("endpoint_id", &[1])), "global endpoint_id: it has 2 bytes and the value 1");
    assert!(refused(global("nonsense", &[1])).starts_with("global nonsense: the object has none"));
    let map = |name: &str, id| LoadSpec { maps: [(name.to_owned(), id)].into(), ..LoadSpec::default() };
    let other = MapId(99);
    assert_eq!(refused(map("skep_lxc", other)), "map skep_lxc: the map given for it does not exist");
    assert_eq!(refused(map("nonsense", other)), "the object has no map nonsense; leave it out of the load");
    let wrong = kernel.create_map(def(1, 3, 3, 3)).unwrap();
    let error = kernel.load(&object, &map("skep_lxc", wrong)).unwrap_err();
    assert!(matches!(error, Error::Map { .. }), "{error}");
    let good = object.globals().iter().find(|g| g.name == "endpoint_ipv4").unwrap();
    assert!(kernel.load(&object, &global("endpoint_ipv4", &vec![1; good.size])).is_ok());
}

/// Reads, loads and runs whatever is left.
fn survive(bytes: &[u8]) {
    let Ok(object) = Object::parse(bytes) else { return };
    let mut kernel = Kernel::new(&KernelConfig::default());
    let Ok(loaded) = kernel.load(&object, &LoadSpec::default()) else { return };
    for id in loaded.programs.values() {
        let _ = kernel.run(*id, &mut frame(), &mut World::default());
    }
}

#[test]
fn a_truncated_object_is_an_error() {
    let whole = bytes("lxc.o");
    for len in (0..whole.len() - 64).step_by(whole.len() / 200) {
        let read = Object::parse(&whole[..len]);
        assert!(read.is_err(), "{len} of {} bytes", whole.len());
    }
    assert_eq!(
        Object::parse(b"").unwrap_err().to_string().split(':').next(),
        Some("not a readable BPF object")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_objects_do_no_harm(
        name in prop::sample::select(OBJECTS.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut bytes = bytes(name);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        survive(&bytes);
    }

    #[test]
    fn damaged_headers_do_no_harm(damage in prop::collection::vec((0..4000usize, any::<u8>()), 1..8)) {
        // The section headers stand at the end, the file's header at the start.
        let mut bytes = bytes("overlay.o");
        for (at, value) in damage {
            let at = if at < 64 { at } else { bytes.len() - 1 - at };
            bytes[at] = value;
        }
        survive(&bytes);
    }

    #[test]
    fn no_bytes_at_all_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Object::parse(&bytes).is_err());
    }
}
