//! Any instructions as a program. The first byte says of which kind, the second how much memory it gets.
#![no_main]

mod world;

use libfuzzer_sys::fuzz_target;
use skep_vm::{MapDef, Object, ProgramKind};

fuzz_target!(|bytes: &[u8]| {
    let [kind, len, code @ ..] = bytes else { return };
    let kind = if kind % 2 == 0 { ProgramKind::Memory } else { ProgramKind::SchedClassifier };
    let code = &code[..code.len() / 8 * 8];
    let def = |name: &str, kind| MapDef {
        name: name.into(),
        kind,
        key_size: 4,
        value_size: 8,
        max_entries: 4,
        ..MapDef::default()
    };
    let maps = [def("hash", 1), def("array", 2)];
    let Ok(object) = Object::from_instructions("program", kind, code, &maps) else { return };
    let _ = object.listing("program");
    world::run_all(&object, &vec![0x11; 14 + usize::from(*len)]);
});
