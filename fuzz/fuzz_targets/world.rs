//! A world for programs in which nothing is random, and a kernel for many executions: making one takes longer than
//! what most inputs do.

use std::cell::RefCell;

use skep_vm::{
    EngineKind, Environment, Fault, FaultKind, Kernel, KernelConfig, LoadSpec, MapId, Object, TestError,
    TestInput,
};

/// What inputs leave behind is thrown away after so many of them.
const EXECUTIONS_A_KERNEL: u32 = 512;
/// A program that loops for ever must not take longer than others.
const FUEL: u32 = 4096;

pub struct Still;

impl Environment for Still {
    fn now_ns(&mut self) -> u64 {
        1
    }
    fn random_u32(&mut self) -> u32 {
        4
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

thread_local! {
    static KERNEL: RefCell<Option<(Kernel, u32)>> = const { RefCell::new(None) };
}

fn kernel() -> Kernel {
    let (engine, fuel) = (EngineKind::Checked, Some(FUEL));
    Kernel::new(&KernelConfig { cpus: 2, engine, memory: 4 << 20, fuel, ..KernelConfig::default() })
}

/// Loads an object, runs each of its programs and unloads it.
pub fn run_all(object: &Object, data: &[u8]) {
    KERNEL.with_borrow_mut(|place| {
        let (mut kernel, used) =
            place.take().filter(|(_, used)| *used < EXECUTIONS_A_KERNEL).unwrap_or_else(|| (kernel(), 0));
        if let Ok(loaded) = kernel.load(object, &LoadSpec::default()) {
            let input = TestInput { data, ..TestInput::default() };
            for id in loaded.programs.values() {
                if let Err(TestError::Fault(Fault { kind: FaultKind::Panic(what), .. })) =
                    kernel.test_run(*id, &input, &mut Still)
                {
                    panic!("a panic inside: {what}");
                }
            }
            kernel.unload(&loaded);
        }
        *place = Some((kernel, used + 1));
    });
}
