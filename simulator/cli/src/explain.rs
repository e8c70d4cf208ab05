//! `skep explain`: what a drop reason means.

use crate::diagnostics;
use skep_scenario::reasons::{self, Reason};
use skep_scenario::{Diagnostic, suggest};
use std::io::Write;

/// Explains one reason, or lists all. Returns the exit status.
pub(crate) fn explain(reason: Option<&str>) -> u8 {
    let text = match reason {
        None => reasons::all().map(|r| row(&r)).collect::<String>(),
        Some(name) => match reasons::find(name) {
            Some(r) => page(&r),
            None => {
                let names: Vec<&str> = reasons::all().map(|r| r.name).collect();
                let help = match suggest::nearest(name, names) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "`skep explain` lists all reasons".to_owned(),
                };
                diagnostics::print(&Diagnostic::new(format!("no reason {name}")).help(help));
                return 2;
            }
        },
    };
    // A closed pipe (`skep explain | head`) is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

fn row(r: &Reason) -> String {
    let number = r.number.map_or("-".to_owned(), |n| n.to_string());
    let text = if r.text.is_empty() { first_sentence(r.explanation) } else { r.text };
    format!("{number:>3}  {:<40} {text}\n", r.name)
}

fn first_sentence(text: &str) -> &str {
    let end = [". ", ": "].iter().filter_map(|s| text.find(s)).min();
    end.map_or(text, |i| &text[..i]).trim_end_matches('.')
}

fn page(r: &Reason) -> String {
    let origin = match r.number {
        Some(n) => format!("drop reason {n} of the datapath, in Hubble \"{}\"", r.text),
        None if r.name.starts_with("FABRIC_") => "the network between the nodes".to_owned(),
        None => "the network stack (enum skb_drop_reason)".to_owned(),
    };
    let explanation = r.explanation.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}: {origin}\n\n{explanation}\n", r.name)
}
