//! The report for people: a line a scenario, a line for what did not hold, and the counts.

use super::{Report, ScenarioReport, Status, StepReport};
use anstyle::{AnsiColor, Style};
use std::fmt::Write;

/// How text is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextStyle {
    /// Columns.
    pub width: usize,
    /// Whether with colours.
    pub color: bool,
}

impl TextStyle {
    /// Text in a colour, if there are colours.
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// The colour of how something ended.
pub fn status_style(status: Status) -> Style {
    let color = match status {
        Status::Passed => AnsiColor::Green,
        Status::Skipped => AnsiColor::Yellow,
        Status::Failed | Status::Error | Status::Broken => AnsiColor::Red,
    };
    color.on_default().bold()
}

impl ScenarioReport {
    /// `ok    walkthrough (3 steps)`, then what was skipped and what did not hold. Errors of the set-up are left to
    /// who prints diagnostics.
    pub fn to_text(&self, style: TextStyle) -> String {
        let word = match self.status {
            Status::Passed => "ok",
            Status::Skipped => "skip",
            Status::Failed => "FAIL",
            Status::Error => "ERROR",
            Status::Broken => "BROKEN",
        };
        let mut out = String::new();
        let counted = match (self.steps.len(), self.skipped()) {
            (1, 0) => "1 step".to_owned(),
            (n, 0) => format!("{n} steps"),
            (n, s) => format!("{n} steps, {s} skipped"),
        };
        let word = style.paint(status_style(self.status), &format!("{word:<6}"));
        let _ = writeln!(out, "{word} {} ({counted})", self.name);
        for step in &self.steps {
            out += &step_text(step, style);
        }
        if self.status == Status::Broken {
            let _ = writeln!(out, "       seed {}", self.seed);
        }
        if let Some(line) = &self.reproduce {
            let _ = writeln!(out, "       reproduce: {line}");
        }
        out
    }
}

fn step_text(step: &StepReport, style: TextStyle) -> String {
    let mut out = String::new();
    if let Some(why) = &step.skip {
        let word = style.paint(status_style(Status::Skipped), "skip");
        let _ = writeln!(out, "       {word} step {} {}: {why}", step.number, step.title);
    }
    if !step.failures.is_empty() {
        let word = style.paint(status_style(Status::Failed), "FAIL");
        let _ = writeln!(out, "       {word} step {} {}", step.number, step.title);
    }
    for failure in &step.failures {
        let m = &failure.mismatch;
        let _ = writeln!(out, "         {}:{}: {}", failure.path, failure.line, m.field);
        let _ = writeln!(out, "         expected {}", m.expected);
        let _ = writeln!(out, "         got      {}", m.got);
    }
    out
}

impl Report {
    /// The last lines: which objects ran under which switches, and the counts.
    pub fn summary_text(&self, style: TextStyle) -> String {
        let mut out = String::new();
        if let Some(first) = self.scenarios.iter().find(|s| !s.objects.is_empty()) {
            let same = self.scenarios.iter().all(|s| s.objects.is_empty() || s.objects == first.objects);
            if same {
                for (name, sha256) in &first.objects {
                    let _ = writeln!(out, "object {name:<8} sha256 {sha256}");
                }
            }
        }
        let Self { summary: s, .. } = self;
        let status = if s.failed + s.errors > 0 { Status::Failed } else { Status::Passed };
        let mut line = format!("{} passed, {} failed", s.passed, s.failed);
        if s.errors > 0 {
            let _ = write!(line, ", {} with errors", s.errors);
        }
        if s.skipped_steps > 0 {
            let _ = write!(line, ", {} steps skipped", s.skipped_steps);
        }
        let _ = writeln!(out, "{}", style.paint(status_style(status), &line));
        out
    }
}
