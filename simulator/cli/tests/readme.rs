//! The README shows the trace that its first command prints.

use std::path::Path;
use std::process::Command;

/// The lines of a trace, without the objects' hashes, which change with every rebuild.
fn lines(text: &str) -> Vec<&str> {
    let from = text.lines().skip_while(|l| !l.starts_with("step 2: ")).collect::<Vec<_>>();
    from.into_iter()
        .take_while(|l| !l.starts_with("object ") && !l.starts_with("```"))
        .map(str::trim_end)
        .collect()
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
