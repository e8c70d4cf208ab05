//! Devices or CPUs by index.

use super::array::{self, Array};
use super::layout::{Layout, Values};

/// Devices or CPUs by index: bytes that programs see, where something is.
pub(super) struct Targets {
    pub(super) array: Array,
    pub(super) filled: Vec<bool>,
}

impl Targets {
    pub(super) fn find(&self, key: &[u8], layout: Layout) -> Option<Values> {
        let filled = self.filled.get(array::index(key) as usize).copied().unwrap_or(false);
        if filled { self.array.find(key, layout) } else { None }
    }

    pub(super) fn places(&self, layout: Layout) -> Vec<(Vec<u8>, Values)> {
        let filled = (0u32..).zip(&self.filled).filter(|(_, filled)| **filled);
        filled.map(|(i, _)| (i.to_le_bytes().to_vec(), self.array.place(i, layout))).collect()
    }
}
