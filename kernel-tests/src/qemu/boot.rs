//! One kernel, booted in QEMU under software emulation to the end of its tests.
//!
//! Knows QEMU's command line and how a run ends. Does not know what the guest does.

use super::module::Module;
use super::package::Unpacked;
use super::protocol::{AGREED, Said, read, status_of};
use super::{Doing as _, Problem, Result, cpio};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// How many of the console's lines a failure shows.
const LAST_LINES: usize = 25;

/// What stands in the guest's file system.
pub struct Content<'a> {
    /// The static binary that is both PID 1 and the tests.
    pub guest: &'a [u8],
    /// Modules in the order in which they are loaded.
    pub modules: &'a [Module],
    /// More files by their path, such as `/objects/lxc.o`.
    pub files: &'a [(String, Vec<u8>)],
}

impl Content<'_> {
    /// The initramfs.
    pub fn archive(&self) -> Vec<u8> {
        let mut archive = cpio::Archive::default();
        for folder in ["/dev", "/proc", "/sys", "/tmp", "/run", "/modules"] {
            archive.folder(folder);
        }
        // PID 1's standard output: the kernel opens it before anything is mounted.
        archive.device("/dev/console", 5, 1);
        archive.file("/init", self.guest);
        for module in self.modules {
            archive.file(&format!("/modules/{}.ko", module.name), &module.bytes);
        }
        let order: String = self.modules.iter().map(|m| format!("{}\n", m.name)).collect();
        archive.file("/modules/order", order.as_bytes());
        let folders: BTreeSet<&Path> = self
            .files
            .iter()
            .flat_map(|(path, _)| Path::new(path).ancestors().skip(1))
            .filter(|folder| *folder != Path::new("/"))
            .collect();
        for folder in folders {
            archive.folder(&folder.display().to_string());
        }
        for (path, content) in self.files {
            archive.file(path, content);
        }
        archive.finish()
    }
}

/// How a machine came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// QEMU ended with this status; `None` if a signal ended it.
    Status(Option<i32>),
    /// It was still running when its time was up.
    Hung(Duration),
}

/// Boots a kernel and returns what its guest said.
///
/// # Errors
///
/// Where the run did not come to its agreed end: what happened, and the console's last lines.
pub fn boot(kernel: &Unpacked, content: &Content<'_>, folder: &Path, limit: Duration) -> Result<Said> {
    std::fs::create_dir_all(folder).doing(folder.display())?;
    let [initramfs, console, results] =
        ["initramfs.cpio", "console.log", "results.jsonl"].map(|f| folder.join(f));
    for old in [&console, &results] {
        std::fs::write(old, "").doing(old.display())?;
    }
    std::fs::write(&initramfs, content.archive()).doing(initramfs.display())?;
    let ended = run(&mut command(kernel, &initramfs, &console, &results), limit)?;
    let text = |path: &PathBuf| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    judge(&ended, &text(&results).doing(results.display())?, &text(&console).doing(console.display())?)
        .map_err(|why| Problem(format!("{}: {why}", kernel.release)))
}

fn command(kernel: &Unpacked, initramfs: &Path, console: &Path, results: &Path) -> Command {
    let mut command = Command::new(QEMU);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        // Not microvm, which hangs now and then. One CPU and no cmpxchg16b: QEMU 7.2 gets both wrong under 6.12.
        .args(["-M", "q35", "-accel", "tcg", "-cpu", "max,-cx16", "-smp", "1", "-m", "768"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .args(["-append", "console=ttyS0 quiet panic=-1 oops=panic"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs);
    for log in [console, results] {
        command.arg("-serial").arg(format!("file:{}", log.display()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// Runs to the end, or to the limit.
fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    let mut child = command.spawn().doing(format_args!("{QEMU} (package qemu-system-x86)"))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().doing(QEMU)? {
            return Ok(Ended::Status(status.code()));
        }
        if start.elapsed() >= limit {
            child.kill().doing(QEMU)?;
            child.wait().doing(QEMU)?;
            return Ok(Ended::Hung(limit));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Only an agreed status after a whole account is a pass.
fn judge(ended: &Ended, results: &str, console: &str) -> std::result::Result<Said, String> {
    let said = read(results);
    let what = match ended {
        Ended::Status(Some(status)) if *status == status_of(AGREED) => match said {
            Ok(said) => return Ok(said),
            Err(why) => why,
        },
        Ended::Status(Some(0)) => "it panicked or rebooted (status 0)".to_owned(),
        Ended::Status(Some(status)) => format!("status {status}, where {} was agreed on", status_of(AGREED)),
        Ended::Status(None) => "a signal ended it".to_owned(),
        Ended::Hung(limit) => format!("it did not end within {} s", limit.as_secs()),
    };
    Err(format!("{what}. The console's last lines:\n  | {}", last_lines(console).join("\n  | ")))
}

/// The console's end; a kernel's own word for what happened, which a long trace follows, comes along.
fn last_lines(console: &str) -> Vec<&str> {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(LAST_LINES));
    let says_why = |l: &&&str| ["Kernel panic", "BUG: ", "Oops: "].iter().any(|w| l.contains(w));
    before.iter().filter(says_why).take(3).chain(last).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "{\"type\":\"start\",\"kernel\":\"6.1.0\"}\n{\"type\":\"end\",\"lines\":1}\n";
    const PASSED: Ended = Ended::Status(Some(85));

    fn failure(ended: &Ended, results: &str) -> String {
        judge(ended, results, "one\nKernel panic - not syncing: x\n").unwrap_err()
    }

    #[test]
    fn only_the_agreed_status_with_an_end_line_passes() {
        assert_eq!(judge(&PASSED, WHOLE, "").unwrap().kernel, "6.1.0");
        assert!(failure(&PASSED, "").contains("said nothing"));
        assert!(failure(&Ended::Status(Some(87)), WHOLE).contains("status 87, where 85 was agreed on"));
        assert!(failure(&Ended::Status(None), WHOLE).contains("a signal"));
    }

    #[test]
    fn a_panic_and_a_hang_show_the_consoles_last_lines() {
        for ended in [Ended::Status(Some(0)), Ended::Hung(Duration::from_secs(9))] {
            let said = failure(&ended, WHOLE);
            assert!(said.contains("| Kernel panic - not syncing: x"), "{said}");
        }
        assert!(failure(&Ended::Status(Some(0)), WHOLE).starts_with("it panicked or rebooted"));
        let long = format!("one\nKernel panic - not syncing: x\n{}", "trace\n".repeat(50));
        let shown = last_lines(&long);
        assert_eq!((shown[0], shown.len()), ("Kernel panic - not syncing: x", LAST_LINES + 1));
        assert!(
            failure(&Ended::Hung(Duration::from_secs(9)), WHOLE).starts_with("it did not end within 9 s")
        );
    }

    #[test]
    fn a_machine_that_hangs_is_ended() {
        let mut forever = Command::new("sleep");
        forever.arg("1000");
        let limit = Duration::from_millis(10);
        assert_eq!(run(&mut forever, limit).unwrap(), Ended::Hung(limit));
    }

    #[test]
    fn folders_come_before_their_files() {
        let files = [("/a/b/c".to_owned(), vec![1])];
        let archive = Content { guest: b"g", modules: &[], files: &files }.archive();
        let text = String::from_utf8_lossy(&archive).into_owned();
        let at = |name: &str| text.find(&format!("{name}\0")).unwrap();
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/c"));
    }
}
