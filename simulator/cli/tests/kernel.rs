//! `skep run --on sim,kernel`: both Worlds record the same of every scenario, but for the known differences. And
//! `skep fuzz kernel` as a command; what it finds is the subject of skep-live's own tests.

use assert_cmd::Command;
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether the kernel can be asked; if not, one line says what was skipped.
fn can_ask(name: &str) -> bool {
    match skep_agent_linux::probe() {
        Ok(()) => true,
        Err(e) => {
            let capability = e.missing_capability().unwrap_or("bpf");
            writeln!(std::io::stdout(), "\nSKIP {name}: {capability}").expect("stdout is open");
            false
        }
    }
}

fn folders(of: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(workspace().join(of))
        .expect("a folder of the workspace")
        .map(|e| e.expect("a folder that can be listed").path())
        .filter(|p| p.join("scenario.yaml").exists())
        .collect();
    all.sort();
    all
}

fn run(folder: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["run", "--on", "sim,kernel"])
        .arg(folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("the command runs");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

#[test]
fn both_worlds_record_the_same() {
    if !can_ask("sim-and-kernel") {
        return;
    }
    let mut wrong = Vec::new();
    for folder in folders("scenarios") {
        let (status, text) = run(&folder);
        if status != Some(0) || text.contains("\n  != ") {
            wrong.push(text);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A known difference that has gone is a scenario like others: it belongs to scenarios/.
#[test]
fn known_differences_are_still_there() {
    if !can_ask("sim-and-kernel") {
        return;
    }
    for folder in folders("kernel-tests/differences") {
        let (status, text) = run(&folder);
        let name = folder.display();
        assert_eq!(status, Some(1), "{name}: the Worlds agree: move it to scenarios/\n{text}");
        assert!(text.contains("\n  != "), "{name}: it fails for another reason\n{text}");
    }
}

#[test]
fn a_short_campaign_agrees_and_keeps_nothing() {
    if !can_ask("fuzz-kernel") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["fuzz", "kernel", "--cases", "960", "--frames", "32", "-o", "json", "--keep"])
        .arg(folder.path())
        .output()
        .expect("the command runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(output.status.code(), Some(0), "{report}");
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert_eq!((number("cases") + number("refused"), number("frames")), (960, 32), "{report}");
    assert_eq!(report["found"], serde_json::json!([]), "{report}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn a_program_that_is_not_there_is_an_input_error() {
    if !can_ask("fuzz-kernel") {
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["fuzz", "kernel", "--program", "from_nowhere"])
        .output()
        .expect("the command runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("from_nowhere") && text.contains("from_container"), "{text}");
}

#[test]
fn without_permission_the_kernel_is_an_input_error_that_says_what_to_do() {
    // Whoever may change users can become nobody.
    let Ok(nobody) = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(env!("CARGO_BIN_EXE_skep"))
        .args(["run", "--on", "kernel"])
        .arg(workspace().join("scenarios/walkthrough"))
        .output()
    else {
        return;
    };
    let text = String::from_utf8_lossy(&nobody.stderr).into_owned();
    if nobody.status.code() == Some(2) {
        assert!(text.contains("root"), "{text}");
    } else {
        // Not root, or the binary is out of nobody's reach.
        assert!(nobody.status.code() != Some(0), "{text}");
    }
}
