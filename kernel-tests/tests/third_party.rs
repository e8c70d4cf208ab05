//! The objects in C of skep-vm's tests, in the vm and in the running kernel: the same packets give the same results,
//! packets and maps. The kernel gets what skep-vm's linker made; its verifier has its own say about that.

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

#[cfg(target_os = "linux")]
#[path = "third_party/connect.rs"]
mod connect;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(code) = connect::child() {
        return code;
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    match kernel::open() {
        Err(capability) => println!("SKIP third-party-objects: {capability}"),
        Ok(()) => {
            trials.push(Trial::test("legacy", || kernel::compare("legacy", &["entry"])));
            trials.push(Trial::test("nested", || kernel::compare("nested", &["nested"])));
            trials.push(Trial::test("policy", || kernel::compare("policy", &["policy"])));
            #[cfg(target_os = "linux")]
            match connect::mount() {
                Some(_) => trials.push(Trial::test("connect", connect::compare)),
                None => println!("SKIP connect-on-cgroup: cgroup2"),
            }
            trials.push(Trial::test("balancer", || kernel::compare("balancer", &["balancer"])));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::Failed;
    use skep_agent_linux::{RawMap, RawProgram, RawShape, probe, stay_on_cpu};
    use skep_vm::{
        EngineKind, Environment, Kernel, KernelConfig, LoadSpec, Loaded, MapDef, MapId, Object, TestError,
        TestInput, UpdateMode,
    };
    use std::collections::BTreeMap;
    use std::path::Path;

    /// How many packets each object gets.
    const PACKETS: u32 = 400;

    pub(super) fn open() -> Result<(), &'static str> {
        probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    pub(super) struct World;

    impl Environment for World {
        fn now_ns(&mut self) -> u64 {
            1
        }
        fn random_u32(&mut self) -> u32 {
            4
        }
        fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
    }

    /// An object in the running kernel.
    pub(super) struct InKernel {
        pub(super) maps: BTreeMap<String, RawMap>,
        pub(super) programs: BTreeMap<String, RawProgram>,
        /// Each data section is an array of one value.
        data: Vec<RawMap>,
    }

    fn shape(def: &MapDef) -> RawShape {
        RawShape {
            kind: def.kind,
            key: def.key_size,
            value: def.value_size,
            entries: def.max_entries,
            flags: def.flags,
            extra: def.extra,
        }
    }

    /// Where a program is to be attached, if the kernel wants to know it when it loads the program
    /// (`enum bpf_attach_type`).
    pub(super) fn hook(object: &Object, program: &str) -> u32 {
        match object.section(program) {
            Some("cgroup/connect4") => 10,
            Some("cgroup/getpeername4") => 29,
            _ => 0,
        }
    }

    /// Where a program's functions begin.
    fn functions(object: &Object, program: &str) -> Vec<u32> {
        let count = object.instruction_count(program).unwrap_or(0);
        let of = |at: usize| object.function_of(program, at);
        (0..count).filter(|at| *at == 0 || of(*at) != of(at - 1)).map(|at| at as u32).collect()
    }

    impl InKernel {
        pub(super) fn load(object: &Object) -> Result<Self, Failed> {
            let mut maps = BTreeMap::new();
            let refused = |name: &str, number| Failed::from(format!("map {name}: {number:?}"));
            for def in object.maps() {
                let inner = def.inner.as_deref().map(|inner| RawMap::create(shape(inner), None));
                let inner = inner.transpose().map_err(|e| refused(&def.name, e))?;
                let map = RawMap::create(shape(def), inner.as_ref()).map_err(|e| refused(&def.name, e))?;
                maps.insert(def.name.clone(), map);
            }
            let mut data = Vec::new();
            for (name, bytes) in object.data() {
                let shape = RawShape {
                    kind: 2,
                    key: 4,
                    value: bytes.len() as u32,
                    entries: 1,
                    ..RawShape::default()
                };
                let map = RawMap::create(shape, None).map_err(|e| refused(name, e))?;
                map.update(&[0; 4], bytes, 0).map_err(|e| refused(name, e))?;
                data.push(map);
            }
            let mut programs = BTreeMap::new();
            for name in object.programs() {
                let mut code = object.linked_instructions(name).ok_or("no such program")?;
                for insn in code.chunks_exact_mut(8).filter(|insn| insn[0] == 0x18) {
                    let index = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]) as usize;
                    let descriptor = match insn[1] >> 4 {
                        1 => maps[&object.maps()[index].name].descriptor(),
                        2 => data[index].descriptor(),
                        _ => continue,
                    };
                    insn[4..].copy_from_slice(&descriptor.to_le_bytes());
                }
                let kind = object.kind(name).ok_or("of no kind")?.number();
                let program =
                    RawProgram::load_functions(kind, hook(object, name), &code, &functions(object, name))
                        .map_err(|(e, log)| format!("{name}: {e:?}\n{log}"))?;
                programs.insert(name.to_owned(), program);
            }
            for value in object.initial_values() {
                let target = programs.get(&value.target).map(RawProgram::descriptor);
                let target =
                    target.or(maps.get(&value.target).map(RawMap::descriptor)).ok_or("no such target")?;
                let done = maps[&value.map].update(&value.slot.to_le_bytes(), &target.to_le_bytes(), 0);
                done.map_err(|e| refused(&value.map, e))?;
            }
            Ok(Self { maps, programs, data })
        }
    }

