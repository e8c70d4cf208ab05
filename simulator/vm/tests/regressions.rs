//! Inputs that a fuzzer once broke this vm with (`tests/regressions`): they do no harm any more. What an input was about, its
//! name says; how one is read, the fuzz target of the folder's name.
#![expect(clippy::unwrap_used, reason = "tests and what only they call")]

use std::path::Path;

use skep_vm::{
    EngineKind, Environment, FaultKind, Kernel, KernelConfig, LoadSpec, MapId, Object, ProgramKind,
    TestError, TestInput,
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

/// All files of a folder, by name; there is at least one.
fn inputs(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Loads an object and runs each of its programs.
fn run_all(name: &str, object: &Object, data: &[u8]) {
    let (engine, fuel) = (EngineKind::Checked, Some(4096));
    let mut kernel =
        Kernel::new(&KernelConfig { cpus: 2, engine, memory: 4 << 20, fuel, ..KernelConfig::default() });
    let Ok(loaded) = kernel.load(object, &LoadSpec::default()) else { return };
    for id in loaded.programs.values() {
        let result = kernel.test_run(*id, &TestInput { data, ..TestInput::default() }, &mut World);
        if let Err(TestError::Fault(fault)) = result {
            assert!(!matches!(fault.kind, FaultKind::Panic(_)), "{name}: {fault}");
        }
    }
    kernel.unload(&loaded);
}

#[test]
fn objects_do_no_harm() {
    for (name, bytes) in inputs("object") {
        let Ok(object) = Object::parse(&bytes) else { continue };
        let _ = object.initial_values();
        for program in object.programs() {
            let _ = object.listing(program);
            let _ = (object.source_line(program, 1), object.function_of(program, 1));
        }
        for global in object.globals() {
            let _ = object.global_value(&global.name);
        }
        run_all(&name, &object, &[0x45; 60]);
    }
}

/// The first byte says which kind of program, the second how long its packet is.
#[test]
fn instructions_do_no_harm() {
    for (name, bytes) in inputs("bytecode") {
        let [kind, len, code @ ..] = bytes.as_slice() else { panic!("{name} is no input") };
        let kind = if kind % 2 == 0 { ProgramKind::Memory } else { ProgramKind::SchedClassifier };
        let object = Object::from_instructions("program", kind, &code[..code.len() / 8 * 8], &[]).unwrap();
        let _ = object.listing("program");
        run_all(&name, &object, &vec![0x11; 14 + usize::from(*len)]);
    }
}

/// A program that never ends is stopped after as many instructions as it was given.
#[test]
fn fuel_is_what_the_kernel_was_made_with() {
    // ja -1
    let object = Object::from_instructions("p", ProgramKind::Memory, &[5, 0, 0xff, 0xff, 0, 0, 0, 0], &[]);
    for engine in [EngineKind::Checked, EngineKind::Rbpf] {
        let config = KernelConfig { engine, fuel: Some(7), ..KernelConfig::default() };
        let mut kernel = Kernel::new(&config);
        let loaded = kernel.load(object.as_ref().unwrap(), &LoadSpec::default()).unwrap();
        let fault = kernel.run_memory(loaded.programs["p"], &mut [], &mut World).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Fuel(7), "{engine}");
    }
}
