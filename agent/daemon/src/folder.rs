//! The manifests' files: what they hold, and whether they are others than before.
//!
//! Looks at names, sizes, times and inodes, and follows links, so that a file that is moved into place and a folder that
//! a link is switched to are seen too. Knows no Kubernetes.

use skep_manifest::{Errors, Loaded, Options};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Folders within folders that are looked into, as skep-manifest reads them.
const MAX_FOLDERS: usize = 32;

/// What a file is known by: inode, length, and when it last changed, seconds and nanoseconds.
type Marks = (u64, u64, i64, i64);
type Look = BTreeMap<PathBuf, Marks>;

/// Files and folders with manifests.
pub(crate) struct Folder {
    paths: Vec<PathBuf>,
    options: Options,
    /// What was last read.
    read: Option<Look>,
    /// What was there when it was last looked.
    seen: Option<Look>,
}

impl Folder {
    pub(crate) fn new(paths: Vec<PathBuf>, options: Options) -> Self {
        Self { paths, options, read: None, seen: None }
    }

    /// Whether there is something to read: other files than those that were last read, which have stayed the same since
    /// the look before. Whoever writes a file has it empty first, and an empty file has no policies.
    pub(crate) fn has_changed(&mut self) -> bool {
        let now = self.look();
        let settled = self.seen.as_ref() == Some(&now);
        let new = self.read.as_ref() != Some(&now);
        self.seen = Some(now);
        new && (settled || self.read.is_none())
    }

    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// All that is wrong with any file, by file and line.
    pub(crate) fn read(&mut self) -> Result<Vec<Loaded>, Errors> {
        // Taken before: what changes while it is read is read again.
        self.read = Some(self.look());
        skep_manifest::load(&self.paths, &self.options).map(|m| m.resources)
    }

    fn look(&self) -> Look {
        let mut found = Look::new();
        for path in &self.paths {
            look(path, 0, &mut found);
        }
        found
    }
}

fn look(path: &Path, depth: usize, found: &mut Look) {
    // What cannot be looked at is not there; reading says why.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let marks = (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    found.insert(path.to_owned(), marks);
    if metadata.is_dir() && depth <= MAX_FOLDERS {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            look(&entry.path(), depth + 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n";

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.yaml");
        std::fs::write(&file, NAMESPACE).unwrap();
        let mut folder = Folder::new(vec![place.path().to_owned()], Options::default());
        assert!(folder.has_changed(), "nothing was read yet");
        assert_eq!(folder.read().unwrap().len(), 1);
        assert!(!folder.has_changed());

        std::fs::write(&file, "").unwrap();
        assert!(!folder.has_changed(), "somebody is writing");
        std::fs::write(&file, format!("{NAMESPACE}---\n{}", NAMESPACE.replace("shop", "bank"))).unwrap();
        assert!(!folder.has_changed(), "and goes on");
        assert!(folder.has_changed(), "that was all");
        assert_eq!(folder.read().unwrap().len(), 2);
        assert!(!folder.has_changed());

        std::fs::remove_file(&file).unwrap();
        assert!(!folder.has_changed());
        assert!(folder.has_changed());
        assert!(folder.read().is_err(), "a folder without manifests is none");
        assert!(!folder.has_changed(), "what is wrong is told once");
    }

    #[test]
    fn a_link_that_is_switched_is_a_change() {
        let place = tempfile::tempdir().unwrap();
        for (folder, name) in [("one", "shop"), ("two", "shop")] {
            std::fs::create_dir(place.path().join(folder)).unwrap();
            std::fs::write(place.path().join(folder).join("a.yaml"), NAMESPACE.replace("shop", name))
                .unwrap();
        }
        let link = place.path().join("now");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let mut folder = Folder::new(vec![link.clone()], Options::default());
        assert!(folder.has_changed());
        folder.read().unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
        assert!(!folder.has_changed());
        assert!(folder.has_changed());
    }
}
