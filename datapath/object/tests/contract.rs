//! The committed objects hold what `skep-abi` lists, all of it and nothing else.
//!
//! Reads ELF symbols and BTF; runs nothing.

use std::collections::BTreeSet;

use aya_obj::generated::bpf_map_type;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use skep_abi::map::{self, MapKind, MapSpec, Scope};
use skep_abi::program::{self, Object};
use skep_abi::{global, program::Hook};

fn elf(object: Object) -> object::File<'static> {
    object::File::parse(skep_object::bytes(object)).expect("an object is an ELF file")
}

/// The symbols of the sections of a name: name and size.
fn symbols(object: Object, section: &str) -> BTreeSet<(String, u64)> {
    let file = elf(object);
    let wanted = file.section_by_name(section).expect("the section is there").index();
    file.symbols()
        .filter(|s| s.is_global() && s.section_index() == Some(wanted))
        .map(|s| (s.name().expect("names are UTF-8").to_owned(), s.size()))
        .collect()
}

fn names(set: BTreeSet<(String, u64)>) -> BTreeSet<String> {
    set.into_iter().map(|(name, _)| name).collect()
}

/// The maps that an object's programs ask.
fn maps_of(object: Object) -> BTreeSet<&'static str> {
    let of_all = [map::LXC, map::IPCACHE, map::METRICS, map::EVENTS, map::CALL_POLICY];
    match object {
        Object::Lxc => map::MAPS.iter().map(|m| m.name).collect(),
        Object::Host | Object::Overlay => of_all.iter().map(|m| m.name).collect(),
    }
}

#[test]
fn programs_are_those_of_the_list() {
    for object in Object::ALL {
        let want: BTreeSet<String> = program::of(*object).map(|p| p.name.to_owned()).collect();
        assert_eq!(names(symbols(*object, "classifier")), want, "{object:?}");
    }
}

#[test]
fn every_program_is_loadable_by_its_name() {
    for object in Object::ALL {
        let parsed = aya_obj::Object::parse(skep_object::bytes(*object)).unwrap();
        let want: BTreeSet<&str> = program::of(*object).map(|p| p.name).collect();
        assert_eq!(parsed.programs.keys().map(String::as_str).collect::<BTreeSet<_>>(), want);
        assert_eq!(parsed.license.to_str(), Ok("Dual MIT/GPL"));
        for (name, program) in &parsed.programs {
            let section = &program.section;
            assert!(matches!(section, aya_obj::ProgramSection::SchedClassifier), "{name}: {section:?}");
        }
    }
}

#[test]
fn a_slot_of_calls_is_only_in_an_object_that_has_the_map() {
    for p in program::PROGRAMS {
        match p.hook {
            Hook::Calls(_) => assert!(maps_of(p.object).contains(map::CALLS.name), "{}", p.name),
            Hook::CallPolicy => assert_eq!(p.object, Object::Lxc),
            Hook::TcIngress | Hook::TcEgress => {}
        }
    }
}

#[test]
fn globals_are_those_of_the_list_and_as_wide() {
    for object in Object::ALL {
        let want: BTreeSet<(String, u64)> = global::GLOBALS
            .iter()
            .filter(|g| g.objects.contains(object))
            .map(|g| (g.name.to_owned(), u64::from(g.size)))
            .collect();
        assert_eq!(symbols(*object, ".rodata"), want, "{object:?}");
        // Nothing that programs could write to, and nothing that a loader would have to know of.
        for section in [".data", ".bss", "maps"] {
            assert!(elf(*object).section_by_name(section).is_none_or(|s| s.size() == 0), "{section}");
        }
    }
}

#[test]
fn globals_are_zero_until_a_loader_sets_them() {
    for object in Object::ALL {
        let file = elf(*object);
        let data = file.section_by_name(".rodata").unwrap().data().unwrap();
        assert!(data.iter().all(|b| *b == 0), "{object:?}");
    }
}

#[test]
fn maps_are_those_of_the_list_and_no_others() {
    for object in Object::ALL {
        let found = names(symbols(*object, ".maps"));
        let want: BTreeSet<String> = maps_of(*object).into_iter().map(str::to_owned).collect();
        assert_eq!(found, want, "{object:?}");
    }
    for scope in [Scope::Endpoint, Scope::Load] {
        // What is an endpoint's own is not known outside of its object.
        for m in map::MAPS.iter().filter(|m| m.scope == scope) {
            assert!(!maps_of(Object::Host).contains(m.name) && !maps_of(Object::Overlay).contains(m.name));
        }
    }
}

#[test]
fn a_map_is_what_its_specification_says() {
    for object in Object::ALL {
        let parsed = aya_obj::Object::parse(skep_object::bytes(*object)).unwrap();
        for (name, found) in parsed.maps.iter().filter(|(name, _)| !name.starts_with('.')) {
            let spec: &MapSpec = map::by_name(name).unwrap();
            let at = format!("{object:?}: {name}");
            assert_eq!(found.map_type(), kernel_type(spec.kind) as u32, "{at}");
            assert_eq!(found.map_type(), spec.kind as u32, "{at}");
            assert_eq!(found.key_size(), spec.key_size, "{at}");
            assert_eq!(found.value_size(), spec.value_size, "{at}");
            assert_eq!(found.max_entries(), spec.max_entries, "{at}");
            assert_eq!(found.map_flags(), spec.flags, "{at}");
        }
    }
}

/// The kernel's own name of a type, so that abi's numbers are held against a second source.
fn kernel_type(kind: MapKind) -> bpf_map_type {
    match kind {
        MapKind::Hash => bpf_map_type::BPF_MAP_TYPE_HASH,
        MapKind::ProgArray => bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY,
        MapKind::PerfEventArray => bpf_map_type::BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        MapKind::PerCpuHash => bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH,
        MapKind::LruHash => bpf_map_type::BPF_MAP_TYPE_LRU_HASH,
        MapKind::LpmTrie => bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
    }
}

#[test]
fn no_panic_is_left_and_nothing_is_undefined() {
    for object in Object::ALL {
        let file = elf(*object);
        for symbol in file.symbols() {
            let name = symbol.name().unwrap();
            assert!(!name.contains("panic"), "{object:?}: {name}");
            assert!(!symbol.is_undefined() || name.is_empty(), "{object:?}: {name} is undefined");
        }
        for section in file.sections() {
            let name = section.name().unwrap();
            assert!(!name.starts_with(".text.unlikely."), "{object:?}: {name}");
            assert!(!name.starts_with(".debug"), "{object:?}: {name} should be stripped");
        }
        assert!(file.section_by_name(".BTF").is_some_and(|s| s.size() > 0), "{object:?}: no types");
    }
}

#[test]
fn the_manifest_describes_these_objects() {
    let manifest: serde_json::Value = serde_json::from_str(skep_object::MANIFEST).unwrap();
    let objects = manifest["objects"].as_object().unwrap();
    assert_eq!(objects.len(), Object::ALL.len());
    for object in Object::ALL {
        let entry = &objects[object.name()];
        let list = |field: &str| -> BTreeSet<String> {
            entry[field].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(entry["sha256"], skep_object::sha256(*object), "{object:?}: run `cargo xtask ebpf`");
        assert_eq!(list("programs"), names(symbols(*object, "classifier")));
        assert_eq!(list("maps"), names(symbols(*object, ".maps")));
        assert_eq!(list("globals"), names(symbols(*object, ".rodata")));
    }
    for tool in ["rustc", "bpf_linker", "flags"] {
        assert!(!manifest["fingerprint"][tool].is_null(), "{tool}");
    }
}
