//! The committed table of a kernel: what its verifier makes of each program of the committed objects
//! (ci/verifier/SERIES.toml, one program a line), and what counts as worse than that.
//!
//! Knows numbers. Does not know how a kernel was asked.

use super::{Doing as _, Problem, Result};
use serde::Deserialize;
use skep_agent_linux::{ProgramReport, Report, Verdict};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where tables stand, from the workspace's root.
pub const FOLDER: &str = "ci/verifier";
/// The pages that show them, from the workspace's root.
pub const PAGES: [&str; 2] = ["docs/verifier.md", "README.md"];
/// Growth beyond one part in this many fails.
pub const GROWTH_LIMIT: u64 = 10;

/// What is known of a program on a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// Instructions that the verifier went through.
    pub verified: u64,
    /// States that it made.
    pub states: u64,
    /// The most states that it held at one time.
    pub peak_states: u64,
    /// Bytes of stack of the program and its subprograms.
    pub stack: u32,
    /// Instructions of the program and its subprograms.
    pub size: u32,
}

impl From<&ProgramReport> for Counted {
    fn from(p: &ProgramReport) -> Self {
        Self {
            verified: p.verified,
            states: p.states,
            peak_states: p.peak_states,
            stack: p.stack.unwrap_or(0),
            size: p.size,
        }
    }
}

/// A kernel's table. Every program in it is one that the kernel accepts.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The release that was asked.
    pub kernel: String,
    /// By object, then by program.
    pub programs: BTreeMap<String, BTreeMap<String, Counted>>,
}

/// A way to be worse than the table, or not comparable with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// The kernel refuses a program that it accepted.
    Verdict,
    /// The verifier goes through more than a tenth more instructions.
    VerifiedGrowth,
    /// A program takes more than a tenth more stack.
    StackGrowth,
    /// A program is not in the table.
    NotInTable,
    /// A program of the table is gone.
    Gone,
}

impl Check {
    /// The name by which it is reported.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verifier-verdict",
            Self::VerifiedGrowth => "verified-instructions",
            Self::StackGrowth => "stack",
            Self::NotInTable => "not-in-table",
            Self::Gone => "gone",
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which check.
    pub check: Check,
    /// `OBJECT/PROGRAM`.
    pub program: String,
    /// What was found, in words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check.name(), self.program, self.what)
    }
}

impl Table {
    /// The file of a series.
    pub fn path(root: &Path, series: &str) -> PathBuf {
        root.join(FOLDER).join(format!("{series}.toml"))
    }

    /// The committed table of a series; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// Names the file that cannot be read, and the line.
    pub fn read(root: &Path, series: &str) -> Result<Option<Self>> {
        let path = Self::path(root, series);
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map(Some).doing(path.display()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Problem(format!("{}: {e}", path.display()))),
        }
    }

    /// The table of a report.
    ///
    /// # Errors
    ///
    /// A program that was refused has no place in a table: it is mended, or the kernel is struck off the list.
    pub fn of(report: &Report) -> Result<Self> {
        let mut programs: BTreeMap<String, BTreeMap<String, Counted>> = BTreeMap::new();
        for (object, program) in all(report) {
            if program.verdict == Verdict::Failure {
                return Err(Problem(format!(
                    "{object}/{}: the verifier of {} refuses it; no table is written",
                    program.name, report.kernel
                )));
            }
            programs.entry(object.to_owned()).or_default().insert(program.name.clone(), program.into());
        }
        Ok(Self { kernel: report.kernel.clone(), programs })
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::from(
            "# What this kernel's verifier makes of the committed objects, all of which it accepts.\n\
             # Written by `cargo xtask kernels --update SERIES`; `cargo xtask kernels SERIES` compares.\n",
        );
        text += &format!("kernel = \"{}\"\n", self.kernel);
        for (object, programs) in &self.programs {
            text += &format!("\n[programs.{object}]\n");
            for (name, c) in programs {
                text += &format!(
                    "{name} = {{ verified = {}, states = {}, peak_states = {}, stack = {}, size = {} }}\n",
                    c.verified, c.states, c.peak_states, c.stack, c.size
                );
            }
        }
        text
    }

    /// All that is worse in a report, in the order of its programs.
    pub fn compare(&self, report: &Report) -> Vec<Finding> {
        let mut found = Vec::new();
        for (object, program) in all(report) {
            let known = self.programs.get(object).and_then(|p| p.get(&program.name));
            found.extend(judge(known, program).map(|(check, what)| Finding {
                check,
                program: format!("{object}/{}", program.name),
                what,
            }));
        }
        for (object, name) in self.programs.iter().flat_map(|(o, p)| p.keys().map(move |n| (o, n))) {
            if !all(report).any(|(o, p)| o == object && p.name == *name) {
                let what = "it is in the table and no longer in the object".to_owned();
                found.push(Finding { check: Check::Gone, program: format!("{object}/{name}"), what });
            }
        }
        found
    }

    /// Programs whose numbers are others than the table's, worse or better: `--update` would change their lines.
    pub fn stale(&self, report: &Report) -> usize {
        all(report)
            .filter(|(o, p)| self.programs.get(*o).and_then(|t| t.get(&p.name)) != Some(&Counted::from(*p)))
            .count()
    }
}

