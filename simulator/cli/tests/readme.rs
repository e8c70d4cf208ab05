//! The README shows the trace that its first command prints.

use std::path::Path;
use std::process::Command;

/// The lines of a trace, up to the objects' hashes, which change with every rebuild.
fn lines(text: &str) -> Vec<&str> {
    let ends = |l: &&str| ["object ", "1 passed", "```"].iter().any(|end| l.starts_with(end));
    let trace = text.lines().skip_while(|l| !l.starts_with("step 2: "));
    trace.take_while(|l| !ends(l)).map(str::trim_end).collect()
}

#[test]
fn the_readme_shows_the_walk_as_it_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["run", "scenarios/walkthrough", "--trace", "--width", "160"])
        .current_dir(&root)
        .output()
        .expect("the command that was just built runs");
    let printed = String::from_utf8(output.stdout).expect("a trace is text");
    let (shown, printed) = (lines(&readme), lines(&printed));
    assert!(printed.len() > 20, "{printed:?}");
    assert_eq!(
        shown, printed,
        "README.md shows another trace; paste the new one, from `step 2` on, and read it"
    );
}
