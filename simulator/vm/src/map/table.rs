//! Elements by key: a chained hash table whose elements' keys and values stand in the arena.
//!
//! Knows keys, places and order of insertion. Knows neither flags nor eviction. An element that is unlinked keeps its
//! place and its bytes until it is given out again, as a preallocated element of the kernel does.

use super::{Layout, Values};
use crate::arena::Arena;

/// No element.
pub(super) const NONE: u32 = u32::MAX;

struct Node {
    /// Where the key stands; the values follow it.
    at: usize,
    hash: u32,
    /// The next of its bucket.
    next: u32,
    linked: bool,
}

pub(super) struct Table {
    key_size: usize,
    layout: Layout,
    nodes: Vec<Node>,
    free: Vec<u32>,
    buckets: Vec<u32>,
    len: u32,
}

/// Eight bytes from a place of a key that has them.
fn word(key: &[u8], at: usize) -> u64 {
    key[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// A key in words: all but the last of eight bytes, and the last with what is left, which may overlap. Keys are short,
/// and this is faster than calls that copy or compare.
fn last_word(key: &[u8]) -> u64 {
    match key.len() {
        8.. => word(key, key.len() - 8),
        4.. => {
            let half = |at: usize| key[at..].first_chunk().map_or(0, |half| u32::from_le_bytes(*half));
            u64::from(half(0)) | u64::from(half(key.len() - 4)) << 32
        }
        _ => key.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
    }
}

/// The same in every run.
pub(super) fn hash(key: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = key.len() as u64;
    let mut mix = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(K);
    (0..key.len().saturating_sub(8)).step_by(8).for_each(|at| mix(word(key, at)));
    mix(last_word(key));
    // The upper half is what all bits have gone into.
    (hash >> 32 ^ hash) as u32
}

/// Whether two keys of the same size are equal.
fn same(a: &[u8], b: &[u8]) -> bool {
    let words = (0..a.len().saturating_sub(8)).step_by(8);
    last_word(a) == last_word(b) && words.into_iter().all(|at| word(a, at) == word(b, at))
}

impl Table {
    pub(super) fn new(key_size: usize, layout: Layout) -> Self {
        Self { key_size, layout, nodes: Vec::new(), free: Vec::new(), buckets: Vec::new(), len: 0 }
    }

    fn block(&self) -> usize {
        self.key_size.next_multiple_of(8) + self.layout.total()
    }

    pub(super) fn release(self, arena: &mut Arena) {
        let block = self.block();
        for node in &self.nodes {
            arena.free(node.at, block);
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn values(&self, node: u32) -> Values {
        Values { at: self.nodes[node as usize].at + self.key_size.next_multiple_of(8) }
    }

    /// Where an element's key stands.
    pub(super) fn key_at(&self, node: u32) -> usize {
        self.nodes[node as usize].at
    }

    pub(super) fn key<'a>(&self, node: u32, arena: &'a Arena) -> &'a [u8] {
        arena.slice(self.key_at(node), self.key_size)
    }

    pub(super) fn find(&self, key: &[u8], hash: u32, arena: &Arena) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut at = self.buckets[hash as usize & (self.buckets.len() - 1)];
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.hash == hash && same(arena.slice(node.at, self.key_size), key) {
                return Some(at);
            }
            at = node.next;
        }
        None
    }

    /// An element that is in no bucket, with what was left in it. `None` when the arena is full.
    pub(super) fn take(&mut self, arena: &mut Arena) -> Option<u32> {
        if let Some(node) = self.free.pop() {
            return Some(node);
        }
        let at = arena.alloc(self.block())?;
        self.nodes.push(Node { at, hash: 0, next: NONE, linked: false });
        Some(self.nodes.len() as u32 - 1)
    }

    /// Gives an element back that is in no bucket.
    pub(super) fn give(&mut self, node: u32, arena: &Arena) {
        arena.forget(self.nodes[node as usize].at, self.block());
        self.free.push(node);
    }

    /// Puts an element into its bucket.
    pub(super) fn link(&mut self, node: u32, key: &[u8], hash: u32, arena: &mut Arena) {
        if self.len as usize >= self.buckets.len() {
            self.grow();
        }
        let at = self.nodes[node as usize].at;
        arena.slice_mut(at, self.key_size).copy_from_slice(key);
        let bucket = hash as usize & (self.buckets.len() - 1);
        let next = std::mem::replace(&mut self.buckets[bucket], node);
        self.nodes[node as usize] = Node { at, hash, next, linked: true };
        self.len += 1;
    }

    /// Takes an element out of its bucket.
    pub(super) fn unlink(&mut self, node: u32) {
        let (hash, next) = (self.nodes[node as usize].hash, self.nodes[node as usize].next);
        let bucket = hash as usize & (self.buckets.len() - 1);
        let mut at = self.buckets[bucket];
        if at == node {
            self.buckets[bucket] = next;
        } else {
            while self.nodes[at as usize].next != node {
                at = self.nodes[at as usize].next;
            }
            self.nodes[at as usize].next = next;
        }
        self.nodes[node as usize].linked = false;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let size = (self.buckets.len() * 2).max(8);
        self.buckets.clear();
        self.buckets.resize(size, NONE);
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            if node.linked {
                let bucket = node.hash as usize & (size - 1);
                node.next = std::mem::replace(&mut self.buckets[bucket], number as u32);
            }
        }
    }

    /// The first element at or behind a number, in the order of places.
    pub(super) fn from(&self, number: u32) -> Option<u32> {
        let rest = self.nodes.get(number as usize..)?;
        rest.iter().position(|n| n.linked).map(|i| number + i as u32)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.nodes).filter(|(_, n)| n.linked).map(|(i, _)| i)
    }
}
