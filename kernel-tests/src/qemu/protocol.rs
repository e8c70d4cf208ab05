//! What a guest says on its second serial port: one JSON object a line, the last one an end line.
//!
//! Guest and host are built from this one file. A run has passed only if the guest's last word is an end line that
//! counts what came before it, and QEMU ends with the status that was agreed on: a kernel that panics, reboots, hangs
//! or loses a line has not passed.

use serde::{Deserialize, Serialize};
use skep_agent_linux::Report;

/// A line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Start {
        /// The release of the kernel that runs.
        kernel: String,
    },
    /// What the verifier said, as [`Report::to_json`].
    Verifier {
        /// See [`Report::from_json`].
        report: serde_json::Value,
    },
    /// One check.
    Check {
        /// What it belongs to, such as `packet-tables`.
        group: String,
        /// Its name within the group.
        name: String,
        /// How it went.
        outcome: CheckOutcome,
    },
    /// The last.
    End {
        /// How many lines came before it.
        lines: usize,
    },
}

/// How a check went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// As expected.
    Passed,
    /// Not as expected, and why.
    Failed(String),
    /// Not run, for a lack that ci/kernels.toml names.
    Skipped(String),
}

/// What the guest writes to the exit device once it has said its end line; QEMU's status is twice this plus one.
pub const AGREED: u8 = 0x2a;
/// What it writes if the tests did not come to their end.
pub const NOT_AGREED: u8 = 0x2b;

/// QEMU's status for a value at the exit device (hw/misc/debugexit.c).
pub const fn status_of(value: u8) -> i32 {
    (value as i32) << 1 | 1
}

/// What a whole run said.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    /// The kernel's release.
    pub kernel: String,
    /// What its verifier said, if it was asked.
    pub report: Option<Report>,
    /// All checks, as (group, name, outcome).
    pub checks: Vec<(String, String, CheckOutcome)>,
}

/// Reads all that a guest said.
///
/// # Errors
///
/// Says which line is missing or not one.
pub fn read(text: &str) -> Result<Said, String> {
    let raw: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut lines = Vec::new();
    for (i, line) in raw.iter().enumerate() {
        let line: Line =
            serde_json::from_str(line).map_err(|e| format!("line {} of the results: {e}: {line}", i + 1))?;
        lines.push(line);
    }
    let Some(Line::Start { kernel }) = lines.first() else {
        return Err("the guest said nothing: its tests were not started".to_owned());
    };
    let mut said = Said { kernel: kernel.clone(), report: None, checks: Vec::new() };
    match lines.last() {
        Some(Line::End { lines: counted }) if *counted == lines.len() - 1 => {}
        Some(Line::End { lines: counted }) => {
            return Err(format!("{} lines came through, and the end line counts {counted}", lines.len() - 1));
        }
        _ => {
            return Err(format!(
                "no end line; the last that came was: {}",
                raw.last().copied().unwrap_or_default()
            ));
        }
    }
    for line in lines {
        match line {
            Line::Verifier { report } => {
                said.report = Some(Report::from_json(&report).ok_or("the verifier's report is not one")?);
            }
            Line::Check { group, name, outcome } => said.checks.push((group, name, outcome)),
            Line::Start { .. } | Line::End { .. } => {}
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"type":"start","kernel":"6.1.0"}"#;
    const CHECK: &str = r#"{"type":"check","group":"g","name":"n","outcome":{"failed":"why"}}"#;

    #[test]
    fn all_is_read_up_to_the_end_line() {
        let said = read(&format!("{START}\r\n{CHECK}\r\n{{\"type\":\"end\",\"lines\":2}}\r\n")).unwrap();
        assert_eq!(said.kernel, "6.1.0");
        assert_eq!(said.checks, [("g".to_owned(), "n".to_owned(), CheckOutcome::Failed("why".to_owned()))]);
    }

    #[test]
    fn without_its_end_line_or_with_a_line_lost_a_run_is_none() {
        assert!(read("").unwrap_err().contains("said nothing"));
        assert!(read(START).unwrap_err().starts_with("no end line"));
        assert!(read(&format!("{START}\n{CHECK}")).unwrap_err().starts_with("no end line"));
        let lost = read(&format!("{START}\n{{\"type\":\"end\",\"lines\":2}}")).unwrap_err();
        assert!(lost.contains("1 lines came through, and the end line counts 2"), "{lost}");
        assert!(read(&format!("{START}\n{{\"type\":\"ch")).unwrap_err().starts_with("line 2 of the results"));
    }
}
