//! datapath/object/objects/manifest.json: what the committed objects were built with, and what they hold.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Its name beside the objects.
pub(super) const FILE: &str = "manifest.json";

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    version: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) objects: BTreeMap<String, ObjectEntry>,
}

/// What decides about the bytes of an object beside its source.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Fingerprint {
    pub(super) rustc: String,
    pub(super) cargo: String,
    pub(super) llvm: String,
    pub(super) bpf_linker: String,
    pub(super) flags: Vec<String>,
}

/// An object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectEntry {
    pub(super) sha256: String,
    pub(super) bytes: usize,
    pub(super) programs: Vec<String>,
    pub(super) maps: Vec<String>,
    pub(super) globals: Vec<String>,
}

impl Manifest {
    pub(super) fn new(fingerprint: Fingerprint) -> Self {
        Self { version: 1, fingerprint, objects: BTreeMap::new() }
    }

    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{shown}: {e}"))
    }

    pub(super) fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("strings, numbers and lists are JSON");
        text + "\n"
    }
}

impl ObjectEntry {
    /// In what two builds differ beside their bytes.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        [
            ("programs", &self.programs, &other.programs),
            ("maps", &self.maps, &other.maps),
            ("globals", &self.globals, &other.globals),
        ]
        .into_iter()
        .filter(|(_, a, b)| a != b)
        .map(|(what, a, b)| format!("{what}: committed {}; the source gives {}", a.join(", "), b.join(", ")))
        .collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rustc {}, cargo {}, LLVM {}, bpf-linker {}, {}",
            self.rustc,
            self.cargo,
            self.llvm,
            self.bpf_linker,
            self.flags.join(" ")
        )
    }
}
