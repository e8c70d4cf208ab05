//! A copy of the programs' sources in which nothing tells where it stands.
//!
//! rustc puts a hash of each crate into its symbols' names, and cargo puts into that hash where a crate stands
//! relative to the workspace's root, or its whole path if it stands outside. The programs are a workspace of their
//! own with two crates outside of it; so they are built as one workspace with its root above all three.

use crate::{Outcome, command};
use std::path::Path;
use toml::{Table, Value};

/// The programs' crate, and the crates of ours that it depends on, from the root.
const PROGRAMS: &str = "datapath/ebpf";
const CRATES: [&str; 2] = ["datapath/abi", "datapath/core"];

/// Fills a folder with what a build reads.
pub(super) fn fill(stage: &Path) -> Outcome {
    for file in command::tracked_files()? {
        if CRATES.iter().chain([&PROGRAMS]).any(|c| file.starts_with(c)) {
            copy(&command::root().join(&file), &stage.join(&file))?;
        }
    }
    let mut programs = read(&stage.join(PROGRAMS).join("Cargo.toml"))?;
    let profile = programs.remove("profile");
    programs.remove("workspace");
    write(&stage.join(PROGRAMS).join("Cargo.toml"), &programs)?;
    // What only tests need is not in the programs' lock file.
    for path in CRATES.map(|c| stage.join(c).join("Cargo.toml")) {
        let mut manifest = read(&path)?;
        manifest.remove("dev-dependencies");
        write(&path, &manifest)?;
    }
    let mut root = read(&command::root().join("Cargo.toml"))?;
    root.retain(|key, _| key == "workspace");
    root.extend(profile.map(|p| ("profile".to_owned(), p)));
    let workspace =
        root.get_mut("workspace").and_then(Value::as_table_mut).ok_or("Cargo.toml: no [workspace]")?;
    workspace.insert(
        "members".to_owned(),
        Value::Array(CRATES.iter().chain([&PROGRAMS]).map(|c| Value::from(*c)).collect()),
    );
    workspace.remove("default-members");
    workspace.remove("exclude");
    write(&stage.join("Cargo.toml"), &root)?;
    copy(&command::root().join(PROGRAMS).join("Cargo.lock"), &stage.join("Cargo.lock"))
}

/// Where a build of the stage is run: the folder whose .cargo/config.toml has the flags.
pub(super) fn folder(stage: &Path) -> std::path::PathBuf {
    stage.join(PROGRAMS)
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let folder = to.parent().expect("a file stands in a folder");
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    std::fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

fn read(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    text.parse().map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, table: &Table) -> Outcome {
    std::fs::write(path, table.to_string()).map_err(|e| format!("{}: {e}", path.display()))
}
