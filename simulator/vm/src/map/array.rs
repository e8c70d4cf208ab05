//! Arrays: all entries exist from the start (`kernel/bpf/arraymap.c`).

use super::{EXIST, LOCK, Layout, NOEXIST, Values};
use crate::Errno;
use crate::arena::Arena;

pub(super) struct Array {
    at: usize,
    entries: u32,
}

/// The index that a key is.
pub(super) fn index(key: &[u8]) -> u32 {
    key.try_into().map_or(u32::MAX, u32::from_le_bytes)
}

/// `array_map_get_next_key`, which all that is kept by index share.
pub(super) fn next_index(key: Option<&[u8]>, entries: u32) -> Result<Vec<u8>, Errno> {
    let next = match key.map(index) {
        Some(at) if at < entries => at + 1,
        _ => 0,
    };
    if next < entries { Ok(next.to_le_bytes().to_vec()) } else { Err(Errno::ENOENT) }
}

impl Array {
    pub(super) fn create(layout: Layout, entries: u32, arena: &mut Arena) -> Option<Self> {
        let at = arena.alloc(layout.total().checked_mul(entries as usize)?)?;
        Some(Self { at, entries })
    }

    pub(super) fn free(self, layout: Layout, arena: &mut Arena) {
        arena.free(self.at, layout.total() * self.entries as usize);
    }

    pub(super) fn entries(&self) -> u32 {
        self.entries
    }

    pub(super) fn place(&self, index: u32, layout: Layout) -> Values {
        Values { at: self.at + index as usize * layout.total() }
    }

    pub(super) fn find(&self, key: &[u8], layout: Layout) -> Option<Values> {
        let index = index(key);
        (index < self.entries).then(|| self.place(index, layout))
    }

    /// `array_map_update_elem`: `BPF_F_LOCK` is looked at last, and needs a lock in the value.
    pub(super) fn slot(
        &self,
        key: &[u8],
        flags: u64,
        layout: Layout,
        has_lock: bool,
    ) -> Result<Values, Errno> {
        if flags & !LOCK > EXIST {
            return Err(Errno::EINVAL);
        }
        let values = self.find(key, layout).ok_or(Errno::E2BIG)?;
        match flags {
            _ if flags & NOEXIST != 0 => Err(Errno::EEXIST),
            _ if flags & LOCK != 0 && !has_lock => Err(Errno::EINVAL),
            _ => Ok(values),
        }
    }

    pub(super) fn places(&self, layout: Layout, arena: &Arena) -> Vec<(Vec<u8>, Values)> {
        let used = |v: &Values| arena.slice(v.at, layout.total()).iter().any(|b| *b != 0);
        let all = (0..self.entries).map(|i| (i.to_le_bytes().to_vec(), self.place(i, layout)));
        all.filter(|(_, values)| used(values)).collect()
    }
}
