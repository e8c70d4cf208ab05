//! A binary trie over prefixes of up to 256 bits: which of them is the longest that an address begins with.
//!
//! Knows bits and the numbers of elements. Ways without branches are one step. Knows neither keys' bytes nor values.

use super::table::NONE;

struct Node {
    /// The bits of the prefix from the top, the others zero.
    bits: Bits,
    length: u32,
    /// The element with this prefix; [`NONE`] where two ways only part.
    element: u32,
    /// Where to go on, by the bit behind the prefix.
    next: [u32; 2],
}

/// All prefixes of a map.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Nodes that have an element.
    len: usize,
    root: u32,
}

/// Bits from the top.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Bits(pub(super) [u64; 4]);

impl Bits {
    /// How many there are.
    pub(super) const MAX: u32 = 256;

    /// Whether two have so many bits in common.
    #[inline(always)]
    fn share(&self, other: &Self, length: u32) -> bool {
        // Most prefixes end in the first word.
        match (self.0[0] ^ other.0[0]).leading_zeros() {
            64 => self.shared(other) >= length,
            shared => shared >= length,
        }
    }

    /// How many bits two have in common.
    fn shared(&self, other: &Self) -> u32 {
        let words = self.0.iter().zip(&other.0).map(|(a, b)| (a ^ b).leading_zeros());
        let mut all = 0;
        for shared in words {
            all += shared;
            if shared < 64 {
                break;
            }
        }
        all
    }

    /// The first bits, the others zero.
    fn first(&self, length: u32) -> Self {
        let mut from = 0;
        Self(self.0.map(|word| {
            let here = length.saturating_sub(from).min(64);
            from += 64;
            word & u64::MAX.checked_shl(64 - here).unwrap_or(0)
        }))
    }

    /// The bit behind the first `length`; 0 behind the last.
    #[inline(always)]
    fn bit(&self, length: u32) -> usize {
        let word = self.0.get((length / 64) as usize).copied().unwrap_or(0);
        (word << (length % 64) >> 63) as usize
    }
}

impl Trie {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), len: 0, root: NONE }
    }

    /// The element with the longest prefix of at most `length` bits.
    pub(super) fn longest(&self, bits: &Bits, length: u32) -> Option<u32> {
        let (mut at, mut best) = (self.root, NONE);
        while let Some(node) = self.nodes.get(at as usize) {
            if node.length > length || !bits.share(&node.bits, node.length) {
                break;
            }
            if node.element != NONE {
                best = node.element;
            }
            if node.length == length {
                break;
            }
            at = node.next[bits.bit(node.length)];
        }
        (best != NONE).then_some(best)
    }

    /// Where the way to a prefix ends: the last node whose prefix it has, and how it goes on from there.
    fn way(&self, bits: Bits, length: u32) -> (u32, u32) {
        let (mut last, mut at) = (NONE, self.root);
        while let Some(node) = self.nodes.get(at as usize) {
            if node.length > length || !bits.share(&node.bits, node.length) {
                break;
            }
            last = at;
            if node.length == length {
                break;
            }
            at = node.next[bits.bit(node.length)];
        }
        (last, at)
    }

    fn node(&mut self, bits: Bits, length: u32, element: u32) -> u32 {
        self.nodes.push(Node { bits: bits.first(length), length, element, next: [NONE; 2] });
        self.nodes.len() as u32 - 1
    }

    fn hang(&mut self, under: u32, bits: Bits, what: u32) {
        match self.nodes.get_mut(under as usize) {
            Some(node) => node.next[bits.bit(node.length)] = what,
            None => self.root = what,
        }
    }

    /// Gives a prefix that is not there an element.
    pub(super) fn insert(&mut self, bits: Bits, length: u32, element: u32) {
        self.len += 1;
        let (last, other) = self.way(bits, length);
        if let Some(node) = self.nodes.get_mut(last as usize).filter(|n| n.length == length) {
            node.element = element;
            return;
        }
        let new = self.node(bits, length, element);
        let Some((theirs, their_length)) = self.nodes.get(other as usize).map(|n| (n.bits, n.length)) else {
            self.hang(last, bits, new);
            return;
        };
        let shared = bits.shared(&theirs).min(length).min(their_length);
        let parting = if shared == length { new } else { self.node(bits, shared, NONE) };
        self.hang(last, bits, parting);
        self.hang(parting, theirs, other);
        if parting != new {
            self.hang(parting, bits, new);
        }
    }

    /// Takes a prefix's element away.
    pub(super) fn remove(&mut self, bits: Bits, length: u32) {
        let (last, _) = self.way(bits, length);
        let node = self.nodes.get_mut(last as usize).filter(|n| n.length == length && n.element != NONE);
        let Some(node) = node else { return };
        node.element = NONE;
        self.len -= 1;
        // Nodes without an element stay until they are too many, so that a removal costs no more than its way.
        if self.nodes.len() > 4 * self.len + 64 {
            let old = std::mem::replace(self, Self::new());
            for node in old.nodes.iter().filter(|n| n.element != NONE) {
                self.insert(node.bits, node.length, node.element);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Prefixes that have much in common.
    fn prefix() -> impl Strategy<Value = (Bits, u32)> {
        let bits = prop::collection::vec(0u64..4, 4);
        let length = prop_oneof![0u32..20, Just(32), 120u32..=136, 250u32..=256];
        (bits, length).prop_map(|(parts, length)| {
            let part =
                |shift: u32| parts.iter().zip(0..).fold(0, |all, (part, n)| all | part << (shift - 3 * n));
            (Bits([part(62) | part(20), part(50), part(62), part(62) | part(9)]).first(length), length)
        })
    }

    proptest! {
        #[test]
        fn the_longest_is_what_a_search_of_all_prefixes_finds(
            steps in prop::collection::vec((prefix(), any::<bool>()), 1..200),
            asked in prop::collection::vec(prefix(), 20),
        ) {
            let (mut trie, mut all) = (Trie::new(), BTreeMap::new());
            for (number, ((bits, length), remove)) in (0..).zip(steps) {
                if remove {
                    trie.remove(bits, length);
                    all.remove(&(length, bits));
                } else if let std::collections::btree_map::Entry::Vacant(entry) = all.entry((length, bits)) {
                    trie.insert(bits, length, number);
                    entry.insert(number);
                }
            }
            prop_assert_eq!(trie.len, all.len());
            for (bits, length) in asked {
                let found = (0..=length).rev().find_map(|l| all.get(&(l, bits.first(l))).copied());
                prop_assert_eq!(trie.longest(&bits, length), found);
            }
        }
    }
}
