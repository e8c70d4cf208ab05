//! Which objects a kernel is known to have verified: `objects/verified.json`, which `cargo xtask kernels --update` keeps.
//!
//! Knows hashes and kernels. An object is known by its bytes, so that one that was built anew is not until a kernel was
//! asked about it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// The file's name, in the folder of the committed objects.
pub const FILE: &str = "verified.json";

/// As it was when this was compiled.
const BUILT_IN: &str = include_str!("../objects/verified.json");

/// Objects that kernels have verified, all programs of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// By SHA-256: the object's name, and the releases of the kernels by their series.
    objects: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

impl Verified {
    /// What was known when this was compiled.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN).unwrap_or_default()
    }

    /// Reads the file's text; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let file: Value = serde_json::from_str(text).ok()?;
        let mut objects = BTreeMap::new();
        for (sha256, object) in file["objects"].as_object()? {
            let kernels = object["kernels"].as_object()?.iter();
            let kernels =
                kernels.map(|(series, release)| Some((series.clone(), release.as_str()?.to_owned())));
            let name = object["name"].as_str()?.to_owned();
            objects.insert(sha256.clone(), (name, kernels.collect::<Option<_>>()?));
        }
        Some(Self { objects })
    }

    /// The file's text: `{version, objects: {SHA256: {name, kernels: {SERIES: RELEASE}}}}`.
    pub fn to_text(&self) -> String {
        let object =
            |(name, kernels): &(String, BTreeMap<String, String>)| json!({"name": name, "kernels": kernels});
        let objects: Map<String, Value> =
            self.objects.iter().map(|(sha, o)| (sha.clone(), object(o))).collect();
        format!("{:#}\n", json!({"version": 1, "objects": objects}))
    }

    /// The series of the kernels that have verified an object, by its SHA-256 in lower-case hexadecimal digits.
    pub fn kernels(&self, sha256: &str) -> impl Iterator<Item = &str> {
        self.objects.get(sha256).into_iter().flat_map(|(_, kernels)| kernels.keys().map(String::as_str))
    }

    /// Whether any kernel has.
    pub fn knows(&self, sha256: &str) -> bool {
        self.kernels(sha256).next().is_some()
    }

    /// Takes down that a kernel has verified these objects (SHA-256 and name). Others are forgotten: they are no longer
    /// the committed ones.
    pub fn accept(&mut self, series: &str, release: &str, objects: &[(&str, &str)]) {
        let now: BTreeSet<&str> = objects.iter().map(|(sha256, _)| *sha256).collect();
        self.objects.retain(|sha256, _| now.contains(sha256.as_str()));
        for (sha256, name) in objects {
            let (_, kernels) = self
                .objects
                .entry((*sha256).to_owned())
                .or_insert_with(|| ((*name).to_owned(), BTreeMap::new()));
            kernels.insert(series.to_owned(), release.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_abi::program::Object;

    #[test]
    fn kernels_have_verified_the_committed_objects() {
        let verified = Verified::built_in();
        for object in Object::ALL {
            let sha256 = crate::sha256(*object);
            assert!(verified.knows(&sha256), "{}.o: cargo xtask kernels --update", object.name());
        }
    }

    #[test]
    fn what_is_written_is_read_and_objects_of_the_past_are_forgotten() {
        let mut verified = Verified::default();
        verified.accept("6.1", "6.1.0-50", &[("aa", "lxc"), ("bb", "host")]);
        verified.accept("6.12", "6.12.1", &[("aa", "lxc"), ("cc", "host")]);
        assert_eq!(Verified::parse(&verified.to_text()).as_ref(), Some(&verified));
        assert_eq!(verified.kernels("aa").collect::<Vec<_>>(), ["6.1", "6.12"]);
        assert_eq!(verified.kernels("cc").collect::<Vec<_>>(), ["6.12"]);
        assert!(!verified.knows("bb"));
        assert_eq!(Verified::parse("{}"), None);
    }
}
