//! `skep prog`: one object by itself, in the manner of `bpftool prog`. No root, no kernel, nothing of skep's own needed.
//!
//! Knows files, and how results are shown. What a program does, the vm knows.

mod args;
mod conformance;
mod cover;
mod dump;
mod list;
mod run;
mod state;

pub(crate) use args::ProgArgs;

use crate::diagnostics;
use args::{ObjectArgs, ProgCommand};
use skep_object::verified::Verified;
use skep_scenario::{Diagnostic, suggest};
use skep_vm::Object;
use std::io::{Read, Write};
use std::path::Path;

/// Exit status for input that is wrong.
const INPUT: u8 = 2;

/// Carries a command out. Returns the exit status.
pub(crate) fn prog(args: &ProgArgs) -> u8 {
    let done = match &args.command {
        ProgCommand::List(args) => list::list(args),
        ProgCommand::Dump(args) => dump::dump(args),
        ProgCommand::Run(args) => run::run(args),
        ProgCommand::Cover(args) => cover::cover(args),
        ProgCommand::Conformance(args) => conformance::conformance(args),
    };
    done.unwrap_or_else(|diagnostic| {
        diagnostics::print(&diagnostic);
        INPUT
    })
}

/// What a command comes to: an exit status, or what is wrong with its input.
type Done = Result<u8, Diagnostic>;

/// The bytes of a file, or of stdin if it is `-`.
fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let mut bytes = Vec::new();
    let done = if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    done.map_err(|e| Diagnostic::new(format!("cannot be read: {e}")).in_file(path))
}

/// Writes a file, or to stdout if it is `-`.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Diagnostic> {
    if path == Path::new("-") {
        // A closed pipe is not an error.
        let _ = std::io::stdout().write_all(bytes);
        return Ok(());
    }
    std::fs::write(path, bytes).map_err(|e| Diagnostic::new(format!("cannot be written: {e}")).in_file(path))
}

/// Writes to stdout. A closed pipe (`skep prog dump ... | head`) is not an error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

impl ObjectArgs {
    fn parse(&self) -> Result<Object, Diagnostic> {
        self.parse_known().map(|(object, _)| object)
    }

    /// The object, and whether a kernel is known to have verified it as it stands.
    fn parse_known(&self) -> Result<(Object, bool), Diagnostic> {
        let bytes = read(&self.object)?;
        let known = self.btf.is_none() && Verified::built_in().knows(&skep_object::hex_sha256(&bytes));
        let object = match &self.btf {
            Some(btf) => Object::parse_for(&bytes, &read(btf)?),
            None => Object::parse(&bytes),
        };
        object.map(|object| (object, known)).map_err(|e| {
            let help = "it must be an ELF object of clang's or bpf-linker's (little endian, not linked)";
            Diagnostic::new(e.to_string()).in_file(&self.object).help(help)
        })
    }

    /// The program that is meant; without a name, the only one.
    fn program<'a>(&self, object: &'a Object, name: Option<&str>) -> Result<&'a str, Diagnostic> {
        let names: Vec<&str> = object.programs().collect();
        let complain =
            |text: String, help: String| Err(Diagnostic::new(text).in_file(&self.object).help(help));
        match (name, &names[..]) {
            (_, []) => {
                complain("the object has no program".into(), "`skep prog list` shows what it has".into())
            }
            (None, [only]) => Ok(only),
            (None, _) => {
                let text = format!("the object has {} programs: which one?", names.len());
                complain(text, format!("give --program with one of {}", names.join(", ")))
            }
            (Some(name), _) => match names.iter().find(|n| **n == name) {
                Some(name) => Ok(name),
                None => {
                    let help = match suggest::nearest(name, names.iter().copied()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("it has {}", names.join(", ")),
                    };
                    complain(format!("no program {name}"), help)
                }
            },
        }
    }
}
