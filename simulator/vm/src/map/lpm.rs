//! Longest-prefix match (`kernel/bpf/lpm_trie.c`). A key is a prefix length in host byte order and then the bits that
//! it counts, most significant first.

use super::table::{Table, hash};
use super::trie::{Bits, Trie};
use super::{Layout, Values, check_mode};
use crate::Errno;
use crate::arena::Arena;

/// `LPM_DATA_SIZE_MAX` and the prefix length before it.
const KEY_MAX: usize = 4 + 256;

/// How the longest prefix is found.
enum Ways {
    /// Of addresses.
    Trie(Trie),
    /// Of what is longer: the prefix lengths that there are, the longest first, and how many entries of each.
    Lengths(Vec<(u32, u32)>),
}

pub(super) struct Lpm {
    /// By prefix length and the bits that count, the others zero.
    table: Table,
    /// By element: the key as it was last written. The bits behind the prefix are kept and mean nothing.
    written: Vec<Vec<u8>>,
    ways: Ways,
    bits: u32,
    max: u32,
}

fn prefix(key: &[u8]) -> u32 {
    u32::from_le_bytes(key[..4].try_into().expect("a key begins with its prefix length"))
}

/// The bits of a key of at most 32 bytes behind the prefix length, from the top.
fn address(key: &[u8]) -> Bits {
    let (words, rest) = key[4..].as_chunks::<4>();
    let mut bits = [0; 4];
    for (n, word) in (0..).zip(words) {
        bits[n / 2 % 4] |= u64::from(u32::from_be_bytes(*word)) << (32 - 32 * (n % 2));
    }
    for (n, byte) in (words.len() * 4..).zip(rest) {
        bits[n / 8 % 4] |= u64::from(*byte) << (56 - 8 * (n % 8));
    }
    Bits(bits)
}

/// The key with this prefix length, in a buffer.
fn masked<'a>(key: &[u8], prefix: u32, buffer: &'a mut [u8; KEY_MAX]) -> &'a [u8] {
    let (out, whole) = (&mut buffer[..key.len()], 4 + (prefix / 8) as usize);
    out[..4].copy_from_slice(&prefix.to_le_bytes());
    out[4..whole].copy_from_slice(&key[4..whole]);
    out[whole..].fill(0);
    if !prefix.is_multiple_of(8) {
        out[whole] = key[whole] & !(0xff >> (prefix % 8));
    }
    out
}

impl Lpm {
    pub(super) fn new(key_size: usize, layout: Layout, max: u32) -> Self {
        let table = Table::new(key_size, layout);
        let bits = (key_size as u32 - 4) * 8;
        let ways = if bits <= Bits::MAX { Ways::Trie(Trie::new()) } else { Ways::Lengths(Vec::new()) };
        Self { table, written: Vec::new(), ways, bits, max }
    }

    pub(super) fn free(self, arena: &mut Arena) {
        self.table.release(arena);
    }

    pub(super) fn len(&self) -> u32 {
        self.table.len()
    }

    fn node(&self, key: &[u8], prefix: u32, arena: &Arena) -> Option<u32> {
        let mut buffer = [0; KEY_MAX];
        let key = masked(key, prefix, &mut buffer);
        self.table.find(key, hash(key), arena)
    }

    pub(super) fn exact(&self, key: &[u8], arena: &Arena) -> Option<Values> {
        let prefix = prefix(key);
        let node = if prefix > self.bits { None } else { self.node(key, prefix, arena) };
        node.map(|n| self.table.values(n))
    }

    /// The entry with the longest prefix, of at most the key's own, that the key matches.
    pub(super) fn longest(&self, key: &[u8], arena: &Arena) -> Option<Values> {
        let own = prefix(key);
        if own > self.bits {
            return None;
        }
        let node = match &self.ways {
            Ways::Trie(trie) => trie.longest(&address(key), own),
            Ways::Lengths(lengths) => {
                let mut shorter = lengths.iter().filter(|(prefix, _)| *prefix <= own);
                shorter.find_map(|(prefix, _)| self.node(key, *prefix, arena))
            }
        };
        node.map(|n| self.table.values(n))
    }

    /// `trie_update_elem`: a new entry in a full trie is `ENOSPC`.
    pub(super) fn slot(&mut self, key: &[u8], flags: u64, arena: &mut Arena) -> Result<Values, Errno> {
        let prefix = prefix(key);
        if flags > 2 || prefix > self.bits {
            return Err(Errno::EINVAL);
        }
        let old = self.node(key, prefix, arena);
        check_mode(flags, old.is_some())?;
        if let Some(node) = old {
            self.written[node as usize].copy_from_slice(key);
            return Ok(self.table.values(node));
        }
        if self.table.len() >= self.max {
            return Err(Errno::ENOSPC);
        }
        let node = self.table.take(arena).ok_or(Errno::ENOMEM)?;
        let mut buffer = [0; KEY_MAX];
        let masked = masked(key, prefix, &mut buffer);
        self.table.link(node, masked, hash(masked), arena);
        match self.written.get_mut(node as usize) {
            Some(written) => written.copy_from_slice(key),
            None => self.written.push(key.to_vec()),
        }
        match &mut self.ways {
            Ways::Trie(trie) => trie.insert(address(key), prefix, node),
            Ways::Lengths(lengths) => match lengths.binary_search_by(|(length, _)| prefix.cmp(length)) {
                Ok(at) => lengths[at].1 += 1,
                Err(at) => lengths.insert(at, (prefix, 1)),
            },
        }
        Ok(self.table.values(node))
    }

    pub(super) fn delete(&mut self, key: &[u8], arena: &Arena) -> Result<Values, Errno> {
        let prefix = prefix(key);
        if prefix > self.bits {
            return Err(Errno::EINVAL);
        }
        let node = self.node(key, prefix, arena).ok_or(Errno::ENOENT)?;
        self.table.unlink(node);
        self.table.give(node, arena);
        match &mut self.ways {
            Ways::Trie(trie) => trie.remove(address(key), prefix),
            Ways::Lengths(lengths) => {
                let at = lengths.iter().position(|(length, _)| *length == prefix);
                let at = at.expect("the length of an entry is counted");
                lengths[at].1 -= 1;
                if lengths[at].1 == 0 {
                    lengths.remove(at);
                }
            }
        }
        Ok(self.table.values(node))
    }

    /// The key behind this one in some order; the first if it is not there.
    pub(super) fn next_key(&self, key: Option<&[u8]>, arena: &Arena) -> Option<Vec<u8>> {
        let there = key.filter(|k| prefix(k) <= self.bits).and_then(|k| self.node(k, prefix(k), arena));
        self.table.from(there.map_or(0, |n| n + 1)).map(|n| self.written[n as usize].clone())
    }

    pub(super) fn places(&self) -> Vec<(Vec<u8>, Values)> {
        let place = |n: u32| (self.written[n as usize].clone(), self.table.values(n));
        let mut places: Vec<_> = self.table.all().map(place).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0));
        places
    }
}
