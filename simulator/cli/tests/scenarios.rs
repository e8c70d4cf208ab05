//! Every folder of scenarios/ is a test of its own: `cargo test -p skep --test scenarios`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("scenarios/ stands at the workspace's root")
        .map(|e| e.expect("a folder that can be listed").path())
        .filter(|p| p.join("scenario.yaml").exists())
        .collect();
    folders.sort();
    let trials = folders.into_iter().map(|folder| {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Trial::test(name, move || run(&folder))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Nothing may be skipped in the simulator, which offers everything.
fn run(folder: &Path) -> Result<(), Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_skep"))
        .arg("run")
        .arg(folder)
        .arg("--no-skip")
        .env("NO_COLOR", "1")
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)).into())
}
