//! One program on every engine: the same result, the same memory, or who differs.

use skep_vm::{EngineKind, Environment, Kernel, KernelConfig, LoadSpec, MapId, Object, ProgramKind};

use super::generator::{self, MEMORY, Random, Start};

struct World(u64);

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
    fn random_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as u32
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

/// The engines that this machine has.
pub(crate) fn engines() -> Vec<EngineKind> {
    let jit = cfg!(all(target_arch = "x86_64", unix));
    let all = [EngineKind::Checked, EngineKind::Rbpf, EngineKind::RbpfJit];
    all.into_iter().filter(|e| *e != EngineKind::RbpfJit || jit).collect()
}

/// Kernels that programs are loaded into one after another: making one costs more than a program does.
pub(crate) struct Engines(Vec<(EngineKind, Kernel)>);

impl Engines {
    pub(crate) fn new() -> Self {
        let kernel = |engine| Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        Self(engines().into_iter().map(|engine| (engine, kernel(engine))).collect())
    }

    /// Runs the program of a seed on all; what differs is an error with the seed in it.
    pub(crate) fn compare(&mut self, seed: u64) -> Result<(), String> {
        let mut random = Random::new(seed);
        let length = 5 + random.word() % 60;
        let code = generator::program(&mut random, length, Start::Argument);
        let memory: Vec<u8> = (0..MEMORY / 8).flat_map(|_| random.number().to_le_bytes()).collect();
        let object = Object::from_instructions("random", ProgramKind::Memory, &code, &[]);
        let object = object.map_err(|e| format!("seed {seed}: {e}"))?;
        let mut first: Option<(u64, Vec<u8>)> = None;
        for (engine, kernel) in &mut self.0 {
            let wrong = |what: &dyn std::fmt::Display| format!("seed {seed}, {engine}: {what}");
            let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| wrong(&e))?;
            let mut memory = memory.clone();
            let r0 = kernel.run_memory(loaded.programs["random"], &mut memory, &mut World(seed));
            kernel.unload(&loaded);
            let result = (r0.map_err(|e| wrong(&e))?, memory);
            match &first {
                None => first = Some(result),
                Some(first) if *first == result => {}
                Some(first) => return Err(wrong(&format!("{:x?} and not {:x?}", result, first))),
            }
        }
        Ok(())
    }
}
