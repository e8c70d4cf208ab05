//! Objects as others write them, in C: read, loaded and run. What they are is told in their sources, beside them.
#![expect(clippy::unwrap_used, reason = "tests and what only they call")]

use std::collections::BTreeMap;

use skep_vm::{
    EngineKind, Environment, Errno, Kernel, KernelConfig, LoadSpec, Loaded, MapId, Object, ProgramKind,
    TestInput, TestOutput, UpdateMode,
};

struct World;

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        1
    }
    fn random_u32(&mut self) -> u32 {
        4
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

macro_rules! object {
    ($name:literal) => {
        Object::parse(include_bytes!(concat!("objects/", $name, ".o"))).expect("the object is committed")
    };
}

fn kernel() -> Kernel {
    Kernel::new(&KernelConfig { cpus: 2, engine: EngineKind::Checked, ..KernelConfig::default() })
}

/// A TCP SYN from an address and port 1000.
fn syn(from: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame =
        vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    frame.extend(from);
    frame.extend([10, 0, 0, 2, 0x03, 0xe8]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

fn run(kernel: &mut Kernel, loaded: &Loaded, program: &str, data: &[u8], mark: u32) -> TestOutput {
    let mut context = [0; 12];
    context[8..].copy_from_slice(&mark.to_le_bytes());
    let input = TestInput { data, context: &context, repeat: 1 };
    kernel.test_run(loaded.programs[program], &input, &mut World).expect("it does nothing wrong")
}

/// Symbols that nobody defines are numbers that the load gives by name.
#[test]
fn the_loader_patches_numbers_by_name() {
    let object = object!("patched").only(&["patched"]).unwrap();
    assert_eq!(object.externs(), ["ENDPOINT_ID", "SEED"]);
    let mut kernel = kernel();
    let mut spec = LoadSpec::default();
    let missing = kernel.load(&object, &spec).unwrap_err().to_string();
    assert!(missing.starts_with("section tc, program patched, instruction "), "{missing}");
    assert!(
        missing.ends_with(": SEED is left to the loader: the load must give a value for it"),
        "{missing}"
    );
    spec.globals.insert("ENDPOINT_ID".into(), vec![0x34, 0x12]);
    spec.globals.insert("SEED".into(), 0x0000_0007_0000_0001_u64.to_le_bytes().to_vec());
    for engine in [EngineKind::Checked, EngineKind::Rbpf] {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object, &spec).unwrap();
        let output = run(&mut kernel, &loaded, "patched", &syn([10, 0, 0, 1], 80), 0);
        assert_eq!((output.return_value, output.context[8]), (0x1234 + 3, 7), "{engine}");
    }
    spec.globals.insert("SEED".into(), vec![0; 9]);
    let long = kernel.load(&object, &spec).unwrap_err().to_string();
    assert_eq!(long, "global SEED: a loader's value has 1 to 8 bytes and this 9");
}

/// Locks are known from BTF, helpers may fill what nobody has written, and formats show addresses.
#[test]
fn a_lock_an_unwritten_buffer_and_an_address_as_text() {
    let object = object!("patched").only(&["guards"]).unwrap();
    assert_eq!(object.maps()[0].lock, Some(16));
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    for hits in 1..3 {
        let output = run(&mut kernel, &loaded, "guards", &syn([10, 200, 0, 1], 80), 0);
        assert_eq!(output.return_value, 0);
        let value = kernel.map_lookup(loaded.maps["guarded_map"], &[0; 4]).unwrap();
        assert!(value.starts_with(b"10.200.0.1\0"), "{value:x?}");
        assert_eq!(value[16..], [0, 0, 0, 0, hits, 0, 0, 0]);
    }
}

/// Whatever instruction is damaged, the error says where.
#[test]
fn a_bad_instruction_is_told_with_section_program_and_number() {
    use object::read::{Object as _, ObjectSection as _};
    for name in ["balancer", "connect", "legacy", "nested", "patched", "policy"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/objects");
        let whole = std::fs::read(path.join(format!("{name}.o"))).unwrap();
        let linked = Object::parse(&whole).unwrap();
        let file = object::File::parse(&*whole).unwrap();
        for program in linked.programs() {
            let section = linked.section(program).unwrap();
            let start = file.section_by_name(section).unwrap().file_range().unwrap().0 as usize;
            let place = object::read::ObjectSymbol::address(&file.symbol_by_name(program).unwrap()) as usize;
            let own = (0..linked.instruction_count(program).unwrap())
                .take_while(|at| linked.function_of(program, *at) == Some(program));
            for at in own {
                let mut bytes = whole.clone();
                let opcode = &mut bytes[start + place + 8 * at];
                if *opcode == 0 {
                    // The second half of a 16-byte load.
                    continue;
                }
                *opcode = 0xff;
                let read = Object::parse(&bytes).and_then(|object| {
                    let object = object.only(&[program])?;
                    kernel().load(&object, &LoadSpec::default())
                });
                let error = read.unwrap_err().to_string();
                let all = [format!("section {section}, "), format!("instruction {at}: ")];
                assert!(all.iter().all(|part| error.contains(part)) && error.contains(program), "{error}");
            }
        }
    }
}

#[test]
fn constants_are_read_only() {
    let object = object!("patched").only(&["spoils"]).unwrap();
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    let input = TestInput { data: &syn([10, 0, 0, 1], 80), ..TestInput::default() };
    let fault = kernel.test_run(loaded.programs["spoils"], &input, &mut World).unwrap_err().to_string();
    let wanted =
        "program spoils, instruction 3: store of 4 bytes at the read-only data section+0: it is read only";
    assert_eq!(fault, wanted);
}

#[test]
fn sections_of_iproute2_fill_a_program_array() {
    let object = object!("legacy");
    let slots = object.initial_values();
    let slots: Vec<_> = slots.iter().map(|v| (v.map.as_str(), v.slot, v.target.as_str())).collect();
    assert_eq!(slots, [("calls", 0, "first"), ("calls", 3, "third")]);
    assert_eq!(object.kind("third"), Some(ProgramKind::SchedClassifier));
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    for (mark, expected) in [(0, 10), (1, 1), (3, 13), (4, 1)] {
        let out = run(&mut kernel, &loaded, "entry", &syn([10, 0, 0, 1], 80), mark);
        assert_eq!(out.return_value, expected, "slot {mark}");
    }
    let hits: BTreeMap<u32, u64> = kernel
        .entries(loaded.maps["hits"])
        .into_iter()
        .map(|(key, value)| {
            (u32::from_le_bytes(key.try_into().unwrap()), u64::from_le_bytes(value.try_into().unwrap()))
        })
        .collect();
    assert_eq!(hits, BTreeMap::from([(0, 1), (3, 1), (100, 4)]));
}

#[test]
fn an_inner_map_stands_where_iproute2_puts_it() {
    let object = object!("nested");
    let outer = object.maps().iter().find(|m| m.name == "outer").unwrap();
    assert_eq!(outer.inner.as_ref().map(|m| (m.kind, m.value_size)), Some((2, 4)));
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    kernel.map_update(loaded.maps["inner"], &[0; 4], &77u32.to_le_bytes(), UpdateMode::Any).unwrap();
    for (mark, expected) in [(0, 1), (1, 77), (2, 1)] {
        assert_eq!(run(&mut kernel, &loaded, "nested", &syn([10, 0, 0, 1], 80), mark).return_value, expected);
    }
}

#[test]
fn a_program_that_cannot_run_here_does_not_keep_the_others_from_it() {
    let object = object!("legacy").with_kind("third", ProgramKind::Memory).unwrap();
    assert!(object.only(&["nobody"]).is_err());
    let one = object.only(&["entry"]).unwrap();
    // What stands in its program arrays comes along.
    assert_eq!(one.programs().collect::<Vec<_>>(), ["entry", "first", "third"]);
}

/// A rule of policy.c: ports, protocol, whether it allows.
fn rule(from: u16, to: u16, protocol: u8, allow: bool) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes()[..], &[protocol, u8::from(allow), 0, 0]].concat()
}

