//! ci/kernels.toml: which kernels there are.

use super::{Doing as _, Problem, Result};
use serde::Deserialize;
use std::path::Path;

/// The file, from the workspace's root.
pub const FILE: &str = "ci/kernels.toml";

/// All of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The package that depends on a suite's newest kernel.
    pub package: String,
    /// Modules to load, with all that they depend on.
    pub modules: Vec<String>,
    /// The kernels, oldest first.
    pub kernel: Vec<Kernel>,
}

/// One kernel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Its series, such as `6.1`.
    pub series: String,
    /// The distribution's suite that ships it.
    pub suite: String,
    /// What it cannot do and others can, by name.
    #[serde(default)]
    pub lacks: Vec<String>,
}

impl Config {
    /// Reads the file of a workspace.
    ///
    /// # Errors
    ///
    /// Names the file and the line.
    pub fn read(root: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(FILE)).doing(FILE)?;
        toml::from_str(&text).doing(FILE)
    }

    /// The kernels of these series, or all.
    ///
    /// # Errors
    ///
    /// Names a series that the file does not have.
    pub fn select(&self, series: &[String]) -> Result<Vec<&Kernel>> {
        if series.is_empty() {
            return Ok(self.kernel.iter().collect());
        }
        series
            .iter()
            .map(|s| {
                self.kernel.iter().find(|k| k.series == *s).ok_or_else(|| {
                    let known: Vec<&str> = self.kernel.iter().map(|k| k.series.as_str()).collect();
                    Problem(format!("{FILE} has no series {s}; it has {}", known.join(", ")))
                })
            })
            .collect()
    }
}

/// Whether a version or release is of a series: 6.1.176 is of 6.1, 6.12.107 is not.
pub fn is_of_series(version: &str, series: &str) -> bool {
    version.strip_prefix(series).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_no_prefix_of_another() {
        assert!(is_of_series("6.1.176-1", "6.1"));
        assert!(is_of_series("6.1.0-50-cloud-amd64", "6.1"));
        assert!(!is_of_series("6.12.107-1", "6.1"));
        assert!(!is_of_series("5.10", "5.1"));
    }

    #[test]
    fn the_file_reads_and_an_unknown_series_is_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let config = Config::read(&root).unwrap();
        for must in ["6.1", "6.12"] {
            assert_eq!(config.select(&[must.to_owned()]).unwrap()[0].series, must);
        }
        let said = config.select(&["6.2".to_owned()]).unwrap_err().to_string();
        assert!(said.contains("no series 6.2; it has "), "{said}");
    }
}
