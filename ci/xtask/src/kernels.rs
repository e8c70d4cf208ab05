//! `cargo xtask kernels`: builds the static guest and hands over to `kernel-tests`, which boots it.
//!
//! Knows two builds. Kernels, QEMU and the tables are `skep-live`'s, so that this crate still depends on none of ours.

use crate::Outcome;
use crate::command::{cargo, root};

/// The guest's target: its C library is linked in.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Everything behind `cargo xtask kernels`, as `skep-live` reads it.
pub(crate) fn kernels(arguments: &[String]) -> Outcome {
    let folder = target().join("kernels");
    let shown = |path: std::path::PathBuf| path.display().to_string();
    let boots = !arguments.iter().any(|a| ["--markdown", "--help", "-h"].contains(&a.as_str()));
    if boots {
        eprintln!("building the guest");
        cargo(&[
            "build",
            "--quiet",
            "--package=skep-live",
            "--bin=guest",
            &format!("--target={TARGET}"),
            &format!("--target-dir={}", shown(folder.join("guest"))),
            // By flags of cargo and not by RUSTFLAGS: those of the caller stay as they are.
            &format!("--config=target.{TARGET}.rustflags=[\"-Ctarget-feature=+crt-static\"]"),
            "--config=profile.dev.debug=false",
            "--config=profile.dev.strip=true",
        ])?;
    }
    let guest = folder.join("guest").join(TARGET).join("debug/guest");
    let mut run =
        vec!["run".to_owned(), "--quiet".into(), "--package=skep-live".into(), "--bin=kernels".into()];
    run.push("--".into());
    run.extend(arguments.iter().cloned());
    run.push(format!("--root={}", shown(root())));
    run.push(format!("--guest={}", shown(guest)));
    run.push(format!("--cache={}", shown(folder)));
    cargo(&run.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Where cargo builds.
fn target() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}
