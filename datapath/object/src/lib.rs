//! The built eBPF objects and their manifest.

/// The objects' bytes.
pub struct ObjectSet;

impl ObjectSet {
    /// The bytes of an object.
    pub fn bytes(&self, _: skep_abi::program::Object) -> &[u8] {
        &[]
    }
    /// Their SHA-256.
    pub fn sha256(&self, _: skep_abi::program::Object) -> String {
        String::new()
    }
}
