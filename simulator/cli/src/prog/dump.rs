//! `skep prog dump`: instructions as text, original and executed side by side.

use super::args::DumpArgs;
use super::state::hex;
use super::{Done, print};
use skep_vm::{Line, Listing, Object};

/// Columns of the left side at the most.
const LEFT_MAX: usize = 72;

pub(super) fn dump(args: &DumpArgs) -> Done {
    let object = args.object.parse()?;
    let names: Vec<&str> = match &args.program {
        Some(name) => vec![args.object.program(&object, Some(name))?],
        None => object.programs().collect(),
    };
    for (number, name) in names.iter().enumerate() {
        let Some(listing) = object.listing(name) else { continue };
        if number > 0 {
            print("\n");
        }
        print(&page(args, &object, name, &listing));
    }
    Ok(0)
}

fn page(args: &DumpArgs, object: &Object, name: &str, listing: &Listing) -> String {
    let kind = object.kind(name).map_or("unknown kind".into(), |k| format!("{k:?}"));
    let mut out = format!("program {name}, section {}, {kind}\n", object.section(name).unwrap_or("-"));
    if let Some(why) = &listing.illegal {
        out += &format!("cannot be run here: {why}\n");
    }
    let beside = !args.original && listing.illegal.is_none();
    let left: Vec<String> = listing.lines.iter().map(|line| left(args, line)).collect();
    let width = left.iter().map(String::len).max().unwrap_or(0).min(LEFT_MAX);
    let mut shown = None;
    for (line, left) in listing.lines.iter().zip(left) {
        if let Some(function) = &line.function {
            out += &format!("{function}:\n");
        }
        let source = object.source_line(name, line.instruction).filter(|_| args.source);
        let place = source.map(|s| (&s.file, s.line));
        if place != shown {
            if let Some(source) = source {
                out += format!("; {}:{}: {}", source.file, source.line, source.text)
                    .trim_end_matches([':', ' ']);
                out.push('\n');
            }
            shown = place;
        }
        let mut legal = line.legal.iter().filter(|_| beside).map(|(at, text)| format!("  | {at:4}: {text}"));
        out += format!("{left:width$}{}", legal.next().unwrap_or_default()).trim_end();
        out.push('\n');
        for right in legal {
            out += &format!("{:width$}{right}\n", "");
        }
    }
    out
}

fn left(args: &DumpArgs, line: &Line) -> String {
    match args.opcodes {
        true => format!("{:4}: {:32}  {}", line.instruction, hex(&line.bytes), line.original),
        false => format!("{:4}: {}", line.instruction, line.original),
    }
}
