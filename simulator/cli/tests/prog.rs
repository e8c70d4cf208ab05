//! `skep prog` as a person or a script meets it: exit status, stdout, stderr, files.

use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn object(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/tests/objects").join(name)
}

fn prog(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("skep"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR").arg("prog").args(args);
    command
}

fn finish(mut command: Command, status: i32) -> (String, String) {
    let output = command.output().expect("skep runs");
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"));
    assert_eq!(output.status.code(), Some(status), "{stdout}{stderr}");
    (stdout, stderr)
}

/// A folder with a TCP SYN to port 80 in `syn`.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut frame =
        vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    frame.extend([
        10, 0, 0, 1, 10, 0, 0, 2, 3, 0xe8, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    fs::write(dir.path().join("syn"), frame).expect("the folder is ours");
    dir
}

fn run(dir: &TempDir, name: &str, args: &[&str]) -> Command {
    let mut command = prog(&["run"]);
    command.arg(object(name)).arg("--data-in").arg(dir.path().join("syn")).args(args).current_dir(dir.path());
    command
}

#[test]
fn list_names_what_an_object_holds() {
    let mut command = prog(&["list"]);
    command.arg(object("legacy.o"));
    let (text, _) = finish(command, 0);
    for line in [
        "third  section 0x2/3  SchedClassifier  26 instructions",
        "calls  prog_array  key 4B",
        "calls[3] = third",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let mut command = prog(&["list", "-o", "json"]);
    command.arg(object("policy.o"));
    let json: Value = serde_json::from_str(&finish(command, 0).0).unwrap();
    assert_eq!(json["programs"][0]["name"], "policy");
    let of_maps = json["maps"].as_array().unwrap().iter().find(|m| m["name"] == "rules_by_group").unwrap();
    assert_eq!((&of_maps["type"], &of_maps["inner"]["type"]), (&"hash_of_maps".into(), &"array".into()));
    assert_eq!(json["initial_values"][1]["target"], "rules_of_web");
}

#[test]
fn dump_shows_original_and_legal_side_by_side() {
    let mut command = prog(&["dump", "--program", "entry"]);
    command.arg(object("legacy.o"));
    let (text, _) = finish(command, 0);
    assert!(text.starts_with("program entry, section ingress, SchedClassifier\n"), "{text}");
    for line in ["call bpf_tail_call#12", "r2 = map[calls]", "hit:", "call hit"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let both = text.lines().find(|l| l.contains("call bpf_tail_call")).unwrap();
    assert_eq!(both.matches("bpf_tail_call#12").count(), 2, "{both}");
    let mut command = prog(&["dump", "--original", "--source", "--opcodes"]);
    command.arg(object("policy.o"));
    let (text, _) = finish(command, 0);
    assert!(text.contains("policy.c:") && text.contains("; ") && !text.contains(" | "), "{text}");
}

#[test]
fn run_gives_the_verdict_the_chain_and_the_maps() {
    let dir = folder();
    let (text, _) = finish(run(&dir, "legacy.o", &["--program", "entry", "--map-dump", "after.json"]), 0);
    assert!(text.starts_with("return value: 10\n"), "{text}");
    assert!(text.contains("chain: entry -> first"), "{text}");
    // What one run leaves is what the next begins with.
    let again = ["-p", "entry", "--map-load", "after.json", "--map-dump", "-", "--repeat", "3"];
    let (text, _) = finish(run(&dir, "legacy.o", &again), 0);
    assert!(text.contains("\"value\": \"0400000000000000\""), "{text}");
    let (json, _) = finish(run(&dir, "legacy.o", &["-p", "entry", "-o", "json", "--data-out", "out"]), 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["return_value"], &json["stats"]["helper_calls"]), (&10.into(), &5.into()));
    assert_eq!(fs::read(dir.path().join("out")).unwrap(), fs::read(dir.path().join("syn")).unwrap());
}

#[test]
fn auto_takes_the_jit_for_what_a_kernel_has_verified_only() {
    let dir = folder();
    let engine = |object: &Path, program: &str| {
        let mut command = prog(&["run", "-o", "json", "-p", program, "--data-in"]);
        command.arg(dir.path().join("syn")).arg(object);
        serde_json::from_str::<Value>(&finish(command, 0).0).unwrap()["engine"].clone()
    };
    assert_eq!(engine(&object("legacy.o"), "entry"), "checked");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datapath/object/objects/overlay.o");
    let jit = cfg!(all(target_arch = "x86_64", unix));
    assert_eq!(engine(&ours, "to_overlay"), if jit { "rbpf-jit" } else { "checked" });
    // Another byte, which changes nothing, and it is another object.
    let mut bytes = fs::read(&ours).unwrap();
    bytes.push(0);
    let other = dir.path().join("other.o");
    fs::write(&other, bytes).unwrap();
    assert_eq!(engine(&other, "to_overlay"), "checked");
}

#[test]
fn every_engine_runs_it() {
    let dir = folder();
    for engine in ["checked", "rbpf"] {
        let (text, _) = finish(run(&dir, "legacy.o", &["-p", "entry", "--engine", engine]), 0);
        assert!(text.starts_with("return value: 10\n"), "{engine}: {text}");
    }
}

#[test]
fn a_context_goes_in_and_comes_out() {
    let dir = folder();
    let mut context = vec![0; 192];
    context[8] = 3;
    fs::write(dir.path().join("ctx"), &context).unwrap();
    let (text, _) = finish(run(&dir, "legacy.o", &["-p", "entry", "--ctx-in", "ctx", "--ctx-out", "out"]), 0);
    assert!(text.starts_with("return value: 13\n"), "the mark chooses slot 3: {text}");
    assert_eq!(fs::read(dir.path().join("out")).unwrap()[8], 3);
    context[0] = 1;
    fs::write(dir.path().join("ctx"), &context).unwrap();
    let (_, error) = finish(run(&dir, "legacy.o", &["-p", "entry", "--ctx-in", "ctx"]), 2);
    assert!(error.contains("byte 0 of the context is not zero; only mark"), "{error}");
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let dir = folder();
    let (_, error) = finish(run(&dir, "legacy.o", &["-p", "entri"]), 2);
    assert!(error.contains("no program entri") && error.contains("did you mean entry?"), "{error}");
    let (_, error) = finish(run(&dir, "legacy.o", &[]), 2);
    assert!(error.contains("give --program with one of entry, first, third"), "{error}");
    for (text, expected) in [
        ("{", "maps.json: line 1: "),
        (r#"{"maps": {"hats": []}}"#, "maps.hats: the object has calls, hits"),
        (
            r#"{"maps": {"hits": [{"key": "00", "value": "00"}]}}"#,
            "maps.hits[0]: the key has 1 bytes and must have 4",
        ),
        (r#"{"maps": {"hits": [{"key": "zz", "value": "00"}]}}"#, "maps.hits[0]: key: bytes are hexadecimal"),
        (r#"{"maps": {"hits": [{"value": "00"}]}}"#, "maps.hits[0]: it has no key"),
        (r#"{"maps": {"calls": [{"key": "00000000", "program": "x"}]}}"#, "maps.calls[0]: no program x"),
        (r#"{"globals": {"x": "00"}}"#, "global x: the object has none of this name"),
        (r#"{"masp": {}}"#, "unknown field masp"),
    ] {
        fs::write(dir.path().join("maps.json"), text).unwrap();
        let (_, error) = finish(run(&dir, "legacy.o", &["-p", "entry", "--map-load", "maps.json"]), 2);
        assert!(error.contains(expected), "{expected} in {error}");
    }
    let mut command = prog(&["list", "Cargo.toml"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let (_, error) = finish(command, 2);
    assert!(error.contains("Cargo.toml") && error.contains("not a readable BPF object"), "{error}");
    let mut command = prog(&["list", "no-such-file"]);
    command.current_dir(dir.path());
    assert!(finish(command, 2).1.contains("no-such-file: cannot be read"));
}

#[test]
fn a_damaged_object_is_an_error_without_a_panic_on_stderr() {
    let dir = folder();
    let whole = fs::read(object("policy.o")).unwrap();
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(dir.path().join("bad.o"), bytes).unwrap();
        let mut command = prog(&["list", "bad.o"]);
        let output = command.current_dir(dir.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 2)), "byte {at}: {error}");
        assert!(!error.contains("panicked"), "byte {at}: {error}");
    }
}

#[test]
fn conformance_counts_and_names_what_fails() {
    let dir = tempfile::tempdir().unwrap();
    let table = "name\tcpu\tmemory\tr0\tprogram\n\
                 good\t1\t\t7\tb7000000070000009500000000000000\n\
                 wrong\t1\t\t8\tb7000000070000009500000000000000\n";
    fs::write(dir.path().join("cases.tsv"), table).unwrap();
    let mut command = prog(&["conformance", "cases.tsv", "--engine", "rbpf"]);
    command.current_dir(dir.path());
    let (text, _) = finish(command, 1);
    assert_eq!(text, "FAIL wrong: r0 is 0x7 and not 0x8\n1 passed, 1 failed\n");
    fs::write(dir.path().join("cases.tsv"), "name\nshort\t1\n").unwrap();
    let mut command = prog(&["conformance", "cases.tsv"]);
    command.current_dir(dir.path());
    assert!(finish(command, 2).1.contains("cases.tsv:2"));
}

#[test]
fn cover_names_lines_and_writes_lcov() {
    let dir = folder();
    let lxc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datapath/object/objects/lxc.o");
    let cover = |more: &[&str]| {
        let mut command = prog(&["cover", "-p", "from_container"]);
        command.arg(&lxc).arg("--data-in").arg(dir.path().join("syn")).args(more);
        command
    };
    let (text, _) = finish(cover(&[]), 0);
    assert!(text.contains(" instructions executed\n") && text.contains("from_container.rs: "), "{text}");
    let (lcov, _) = finish(cover(&["--lcov", "-"]), 0);
    assert!(lcov.starts_with("TN:\nSF:") && lcov.ends_with("end_of_record\n"), "{lcov}");
    assert!(lcov.lines().any(|l| l.starts_with("DA:") && l.ends_with(",1")));
    let (_, error) = finish(cover(&["--engine", "rbpf"]), 2);
    assert!(error.contains("only the engine `checked` knows"), "{error}");
    let mut command = prog(&["cover", "-p", "entry"]);
    command.arg(object("legacy.o")).arg("--data-in").arg(dir.path().join("syn"));
    assert!(finish(command, 2).1.contains("compile with -g"));
}
