//! Longest-prefix match. A key is a prefix length in host byte order and then the bits that it counts, most
//! significant first.

use std::collections::BTreeMap;

use super::{Layout, Values, check_mode};
use crate::Errno;
use crate::arena::Arena;

struct Entry {
    /// As it was last written: the bits behind the prefix are kept and mean nothing.
    key: Vec<u8>,
    values: Values,
}

pub(super) struct Lpm {
    /// By prefix length, then by the bits that count.
    prefixes: BTreeMap<u32, BTreeMap<Vec<u8>, Entry>>,
    bits: u32,
    max: u32,
    len: u32,
}

fn split(key: &[u8]) -> (u32, &[u8]) {
    let (prefix, data) = key.split_at(4);
    (u32::from_le_bytes(prefix.try_into().expect("split at 4")), data)
}

fn masked(data: &[u8], prefix: u32) -> Vec<u8> {
    let whole = (prefix / 8) as usize;
    let mut out = vec![0; data.len()];
    out[..whole].copy_from_slice(&data[..whole]);
    if !prefix.is_multiple_of(8) {
        out[whole] = data[whole] & !(0xff >> (prefix % 8));
    }
    out
}

impl Lpm {
    pub(super) fn new(key_size: usize, max: u32) -> Self {
        Self { prefixes: BTreeMap::new(), bits: (key_size as u32 - 4) * 8, max, len: 0 }
    }

    pub(super) fn free(self, layout: Layout, arena: &mut Arena) {
        for entry in self.prefixes.values().flat_map(BTreeMap::values) {
            arena.free(entry.values.at, layout.total());
        }
    }

    pub(super) fn exact(&self, key: &[u8]) -> Option<Values> {
        let (prefix, data) = split(key);
        if prefix > self.bits {
            return None;
        }
        self.prefixes.get(&prefix)?.get(&masked(data, prefix)).map(|e| e.values)
    }

    /// The entry with the longest prefix, of at most the key's own, that the key matches.
    pub(super) fn longest(&self, key: &[u8]) -> Option<Values> {
        let (prefix, data) = split(key);
        if prefix > self.bits {
            return None;
        }
        let mut shorter = self.prefixes.range(..=prefix).rev();
        shorter.find_map(|(prefix, entries)| entries.get(&masked(data, *prefix))).map(|e| e.values)
    }

    /// `trie_update_elem`: a new entry in a full trie is `ENOSPC`.
    pub(super) fn slot(
        &mut self,
        key: &[u8],
        flags: u64,
        layout: Layout,
        arena: &mut Arena,
    ) -> Result<Values, Errno> {
        let (prefix, data) = split(key);
        if flags > 2 || prefix > self.bits {
            return Err(Errno::EINVAL);
        }
        check_mode(flags, self.exact(key).is_some())?;
        let (full, bits) = (self.len >= self.max, masked(data, prefix));
        let entries = self.prefixes.entry(prefix).or_default();
        if let Some(entry) = entries.get_mut(&bits) {
            entry.key = key.to_vec();
            return Ok(entry.values);
        }
        let at = if full { Err(Errno::ENOSPC) } else { arena.alloc(layout.total()).ok_or(Errno::ENOMEM) };
        let values = match at {
            Ok(at) => Values { at },
            Err(errno) => {
                self.prefixes.retain(|_, entries| !entries.is_empty());
                return Err(errno);
            }
        };
        entries.insert(bits, Entry { key: key.to_vec(), values });
        self.len += 1;
        Ok(values)
    }

    pub(super) fn delete(&mut self, key: &[u8], layout: Layout, arena: &mut Arena) -> Result<(), Errno> {
        let (prefix, data) = split(key);
        if prefix > self.bits {
            return Err(Errno::EINVAL);
        }
        let entries = self.prefixes.get_mut(&prefix).ok_or(Errno::ENOENT)?;
        let entry = entries.remove(&masked(data, prefix)).ok_or(Errno::ENOENT)?;
        if entries.is_empty() {
            self.prefixes.remove(&prefix);
        }
        self.len -= 1;
        arena.free(entry.values.at, layout.total());
        Ok(())
    }

    pub(super) fn places(&self) -> Vec<(Vec<u8>, Values)> {
        let all = self.prefixes.values().flat_map(BTreeMap::values);
        let mut places: Vec<_> = all.map(|e| (e.key.clone(), e.values)).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0));
        places
    }
}
