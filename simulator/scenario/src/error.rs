//! What can go wrong before or while a scenario is carried out, and where in which file.
//!
//! Does not know how an error is printed in colour: that is the command's business.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// One complaint about an input: where, what, and what to do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
pub struct Diagnostic {
    /// The file, as the user named it or as it was found from there.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// The field's path, such as `spec.steps[0].http.from`.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A complaint that has no place in a file.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// The same complaint, in a file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// The same complaint, at a line and a column, both from 1.
    #[must_use]
    pub fn at(mut self, line: u32, column: u32) -> Self {
        self.line = Some(line);
        self.column = Some(column);
        self
    }

    /// The same complaint, about a field.
    #[must_use]
    pub fn about(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same complaint, with what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// `FILE:LINE:COLUMN: FIELD: MESSAGE`, and what to do in a second line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
                if let Some(column) = self.column {
                    write!(f, ":{column}")?;
                }
            }
            f.write_str(": ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Why a World could not do what it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// The input is wrong; exit status 2. Never empty.
    #[error("{}", join(.0))]
    Input(Vec<Diagnostic>),
    /// The World cannot do this, or refused it; exit status 2.
    #[error("{0}")]
    Refused(String),
    /// An invariant of the World itself broke, such as a frame that has no end; exit status 3.
    #[error("an invariant broke: {0}")]
    InvariantBroken(String),
}

impl SetupError {
    /// An input error of one complaint.
    pub fn input(diagnostic: Diagnostic) -> Self {
        Self::Input(vec![diagnostic])
    }

    /// The exit status of the command that meets it.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Refused(_) => 2,
            Self::InvariantBroken(_) => 3,
        }
    }
}

fn join(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl From<skep_manifest::Error> for Diagnostic {
    fn from(e: skep_manifest::Error) -> Self {
        let some = |n: u32| (n > 0).then_some(n);
        Self {
            line: some(e.line),
            column: some(e.column),
            file: Some(e.file.into()),
            field: e.field,
            message: e.message,
            help: e.help,
        }
    }
}

/// All complaints of a reader of manifests.
pub fn diagnostics(errors: skep_manifest::Errors) -> Vec<Diagnostic> {
    errors.into_iter().map(Diagnostic::from).collect()
}

impl From<skep_manifest::Errors> for SetupError {
    fn from(errors: skep_manifest::Errors) -> Self {
        Self::Input(diagnostics(errors))
    }
}
