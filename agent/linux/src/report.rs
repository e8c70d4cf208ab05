//! What a kernel's verifier said about each program: as a table like veristat's, and as JSON.
//!
//! Knows numbers and words. Does not know how they were come by.

use serde_json::{Value, json};
use std::fmt;

/// What the verifier decided about a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The program is safe and would run.
    Success,
    /// The program was refused.
    Failure,
}

impl Verdict {
    /// veristat's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// The verifier's answer about one program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramReport {
    /// The program's name.
    pub name: String,
    /// What was decided.
    pub verdict: Verdict,
    /// Instructions of the program and the subprograms it calls.
    pub size: u32,
    /// Instructions that the verifier went through.
    pub verified: u64,
    /// Bytes of stack, over the deepest chain of calls; `None` if the kernel did not say.
    pub stack: Option<u32>,
    /// States that the verifier made.
    pub states: u64,
    /// The most states that it held at one time.
    pub peak_states: u64,
    /// The last lines of the verifier's log, if it refused.
    pub log: Vec<String>,
}

/// The answers about one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectReport {
    /// The object's name.
    pub name: String,
    /// The SHA-256 of its file, in hexadecimal.
    pub sha256: String,
    /// Its programs.
    pub programs: Vec<ProgramReport>,
}

/// The answers of one kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// The objects.
    pub objects: Vec<ObjectReport>,
}

impl Report {
    /// Whether every program was accepted, and there was one.
    pub fn is_success(&self) -> bool {
        let mut programs = self.objects.iter().flat_map(|o| &o.programs).peekable();
        programs.peek().is_some() && programs.all(|p| p.verdict == Verdict::Success)
    }

    /// Reads what [`Report::to_json`] wrote; `None` if it is something else.
    pub fn from_json(json: &Value) -> Option<Self> {
        let objects = json["objects"].as_array()?.iter().map(|o| {
            let programs = o["programs"].as_array()?.iter().map(program_of_json).collect::<Option<_>>()?;
            Some(ObjectReport { name: text(&o["name"])?, sha256: text(&o["sha256"])?, programs })
        });
        Some(Self { kernel: text(&json["kernel"])?, objects: objects.collect::<Option<_>>()? })
    }

    /// The report as JSON: `{version, kernel, objects: [{name, sha256, programs: [{name, verdict, ..}]}]}`.
    pub fn to_json(&self) -> Value {
        json!({
            "version": 1,
            "kernel": self.kernel,
            "objects": self.objects.iter().map(|o| json!({
                "name": o.name,
                "sha256": o.sha256,
                "programs": o.programs.iter().map(program_json).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

fn program_json(p: &ProgramReport) -> Value {
    json!({
        "name": p.name,
        "verdict": p.verdict.name(),
        "program_size": p.size,
        "verified_instructions": p.verified,
        "stack_bytes": p.stack,
        "total_states": p.states,
        "peak_states": p.peak_states,
        "log": p.log,
    })
}

fn program_of_json(p: &Value) -> Option<ProgramReport> {
    let verdict =
        [Verdict::Success, Verdict::Failure].into_iter().find(|v| p["verdict"].as_str() == Some(v.name()));
    Some(ProgramReport {
        name: text(&p["name"])?,
        verdict: verdict?,
        size: p["program_size"].as_u64()?.try_into().ok()?,
        verified: p["verified_instructions"].as_u64()?,
        stack: p["stack_bytes"].as_u64().and_then(|s| s.try_into().ok()),
        states: p["total_states"].as_u64()?,
        peak_states: p["peak_states"].as_u64()?,
        log: p["log"].as_array()?.iter().map(text).collect::<Option<_>>()?,
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// veristat's columns, and the stack.
const COLUMNS: [&str; 8] =
    ["File", "Program", "Verdict", "Insns", "States", "Peak states", "Stack", "Program size"];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel {}", self.kernel)?;
        for o in &self.objects {
            writeln!(f, "{}.o sha256 {}", o.name, o.sha256)?;
        }
        writeln!(f)?;
        let rows: Vec<[String; 8]> =
            self.objects.iter().flat_map(|o| o.programs.iter().map(move |p| row(&o.name, p))).collect();
        let width = |i: usize| rows.iter().map(|r| r[i].len()).chain([COLUMNS[i].len()]).max().unwrap_or(0);
        let widths: [usize; 8] = std::array::from_fn(width);
        line(f, &COLUMNS.map(str::to_owned), &widths)?;
        line(f, &widths.map(|w| "-".repeat(w)), &widths)?;
        for r in &rows {
            line(f, r, &widths)?;
        }
        for p in self.objects.iter().flat_map(|o| &o.programs).filter(|p| p.verdict == Verdict::Failure) {
            writeln!(f, "\n{}: the verifier's last lines:", p.name)?;
            for l in &p.log {
                writeln!(f, "  {l}")?;
            }
        }
        let accepted = rows.iter().filter(|r| r[2] == Verdict::Success.name()).count();
        writeln!(f, "\n{accepted} of {} programs verified", rows.len())
    }
}

fn row(object: &str, p: &ProgramReport) -> [String; 8] {
    [
        format!("{object}.o"),
        p.name.clone(),
        p.verdict.name().to_owned(),
        p.verified.to_string(),
        p.states.to_string(),
        p.peak_states.to_string(),
        p.stack.map_or_else(|| "?".to_owned(), |s| s.to_string()),
        p.size.to_string(),
    ]
}

/// Words to the left, numbers to the right.
fn line(f: &mut fmt::Formatter<'_>, cells: &[String; 8], widths: &[usize; 8]) -> fmt::Result {
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if i == 0 { "" } else { "  " };
        match i {
            0..3 => write!(f, "{gap}{cell:<width$}")?,
            _ => write!(f, "{gap}{cell:>width$}")?,
        }
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(verdict: Verdict) -> ProgramReport {
        ProgramReport {
            name: "from_container".into(),
            verdict,
            size: 100,
            verified: 8420,
            stack: Some(208),
            states: 12,
            peak_states: 11,
            log: vec!["R1 invalid mem access 'scalar'".into()],
        }
    }

    fn report(verdict: Verdict) -> Report {
        let objects =
            vec![ObjectReport { name: "lxc".into(), sha256: "ab".into(), programs: vec![program(verdict)] }];
        Report { kernel: "6.18.0".into(), objects }
    }

    #[test]
    fn a_refusal_shows_the_last_lines_and_is_no_success() {
        let refused = report(Verdict::Failure);
        assert!(!refused.is_success());
        let text = refused.to_string();
        assert!(text.contains("  R1 invalid mem access 'scalar'"), "{text}");
        assert!(text.contains("0 of 1 programs verified"), "{text}");
        assert_eq!(refused.to_json()["objects"][0]["programs"][0]["verdict"], "failure");
    }

    #[test]
    fn a_table_line_has_veristats_columns() {
        let text = report(Verdict::Success).to_string();
        assert!(
            text.contains("lxc.o  from_container  success   8420      12           11    208           100"),
            "{text}"
        );
        assert!(report(Verdict::Success).is_success());
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for verdict in [Verdict::Success, Verdict::Failure] {
            let written = report(verdict);
            assert_eq!(Report::from_json(&written.to_json()), Some(written));
        }
        assert_eq!(Report::from_json(&json!({"kernel": "6.18.0"})), None);
    }

    #[test]
    fn a_report_without_programs_is_no_success() {
        assert!(!Report { kernel: String::new(), objects: vec![] }.is_success());
    }
}
