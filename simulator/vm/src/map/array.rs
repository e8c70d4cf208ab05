//! Arrays: all entries exist from the start.

use super::{Layout, Values};
use crate::Errno;
use crate::arena::Arena;

pub(super) struct Array {
    at: usize,
    entries: u32,
}

impl Array {
    pub(super) fn create(layout: Layout, entries: u32, arena: &mut Arena) -> Option<Self> {
        let at = arena.alloc(layout.total().checked_mul(entries as usize)?)?;
        Some(Self { at, entries })
    }

    pub(super) fn free(self, layout: Layout, arena: &mut Arena) {
        arena.free(self.at, layout.total() * self.entries as usize);
    }

    fn place(&self, index: u32, layout: Layout) -> Values {
        Values { at: self.at + index as usize * layout.total() }
    }

    pub(super) fn find(&self, key: &[u8], layout: Layout) -> Option<Values> {
        let index = u32::from_le_bytes(key.try_into().ok()?);
        (index < self.entries).then(|| self.place(index, layout))
    }

    /// `array_map_update_elem`: `BPF_F_LOCK` is looked at last, and needs a lock in the value, which no value has here.
    pub(super) fn slot(&self, key: &[u8], flags: u64, layout: Layout) -> Result<Values, Errno> {
        const LOCK: u64 = 4;
        if flags & !LOCK > 2 {
            return Err(Errno::EINVAL);
        }
        let values = self.find(key, layout).ok_or(Errno::E2BIG)?;
        match flags {
            _ if flags & 1 != 0 => Err(Errno::EEXIST),
            _ if flags & LOCK != 0 => Err(Errno::EINVAL),
            _ => Ok(values),
        }
    }

    pub(super) fn places(&self, layout: Layout, arena: &Arena) -> Vec<(Vec<u8>, Values)> {
        let used = |v: &Values| arena.slice(v.at, layout.total()).iter().any(|b| *b != 0);
        let all = (0..self.entries).map(|i| (i.to_le_bytes().to_vec(), self.place(i, layout)));
        all.filter(|(_, values)| used(values)).collect()
    }
}
