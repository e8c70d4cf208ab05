//! No text makes the reader panic, run out of stack or run for ever, and what it says has a place.

use proptest::prelude::*;
use skep_manifest::{Options, parse};

const WORDS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "v1",
    "networking.k8s.io/v1",
    "NetworkPolicy",
    "Pod",
    "List",
    "items",
    "name",
    "podSelector",
    "ingress",
    "ports",
    "port",
    "80",
    "- ",
    ": ",
    "\n",
    "\n  ",
    "\n    ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<",
    "? ",
    "|",
    ">",
    "#",
    "---\n",
    "...\n",
    "!",
    "!!str ",
    "%TAG",
    "\t",
    "~",
    "\\",
    "\u{feff}",
    "é",
    "\u{0}",
    "\r\n",
    "- - - ",
    "@",
    "`",
];

fn yaml_like() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS), 0..60).prop_map(|words| words.concat())
}

/// A good manifest with a piece cut out, repeated or replaced.
fn damaged() -> impl Strategy<Value = String> {
    let good = include_str!("good/app.yaml");
    (0..good.len(), 0..40_usize, prop::sample::select(WORDS)).prop_map(move |(at, cut, word)| {
        let end = (at + cut).min(good.len());
        format!("{}{word}{}", good.get(..at).unwrap_or_default(), good.get(end..).unwrap_or_default())
    })
}

fn check(text: &str) -> Result<(), TestCaseError> {
    match parse("t.yaml", text, &Options::default()) {
        Ok(manifests) => {
            for loaded in &manifests.resources {
                prop_assert!(!loaded.resource.name().is_empty());
                prop_assert!(loaded.source.at("spec.x[3].y").line > 0);
            }
        }
        Err(errors) => {
            prop_assert!(!errors.0.is_empty());
            for error in &errors {
                prop_assert!(error.line > 0, "{}", error);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words(text in yaml_like()) { check(&text)?; }

    #[test]
    fn any_text(text in "\\PC{0,200}") { check(&text)?; }

    #[test]
    fn a_damaged_manifest(text in damaged()) { check(&text)?; }
}

#[test]
fn deep_nesting_ends_in_an_error() {
    for open in ["[", "{a: ", "- ", "? ", "{? ", "a:\n "] {
        let text = open.repeat(20_000);
        assert!(parse("t.yaml", &text, &Options::default()).is_err(), "{open}");
    }
}
