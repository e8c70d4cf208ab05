//! Every scenario under every engine: the same report, byte for byte, and nothing in it about the engine.

use std::path::{Path, PathBuf};
use std::process::Command;

fn scenarios() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("scenarios/ stands at the workspace's root")
        .map(|e| e.expect("a folder that can be listed").path())
        .filter(|p| p.join("scenario.yaml").exists())
        .collect();
    folders.sort();
    folders
}

/// The report of all scenarios, and what the command said beside it.
fn report(engine: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .arg("run")
        .args(scenarios())
        .args(["--no-skip", "--trace", "--output", "json", "--engine", engine])
        .env("NO_COLOR", "1")
        .output()
        .expect("the command starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{engine}: {}\n{out}{err}", output.status);
    (out, err)
}

#[test]
fn every_engine_gives_the_same_evidence() {
    let (want, _) = report("rbpf");
    let mut others = vec!["checked", "auto"];
    if cfg!(all(target_arch = "x86_64", unix)) {
        others.push("rbpf-jit");
    }
    for engine in others {
        let (have, _) = report(engine);
        assert!(!have.contains(engine), "a report names its engine");
        assert!(have == want, "{engine} and rbpf differ:\n{have}\n{want}");
    }
}

#[test]
fn an_engine_that_does_not_exist_is_refused_by_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .args(["run", "nowhere", "--engine", "abacus"])
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("abacus is no engine"), "{text}");
}