/// policy.c, its groups and rules filled in: 10.0.0.0/8 is group 7, which may reach port 80; 10.9.0.0/16 is group 0.
fn policy(kernel: &mut Kernel) -> (Object, Loaded) {
    let object = object!("policy");
    let globals = BTreeMap::from([("default_group".to_owned(), 99u32.to_le_bytes().to_vec())]);
    let loaded = kernel.load(&object, &LoadSpec { globals, ..LoadSpec::default() }).unwrap();
    let mut put = |map: &str, key: &[u8], value: &[u8]| -> Result<(), Errno> {
        kernel.map_update(loaded.maps[map], key, value, UpdateMode::Any)
    };
    put("groups", &[8, 0, 0, 0, 10, 0, 0, 0], &7u32.to_le_bytes()).unwrap();
    put("groups", &[16, 0, 0, 0, 10, 9, 0, 0], &0u32.to_le_bytes()).unwrap();
    put("rules_of_web", &2u32.to_le_bytes(), &rule(80, 89, 6, true)).unwrap();
    put("rules_of_web", &3u32.to_le_bytes(), &rule(1, 65535, 6, false)).unwrap();
    (object, loaded)
}

#[test]
fn a_policy_finds_its_rules_through_a_map_in_a_map_and_callbacks() {
    let mut kernel = kernel();
    let (object, loaded) = policy(&mut kernel);
    let group = |out: &TestOutput| u32::from_le_bytes(out.context[8..12].try_into().unwrap());
    for (from, port, verdict, mark) in [
        ([10, 0, 0, 1], 80, 0, 7),
        ([10, 0, 0, 1], 89, 0, 7),
        ([10, 0, 0, 1], 90, 2, 7),
        ([10, 9, 0, 1], 80, 2, 0),
        ([11, 0, 0, 1], 80, 2, 99),
    ] {
        let out = run(&mut kernel, &loaded, "policy", &syn(from, port), 5);
        assert_eq!((out.return_value, group(&out)), (verdict, mark), "{from:?} to {port}");
    }
    let packets: Vec<u64> = (0..4u32)
        .map(|slot| {
            let cpus = kernel.map_lookup_cpus(loaded.maps["counters"], &slot.to_le_bytes()).unwrap();
            cpus.iter().map(|value| u64::from_le_bytes(value[..8].try_into().unwrap())).sum()
        })
        .collect();
    assert_eq!(packets, [2, 2, 1, 0]);
    let global =
        |name| kernel.global(&loaded, &object, name).map(|v| u64::from_le_bytes(v.try_into().unwrap()));
    assert_eq!(global("packets_seen"), Some(3), "how many rules have fitted");
    assert_eq!(global("last_total"), Some(4), "what the callback over all counters has added up");
    assert_eq!(global("nonsense"), None);
}

