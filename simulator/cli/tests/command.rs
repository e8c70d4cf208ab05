//! The command as a person or a script meets it: exit status, stdout, stderr.

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};

fn skep() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("skep"));
    command.env_remove("COLUMNS").env_remove("NO_COLOR");
    command
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios").join(name)
}

fn stdout(command: &mut Command, status: i32) -> String {
    let output = command.output().expect("skep runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    String::from_utf8(output.stdout).expect("stdout is text")
}

#[test]
fn explain_knows_names_and_numbers_and_suggests() {
    let by_name = stdout(skep().args(["explain", "POLICY_DENIED"]), 0);
    assert!(by_name.contains("133") && by_name.contains("Policy denied"), "{by_name}");
    assert_eq!(stdout(skep().args(["explain", "133"]), 0), by_name);
    assert!(stdout(skep().args(["explain", "skb_drop_reason_no_socket"]), 0).contains("containerPort"));
    let all = stdout(skep().arg("explain"), 0);
    for name in ["POLICY_DENY", "SKB_DROP_REASON_NEIGH_FAILED", "FABRIC_LOSS"] {
        assert!(all.lines().any(|l| l.contains(name)), "{name}");
    }
    let output = skep().args(["explain", "POLICY_DENID"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean POLICY_DENIED?"));
}

#[test]
fn completions_are_a_script() {
    for (shell, text) in [("bash", "_skep"), ("zsh", "#compdef skep"), ("fish", "complete -c skep")] {
        assert!(stdout(skep().args(["completions", shell]), 0).contains(text), "{shell}");
    }
}

#[test]
#[cfg(not(feature = "kernel"))]
fn verify_says_what_it_needs() {
    let output = skep().arg("verify").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("help: run"));
}

#[test]
fn unknown_flags_and_a_capture_of_two_scenarios_are_refused() {
    for args in [&["run"][..], &["run", "--no-such-flag", "x"], &["frobnicate"]] {
        assert_eq!(skep().args(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
    let two = skep()
        .arg("run")
        .args([scenario("spoof"), scenario("lossy")])
        .args(["--pcap", "x"])
        .output()
        .unwrap();
    assert_eq!(two.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&two.stderr).contains("one scenario at a time"));
}

#[test]
fn the_walk_is_printed_in_its_order() {
    let trace = stdout(skep().arg("run").arg(scenario("walkthrough")).arg("--trace"), 0);
    let mut rest = trace.as_str();
    for step in [
        "ARP who has 10.42.1.1",
        "SYN 10.42.1.80:",
        "from_container",
        "ipcache id 257 tunnel 192.168.1.13",
        "egress allowed",
        "to_overlay",
        "to_netdev",
        "192.168.1.12 -> 192.168.1.13 UDP 8472 VNI 256",
        "from_netdev",
        "from_overlay",
        "VNI 256",
        "ifindex",
        "handle_policy",
        "ingress allowed",
        "delivered",
        "SYN-ACK",
        "ct reply",
        "HTTP 200",
        "to-endpoint FORWARDED",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("no {step:?} in its place:\n{trace}"));
        rest = &rest[at..];
    }
    assert!(!trace.contains('\u{1b}'), "colours without a terminal");
}

#[test]
fn a_trace_fits_its_terminal() {
    for width in [80, 160] {
        let width_flag = width.to_string();
        let mut command = skep();
        command.arg("run").arg(scenario("policy-deny")).args(["--trace", "--width", &width_flag]);
        let trace = stdout(&mut command, 0);
        let hops = trace.lines().skip_while(|l| !l.contains("verdict")).filter(|l| !l.contains("]: "));
        for line in hops.take_while(|l| !l.starts_with("ok ")) {
            assert!(line.chars().count() <= width, "{}: {line}", line.chars().count());
        }
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    for name in ["walkthrough", "lossy"] {
        let json = || stdout(skep().arg("run").arg(scenario(name)).args(["-o", "json", "--seed", "7"]), 0);
        assert_eq!(json(), json(), "{name}");
    }
    let seed =
        |n: &str| stdout(skep().arg("run").arg(scenario("walkthrough")).args(["-o", "json", "--seed", n]), 0);
    assert_ne!(seed("1"), seed("2"), "the seed decides");
}

#[test]
fn json_and_junit_say_what_ran() {
    let json = stdout(skep().arg("run").arg(scenario("spoof")).args(["-o", "json"]), 0);
    for text in [
        "\"schema\": \"skep.dev/report/v1\"",
        "\"routing\": \"vxlan\"",
        "\"seed\": 1",
        "\"reason\": \"INVALID_SOURCE_IP\"",
        &format!(
            "\"lxc\": \"{}\"",
            skep_object::ObjectSet::built_in().sha256(skep_abi::program::Object::Lxc)
        ),
    ] {
        assert!(json.contains(text), "{text}");
    }
    for leak in ["rbpf", env!("CARGO_MANIFEST_DIR"), "scenarios/"] {
        assert!(!json.contains(leak), "{leak}");
    }
    let junit = stdout(skep().arg("run").arg(scenario("spoof")).args(["-o", "junit"]), 0);
    assert!(junit.starts_with("<?xml") && junit.contains("<testsuite name=\"spoof\""), "{junit}");
}

/// A scenario whose expectation is wrong must fail: the judge is awake.
#[test]
fn a_canary_expectation_fails_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    for file in ["curl.yaml", "httpbin.yaml"] {
        let from = scenario("walkthrough").join("manifests").join(file);
        fs::copy(from, dir.path().join("manifests").join(file)).unwrap();
    }
    let text = fs::read_to_string(scenario("walkthrough").join("scenario.yaml")).unwrap();
    let canary = text.replace("status: 200", "status: 404");
    assert_ne!(text, canary);
    fs::write(dir.path().join("scenario.yaml"), &canary).unwrap();
    let line = canary.lines().position(|l| l.contains("status: 404")).unwrap() + 1;
    let out = stdout(skep().arg("run").arg(dir.path()), 1);
    assert!(out.contains(&format!("scenario.yaml:{line}: status")), "{out}");
    assert!(out.contains("expected 404") && out.contains("got      200"), "{out}");
}

#[test]
fn a_capture_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("walk.pcapng");
    stdout(skep().arg("run").arg(scenario("spoof")).arg("--pcap").arg(&file), 0);
    assert!(fs::read(&file).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let nowhere = dir.path().join("no/such/folder/walk.pcapng");
    let output = skep().arg("run").arg(scenario("spoof")).arg("--pcap").arg(nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
