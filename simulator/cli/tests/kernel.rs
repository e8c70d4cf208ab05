//! `skep run --on sim,kernel`: both Worlds record the same of every scenario, but for the known differences.

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