#[test]
fn instructions_know_their_function_and_their_source_line() {
    let object = object!("policy");
    let count = object.instruction_count("policy").unwrap();
    let functions: std::collections::BTreeSet<_> =
        (0..count).filter_map(|at| object.function_of("policy", at)).collect();
    assert_eq!(functions.into_iter().collect::<Vec<_>>(), ["add_up", "count", "policy", "try_rule"]);
    let line = object.source_line("policy", 0).unwrap();
    assert!(line.file.ends_with("policy.c") && line.text.contains("skb->data"), "{line:?}");
    assert_eq!(object.source_line("policy", count), None.or(object.source_line("policy", count)));
    assert_eq!(object!("legacy").source_line("entry", 0), None);
}

#[test]
fn a_listing_shows_names_and_what_is_executed_instead() {
    let listing = object!("policy").listing("policy").unwrap();
    assert_eq!(listing.illegal, None);
    let text: Vec<&str> = listing.lines.iter().map(|l| l.original.as_str()).collect();
    for expected in
        ["= map[groups]", "call bpf_loop#181", "= function try_rule", "call count", "= default_group"]
    {
        assert!(text.iter().any(|t| t.contains(expected)), "{expected}");
    }
    assert!(listing.lines.iter().all(|l| !l.bytes.is_empty()));
    assert!(
        listing.lines.iter().filter(|l| l.legal.is_empty()).count() < 5,
        "nearly all is executed as something"
    );
    assert!(object!("policy").listing("nobody").is_none());
}

#[test]
fn an_error_names_section_program_and_instruction() {
    // Helper 44 (xdp_adjust_head) becomes one that does not exist.
    let mut bytes = include_bytes!("objects/legacy.o").to_vec();
    let call = [0x85, 0, 0, 0, 12, 0, 0, 0];
    let at = bytes.windows(8).position(|w| w == call).expect("it tail calls");
    bytes[at + 4..at + 8].copy_from_slice(&9999u32.to_le_bytes());
    let object = Object::parse(&bytes).unwrap();
    let error = kernel().load(&object, &LoadSpec::default()).unwrap_err().to_string();
    assert!(error.starts_with("section ingress, program entry, instruction "), "{error}");
    assert!(error.ends_with("helper 9999 is not supported here"), "{error}");
}
