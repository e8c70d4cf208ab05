//! `skep prog conformance`: a table of cases of the public bpf_conformance suite.

use super::args::ConformanceArgs;
use super::{Done, print, read, run, state};
use skep_scenario::Diagnostic;
use skep_vm::{Kernel, KernelConfig, LoadSpec, Object, ProgramKind, TestInput};

/// The name that the program of every case has.
const NAME: &str = "case";

pub(super) fn conformance(args: &ConformanceArgs) -> Done {
    let wrong = |what: &str| Diagnostic::new(what).in_file(&args.file);
    let text = String::from_utf8(read(&args.file)?).map_err(|_| wrong("it is no text"))?;
    let (mut passed, mut failed) = (0, 0);
    for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let place = |what: &str| Diagnostic { line: Some(number as u32 + 1), ..wrong(what) };
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, _, memory, expected, program] = fields[..] else {
            return Err(place("a case has five fields: name, CPU version, memory, expected r0, program"));
        };
        let bytes = |field: &str| state::from_hex(field).ok_or_else(|| place("it is no hexadecimal"));
        let expected =
            u64::from_str_radix(expected, 16).map_err(|_| place("expected r0 is no hexadecimal"))?;
        match case(args, &bytes(memory)?, &bytes(program)?) {
            Ok(r0) if r0 == expected => passed += 1,
            Ok(r0) => {
                failed += 1;
                print(&format!("FAIL {name}: r0 is {r0:#x} and not {expected:#x}\n"));
            }
            Err(why) => {
                failed += 1;
                print(&format!("FAIL {name}: {why}\n"));
            }
        }
    }
    print(&format!("{passed} passed, {failed} failed\n"));
    Ok(u8::from(failed > 0))
}

fn case(args: &ConformanceArgs, memory: &[u8], program: &[u8]) -> Result<u64, String> {
    let object =
        Object::from_instructions(NAME, ProgramKind::Memory, program, &[]).map_err(|e| e.to_string())?;
    let mut kernel = Kernel::new(&KernelConfig { engine: args.engine.into(), ..KernelConfig::default() });
    let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
    let input = TestInput { data: memory, ..TestInput::default() };
    let output = kernel.test_run(loaded.programs[NAME], &input, &mut run::World::default());
    output.map(|o| o.return_value).map_err(|e| e.to_string())
}