fn all(report: &Report) -> impl Iterator<Item = (&str, &ProgramReport)> {
    report.objects.iter().flat_map(|o| o.programs.iter().map(|p| (o.name.as_str(), p)))
}

/// A program against its line. The verdict first: what a refused program would have cost is not known.
fn judge(known: Option<&Counted>, p: &ProgramReport) -> impl Iterator<Item = (Check, String)> + use<> {
    let mut found = Vec::new();
    if p.verdict == Verdict::Failure {
        let last = p.log.iter().rev().take(4).rev().map(|l| format!("\n    {l}")).collect::<String>();
        found.push((Check::Verdict, format!("refused; the verifier's last lines:{last}")));
    } else if let Some(known) = known {
        let now = Counted::from(p);
        found.extend(
            growth(known.verified, now.verified, "verified instructions").map(|w| (Check::VerifiedGrowth, w)),
        );
        found.extend(
            growth(known.stack.into(), now.stack.into(), "bytes of stack").map(|w| (Check::StackGrowth, w)),
        );
    } else {
        found.push((Check::NotInTable, "no line in the table; write it with --update".to_owned()));
    }
    found.into_iter()
}

fn growth(known: u64, now: u64, what: &str) -> Option<String> {
    let more = now.checked_sub(known)?;
    (more * GROWTH_LIMIT > known).then(|| {
        let percent = (more * 100).checked_div(known).map_or_else(String::new, |p| format!(", {p}% more"));
        format!("{now} {what}, the table has {known}{percent}; if that is meant, write it with --update")
    })
}

/// The tables beside each other, as Markdown: a row a program, a column a kernel, `verified instructions / stack`.
pub fn markdown(tables: &[(String, Table)]) -> String {
    let mut text = String::from("| object | program |");
    for (_, table) in tables {
        text += &format!(" {} |", table.kernel.trim_end_matches("-cloud-amd64"));
    }
    text += "\n|---|---|";
    text += &"--:|".repeat(tables.len());
    text.push('\n');
    let mut rows: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (i, (_, table)) in tables.iter().enumerate() {
        for (object, programs) in &table.programs {
            for (name, c) in programs {
                let row = rows.entry((object, name)).or_insert_with(|| vec![String::new(); tables.len()]);
                row[i] = format!("{} / {}", c.verified, c.stack);
            }
        }
    }
    for ((object, name), cells) in rows {
        text += &format!("| {object} | {name} | {} |\n", cells.join(" | "));
    }
    text
}

/// Between which lines of a page the tables stand.
const BEGIN: &str = "<!-- tables: written by `cargo xtask kernels --update` -->\n";
const END: &str = "<!-- end of tables -->";

/// A page's text before, of and after its tables.
///
/// # Errors
///
/// If one of the lines between which they stand is missing.
fn parts<'a>(path: &Path, text: &'a str) -> Result<[&'a str; 3]> {
    let missing = |line: &str| Problem(format!("{}: no line `{}`", path.display(), line.trim_end()));
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (tables, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
    Ok([before, tables, after])
}

/// Puts tables into the page that shows them.
///
/// # Errors
///
/// If the page cannot be read or written, or has no place for them.
pub fn show(page: &Path, tables: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).doing(page.display())?;
    let [before, _, after] = parts(page, &text)?;
    std::fs::write(page, format!("{before}{BEGIN}\n{tables}\n{END}{after}")).doing(page.display())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
