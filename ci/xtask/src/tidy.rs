//! What every file of the repository keeps to, and what neither rustfmt nor clippy sees.

use crate::{Outcome, command};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Lines that a file may have, and those that one with a reason may have.
const LINES: usize = 600;
const LINES_WITH_REASON: usize = 700;

/// Where reasons stand.
const EXCEPTIONS: &str = "ci/tidy.toml";

/// The README's two commands, which CI runs word for word.
const COMMANDS: [&str; 2] =
    ["cargo run --release -p skep -- run scenarios/walkthrough --trace", "cargo test --workspace"];

/// Words that no file has: written in two halves, so that this one has not either.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("XX", "X"),
];
const ALLOW: [&str; 2] = [concat!("#[al", "low("), concat!("#![al", "low(")];
const UNWRAP: &str = concat!(".unw", "rap()");

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    /// Why a file is longer than [`LINES`].
    #[serde(default)]
    long: BTreeMap<String, String>,
}

pub(crate) fn check() -> Outcome {
    let root = command::root();
    let text = std::fs::read_to_string(root.join(EXCEPTIONS)).map_err(|e| format!("{EXCEPTIONS}: {e}"))?;
    let exceptions: Exceptions = toml::from_str(&text).map_err(|e| format!("{EXCEPTIONS}: {e}"))?;
    let mut wrong = Vec::new();
    let files = command::tracked_files()?;
    let tests = test_modules(&root, &files);
    for file in &files {
        let Ok(text) = std::fs::read_to_string(root.join(file)) else { continue };
        wrong.extend(text_file(file, &text));
        match file.extension().and_then(|e| e.to_str()) {
            Some("rs") => {
                wrong.extend(rust_file(file, &text, &exceptions, is_test(file) || tests.contains(file)))
            }
            Some("md") => wrong.extend(links(&root, file, &text)),
            _ => {}
        }
    }
    for file in exceptions.long.keys().filter(|f| !files.contains(&PathBuf::from(f))) {
        wrong.push(format!("{EXCEPTIONS}: {file} is not there"));
    }
    wrong.extend(commands(&root));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Findings in any file of text, but for what cargo writes and what others have written.
fn text_file(file: &Path, text: &str) -> Vec<String> {
    if file.file_name().is_some_and(|n| n == "Cargo.lock") {
        return Vec::new();
    }
    let named = |line: &str| MACHINE_PATHS.iter().find(|p| line.contains(*p)).copied();
    numbered(text)
        .filter_map(|(n, line)| {
            Some(format!("{}:{n}: {} is a path of one machine", file.display(), named(line)?))
        })
        .collect()
}

fn rust_file(file: &Path, text: &str, exceptions: &Exceptions, is_test: bool) -> Vec<String> {
    let shown = file.display();
    let mut wrong = Vec::new();
    if !text.starts_with("//!") {
        wrong.push(format!("{shown}:1: does not open with `//!`: what it knows, what it does not know"));
    }
    let lines = text.lines().count();
    let limit = match exceptions.long.get(&file.display().to_string()) {
        Some(reason) if !reason.trim().is_empty() => LINES_WITH_REASON,
        _ => LINES,
    };
    if lines > limit {
        wrong.push(format!("{shown}: {lines} lines, more than {limit}: look for the seam"));
    }
    let mut in_tests = is_test;
    for (n, line) in numbered(text) {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        if ALLOW.iter().any(|a| line.contains(a)) {
            wrong.push(format!("{shown}:{n}: `allow`: use #[expect(lint, reason = \"...\")]"));
        }
        if let Some(word) = UNFINISHED.iter().find(|w| has_word(line, w)) {
            wrong.push(format!("{shown}:{n}: {word}: finish it, or make it an error that says so"));
        }
        if !in_tests && !line.trim_start().starts_with("//") && line.contains(UNWRAP) {
            wrong.push(format!("{shown}:{n}: {UNWRAP}: use expect(\"the invariant\"), or return the error"));
        }
    }
    wrong
}

/// Whether a word stands in a line by itself and not as the middle of another.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        && !line.contains(&format!("{word}_"))
}

/// Files that are compiled for tests only.
fn is_test(file: &Path) -> bool {
    let folder =
        file.components().any(|c| matches!(c, Component::Normal(n) if n == "tests" || n == "benches"));
    let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    folder || name == "tests" || name.ends_with("_tests")
}

