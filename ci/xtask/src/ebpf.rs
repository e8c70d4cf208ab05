//! Builds the eBPF objects so that the same source gives the same bytes anywhere, and compares.
//!
//! Knows the compiler, what of an object depends on where it was built, and what an object must not contain. The
//! flags that shape the code stand in datapath/ebpf/.cargo/config.toml and its profile. Does not know the programs:
//! what an object holds is read from its symbols.

mod inspect;
mod manifest;
mod stage;

use crate::{Outcome, command};
use manifest::{Fingerprint, Manifest, ObjectEntry};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's rustc-web: a stable compiler with a core for bpfel, where rustup's has none.
const RUSTC: &str = "/usr/bin/rustc";
const LINKER: &str = "bpf-linker";
const TARGET: &str = "bpfel-unknown-none";
/// Where the committed objects stand, from the root.
const OBJECTS: &str = "datapath/object/objects";
const SET_UP: &str = "run ci/toolchain.sh once (Debian 12)";

/// What a build gives: the objects by name, and what they were built with.
struct Built {
    objects: BTreeMap<String, Vec<u8>>,
    manifest: Manifest,
}

/// Whether the objects can be built here.
pub(crate) fn toolchain_is_there() -> bool {
    fingerprint().is_ok()
}

/// Builds, and writes objects and manifest to where they are committed.
pub(crate) fn build() -> Outcome {
    let built = compile()?;
    let folder = command::root().join(OBJECTS);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{OBJECTS}: {e}"))?;
    for (name, bytes) in &built.objects {
        write(&folder.join(format!("{name}.o")), bytes)?;
        let entry = &built.manifest.objects[name];
        println!(
            "{OBJECTS}/{name}.o: {} bytes, {} programs, sha256 {}",
            bytes.len(),
            entry.programs.len(),
            entry.sha256
        );
    }
    write(&folder.join(manifest::FILE), built.manifest.to_text().as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Outcome {
    std::fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// Builds elsewhere, and compares with what is committed: bytes where the compiler is the same, else what the
/// objects hold.
pub(crate) fn check() -> Outcome {
    let folder = command::root().join(OBJECTS);
    let committed = Manifest::read(&folder.join(manifest::FILE))?;
    let built = compile()?;
    let same_tools = committed.fingerprint == built.manifest.fingerprint;
    let mut wrong = Vec::new();
    let names: std::collections::BTreeSet<&String> =
        committed.objects.keys().chain(built.objects.keys()).collect();
    for name in names {
        let path = folder.join(format!("{name}.o"));
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (Some(entry), Some(new)) = (committed.objects.get(name), built.manifest.objects.get(name)) else {
            wrong.push(format!("{name}: stands only in one of the manifest and the source"));
            continue;
        };
        if inspect::sha256(&bytes) != entry.sha256 {
            wrong.push(format!("{name}.o is not the file that {} describes", manifest::FILE));
        }
        if same_tools && bytes != built.objects[name] {
            wrong.push(format!("{name}.o: the source gives other bytes (sha256 {})", new.sha256));
        }
        wrong.extend(entry.differences(new).into_iter().map(|d| format!("{name}.o: {d}")));
    }
    if !wrong.is_empty() {
        return Err(format!("{}\nAfter a change of the programs: cargo xtask ebpf", wrong.join("\n")));
    }
    let count = built.objects.len();
    if same_tools {
        println!("{count} objects rebuilt: the same bytes as the committed ones");
    } else {
        eprintln!(
            "warning: built with other tools than the committed objects, so only programs, maps and globals were \
             compared\n  committed: {}\n  here:      {}",
            committed.fingerprint, built.manifest.fingerprint
        );
        println!("{count} objects rebuilt: the same programs, maps and globals as the committed ones");
    }
    Ok(())
}

/// Builds from a copy of the sources, strips, inspects.
fn compile() -> Result<Built, String> {
    let fingerprint = fingerprint()?;
    let temporary = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
    let stage = temporary.path().canonicalize().map_err(|e| format!("a temporary folder: {e}"))?;
    stage::fill(&stage)?;
    cargo_build(&stage)?;
    let mut built = Built { objects: BTreeMap::new(), manifest: Manifest::new(fingerprint) };
    for (name, file) in outputs(&stage)? {
        let stripped = stage.join(format!("{name}.stripped"));
        let mut strip = Command::new(llvm_tool("llvm-objcopy")?);
        command::run(strip.arg("--strip-debug").arg(&file).arg(&stripped))?;
        let bytes = std::fs::read(&stripped).map_err(|e| format!("{}: {e}", stripped.display()))?;
        let entry: ObjectEntry = inspect::inspect(&name, &bytes)?;
        built.manifest.objects.insert(name.clone(), entry);
        built.objects.insert(name, bytes);
    }
    Ok(built)
}

fn cargo_build(stage: &Path) -> Outcome {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|h| h.join(".cargo")))
        .ok_or("neither CARGO_HOME nor a home folder is known")?;
    let flags = format!(
        "target.{TARGET}.rustflags=[\"--remap-path-prefix={}=/skep\", \"--remap-path-prefix={}=/cargo\"]",
        stage.display(),
        cargo_home.display()
    );
    let mut cargo = Command::new(cargo_path());
    cargo.current_dir(stage::folder(stage));
    // Whatever is set for the rest of the workspace must not reach these objects.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PROFILE_")
            || name_text.starts_with("CARGO_BUILD_")
            || name_text.starts_with("CARGO_TARGET_")
            || ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"].contains(&name_text.as_ref())
        {
            cargo.env_remove(name);
        }
    }
    cargo.env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1").env("CARGO_INCREMENTAL", "0");
    cargo.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "skep-ebpf",
        "--bins",
        "--target",
        TARGET,
        "--config",
        &flags,
    ]);
    command::run(&mut cargo)
}

