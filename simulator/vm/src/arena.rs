//! The memory that programs see: one reserved region a kernel, which the host commits as it is touched.
//!
//! Knows offsets and sizes, and whether an address lies inside. Knows nothing of what stands there. All that rbpf may
//! touch is here, so that an unverified program can spoil its own simulated kernel and nothing else: nothing that the
//! vm itself relies on is kept in the arena.
#![expect(unsafe_code, reason = "programs use real addresses; this is where they are made and checked")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;

/// The smallest arena.
const LEAST: usize = 4 << 20;
/// rbpf checks only the first byte of an access, which is 8 bytes at the most.
const GUARD: usize = 64;
/// Blocks of one size are cut from pieces of this size.
const PIECE: usize = 64 << 10;

/// One region of memory, from which aligned blocks are given out. Offsets count from its start.
pub(crate) struct Arena {
    base: NonNull<u8>,
    size: usize,
    next: usize,
    free: BTreeMap<usize, Vec<usize>>,
    /// What was given back since somebody looked, if anybody does.
    freed: Option<RefCell<Vec<(usize, usize)>>>,
}

impl Arena {
    /// A region of so many bytes, at least what a run needs.
    pub(crate) fn new(size: usize) -> Self {
        let size = size.clamp(LEAST, isize::MAX as usize / 2);
        let layout = Self::layout(size);
        // SAFETY: the layout has a size. Zeroed memory of this size comes from fresh pages, which cost nothing until
        // they are touched; with a greater alignment Rust would write the zeros itself.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { base, size, next: GUARD, free: BTreeMap::new(), freed: None }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16)
            .expect("a size below the largest, and a constant alignment, are a layout")
    }

    /// Zeroed bytes, aligned to 8. `None` when the arena is full.
    pub(crate) fn alloc(&mut self, len: usize) -> Option<usize> {
        let len = Self::rounded(len)?;
        if let Some(at) = self.free.get_mut(&len).and_then(Vec::pop) {
            self.slice_mut(at, len).fill(0);
            return Some(at);
        }
        if len >= PIECE / 8 {
            return self.cut(len);
        }
        // Small blocks come from one piece, so that a map's values stand together.
        let count = PIECE / len;
        let first = self.cut(count * len)?;
        let list = self.free.entry(len).or_default();
        list.extend((1..count).rev().map(|i| first + i * len));
        Some(first)
    }

    /// Gives a block back.
    pub(crate) fn free(&mut self, at: usize, len: usize) {
        self.forget(at, len);
        if let Some(len) = Self::rounded(len) {
            self.free.entry(len).or_default().push(at);
        }
    }

    /// What stood there is gone, and the block stays with whoever has it.
    pub(crate) fn forget(&self, at: usize, len: usize) {
        if let Some(freed) = &self.freed {
            freed.borrow_mut().push((at, len));
        }
    }

    /// From now on remembers what is given back, for [`Self::drain_freed`].
    pub(crate) fn watch_freed(&mut self) {
        self.freed.get_or_insert_default();
    }

    /// All addresses and lengths that were given back since the last time.
    pub(crate) fn drain_freed(&mut self, mut each: impl FnMut(u64, u64)) {
        let base = self.base.as_ptr() as usize;
        if let Some(freed) = &mut self.freed {
            freed.get_mut().drain(..).for_each(|(at, len)| each((base + at) as u64, len as u64));
        }
    }

    fn rounded(len: usize) -> Option<usize> {
        len.max(1).checked_next_multiple_of(8)
    }

    fn cut(&mut self, len: usize) -> Option<usize> {
        let end = self.next.checked_add(len)?;
        if end > self.size - GUARD {
            return None;
        }
        Some(std::mem::replace(&mut self.next, end))
    }

    /// The bytes of a block.
    pub(crate) fn slice(&self, at: usize, len: usize) -> &[u8] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.size), "a block lies inside of the arena");
        // SAFETY: inside of the allocation, which is initialised. A program writes here through addresses only
        // while the engine runs, and helpers, which run then, do not hold slices across its steps.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// The bytes of a block, to be changed.
    pub(crate) fn slice_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.size), "a block lies inside of the arena");
        // SAFETY: as in `slice`; `&mut self` excludes other slices.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at), len) }
    }

    /// Copies bytes from one place to another.
    pub(crate) fn copy(&mut self, from: usize, to: usize, len: usize) {
        let all = self.slice_mut(0, self.size);
        all.copy_within(from..from + len, to);
    }

    /// The address of an offset, as a program sees it.
    pub(crate) fn address(&self, at: usize) -> u64 {
        (self.base.as_ptr() as usize + at) as u64
    }

    /// The offset of an address, if `len` bytes from there lie inside.
    pub(crate) fn offset(&self, address: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(address).ok()?.checked_sub(self.base.as_ptr() as usize)?;
        (at >= GUARD && at.checked_add(len)? <= self.size - GUARD).then_some(at)
    }

    /// All addresses that a program may use.
    pub(crate) fn addresses(&self) -> Range<u64> {
        self.address(GUARD)..self.address(self.size - GUARD)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; engines that know its addresses only use them while the
        // kernel that owns the arena runs them.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.size)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_given_back_is_given_out_again_as_zeros() {
        let mut arena = Arena::new(LEAST);
        let at = arena.alloc(13).unwrap();
        arena.slice_mut(at, 13).fill(7);
        arena.free(at, 13);
        assert_eq!(arena.alloc(16), Some(at));
        assert_eq!(arena.slice(at, 16), &[0; 16]);
    }

    #[test]
    fn blocks_do_not_overlap_and_a_full_arena_says_so() {
        let mut arena = Arena::new(LEAST);
        let (a, b) = (arena.alloc(24).unwrap(), arena.alloc(24).unwrap());
        assert!(a.abs_diff(b) >= 24);
        assert_eq!(arena.alloc(LEAST), None);
        assert_eq!(arena.alloc(usize::MAX), None);
    }

    #[test]
    fn an_address_is_inside_only_with_all_its_bytes() {
        let arena = Arena::new(LEAST);
        let end = arena.addresses().end;
        assert!(arena.offset(end - 8, 8).is_some());
        assert_eq!(arena.offset(end - 7, 8), None);
        assert_eq!(arena.offset(0, 1), None);
        assert_eq!(arena.offset(u64::MAX, 8), None);
    }
}
