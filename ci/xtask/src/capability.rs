//! What this machine can do, found out without the code that skips for lack of it.

use std::process::Command;

/// The capabilities that a skip may name.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("linux", "a Linux kernel"),
    ("root", "the user is root"),
    ("bpf", "the kernel has bpf(2) and the user may load programs"),
    ("apt", "packages can be installed: apt-get update works, as root or through sudo"),
    ("bpf-toolchain", "rustc with a core for bpfel, and bpf-linker (ci/toolchain.sh)"),
    ("cgroup2", "a hierarchy of control groups, version 2, is mounted"),
    ("rustfmt", "cargo fmt"),
    ("clippy", "cargo clippy"),
];

/// Whether a capability is there; `None` where this cannot be told, and for a name that is not one.
pub(crate) fn is_there(name: &str) -> Option<bool> {
    match name {
        "linux" => Some(cfg!(target_os = "linux")),
        "root" => Some(is_root()),
        "bpf" => bpf(),
        "apt" => Some(apt()),
        "bpf-toolchain" => Some(crate::ebpf::toolchain_is_there()),
        "cgroup2" => Some(cgroup2()),
        "rustfmt" => Some(succeeds("cargo", &["fmt", "--version"])),
        "clippy" => Some(succeeds("cargo", &["clippy", "--version"])),
        _ => None,
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|o| o.status.success())
}

/// Whether the lists of packages can be fetched: what ci/toolchain.sh begins with.
fn apt() -> bool {
    const UPDATE: [&str; 4] = ["apt-get", "-o", "APT::Update::Error-Mode=any", "update"];
    if is_root() {
        succeeds(UPDATE[0], &UPDATE[1..])
    } else {
        succeeds("sudo", &[&["-n"], &UPDATE[..]].concat())
    }
}

fn cgroup2() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|l| l.split(' ').nth(2) == Some("cgroup2"))
}

/// A line of /proc/self/status.
fn status(field: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).map(|v| v.trim().to_owned())
}

fn is_root() -> bool {
    status("Uid").is_some_and(|u| u.split_whitespace().nth(1) == Some("0"))
}

/// capabilities(7), by number.
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// By the process's effective capabilities and the kernel's own switch for bpf(2). A seccomp filter may forbid the
/// call all the same: then it cannot be told from here.
fn bpf() -> Option<bool> {
    let Some(effective) = status("CapEff").and_then(|c| u64::from_str_radix(&c, 16).ok()) else {
        return Some(false);
    };
    let has = |capability: u32| effective >> capability & 1 == 1;
    let may = has(SYS_ADMIN) || [BPF, NET_ADMIN, PERFMON].into_iter().all(has);
    let built_in = std::path::Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists();
    match (may && built_in, status("Seccomp").as_deref()) {
        (true, Some("0")) => Some(true),
        (true, _) => None,
        (false, _) => Some(false),
    }
}
