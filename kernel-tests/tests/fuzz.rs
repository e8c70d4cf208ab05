//! `skep fuzz kernel` in short: some seconds of random cases in skep-vm and in the running kernel, every case that was
//! once wrong, and that an altered program is noticed.
//!
//! Where the kernel cannot be asked the kept cases still run in skep-vm, and one line says what was skipped.

use libtest_mimic::{Arguments, Failed, Trial};
use skep_live::fuzz::case::CaseFile;
use skep_live::vm::Simulator;
use skep_object::ObjectSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for path in kept() {
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        trials.push(Trial::test(format!("vm/{name}"), move || in_vm(&path)));
    }
    match kernel::open() {
        Ok(()) => trials.extend(kernel::trials()),
        Err(capability) => println!("SKIP fuzz-kernel: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The cases that were once wrong.
fn kept() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    all.retain(|p| p.extension().is_some_and(|e| e == "toml"));
    all.sort();
    all
}

fn read(path: &Path) -> Result<CaseFile, Failed> {
    let file = CaseFile::parse(&std::fs::read_to_string(path)?)?;
    if file.about.trim().is_empty() {
        return Err("it does not say what was wrong".into());
    }
    Ok(file)
}

fn in_vm(path: &Path) -> Result<(), Failed> {
    let case = read(path)?;
    if case.sent.is_empty() {
        Simulator::new(&ObjectSet::built_in())?.run(&case.row()?)?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod kernel {
    use super::{CaseFile, Failed, ObjectSet, PathBuf, Trial, kept, read};
    use skep_abi::program::{self, Hook, PROGRAMS, Program};
    use skep_agent_linux::TcxLink;
    use skep_live::alter;
    use skep_live::fuzz::campaign::{self, Options};
    use skep_live::fuzz::replay::{Pair, namespace};
    use skep_live::fuzz::report::Report;
    use skep_live::fuzz::tunnel;
    use skep_vm::EngineKind;

    pub(super) fn open() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    pub(super) fn trials() -> Vec<Trial> {
        let mut all = vec![
            Trial::test("kernel/kept_cases_agree", kept_cases_agree),
            Trial::test("kernel/kept_frames_agree", kept_frames_agree),
            Trial::test("kernel/frames_agree", frames_agree),
            Trial::test("canary/frames", frames_canary),
            Trial::test("kernel/random_cases_agree_and_are_not_shallow", random_cases_agree),
        ];
        // One a kind of hook, and one that only a tail call reaches.
        for name in ["from_container", "tail_ipv4_to_endpoint", "from_netdev", "to_overlay"] {
            all.push(Trial::test(format!("canary/{name}"), move || canary(name)));
        }
        all
    }

    fn kept_cases_agree() -> Result<(), Failed> {
        let work = || -> Result<Vec<String>, String> {
            let mut pair = Pair::new(ObjectSet::built_in(), &ObjectSet::built_in(), EngineKind::default())?;
            let differ = |path: PathBuf| {
                let case = read(&path).map_err(|e| e.message().unwrap_or("?").to_owned())?;
                if !case.sent.is_empty() {
                    return Ok(None);
                }
                let found = pair.differences(&case.row()?);
                Ok((!found.is_empty()).then(|| format!("{}:\n  {}", path.display(), found.join("\n  "))))
            };
            kept().into_iter().map(differ).filter_map(Result::transpose).collect()
        };
        let wrong = namespace()?.within(work)??;
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    fn kept_frames_agree() -> Result<(), Failed> {
        let all: Vec<(PathBuf, CaseFile)> =
            kept().into_iter().map(|p| read(&p).map(|case| (p, case))).collect::<Result<_, _>>()?;
        let (paths, cases): (Vec<_>, Vec<_>) = all.into_iter().filter(|(_, c)| !c.sent.is_empty()).unzip();
        if cases.is_empty() || !TcxLink::is_offered() {
            return Ok(());
        }
        let found = tunnel::replay(&cases, &ObjectSet::built_in())?;
        let wrong: Vec<String> = paths
            .iter()
            .zip(found)
            .filter(|(_, found)| !found.is_empty())
            .map(|(path, found)| format!("{}:\n  {}", path.display(), found.join("\n  ")))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }

    /// Frames through a VXLAN device: both reasons that only tunnel metadata leads to are among those that are met.
    fn frames_agree() -> Result<(), Failed> {
        if !TcxLink::is_offered() {
            return Ok(());
        }
        let report = tunnel::run(&options(0), 2_000, |_| {})?;
        println!("{report}");
        if !report.found.is_empty() {
            return Err(found(&report).into());
        }
        let missing: Vec<&str> =
            ["INVALID_IDENTITY", "INVALID_VNI", "STALE_OR_UNROUTABLE_IP", "POLICY_DENIED"]
                .into_iter()
                .filter(|reason| !report.reasons.contains_key(*reason))
                .collect();
        let traces = ["from-overlay", "to-overlay", "to-host", "to-endpoint"];
        let unseen = traces.iter().filter(|t| !report.traces.contains_key(**t)).count();
        if missing.is_empty() && unseen == 0 {
            Ok(())
        } else {
            Err(format!("never met: {missing:?}\n{report}").into())
        }
    }

    /// A program at the tunnel that only returns "ok" in skep-vm is found by its frames.
    fn frames_canary() -> Result<(), Failed> {
        if !TcxLink::is_offered() {
            return Ok(());
        }
        let folder = altered("from_overlay")?;
        let vm = ObjectSet::from_folder(folder.path())?;
        let report = tunnel::run(&Options { vm, ..options(0) }, 64, |_| {})?;
        if report.found.is_empty() { Err("64 frames do not notice".into()) } else { Ok(()) }
    }

    fn options(cases: u64) -> Options {
        Options {
            seed: 20,
            cases,
            program: None,
            threads: 2,
            most: 3,
            engine: EngineKind::default(),
            kernel: ObjectSet::built_in(),
            vm: ObjectSet::built_in(),
        }
    }

    fn found(report: &Report) -> String {
        report.found.iter().map(|f| format!("case {}: {}\n", f.index, f.case.about)).collect()
    }

    /// How many of the datapath's reasons a short campaign must meet. The others need tunnel metadata, or do not happen.
    const REASONS: usize = 16;

    fn random_cases_agree() -> Result<(), Failed> {
        let cases = std::env::var("SKEP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
        let report = campaign::run(&options(cases), |_| {})?;
        println!("{report}");
        if !report.found.is_empty() {
            return Err(found(&report).into());
        }
        let called = PROGRAMS.iter().filter(|p| matches!(p.hook, Hook::Calls(_) | Hook::CallPolicy));
        let missing: Vec<&str> =
            called.filter(|p| !report.tail_called.contains_key(p.name)).map(|p| p.name).collect();
        let entered = report.programs.len();
        if report.reasons.len() < REASONS || entered != PROGRAMS.len() || !missing.is_empty() {
            return Err(format!(
                "shallow: {} reasons, never called: {missing:?}\n{report}",
                report.reasons.len()
            )
            .into());
        }
        Ok(())
    }

    /// Objects in which a program only returns "ok".
    fn altered(name: &str) -> Result<tempfile::TempDir, Failed> {
        let folder = tempfile::tempdir()?;
        let objects = ObjectSet::built_in();
        for object in program::Object::ALL {
            let bytes = objects.bytes(*object);
            let altered = alter::return_ok(bytes, name).unwrap_or_else(|| bytes.to_vec());
            std::fs::write(folder.path().join(format!("{}.o", object.name())), altered)?;
        }
        Ok(folder)
    }

    /// A program that only returns "ok" in skep-vm is found within few cases, and what is kept of it is small.
    fn canary(name: &'static str) -> Result<(), Failed> {
        let folder = altered(name)?;
        let program: Option<&'static Program> = program::by_name(name);
        let vm = ObjectSet::from_folder(folder.path())?;
        let report = campaign::run(&Options { program, vm, most: 1, threads: 1, ..options(64) }, |_| {})?;
        let Some(first) = report.found.first() else {
            return Err(
                format!("{name} only returns \"ok\", and {} cases do not notice", report.cases).into()
            );
        };
        if first.case.entry.len() > 6 || first.case.frame.len() / 2 > 80 {
            return Err(format!("the case is not small: {:?}", first.case).into());
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::Trial;

    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn trials() -> Vec<Trial> {
        Vec::new()
    }
}
