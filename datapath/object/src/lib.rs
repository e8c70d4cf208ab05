//! The built eBPF objects, and their manifest.
//!
//! Knows bytes and where they come from: what is built in, or a folder that a user names. Does not know what an
//! object holds (`skep-abi` says what it must) nor how one is built (`cargo xtask ebpf`, which writes the folder
//! `objects` beside this file). The objects are never edited or merged.

pub mod verified;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use skep_abi::program::Object;

/// What the built-in objects were built with and what they hold, as JSON: the file `objects/manifest.json`.
pub const MANIFEST: &str = include_str!("../objects/manifest.json");

/// Bytes of an object, at an address that ELF readers can cast from.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static LXC: &Aligned<[u8]> = &Aligned(*include_bytes!("../objects/lxc.o"));
static HOST: &Aligned<[u8]> = &Aligned(*include_bytes!("../objects/host.o"));
static OVERLAY: &Aligned<[u8]> = &Aligned(*include_bytes!("../objects/overlay.o"));

/// The ELF file of a built-in object; its address is a multiple of 8.
pub fn bytes(object: Object) -> &'static [u8] {
    match object {
        Object::Lxc => &LXC.0,
        Object::Host => &HOST.0,
        Object::Overlay => &OVERLAY.0,
    }
}

/// The SHA-256 of a built-in object's file, in 64 lower-case hexadecimal digits.
pub fn sha256(object: Object) -> String {
    hex_sha256(bytes(object))
}

/// The SHA-256 of any bytes, in 64 lower-case hexadecimal digits.
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An object that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the folder is missing or cannot be read.
    #[error(
        "{}: cannot read the object {}: {source}. A folder of objects holds one NAME.o for each of {}; \
         `cargo xtask ebpf` builds them",
        path.display(), object.name(), expected()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which object it should hold.
        object: Object,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of the folder is no ELF file.
    #[error("{}: this is no ELF file, so it cannot be the object {}", path.display(), object.name())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// Which object it should hold.
        object: Object,
    },
}

fn expected() -> String {
    let names: Vec<_> = Object::ALL.iter().map(|o| o.name()).collect();
    names.join(", ")
}

/// One file for each object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectSet {
    files: Vec<Vec<u8>>,
}

impl ObjectSet {
    /// The objects that are compiled in.
    pub fn built_in() -> Self {
        Self { files: Object::ALL.iter().map(|o| bytes(*o).to_vec()).collect() }
    }

    /// The objects of a folder: `NAME.o` for each.
    ///
    /// # Errors
    /// Names the file that is missing, cannot be read or is no ELF file. Nothing is taken from the built-in set
    /// instead: who names a folder wants to run what stands there.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let read = |object: &Object| {
            let (object, path) = (*object, folder.join(format!("{}.o", object.name())));
            let file = std::fs::read(&path).map_err(|source| Error::Unreadable {
                path: path.clone(),
                object,
                source,
            })?;
            if file.starts_with(b"\x7fELF") { Ok(file) } else { Err(Error::NotElf { path, object }) }
        };
        Ok(Self { files: Object::ALL.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// The objects of a folder if one is given, else the built-in ones.
    ///
    /// # Errors
    /// Those of [`ObjectSet::from_folder`].
    pub fn new(folder: Option<&Path>) -> Result<Self, Error> {
        folder.map_or_else(|| Ok(Self::built_in()), Self::from_folder)
    }

    /// An object's file.
    pub fn bytes(&self, object: Object) -> &[u8] {
        let place = Object::ALL.iter().position(|o| *o == object).expect("Object::ALL has every object");
        &self.files[place]
    }

    /// The SHA-256 of an object's file, in 64 lower-case hexadecimal digits.
    pub fn sha256(&self, object: Object) -> String {
        hex_sha256(self.bytes(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_same_files_is_the_same_set() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("objects");
        assert_eq!(ObjectSet::new(Some(&folder)).unwrap(), ObjectSet::new(None).unwrap());
    }

    #[test]
    fn a_missing_or_wrong_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lxc.o"), bytes(Object::Lxc)).unwrap();
        std::fs::write(folder.path().join("overlay.o"), bytes(Object::Overlay)).unwrap();
        let error = ObjectSet::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("host.o") && error.contains("cargo xtask ebpf"), "{error}");
        std::fs::write(folder.path().join("host.o"), "int main;").unwrap();
        let error = ObjectSet::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("host.o") && error.contains("no ELF"), "{error}");
    }

    #[test]
    fn a_set_gives_each_object_its_own_file() {
        let set = ObjectSet::built_in();
        for object in Object::ALL {
            assert_eq!(set.bytes(*object), bytes(*object));
            assert_eq!(set.sha256(*object), sha256(*object));
            assert_eq!(bytes(*object).as_ptr().align_offset(8), 0);
        }
        assert_ne!(set.sha256(Object::Host), set.sha256(Object::Overlay));
        // FIPS 180-4's example.
        assert_eq!(hex_sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
