//! Every program, and every packet table, on other kernels than the running one: `cargo xtask kernels` builds the guest
//! and starts this.
//!
//! Exit status: 0 if all is as the committed tables say, 1 if a program or a check is worse, 2 if a kernel could not
//! be had or booted, or did not come to its end.

mod self_test;

use clap::Parser;
use skep_agent_linux::Report;
use skep_live::qemu::boot::{Content, boot};
use skep_live::qemu::config::{Config, FILE, Kernel};
use skep_live::qemu::protocol::{CheckOutcome, Said};
use skep_live::qemu::table::{self, FOLDER, PAGES, Table, markdown};
use skep_live::qemu::{Problem, Result, module, package};
use skep_object::ObjectSet;
use skep_object::verified::{self, Verified};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What a guest is asked to do, by the names in its own list.
const GROUPS: [&str; 3] = ["verifier", "packet-tables", "scenarios"];

/// A healthy kernel takes less than a quarter of this, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(480);

#[derive(Parser)]
#[command(
    name = "cargo xtask kernels",
    about = "Every program and packet table on the kernels of ci/kernels.toml"
)]
struct Arguments {
    /// Which kernels; all of ci/kernels.toml if none is named
    series: Vec<String>,
    /// Write what the verifiers say into ci/verifier, docs/verifier.md and README.md instead of comparing with it
    #[arg(long)]
    update: bool,
    /// Print the committed tables as Markdown and boot nothing
    #[arg(long)]
    markdown: bool,
    /// Objects to test instead of the committed ones: a folder with a NAME.o for each
    #[arg(long, value_name = "DIR", conflicts_with = "update")]
    object: Option<PathBuf>,
    /// Look for newer kernels than the cached ones
    #[arg(long)]
    refresh: bool,
    /// Test the checks: each has to catch what is put before it, in every kernel
    #[arg(long, conflicts_with_all = ["update", "markdown", "object"])]
    self_test: bool,
    /// The workspace's root
    #[arg(long, hide = true)]
    root: PathBuf,
    /// The static guest
    #[arg(long, hide = true, default_value = "")]
    guest: PathBuf,
    /// Where kernels are kept
    #[arg(long, hide = true, default_value = "")]
    cache: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let config = Config::read(&arguments.root)?;
    if arguments.markdown {
        print!("{}", committed(&config, &arguments.root)?);
        return Ok(true);
    }
    let objects = ObjectSet::new(arguments.object.as_deref()).map_err(|e| Problem(e.to_string()))?;
    let guest = std::fs::read(&arguments.guest)
        .map_err(|e| Problem(format!("{}: {e}", arguments.guest.display())))?;
    let bench = Bench { config: &config, arguments, guest };
    let mut good = true;
    let mut problems = Vec::new();
    // A kernel that cannot be had does not keep the others from being asked.
    for kernel in config.select(&arguments.series)? {
        let outcome = if arguments.self_test {
            self_test::run(&bench, kernel)
        } else {
            bench.boot(kernel, &objects, &GROUPS).and_then(|said| bench.judge(kernel, &said))
        };
        match outcome {
            Ok(is_good) => good &= is_good,
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(Problem(problems.join("\n")));
    }
    if arguments.update && good {
        let tables = committed(&config, &arguments.root)?;
        for page in PAGES {
            table::show(&arguments.root.join(page), &tables)?;
        }
    }
    Ok(good)
}

/// The committed tables side by side.
fn committed(config: &Config, root: &Path) -> Result<String> {
    let mut tables = Vec::new();
    for kernel in &config.kernel {
        let table = Table::read(root, &kernel.series)?;
        tables.extend(table.map(|t| (kernel.series.clone(), t)));
    }
    Ok(markdown(&tables))
}

struct Bench<'a> {
    config: &'a Config,
    arguments: &'a Arguments,
    guest: Vec<u8>,
}