/// The programs' files in the build's folder: what cargo linked, and not its notes about them.
fn outputs(stage: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let folder = stage.join("target").join(TARGET).join("release");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let files: BTreeMap<String, PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.is_file() && p.extension().is_none())
        .filter_map(|p| Some((p.file_name()?.to_str()?.to_owned(), p)))
        .filter(|(name, _)| !name.starts_with('.'))
        .collect();
    if files.is_empty() { Err("the build gave no object".to_owned()) } else { Ok(files) }
}

fn cargo_path() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What decides about the bytes beside the source; cargo does, by the hashes in symbols' names.
fn fingerprint() -> Result<Fingerprint, String> {
    let verbose = command::output(Command::new(RUSTC).arg("-vV")).map_err(|e| format!("{e}; {SET_UP}"))?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
            .ok_or_else(|| format!("{RUSTC} -vV names no {name}; {SET_UP}"))
    };
    let sysroot = command::output(Command::new(RUSTC).args(["--print", "sysroot"]))?;
    if !Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir() {
        return Err(format!("{RUSTC} has no core for {TARGET}; {SET_UP}"));
    }
    let linker =
        command::output(Command::new(LINKER).arg("--version")).map_err(|e| format!("{e}; {SET_UP}"))?;
    llvm_tool("llvm-objcopy")?;
    let cargo = command::output(Command::new(cargo_path()).arg("--version"))?;
    Ok(Fingerprint {
        cargo: cargo.split_whitespace().nth(1).unwrap_or_default().to_owned(),
        rustc: format!("{} ({})", field("release")?, field("commit-hash")?),
        llvm: field("LLVM version")?,
        bpf_linker: linker.trim_start_matches(LINKER).trim().to_owned(),
        flags: flags()?,
    })
}

/// The flags in the crate's own configuration.
fn flags() -> Result<Vec<String>, String> {
    const FILE: &str = "datapath/ebpf/.cargo/config.toml";
    let text = std::fs::read_to_string(command::root().join(FILE)).map_err(|e| format!("{FILE}: {e}"))?;
    let config: toml::Table = text.parse().map_err(|e| format!("{FILE}: {e}"))?;
    let list = config.get("target").and_then(|t| t.get(TARGET)?.get("rustflags")?.as_array());
    let list = list.ok_or_else(|| format!("{FILE}: no target.{TARGET}.rustflags"))?;
    Ok(list.iter().filter_map(|f| f.as_str().map(str::to_owned)).collect())
}

/// A tool of the LLVM that the compiler is built on.
fn llvm_tool(name: &str) -> Result<PathBuf, String> {
    let verbose = command::output(Command::new(RUSTC).arg("-vV")).map_err(|e| format!("{e}; {SET_UP}"))?;
    let version = verbose.lines().find_map(|l| l.strip_prefix("LLVM version: ")).unwrap_or_default();
    let major = version.split('.').next().unwrap_or_default();
    let path = PathBuf::from(format!("/usr/lib/llvm-{major}/bin")).join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not there; {SET_UP}", path.display())) }
}
