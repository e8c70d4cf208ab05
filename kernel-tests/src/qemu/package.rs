//! Kernels as the distribution ships them: found, fetched and unpacked without installing anything.
//!
//! apt does the work, with state of its own under the cache's folder; where from is asked of the machine's own package
//! sources, so that a mirror or proxy that is set up there is used here too. Needs apt and dpkg, and no root.

use super::config::{Config, Kernel, is_of_series};
use super::{Doing as _, Problem, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An unpacked kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unpacked {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// The kernel from the cache, or fetched into it.
///
/// # Errors
///
/// What apt or dpkg said; a suite whose kernel is of another series.
pub fn fetch(config: &Config, kernel: &Kernel, cache: &Path, refresh: bool) -> Result<Unpacked> {
    let unpacked = cache.join(&kernel.series).join("unpacked");
    if !refresh && let Ok(found) = find(&unpacked, &kernel.series) {
        return Ok(found);
    }
    let apt = Apt::new(&cache.join(&kernel.series).join("apt"), &kernel.suite)?;
    apt.update()?;
    let packages = apt.kernel_packages(&config.package, kernel)?;
    let fresh = cache.join(&kernel.series).join("unpacking");
    empty(&fresh)?;
    apt.unpack(&packages, &fresh)?;
    find(&fresh, &kernel.series)?;
    if unpacked.exists() {
        std::fs::remove_dir_all(&unpacked).doing(unpacked.display())?;
    }
    // Only a whole kernel ever has the name that the next run looks for.
    std::fs::rename(&fresh, &unpacked).doing(unpacked.display())?;
    find(&unpacked, &kernel.series)
}

/// Older packages have the image in boot/, newer ones beside the modules, and these in usr/lib/ or lib/.
fn find(folder: &Path, series: &str) -> Result<Unpacked> {
    for modules in ["usr/lib/modules", "lib/modules"].map(|m| folder.join(m)) {
        let Ok(entries) = std::fs::read_dir(&modules) else { continue };
        for entry in entries.filter_map(std::result::Result::ok) {
            let release = entry.file_name().to_string_lossy().into_owned();
            let images = [entry.path().join("vmlinuz"), folder.join(format!("boot/vmlinuz-{release}"))];
            if is_of_series(&release, series)
                && let Some(image) = images.into_iter().find(|i| i.is_file())
            {
                return Ok(Unpacked { release, image, modules: entry.path() });
            }
        }
    }
    Err(Problem(format!("{}: no kernel {series} with its modules in there", folder.display())))
}

fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).doing(folder.display())?;
    }
    std::fs::create_dir_all(folder).doing(folder.display())
}

/// apt with lists, packages and sources of its own.
struct Apt {
    state: PathBuf,
    suite: String,
}

