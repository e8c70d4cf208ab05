//! `skep prog cover`: which source lines a run has executed.
//!
//! Knows LCOV's tracefile (geninfo(1)). An inlined line is one line, wherever its instructions stand.

use super::args::{CoverArgs, Engine};
use super::run::{FAULT, Session};
use super::{Done, print, write};
use skep_scenario::Diagnostic;
use skep_vm::Object;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A source file: for each line whether it was executed, and functions with their first line.
#[derive(Default)]
struct File {
    lines: BTreeMap<u32, bool>,
    functions: BTreeMap<String, (u32, bool)>,
}

pub(super) fn cover(args: &CoverArgs) -> Done {
    if !matches!(args.run.engine, Engine::Auto | Engine::Checked) {
        let help = "leave --engine out";
        return Err(Diagnostic::new("only the engine `checked` knows what it executed").help(help));
    }
    let mut session = Session::open(&args.run, Engine::Checked)?;
    session.kernel.record_coverage(true);
    if session.execute(&args.run)?.is_none() {
        return Ok(FAULT);
    }
    let mut files = BTreeMap::new();
    let mut instructions = (0, 0);
    for (name, id) in &session.loaded.programs {
        let executed: BTreeSet<usize> = session.kernel.covered(*id).unwrap_or_default().into_iter().collect();
        // Programs that nobody called say nothing about the one that was run.
        if executed.is_empty() && *name != session.name {
            continue;
        }
        add(&session.object, name, &executed, &mut files, &mut instructions);
    }
    if files.is_empty() {
        let text = format!("{} of {} instructions executed", instructions.0, instructions.1);
        let help = "compile with -g: BTF tells lines";
        return Err(Diagnostic::new(format!("{text}; the object does not say from which lines they come"))
            .in_file(&args.run.object.object)
            .help(help));
    }
    match &args.lcov {
        Some(path) => write(path, lcov(&files).as_bytes())?,
        None => print(&text(&files, instructions)),
    }
    Ok(0)
}

fn add(
    object: &Object,
    name: &str,
    executed: &BTreeSet<usize>,
    files: &mut BTreeMap<String, File>,
    instructions: &mut (usize, usize),
) {
    let Some(listing) = object.listing(name) else { return };
    for line in &listing.lines {
        let ran = executed.contains(&line.instruction);
        *instructions = (instructions.0 + usize::from(ran), instructions.1 + 1);
        let Some(source) = object.source_line(name, line.instruction).filter(|s| s.line > 0) else {
            continue;
        };
        let file: &mut File = files.entry(source.file.clone()).or_default();
        *file.lines.entry(source.line).or_default() |= ran;
        if let Some(function) = &line.function {
            let entry = file.functions.entry(function.clone()).or_insert((source.line, false));
            entry.1 |= ran;
        }
    }
}

fn lcov(files: &BTreeMap<String, File>) -> String {
    let mut out = String::from("TN:\n");
    for (path, file) in files {
        // Writing to a String does not fail.
        let _ = writeln!(out, "SF:{path}");
        for (name, (line, _)) in &file.functions {
            let _ = writeln!(out, "FN:{line},{name}");
        }
        for (name, (_, ran)) in &file.functions {
            let _ = writeln!(out, "FNDA:{},{name}", u8::from(*ran));
        }
        let hit = file.functions.values().filter(|(_, ran)| *ran).count();
        let _ = writeln!(out, "FNF:{}\nFNH:{hit}", file.functions.len());
        for (line, ran) in &file.lines {
            let _ = writeln!(out, "DA:{line},{}", u8::from(*ran));
        }
        let hit = file.lines.values().filter(|ran| **ran).count();
        let _ = writeln!(out, "LF:{}\nLH:{hit}\nend_of_record", file.lines.len());
    }
    out
}

fn text(files: &BTreeMap<String, File>, instructions: (usize, usize)) -> String {
    let mut out = format!("{} of {} instructions executed\n", instructions.0, instructions.1);
    for (path, file) in files {
        let hit = file.lines.values().filter(|ran| **ran).count();
        out += &format!("{path}: {hit} of {} lines", file.lines.len());
        let missed: Vec<u32> = file.lines.iter().filter(|(_, ran)| !**ran).map(|(line, _)| *line).collect();
        if !missed.is_empty() {
            out += &format!(", not {}", ranges(&missed, &file.lines));
        }
        out.push('\n');
    }
    out
}

/// Lines as ranges; between two lines of a range no line with code was executed.
fn ranges(missed: &[u32], all: &BTreeMap<u32, bool>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for line in missed {
        match parts.last_mut() {
            Some((_, end)) if !all.range(*end..*line).any(|(_, ran)| *ran) => *end = *line,
            _ => parts.push((*line, *line)),
        }
    }
    let part = |(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}
