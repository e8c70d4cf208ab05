//! Any bytes as an object: read, printed, loaded and run over a packet. Seeds: objects that clang and bpf-linker made.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use skep_vm::{EngineKind, Kernel, KernelConfig, LoadSpec, Object, TestInput};

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = Object::parse(bytes) else { return };
    let _ = object.initial_values();
    for name in object.programs() {
        let _ = object.listing(name);
        let _ = (object.source_line(name, 1), object.function_of(name, 1));
    }
    for global in object.globals() {
        let _ = object.global_value(&global.name);
    }
    let mut kernel = Kernel::new(&KernelConfig { cpus: 2, engine: EngineKind::Checked, memory: 4 << 20, ..KernelConfig::default() });
    let Ok(loaded) = kernel.load(&object, &LoadSpec::default()) else { return };
    let input = TestInput { data: &[0x45; 60], ..TestInput::default() };
    for id in loaded.programs.values() {
        let _ = kernel.test_run(*id, &input, &mut world::Still);
    }
});