/// What apt verifies the archive with, as Debian installs it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Apt {
    fn new(state: &Path, suite: &str) -> Result<Self> {
        for folder in ["lists/partial", "archives/partial", "debs"] {
            std::fs::create_dir_all(state.join(folder)).doing(state.display())?;
        }
        let state = state.canonicalize().doing(state.display())?;
        std::fs::write(state.join("status"), "").doing(state.display())?;
        let archive = archive(&output(&mut machines_updates())?, &codename()?)?;
        let signed =
            if Path::new(KEYRING).is_file() { format!(" signed-by={KEYRING}") } else { String::new() };
        let source = format!("deb [arch=amd64{signed}] {archive} {suite} main\n");
        std::fs::write(state.join("sources.list"), source).doing(state.display())?;
        Ok(Self { state, suite: suite.to_owned() })
    }

    fn command(&self, program: &str) -> Command {
        let state = self.state.display();
        let mut command = Command::new(program);
        for option in [
            format!("Dir::State={state}"),
            format!("Dir::State::lists={state}/lists"),
            format!("Dir::State::status={state}/status"),
            format!("Dir::Cache={state}"),
            format!("Dir::Cache::archives={state}/archives"),
            format!("Dir::Etc::SourceList={state}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            // Root's downloads would be done by a user who cannot write here.
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn update(&self) -> Result<()> {
        output(self.command("apt-get").args(["update", "-qq"])).map(drop)
    }

    /// The names of the packages that hold the suite's kernel.
    fn kernel_packages(&self, meta: &str, kernel: &Kernel) -> Result<Vec<String>> {
        let show =
            |package: &str| output(self.command("apt-cache").args(["show", "--no-all-versions", package]));
        let text = show(meta)?;
        let version = field(&text, "Version").unwrap_or_default();
        if !is_of_series(version, &kernel.series) {
            return Err(Problem(format!(
                "the suite {} has kernel {version} and no longer one of {}: change {}",
                self.suite,
                kernel.series,
                super::config::FILE
            )));
        }
        let (mut wanted, mut found) = (parts(&text), BTreeSet::new());
        while let Some(package) = wanted.pop() {
            if found.insert(package.clone()) {
                wanted.extend(parts(&show(&package)?));
            }
        }
        Ok(found.into_iter().collect())
    }

    fn unpack(&self, packages: &[String], to: &Path) -> Result<()> {
        let debs = self.state.join("debs");
        empty(&debs)?;
        output(self.command("apt-get").args(["download", "-qq"]).args(packages).current_dir(&debs))?;
        for deb in std::fs::read_dir(&debs).doing(debs.display())? {
            let deb = deb.doing(debs.display())?.path();
            output(Command::new("dpkg").arg("-x").arg(&deb).arg(to))?;
        }
        empty(&debs)
    }
}

/// What `apt-get update` would fetch on this machine.
fn machines_updates() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "Debug::NoLocking=1", "update", "--print-uris"]);
    command
}

/// The archive that has this machine's own release, from the addresses that an update would fetch.
fn archive(updates: &str, codename: &str) -> Result<String> {
    let ends = [format!("/dists/{codename}/InRelease"), format!("/dists/{codename}/Release")];
    updates
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once('\'').map(|(uri, _)| uri))
        .find_map(|uri| ends.iter().find_map(|end| uri.strip_suffix(end.as_str())))
        .map(str::to_owned)
        .ok_or_else(|| Problem(format!("this machine's package sources have no archive with {codename}")))
}

/// This machine's release.
fn codename() -> Result<String> {
    const FILE: &str = "/etc/os-release";
    let text = std::fs::read_to_string(FILE).doing(FILE)?;
    let is_debian = text.lines().any(|l| l.trim_matches('"') == "ID=debian");
    let name = text.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="));
    match name {
        Some(name) if is_debian => Ok(name.trim_matches('"').to_owned()),
        _ => Err(Problem("kernels are fetched as Debian's packages, and this is no Debian".to_owned())),
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
}

/// The packages with parts of one kernel, among what a package depends on.
fn parts(show: &str) -> Vec<String> {
    let kinds = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
    let is_part = |name: &str| {
        kinds
            .iter()
            .any(|k| name.strip_prefix(k).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())))
    };
    field(show, "Depends")
        .unwrap_or_default()
        .split([',', '|'])
        .filter_map(|d| d.split_whitespace().next())
        .filter(|name| is_part(name))
        .map(str::to_owned)
        .collect()
}

fn output(command: &mut Command) -> Result<String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let out = command.env("LC_ALL", "C").output().doing(&shown)?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        return Err(Problem(format!("{shown}: {}: {said}", out.status)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_the_one_with_this_release_and_not_its_updates() {
        let said = "'http://a/x/dists/bookworm-updates/InRelease' f 0 \n'http://b/debian/dists/bookworm/InRelease' g 0 \n";
        assert_eq!(archive(said, "bookworm").unwrap(), "http://b/debian");
        let none = archive(said, "trixie").unwrap_err().to_string();
        assert!(none.contains("no archive with trixie"), "{none}");
    }

    #[test]
    fn a_kernel_in_parts_is_followed_and_the_tools_around_it_are_not() {
        let show = "Package: linux-image-7.2.13+deb14-cloud-amd64\nDepends: dracut | initramfs-tools (>= 0.1), \
                    linux-base-cloud-amd64, linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(
            parts(show),
            ["linux-base-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"]
        );
    }
}
