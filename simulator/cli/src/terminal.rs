//! How wide the terminal is, and whether it has colours.

use std::io::IsTerminal;
use terminal_size::{Width, terminal_size};

/// Columns where there is no terminal and nobody says: wide enough for a line a hop.
const DEFAULT_WIDTH: usize = 160;

/// The flag's columns, else the terminal's, else those of COLUMNS, else [`DEFAULT_WIDTH`].
pub(crate) fn width(flag: Option<usize>) -> usize {
    let terminal = || terminal_size().map(|(Width(columns), _)| usize::from(columns));
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok();
    flag.or_else(terminal).or_else(variable).filter(|w| *w > 0).unwrap_or(DEFAULT_WIDTH)
}

/// Whether `stream` takes colours: a terminal, and NO_COLOR is not set (no-color.org).
pub(crate) fn color(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    stream.is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