    /// What both need in their maps: name, key, value.
    fn state(name: &str) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        match name {
            "policy" => {
                let prefix = |bits: u32, address: [u8; 4]| [bits.to_le_bytes(), address].concat();
                let group = |number: u32| number.to_le_bytes().to_vec();
                // from, to, protocol, allow, hits
                let rule = |from: u16, to: u16, protocol: u8, allow: u8| {
                    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[protocol, allow, 0, 0]].concat()
                };
                vec![
                    ("groups", prefix(8, [10, 0, 0, 0]), group(7)),
                    ("groups", prefix(9, [10, 128, 0, 0]), group(0)),
                    ("groups", prefix(12, [10, 192, 0, 0]), group(9)),
                    ("groups", prefix(25, [10, 1, 0, 128]), group(0)),
                    ("rules_of_web", 0u32.to_le_bytes().to_vec(), rule(80, 81, 6, 1)),
                    ("rules_of_web", 1u32.to_le_bytes().to_vec(), rule(82, 82, 6, 0)),
                    ("rules_of_web", 5u32.to_le_bytes().to_vec(), rule(80, 90, 17, 1)),
                    ("rules_of_none", 7u32.to_le_bytes().to_vec(), rule(84, 84, 1, 1)),
                ]
            }
            "nested" => vec![("inner", vec![0; 4], 77u32.to_le_bytes().to_vec())],
            "balancer" => {
                let vip = |port: u16| [&[10, 0, 0, 2][..], &port.to_be_bytes(), &6u16.to_le_bytes()].concat();
                let service = |number: u32, flags: u32| [number.to_le_bytes(), flags.to_le_bytes()].concat();
                let mut all = vec![
                    ("services", vip(80), service(0, 0)),
                    ("services", vip(81), service(1, 1)),
                    ("services", vip(82), service(3, 0)),
                ];
                for slot in 0..2 * 65537u32 {
                    let backend = 1 + slot.wrapping_mul(2_654_435_761) % 5;
                    all.push(("ring", slot.to_le_bytes().to_vec(), backend.to_le_bytes().to_vec()));
                }
                for number in 1..6u32 {
                    let address = [192, 168, 0, number as u8, 0, 0, 0, 0];
                    all.push(("backends", number.to_le_bytes().to_vec(), address.to_vec()));
                }
                all
            }
            _ => Vec::new(),
        }
    }

    /// Packets that differ in what the objects look at, some of them too short or not for them.
    fn packet(n: u32) -> Vec<u8> {
        let mix = n.wrapping_mul(2_654_435_761);
        let protocol = [6, 6, 6, 17, 1][(mix >> 4) as usize % 5];
        let mut frame =
            vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        frame.extend([10, (mix >> 8) as u8, 0, (mix >> 16) as u8, 10, 0, 0, 2]);
        frame.extend(((mix >> 20) as u16).to_be_bytes());
        frame.extend((80 + (n % 5) as u16).to_be_bytes());
        frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
        match n % 11 {
            0 => frame[20] = 0x20,
            1 => frame[12] = 0x86,
            2 => frame.truncate(33),
            3 => frame.truncate(36),
            4 => frame[14] = 0x46,
            _ => {}
        }
        frame
    }

    pub(super) fn compare(name: &str, programs: &[&str]) -> Result<(), Failed> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../simulator/vm/tests/objects")
            .join(format!("{name}.o"));
        let object = Object::parse(&std::fs::read(path)?)?;
        // Counters of a CPU are added up by programs.
        stay_on_cpu(0)?;
        let real = InKernel::load(&object)?;
        let mut kernel =
            Kernel::new(&KernelConfig { engine: EngineKind::Checked, ..KernelConfig::default() });
        let loaded = kernel.load(&object, &LoadSpec::default())?;
        for (map, key, value) in state(name) {
            real.maps[map].update(&key, &value, 0).map_err(|e| format!("{map}: {e:?}"))?;
            kernel.map_update(loaded.maps[map], &key, &value, UpdateMode::Any)?;
        }
        for n in 0..PACKETS {
            let frame = packet(n);
            for program in programs {
                one(&real, &mut kernel, &loaded, &object, program, n, &frame)?;
            }
        }
        same_data(&real, &kernel, &loaded, &object)?;
        same_maps(&real, &kernel, &loaded, &object)
    }

    fn one(
        real: &InKernel,
        kernel: &mut Kernel,
        loaded: &Loaded,
        object: &Object,
        program: &str,
        n: u32,
        frame: &[u8],
    ) -> Result<(), Failed> {
        let is_skb = object.kind(program).is_some_and(|k| k.has_skb());
        let mut context = vec![0; if is_skb { 192 } else { 0 }];
        if is_skb {
            context[8] = (n % 5) as u8;
        }
        let input = TestInput { data: frame, context: &context, repeat: 1 };
        let ours = kernel.test_run(loaded.programs[program], &input, &mut World);
        let theirs = real.programs[program].run(frame, &context);
        let (ours, theirs) = match (ours, theirs) {
            // EINVAL
            (Err(TestError::Input(_)), Err(22)) => return Ok(()),
            (Ok(ours), Ok(theirs)) => (ours, theirs),
            (ours, theirs) => {
                return Err(format!("packet {n} {frame:x?}: vm {ours:?}, kernel {theirs:?}").into());
            }
        };
        if (ours.return_value as u32, &ours.data) != (theirs.return_value, &theirs.data) {
            return Err(format!("packet {n} {frame:x?}\nvm     {ours:x?}\nkernel {theirs:x?}").into());
        }
        let (mark, theirs) = (ours.context.get(8..12), theirs.context.get(8..12));
        if is_skb && mark != theirs {
            return Err(format!("packet {n}: mark {mark:x?} and in the kernel {theirs:x?}").into());
        }
        Ok(())
    }

    /// What programs have left in the object's globals.
    pub(super) fn same_data(
        real: &InKernel,
        kernel: &Kernel,
        loaded: &Loaded,
        object: &Object,
    ) -> Result<(), Failed> {
        for ((name, bytes), map) in object.data().zip(&real.data) {
            let mut theirs = vec![0; bytes.len().next_multiple_of(8)];
            map.lookup(&[0; 4], 0, &mut theirs).map_err(|e| format!("{name}: {e:?}"))?;
            let ours = kernel.data(loaded, object, name).ok_or("no such section")?;
            if ours != theirs[..bytes.len()] {
                return Err(format!("{name}: {ours:x?}, kernel {theirs:x?}").into());
            }
        }
        Ok(())
    }

    /// Every entry of the vm stands in the kernel's map, and there are as many; of per-CPU values the sum of words.
    pub(super) fn same_maps(
        real: &InKernel,
        kernel: &Kernel,
        loaded: &Loaded,
        object: &Object,
    ) -> Result<(), Failed> {
        for def in object.maps() {
            let sum = |values: &mut dyn Iterator<Item = &[u8]>| -> u64 {
                let words = values.flat_map(|v| v.chunks_exact(8));
                words
                    .map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes")))
                    .fold(0, u64::wrapping_add)
            };
            let per_cpu = matches!(def.kind, 5 | 6 | 10);
            if matches!(def.kind, 3 | 12 | 13) {
                continue;
            }
            let entries = kernel.entries_cpus(loaded.maps[&def.name]);
            for (key, values) in &entries {
                let cpus = if per_cpu { 1024 } else { 1 };
                let mut value = vec![0; def.value_size.next_multiple_of(8) as usize * cpus];
                let found = real.maps[&def.name].lookup(key, 0, &mut value);
                found.map_err(|e| format!("{}: {key:x?} is not in the kernel's: {e:?}", def.name))?;
                let same = match per_cpu {
                    true => {
                        sum(&mut values.iter().map(Vec::as_slice)) == sum(&mut std::iter::once(&value[..]))
                    }
                    false => values[0] == value[..def.value_size as usize],
                };
                if !same {
                    return Err(format!("{}: {key:x?}: {values:x?}, kernel {value:x?}", def.name).into());
                }
            }
            if entries.is_empty() && !matches!(def.kind, 2 | 6) && def.name != "groups" {
                return Err(format!("{}: no packet has reached it", def.name).into());
            }
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn compare(_: &str, _: &[&str]) -> Result<(), super::Failed> {
        Err("not here".into())
    }
}
