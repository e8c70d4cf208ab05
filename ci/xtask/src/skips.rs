//! What was skipped: printed as `SKIP name: capability`, and allowed by ci/skips.toml.
//!
//! A skip that is not listed fails, and so does one whose capability is there: a test that skips itself by mistake
//! is no test.

use crate::{Outcome, capability, command::root};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The list.
const FILE: &str = "ci/skips.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    skip: Vec<Allowed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    name: String,
    capability: String,
    reason: String,
}

fn read() -> Result<List, String> {
    let text = std::fs::read_to_string(root().join(FILE)).map_err(|e| format!("{FILE}: {e}"))?;
    let list: List = toml::from_str(&text).map_err(|e| format!("{FILE}: {e}"))?;
    let mut names = BTreeSet::new();
    for s in &list.skip {
        if !capability::NAMES.iter().any(|(n, _)| *n == s.capability) {
            let known: Vec<&str> = capability::NAMES.iter().map(|(n, _)| *n).collect();
            return Err(format!(
                "{FILE}: {}: no capability `{}`; there are {}",
                s.name,
                s.capability,
                known.join(", ")
            ));
        }
        if s.reason.trim().is_empty() {
            return Err(format!("{FILE}: {}: no reason", s.name));
        }
        if !names.insert(&s.name) {
            return Err(format!("{FILE}: {} stands there twice", s.name));
        }
    }
    Ok(list)
}

/// The list itself, and every skip in these logs.
pub(crate) fn check_files(logs: &[PathBuf]) -> Outcome {
    read()?;
    for path in logs {
        let shown = path.display().to_string();
        let log = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
        check_log(&shown, &log)?;
    }
    Ok(())
}

/// Every skip in a log.
pub(crate) fn check_log(from: &str, log: &str) -> Outcome {
    let wrong = judge(&read()?, log, capability::is_there);
    for (name, capability) in found(log) {
        println!("skipped: {name} (no {capability})");
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{from}:\n  {}", wrong.join("\n  "))) }
}

/// The skips of a log, as (name, capability). A test that libtest ignored has no capability.
fn found(log: &str) -> BTreeSet<(String, String)> {
    log.lines()
        .filter_map(|line| {
            let line = line.trim();
            if let Some((name, capability)) = line.strip_prefix("SKIP ").and_then(|s| s.split_once(": ")) {
                return Some((name.to_owned(), capability.trim().to_owned()));
            }
            let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
            outcome.starts_with("ignored").then(|| (name.to_owned(), "none: ignored".to_owned()))
        })
        .collect()
}

fn judge(list: &List, log: &str, is_there: impl Fn(&str) -> Option<bool>) -> Vec<String> {
    found(log)
        .into_iter()
        .filter_map(|(name, capability)| {
            let listed = list.skip.iter().any(|s| s.name == name && s.capability == capability);
            if !listed {
                Some(format!("{name}: skipped for lack of `{capability}`, and {FILE} does not allow that"))
            } else if is_there(&capability) == Some(true) {
                Some(format!("{name}: skipped for lack of `{capability}`, which this machine has"))
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        toml::from_str("[[skip]]\nname = 'a'\ncapability = 'bpf'\nreason = 'r'").unwrap()
    }

    #[test]
    fn a_listed_skip_passes_only_where_the_capability_is_missing() {
        assert!(judge(&list(), "x\nSKIP a: bpf\n", |_| Some(false)).is_empty());
        assert!(judge(&list(), "SKIP a: bpf", |_| None).is_empty());
        assert_eq!(judge(&list(), "SKIP a: bpf", |_| Some(true)).len(), 1);
    }

    #[test]
    fn another_skip_and_an_ignored_test_fail() {
        assert_eq!(judge(&list(), "SKIP b: bpf", |_| Some(false)).len(), 1);
        assert_eq!(judge(&list(), "SKIP a: root", |_| Some(false)).len(), 1);
        assert_eq!(judge(&list(), "test m::t ... ignored, slow", |_| Some(false)).len(), 1);
        assert!(judge(&list(), "test m::t ... ok", |_| Some(false)).is_empty());
    }

    #[test]
    fn the_list_is_valid() {
        assert!(read().is_ok_and(|l| !l.skip.is_empty()));
    }
}
