//! Everything that can be wrong with the input: exit status 2, and file, line, field and what to do on stderr.
//!
//! A case is a folder under `bad/`: a scenario, and in `stderr` the texts that the complaint must contain, a line each.

use assert_cmd::Command;
use skep_abi::program::Object;
use skep_object::ObjectSet;
use std::fs;
use std::path::{Path, PathBuf};

fn skep() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("skep"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the table stands here")
        .map(|e| e.expect("a folder that can be listed").path())
        .collect();
    cases.sort();
    cases
}

/// Runs it; exit status 2, nothing on stdout; what stands on stderr.
fn refused(args: &[&std::ffi::OsStr]) -> String {
    let output = skep().arg("run").args(args).output().expect("skep runs");
    let stderr = String::from_utf8(output.stderr).expect("stderr is text");
    assert_eq!(output.status.code(), Some(2), "{args:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

#[test]
fn every_bad_folder_is_refused_with_its_place_and_what_to_do() {
    let cases = cases();
    assert!(cases.len() >= 15, "the table is not where it should be");
    let mut wrong = Vec::new();
    for case in cases {
        let stderr = refused(&[case.as_os_str()]);
        let wanted = fs::read_to_string(case.join("stderr")).unwrap();
        for text in wanted.lines() {
            if !stderr.contains(text) {
                wrong.push(format!("{}: no {text:?} in\n{stderr}", case.display()));
            }
        }
        if !stderr.starts_with("error: ") || stderr.contains('\u{1b}') {
            wrong.push(format!("{}: not a plain error:\n{stderr}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_scenario_that_is_not_there_is_named() {
    let stderr = refused(&["no/such/scenario".as_ref()]);
    assert!(
        stderr.contains("no/such/scenario") && stderr.contains("help: name a scenario's folder"),
        "{stderr}"
    );
}

#[test]
fn objects_that_are_truncated_missing_or_no_objects_are_named() {
    let walkthrough = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios/walkthrough");
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("truncated", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("empty", |file| fs::write(file, b"").unwrap()),
        ("text", |file| fs::write(file, b"not an object").unwrap()),
        ("missing", |file| fs::remove_file(file).unwrap()),
    ];
    for object in Object::ALL {
        for (what, damage) in damages {
            let dir = tempfile::tempdir().unwrap();
            for o in Object::ALL {
                let bytes = ObjectSet::built_in().bytes(*o).to_vec();
                fs::write(dir.path().join(format!("{}.o", o.name())), bytes).unwrap();
            }
            let name = format!("{}.o", object.name());
            damage(&dir.path().join(&name));
            let stderr = refused(&[walkthrough.as_os_str(), "--object".as_ref(), dir.path().as_os_str()]);
            assert!(stderr.contains(&name), "{what} {name}: {stderr}");
        }
    }
}

#[test]
fn a_truncated_capture_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = "apiVersion: skep.dev/v1alpha1\nkind: Scenario\nmetadata: {name: pcap}\nspec:\n  \
                    manifests: [pod.yaml]\n  steps:\n    - send: {from: default/a, pcap: a.pcap}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n";
    fs::write(dir.path().join("scenario.yaml"), scenario).unwrap();
    fs::write(dir.path().join("pod.yaml"), pod).unwrap();
    for bytes in
        [&b"\xd4\xc3\xb2\xa1"[..], b"\x0a\x0d\x0d\x0a\xff", b"", b"nonsense that is long enough for a header"]
    {
        fs::write(dir.path().join("a.pcap"), bytes).unwrap();
        let stderr = refused(&[dir.path().as_os_str()]);
        assert!(stderr.contains("scenario.yaml:7:") && stderr.contains("a.pcap"), "{stderr}");
    }
}