impl Bench<'_> {
    /// One kernel from its package to its guest's last word.
    fn boot(&self, kernel: &Kernel, objects: &ObjectSet, groups: &[&str]) -> Result<Said> {
        let start = Instant::now();
        let cache = &self.arguments.cache;
        let unpacked = package::fetch(self.config, kernel, cache, self.arguments.refresh)
            .map_err(|e| Problem(format!("kernel {}: {e}", kernel.series)))?;
        let modules = module::ordered(&unpacked.modules, &self.config.modules)?;
        let fetched = start.elapsed();
        eprintln!(
            "{}: {} is there after {:.1} s; booting",
            kernel.series,
            unpacked.release,
            fetched.as_secs_f64()
        );
        let mut files: Vec<(String, Vec<u8>)> = skep_abi::program::Object::ALL
            .iter()
            .map(|o| (format!("/objects/{}.o", o.name()), objects.bytes(*o).to_vec()))
            .collect();
        for (path, names) in [("/groups", groups.join("\n")), ("/lacks", kernel.lacks.join("\n"))] {
            files.push((path.to_owned(), names.into_bytes()));
        }
        if groups.contains(&"scenarios") {
            tree(&self.arguments.root, Path::new("scenarios"), &mut files)?;
        }
        let content = Content { guest: &self.guest, modules: &modules, files: &files };
        let said = boot(&unpacked, &content, &cache.join(&kernel.series).join("run"), LIMIT)?;
        let ran = start.elapsed() - fetched;
        eprintln!("{}: {} came to its end in {:.1} s", kernel.series, said.kernel, ran.as_secs_f64());
        Ok(said)
    }

    /// The committed table of a kernel.
    fn table(&self, series: &str) -> Result<Table> {
        Table::read(&self.arguments.root, series)?.ok_or_else(|| {
            Problem(format!("{FOLDER}/{series}.toml is not there: `cargo xtask kernels --update {series}`"))
        })
    }

    /// What a kernel said against what it should have; also prints it.
    fn judge(&self, kernel: &Kernel, said: &Said) -> Result<bool> {
        let series = &kernel.series;
        let report =
            said.report.as_ref().ok_or_else(|| Problem(format!("{series}: no word of the verifier")))?;
        println!("{report}");
        let mut good = checks(kernel, said);
        let root = &self.arguments.root;
        if self.arguments.update {
            let path = Table::path(root, series);
            let written = Table::of(report)?.to_toml();
            std::fs::create_dir_all(root.join(FOLDER))
                .and_then(|()| std::fs::write(&path, written))
                .map_err(|e| Problem(format!("{}: {e}", path.display())))?;
            return accept(root, series, report).map(|()| good);
        }
        let table = Table::read(root, series)?.ok_or_else(|| {
            Problem(format!("{FOLDER}/{series}.toml is not there: `cargo xtask kernels --update {series}`"))
        })?;
        let found = table.compare(report);
        for finding in &found {
            println!("{series}: {finding}");
        }
        good &= found.is_empty() && (self.arguments.object.is_some() || is_known(root, series, report)?);
        let stale = table.stale(report);
        if found.is_empty() && stale > 0 {
            println!(
                "{series}: {stale} programs have other numbers than {FOLDER}/{series}.toml, none a tenth worse"
            );
        }
        Ok(good)
    }
}

/// Where it is written down which objects were verified.
fn verified_file(root: &Path) -> PathBuf {
    root.join("datapath/object/objects").join(verified::FILE)
}

/// Takes down that a kernel has verified the objects, all of them.
fn accept(root: &Path, series: &str, report: &Report) -> Result<()> {
    let path = verified_file(root);
    let wrong = |e: std::io::Error| Problem(format!("{}: {e}", path.display()));
    let mut verified = match std::fs::read_to_string(&path) {
        Ok(text) => Verified::parse(&text).unwrap_or_default(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Verified::default(),
        Err(e) => return Err(wrong(e)),
    };
    let objects: Vec<_> = report.objects.iter().map(|o| (o.sha256.as_str(), o.name.as_str())).collect();
    verified.accept(series, &report.kernel, &objects);
    std::fs::write(&path, verified.to_text()).map_err(wrong)
}

/// Whether it is written down that this kernel has verified these objects; says which are missing.
fn is_known(root: &Path, series: &str, report: &Report) -> Result<bool> {
    let path = verified_file(root);
    let text = std::fs::read_to_string(&path).map_err(|e| Problem(format!("{}: {e}", path.display())))?;
    let verified =
        Verified::parse(&text).ok_or_else(|| Problem(format!("{}: it cannot be read", path.display())))?;
    let missing: Vec<_> =
        report.objects.iter().filter(|o| !verified.kernels(&o.sha256).any(|k| k == series)).collect();
    for object in &missing {
        println!(
            "{series}: {}.o: {} does not know that it is verified; write it with --update",
            object.name,
            verified::FILE
        );
    }
    Ok(missing.is_empty())
}

/// All files of a folder of the workspace, by the path that they have in the guest.
fn tree(root: &Path, folder: &Path, files: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let wrong = |e: std::io::Error| Problem(format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(root.join(folder)).map_err(wrong)? {
        let path = folder.join(entry.map_err(wrong)?.file_name());
        if root.join(&path).is_dir() {
            tree(root, &path, files)?;
        } else {
            files.push((format!("/{}", path.display()), std::fs::read(root.join(&path)).map_err(wrong)?));
        }
    }
    Ok(())
}

/// Prints how the guest's own checks went; whether all is well.
fn checks(kernel: &Kernel, said: &Said) -> bool {
    let series = &kernel.series;
    let (mut passed, mut failed, mut skipped) = (0, 0, BTreeMap::<&str, usize>::new());
    for lack in &kernel.lacks {
        skipped.insert(lack, 0);
    }
    for (group, name, outcome) in &said.checks {
        match outcome {
            CheckOutcome::Passed => passed += 1,
            CheckOutcome::Failed(why) => {
                failed += 1;
                println!("{series}: {group}/{name}: FAILED: {why}");
            }
            CheckOutcome::NotOffered(what) => println!("{series}: {group}/{name}: skipped: {what}"),
            CheckOutcome::Skipped(lack) => *skipped.entry(lack).or_default() += 1,
        }
    }
    for (lack, count) in skipped {
        match count {
            // What failed earlier may have kept the check that needs it from running.
            0 if failed > 0 => {}
            0 => {
                failed += 1;
                println!("{series}: FAILED: it does not lack {lack}: strike that out of {FILE}");
            }
            _ => println!("{series}: {count} checks skipped: this kernel lacks {lack} ({FILE})"),
        }
    }
    println!("{series}: {passed} of {} checks passed, {failed} failed", said.checks.len());
    failed == 0 && passed > 0
}
