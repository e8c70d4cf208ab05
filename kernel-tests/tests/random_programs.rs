//! Random programs in skep-vm, on each of its engines, and in the running kernel through BPF_PROG_TEST_RUN: the same
//! result and the same memory. What the kernel's verifier refuses is counted and left out.
//!
//! `SKEP_OPS` says how many programs, `SKEP_SEED` with which the first is made. A failure prints the seed.

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    match compare::open() {
        Ok(()) => trials.push(Trial::test("random_programs", || Ok(compare::run()?))),
        Err(capability) => println!("SKIP random-programs: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
mod compare {
    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn run() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
#[path = "../../simulator/vm/tests/agree/generator.rs"]
#[expect(dead_code, reason = "programs on plain memory are for engines alone")]
mod generator;

#[cfg(target_os = "linux")]
mod compare {
    use super::generator::{self, MEMORY, Random, Start};
    use skep_agent_linux::{RawMap, RawProgram, RawShape};
    use skep_packet::SkBuff;
    use skep_vm::{
        EngineKind, Environment, Kernel, KernelConfig, LoadSpec, MapDef, MapId, Object, ProgramKind,
        UpdateMode, map_kind,
    };

    const SCHED_CLS: u32 = 3;
    const KEY: [u8; 4] = [0; 4];

    pub(super) fn open() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    struct Nothing;

    impl Environment for Nothing {
        fn now_ns(&mut self) -> u64 {
            0
        }
        fn random_u32(&mut self) -> u32 {
            0
        }
        fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
    }

    fn number(name: &str, default: u64) -> u64 {
        std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
    }

    /// The same program for a map of this name, and the memory that it begins with.
    fn made(seed: u64, map: i32) -> (Vec<u8>, Vec<u8>) {
        let mut random = Random::new(seed);
        let length = 5 + random.word() % 60;
        let code = generator::program(&mut random, length, Start::Map(map));
        let memory = (0..MEMORY / 8).flat_map(|_| random.number().to_le_bytes()).collect();
        (code, memory)
    }

    /// r0 and the memory in the running kernel; `None` where it does not load the program.
    fn kernel(map: &RawMap, seed: u64) -> Result<Option<(u32, Vec<u8>)>, String> {
        let (code, mut memory) = made(seed, map.descriptor());
        let Ok(program) = RawProgram::load(SCHED_CLS, 0, &code) else { return Ok(None) };
        map.update(&KEY, &memory, 0).map_err(|e| format!("seed {seed}: error {e}"))?;
        let ran = program.run(&[0; 64], &[]).map_err(|e| format!("seed {seed}: error {e}"))?;
        map.lookup(&KEY, 0, &mut memory).map_err(|e| format!("seed {seed}: error {e}"))?;
        Ok(Some((ran.return_value, memory)))
    }

    fn simulated(kernel: &mut Kernel, seed: u64) -> Result<(u32, Vec<u8>), String> {
        let (code, memory) = made(seed, 0);
        let def = MapDef {
            name: "memory".into(),
            kind: map_kind::ARRAY,
            key_size: 4,
            value_size: MEMORY as u32,
            max_entries: 1,
            ..MapDef::default()
        };
        let object = Object::from_instructions("random", ProgramKind::SchedClassifier, &code, &[def]);
        let object = object.map_err(|e| e.to_string())?;
        let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
        let map = loaded.maps["memory"];
        kernel.map_update(map, &KEY, &memory, UpdateMode::Any).map_err(|e| e.to_string())?;
        let mut packet = SkBuff::from_frame(&[0; 64]);
        let run =
            kernel.run(loaded.programs["random"], &mut packet, &mut Nothing).map_err(|e| e.to_string())?;
        let memory = kernel.map_lookup(map, &KEY).ok_or("its map is gone")?;
        kernel.unload(&loaded);
        Ok((run.return_value as u32, memory))
    }

    pub(super) fn run() -> Result<(), String> {
        let (count, first) = (number("SKEP_OPS", 500), number("SKEP_SEED", 1));
        let shape = RawShape {
            kind: map_kind::ARRAY,
            key: 4,
            value: MEMORY as u32,
            entries: 1,
            ..RawShape::default()
        };
        let map = RawMap::create(shape, None).map_err(|e| format!("error {e}"))?;
        let jit = cfg!(target_arch = "x86_64");
        let engines = EngineKind::ALL.into_iter().filter(|e| *e != EngineKind::Auto);
        let engines = engines.filter(|e| *e != EngineKind::RbpfJit || jit);
        let mut engines: Vec<(EngineKind, Kernel)> = engines
            .map(|engine| (engine, Kernel::new(&KernelConfig { engine, ..KernelConfig::default() })))
            .collect();
        let mut refused = 0;
        for seed in first..first + count {
            let Some(want) = kernel(&map, seed)? else {
                refused += 1;
                continue;
            };
            for (engine, vm) in &mut engines {
                let have =
                    simulated(vm, seed).map_err(|e| format!("SKEP_SEED={seed} SKEP_OPS=1, {engine}: {e}"))?;
                if have != want {
                    return Err(format!(
                        "SKEP_SEED={seed} SKEP_OPS=1, {engine}: {have:x?} and not {want:x?}"
                    ));
                }
            }
        }
        println!("{} programs agree, {refused} were refused by the kernel", count - refused);
        // A generator whose programs nobody verifies would compare nothing.
        if refused * 2 > count { Err(format!("the kernel refused {refused} of {count}")) } else { Ok(()) }
    }
}
