//! Any bytes as an object: read, printed, loaded and run over a packet. Seeds: objects that clang and bpf-linker made.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use skep_vm::Object;

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
    world::run_all(&object, &[0x45; 60]);
});
