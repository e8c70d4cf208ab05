//! Hash maps, and those that evict the least recently used entry. Nothing is allocated before it is used.

use std::collections::BTreeMap;

use super::{Layout, Values, check_mode};
use crate::Errno;
use crate::arena::Arena;

struct Entry {
    values: Values,
    used: u64,
}

pub(super) struct Hash {
    entries: BTreeMap<Vec<u8>, Entry>,
    max: u32,
    /// Of an LRU map: keys by when they were last used.
    recency: Option<BTreeMap<u64, Vec<u8>>>,
    clock: u64,
}

impl Hash {
    pub(super) fn new(max: u32, lru: bool) -> Self {
        Self { entries: BTreeMap::new(), max, recency: lru.then(BTreeMap::new), clock: 0 }
    }

    pub(super) fn free(self, layout: Layout, arena: &mut Arena) {
        for entry in self.entries.values() {
            arena.free(entry.values.at, layout.total());
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Values> {
        self.entries.get(key).map(|e| e.values)
    }

    pub(super) fn find_and_use(&mut self, key: &[u8]) -> Option<Values> {
        let entry = self.entries.get_mut(key)?;
        if let Some(recency) = &mut self.recency
            && entry.used != self.clock
        {
            let name = recency.remove(&entry.used).expect("each entry of an LRU map is in the order of use");
            self.clock += 1;
            entry.used = self.clock;
            recency.insert(self.clock, name);
        }
        Some(entry.values)
    }

    /// `htab_map_update_elem`: a new entry in a full map is `E2BIG`, unless the map evicts.
    pub(super) fn slot(
        &mut self,
        key: &[u8],
        flags: u64,
        layout: Layout,
        arena: &mut Arena,
    ) -> Result<Values, Errno> {
        check_mode(flags, self.entries.contains_key(key))?;
        if let Some(values) = self.find_and_use(key) {
            return Ok(values);
        }
        if self.entries.len() >= self.max as usize {
            let Some(recency) = &self.recency else { return Err(Errno::E2BIG) };
            let oldest = recency.values().next().expect("a full map has entries").clone();
            self.delete(&oldest, layout, arena)?;
        }
        let values = Values { at: arena.alloc(layout.total()).ok_or(Errno::ENOMEM)? };
        self.clock += 1;
        self.entries.insert(key.to_vec(), Entry { values, used: self.clock });
        if let Some(recency) = &mut self.recency {
            recency.insert(self.clock, key.to_vec());
        }
        Ok(values)
    }

    pub(super) fn delete(&mut self, key: &[u8], layout: Layout, arena: &mut Arena) -> Result<(), Errno> {
        let entry = self.entries.remove(key).ok_or(Errno::ENOENT)?;
        if let Some(recency) = &mut self.recency {
            recency.remove(&entry.used);
        }
        arena.free(entry.values.at, layout.total());
        Ok(())
    }

    pub(super) fn places(&self) -> Vec<(Vec<u8>, Values)> {
        self.entries.iter().map(|(key, e)| (key.clone(), e.values)).collect()
    }
}
