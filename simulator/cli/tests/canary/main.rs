//! The canary: what must fail, fails. Each program in turn only says "ok", and each kind of map look-up in turn
//! misses; a named scenario then no longer ends as it expects. If one does, the simulator decides where the bytecode
//! should.
//!
//! Adding a program or a map to skep-abi's lists fails here until a scenario needs it.

mod patch;

use skep_abi::map::MAPS;
use skep_abi::program::{Object, PROGRAMS};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The scenario that needs each program.
const PROGRAM_NEEDED_BY: &[(&str, &str)] = &[
    ("from_container", "walkthrough"),
    ("handle_policy", "walkthrough"),
    ("tail_handle_arp", "walkthrough"),
    ("tail_handle_ipv4", "spoof"),
    ("tail_ipv4_ct_egress", "walkthrough"),
    ("tail_handle_ipv4_cont", "same-node"),
    ("tail_ipv4_ct_ingress_policy_only", "walkthrough"),
    ("tail_ipv4_to_endpoint", "deny-mid-flow"),
    ("from_host", "echo"),
    ("to_host", "echo"),
    ("from_netdev", "echo"),
    ("to_netdev", "echo"),
    ("from_overlay", "walkthrough"),
    ("to_overlay", "walkthrough"),
    ("to_container", "endpoint-routes"),
];

/// The scenario that needs the look-ups in each map; tail calls are look-ups in program arrays.
const MAP_NEEDED_BY: &[(&str, &str)] = &[
    ("skep_lxc", "same-node"),
    ("skep_ipcache", "walkthrough"),
    ("skep_policy_v2", "walkthrough"),
    ("skep_ct4_global", "walkthrough"),
    ("skep_ct_any4_global", "conntrack-expiry"),
    ("skep_metrics", "walkthrough"),
    ("skep_calls", "walkthrough"),
    ("skep_call_policy", "walkthrough"),
];

/// Maps in which nothing is looked up.
const NEVER_LOOKED_UP: &[(&str, &str)] = &[("skep_events", "programs only write to it")];

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios")
}

/// Runs scenarios over a folder of objects.
fn run(objects: &Path, scenario: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skep"))
        .arg("run")
        .arg(scenario)
        .arg("--object")
        .arg(objects)
        .args(more)
        .output()
        .expect("the command that was just built runs")
}

/// A folder with the built-in objects, each changed by `change`.
fn folder(mut change: impl FnMut(Object, &[u8]) -> Vec<u8>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for object in Object::ALL {
        let bytes = change(*object, skep_object::bytes(*object));
        std::fs::write(dir.path().join(format!("{}.o", object.name())), bytes).expect("the folder is ours");
    }
    dir
}

/// What went wrong if the scenario did not fail as an expectation or an invariant does.
fn must_fail(what: &str, scenario: &str, objects: &Path) -> Option<String> {
    let output = run(objects, &scenarios().join(scenario), &[]);
    // 1: an expectation; 3: an invariant, such as a packet that vanished. 2 would be a mistake of this test.
    match output.status.code() {
        Some(1 | 3) => None,
        code => Some(format!(
            "{what}: {scenario} ended with {code:?}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_program_and_every_map_has_its_row() {
    for program in PROGRAMS {
        let rows = PROGRAM_NEEDED_BY.iter().filter(|(name, _)| *name == program.name).count();
        assert_eq!(rows, 1, "{}", program.name);
    }
    for map in MAPS {
        let rows = MAP_NEEDED_BY.iter().chain(NEVER_LOOKED_UP).filter(|(name, _)| *name == map.name).count();
        assert_eq!(rows, 1, "{}", map.name);
    }
}

#[test]
fn unchanged_objects_from_a_folder_pass() {
    let dir = folder(|_, bytes| bytes.to_vec());
    let mut names: Vec<&str> = PROGRAM_NEEDED_BY.iter().chain(MAP_NEEDED_BY).map(|(_, s)| *s).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let output = run(dir.path(), &scenarios().join(name), &[]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn each_program_that_only_says_ok_fails_a_scenario() {
    let mut wrong = Vec::new();
    for (program, scenario) in PROGRAM_NEEDED_BY {
        let mut changed = 0;
        let dir = folder(|_, bytes| match patch::return_ok(bytes, program) {
            Some(bytes) => {
                changed += 1;
                bytes
            }
            None => bytes.to_vec(),
        });
        assert_eq!(changed, 1, "{program} is in one object");
        wrong.extend(must_fail(program, scenario, dir.path()));
    }
    assert_none(wrong);
}

#[test]
fn each_map_whose_look_ups_miss_fails_a_scenario() {
    let mut wrong = Vec::new();
    for (map, scenario) in MAP_NEEDED_BY {
        let mut changed = 0;
        let dir = folder(|_, bytes| {
            let (bytes, here) = patch::miss(bytes, map);
            changed += here;
            bytes
        });
        assert!(changed > 0, "no look-up in {map} was found");
        wrong.extend(must_fail(map, scenario, dir.path()));
    }
    assert_none(wrong);
}

#[test]
fn the_report_names_the_object_that_ran() {
    use sha2::Digest as _;
    let dir = folder(|_, bytes| patch::return_ok(bytes, "to_overlay").unwrap_or_else(|| bytes.to_vec()));
    let bytes = std::fs::read(dir.path().join("overlay.o")).expect("it was just written");
    let sha256: String = sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_ne!(sha256, skep_object::sha256(Object::Overlay));
    let output = run(dir.path(), &scenarios().join("walkthrough"), &["-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&sha256), "{text}");
    assert!(text.contains(&skep_object::sha256(Object::Lxc)), "{text}");
}

#[test]
fn another_value_in_the_ipcache_is_another_line_in_the_trace() {
    let plain = folder(|_, bytes| bytes.to_vec());
    let walk = scenarios().join("walkthrough");
    let trace = |scenario: &Path| {
        let output = run(plain.path(), scenario, &["--trace"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let line = |text: &str| {
        let lines: Vec<String> =
            text.lines().filter(|l| l.contains("ipcache id 257 tunnel")).map(str::to_owned).collect();
        lines.first().cloned().unwrap_or_default()
    };
    let before = trace(&walk);
    assert!(line(&before).contains("tunnel 192.168.1.13"), "{before}");

    // The same walk with the other node at another address: the ipcache's tunnel endpoint is another.
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&walk, copy.path());
    let file = copy.path().join("scenario.yaml");
    let text = std::fs::read_to_string(&file).expect("it was just copied");
    std::fs::write(&file, text.replace("192.168.1.13", "192.168.1.99")).expect("the folder is ours");
    let after = trace(copy.path());
    assert!(line(&after).contains("tunnel 192.168.1.99"), "{after}");
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the scenario is there") {
        let entry = entry.expect("the scenario is there");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&to).expect("the folder is ours");
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("the folder is ours");
        }
    }
}
