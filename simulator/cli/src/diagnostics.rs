//! Errors on stderr: file, line and column first, so that editors find the place; then the line itself, and what to do.

use crate::terminal;
use anstyle::{AnsiColor, Style};
use skep_scenario::Diagnostic;
use std::io::Write;
use std::path::Path;

/// Prints one complaint.
pub(crate) fn print(diagnostic: &Diagnostic) {
    let mut err = std::io::stderr().lock();
    let color = terminal::color(&err);
    // There is nowhere to complain about stderr itself.
    let _ = err.write_all(render(diagnostic, color).as_bytes());
}

/// Prints several.
pub(crate) fn print_all(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        print(diagnostic);
    }
}

fn render(d: &Diagnostic, color: bool) -> String {
    let paint = |style: Style, text: &str| match color {
        true => format!("{style}{text}{style:#}"),
        false => text.to_owned(),
    };
    let mut out = paint(AnsiColor::Red.on_default().bold(), "error") + ": ";
    let plain = Diagnostic { help: None, ..d.clone() };
    out += &plain.to_string();
    out.push('\n');
    if let (Some(file), Some(line)) = (&d.file, d.line) {
        out += &snippet(file, line, d.column).unwrap_or_default();
    }
    if let Some(help) = &d.help {
        out += &format!("  {}: {help}\n", paint(AnsiColor::Cyan.on_default().bold(), "help"));
    }
    out
}

/// The line of the file, and a mark below the column.
fn snippet(file: &Path, line: u32, column: Option<u32>) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let shown = text.lines().nth(line.checked_sub(1)? as usize)?;
    let number = line.to_string();
    let mut out = format!("  {number} | {shown}\n");
    if let Some(column) = column {
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the mark stands where the terminal puts the column.
        let before =
            shown.chars().take(column.saturating_sub(1) as usize).map(|c| if c == '\t' { '\t' } else { ' ' });
        out += &format!("  {margin} | {}^\n", before.collect::<String>());
    }
    Some(out)
}
