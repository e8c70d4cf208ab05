//! The loader and the running kernel: what is accepted, what is refused and how that reads, what is no object.
//!
//! Where the kernel cannot be asked this is one skip, which ci/skips.toml lists.
#![cfg(target_os = "linux")]

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use skep_abi::program::{Object, PROGRAMS};
use skep_agent_linux::{Error, Map, MapShape, SkbContext, Spec, Verdict, load, probe, verify_running_kernel};
use skep_object::ObjectSet;
use std::io::Write as _;

/// Whether the kernel can be asked; says so if not, past the test harness's capture.
fn kernel() -> bool {
    match probe() {
        Ok(()) => true,
        Err(e) => {
            let capability = e.missing_capability().unwrap_or("bpf");
            writeln!(std::io::stdout(), "\nSKIP kernel-loader: {capability}").expect("stdout is open");
            false
        }
    }
}

/// `exit` with nothing in r0, as a program's first instruction.
fn spoiled(object: &[u8], program: &str) -> Vec<u8> {
    let file = object::File::parse(object).expect("a committed object is an ELF file");
    let symbol = file.symbols().find(|s| s.name() == Ok(program)).expect("it has the program");
    let section =
        file.section_by_index(symbol.section_index().expect("it is defined")).expect("its section exists");
    let at = (section.file_range().expect("code stands in the file").0 + symbol.address()) as usize;
    let mut out = object.to_vec();
    out[at..at + 8].copy_from_slice(&[0x95, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[test]
fn every_program_verifies() {
    if !kernel() {
        return;
    }
    let set = ObjectSet::built_in();
    let report = verify_running_kernel(&set).unwrap();
    assert!(report.is_success(), "{report}");
    let programs: Vec<_> = report.objects.iter().flat_map(|o| &o.programs).collect();
    assert_eq!(programs.len(), PROGRAMS.len());
    for p in programs {
        assert!(p.verified > 0 && p.size > 0 && p.stack.is_some(), "{p:?}");
    }
    for (o, object) in report.objects.iter().zip(Object::ALL) {
        assert_eq!(o.sha256, set.sha256(*object));
    }
}

#[test]
fn a_refusal_names_the_program_and_the_verifiers_reason() {
    if !kernel() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for o in Object::ALL {
        let bytes = skep_object::bytes(*o);
        let bytes = if *o == Object::Overlay { spoiled(bytes, "to_overlay") } else { bytes.to_vec() };
        std::fs::write(folder.path().join(format!("{}.o", o.name())), bytes).unwrap();
    }
    let report = verify_running_kernel(&ObjectSet::from_folder(folder.path()).unwrap()).unwrap();
    assert!(!report.is_success());
    let refused: Vec<_> =
        report.objects.iter().flat_map(|o| &o.programs).filter(|p| p.verdict == Verdict::Failure).collect();
    assert_eq!(refused.len(), 1, "{report}");
    assert_eq!(refused[0].name, "to_overlay");
    // Nothing after it can be reached, which the verifier says first; either way it says why.
    assert!(
        !refused[0].log.is_empty() && refused[0].log.iter().any(|l| !l.contains("processed")),
        "{report}"
    );
}

#[test]
fn what_the_object_does_not_have_is_named() {
    if !kernel() {
        return;
    }
    let bytes = skep_object::bytes(Object::Overlay);
    let spec = Spec { globals: [("no_such_global".to_owned(), vec![0; 4])].into(), ..Spec::default() };
    let e = load("overlay", bytes, &spec).unwrap_err();
    assert!(e.to_string().contains("no_such_global"), "{e}");

    let shape = MapShape { name: "x".into(), kind: 1, key_size: 4, value_size: 4, max_entries: 1, flags: 0 };
    let map = std::sync::Arc::new(Map::create(shape).unwrap());
    let spec = Spec { maps: [("no_such_map".to_owned(), map)].into(), ..Spec::default() };
    let e = load("overlay", bytes, &spec).unwrap_err();
    assert!(matches!(&e, Error::Missing { has, .. } if has.contains("skep_metrics")), "{e}");
}

#[test]
fn a_truncated_object_is_an_error() {
    let whole = skep_object::bytes(Object::Lxc);
    for len in (0..whole.len()).step_by(997) {
        assert!(skep_agent_linux::shapes("lxc", &whole[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn a_program_runs_over_its_maps() {
    if !kernel() {
        return;
    }
    let loaded = load("overlay", skep_object::bytes(Object::Overlay), &Spec::default()).unwrap();
    let context = SkbContext { mark: 0xabc, ..SkbContext::default() };
    let ran = loaded.programs["to_overlay"].run(&[0; 60], &context).unwrap();
    assert_eq!((ran.return_value, ran.packet), (0, vec![0; 60]));
    assert_eq!(ran.context.mark & skep_abi::mark::MAGIC_MASK, skep_abi::mark::MAGIC_OVERLAY);
}

#[test]
fn a_map_is_read_and_written_by_bytes() {
    if !kernel() {
        return;
    }
    let map = Map::create(MapShape::from(&skep_abi::map::METRICS)).unwrap();
    let (key, value) = ([1; 8], [2; 16]);
    map.update(&key, &value).unwrap();
    let cpus = map.lookup_cpus(&key).unwrap().unwrap();
    assert_eq!(cpus.iter().filter(|v| v.as_slice() == value.as_slice()).count(), 1);
    assert_eq!(map.entries().unwrap().len(), 1);
    assert!(map.update(&key[..7], &value).is_err());
    assert!(map.delete(&key).unwrap() && !map.delete(&key).unwrap());
    assert_eq!(map.lookup(&key).unwrap(), None);
}