/// Files that another file declares as a module for tests only.
fn test_modules(root: &Path, files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let (folder, stem) = (file.parent().unwrap_or(Path::new("")), file.file_stem().unwrap_or_default());
        let inner =
            if stem == "lib" || stem == "main" || stem == "mod" { folder.into() } else { folder.join(stem) };
        for declared in modules_for_tests(&text) {
            match declared {
                Module::At(path) => found.extend([folder.join(path)]),
                Module::Named(name) => {
                    found.extend([inner.join(format!("{name}.rs")), inner.join(name).join("mod.rs")]);
                }
            }
        }
    }
    found
}

/// A module in a file of its own: `mod NAME;`, or one with `#[path]`.
#[derive(PartialEq, Eq, Debug)]
enum Module<'a> {
    Named(&'a str),
    At(&'a str),
}

/// The modules behind `#[cfg(test)]`.
fn modules_for_tests(text: &str) -> Vec<Module<'_>> {
    let mut found = Vec::new();
    let (mut for_tests, mut path) = (false, None);
    for line in text.lines().map(str::trim) {
        if line == "#[cfg(test)]" {
            for_tests = true;
        } else if let Some(at) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            path = Some(at);
        } else if !line.starts_with('#') {
            let name = line.split("mod ").nth(1).and_then(|l| l.strip_suffix(';'));
            if let (true, Some(name)) = (for_tests, name) {
                found.push(path.map_or(Module::Named(name), Module::At));
            }
            (for_tests, path) = (false, None);
        }
    }
    found
}

/// Links of a page to files that are not there. Addresses of the web and places within a page are not followed.
fn links(root: &Path, file: &Path, text: &str) -> Vec<String> {
    let folder = root.join(file.parent().unwrap_or(Path::new("")));
    let mut fenced = false;
    let mut wrong = Vec::new();
    for (n, line) in numbered(text) {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if !path.is_empty() && !target.contains("://") && !folder.join(path).exists() {
                wrong.push(format!("{}:{n}: the link to {target} leads nowhere", file.display()));
            }
        }
    }
    wrong
}

/// README and CI have the same two commands.
fn commands(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in ["README.md", ".ci/run"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        for command in COMMANDS.iter().filter(|c| !text.contains(*c)) {
            wrong.push(format!("{file}: does not have the command `{command}`"));
        }
    }
    wrong
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> usize {
        rust_file(Path::new(name), text, &Exceptions::default(), is_test(Path::new(name))).len()
    }

    #[test]
    fn unwrap_is_for_tests() {
        let call = format!("//! m\nfn f() {{ x{UNWRAP}; }}\n");
        assert_eq!(findings("src/a.rs", &call), 1);
        assert_eq!(findings("src/a.rs", &format!("//! m\n#[cfg(test)]\nfn f() {{ x{UNWRAP}; }}\n")), 0);
        assert_eq!(findings("tests/a.rs", &call), 0);
        assert_eq!(findings("src/tests.rs", &call), 0);
    }

    #[test]
    fn headers_lengths_and_words_are_checked() {
        assert_eq!(findings("a.rs", "fn f() {}\n"), 1);
        assert_eq!(findings("a.rs", &format!("//! m\n{}", "\n".repeat(600))), 1);
        assert_eq!(findings("a.rs", &format!("//! m\n{}dead_code)]\n", ALLOW[0])), 1);
        assert_eq!(findings("a.rs", &format!("//! m\n// {}: later\n", UNFINISHED[2])), 1);
        assert_eq!(findings("a.rs", &format!("//! m\nconst MAGIC_{}_PROXY: u32 = 1;\n", UNFINISHED[3])), 0);
    }

    #[test]
    fn modules_of_tests_are_tests() {
        let text = "mod a;\n#[cfg(test)]\npub(crate) mod b;\nmod c;\n#[cfg(test)]\n#[path = \"d_tests.rs\"]\nmod d;\n";
        assert_eq!(modules_for_tests(text), [Module::Named("b"), Module::At("d_tests.rs")]);
    }

    #[test]
    fn a_machines_path_and_a_dead_link_are_found() {
        let path = format!("see {}x", MACHINE_PATHS[0]);
        assert_eq!(text_file(Path::new("a.md"), &path).len(), 1);
        let page = "[a](no-such-file.md) [b](#here) [c](https://example.org/x)\n```\n[d](gone)\n```\n";
        assert_eq!(links(Path::new("/"), Path::new("a.md"), page).len(), 1);
    }
}
