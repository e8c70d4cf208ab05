//! Queues and stacks (`kernel/bpf/queue_stack_maps.c`): a ring of values without keys.

use super::{EXIST, NOEXIST};
use crate::Errno;
use crate::arena::Arena;

pub(super) struct Queue {
    at: usize,
    value: usize,
    max: usize,
    first: usize,
    len: usize,
    stack: bool,
}

impl Queue {
    pub(super) fn create(value: usize, max: u32, stack: bool, arena: &mut Arena) -> Option<Self> {
        let (max, stride) = (max as usize, value.next_multiple_of(8));
        let at = arena.alloc(stride.checked_mul(max)?)?;
        Some(Self { at, value, max, first: 0, len: 0, stack })
    }

    pub(super) fn free(self, arena: &mut Arena) {
        arena.free(self.at, self.value.next_multiple_of(8) * self.max);
    }

    pub(super) fn len(&self) -> u32 {
        self.len as u32
    }

    fn place(&self, nth: usize) -> usize {
        self.at + (self.first + nth) % self.max * self.value.next_multiple_of(8)
    }

    /// Where a value goes; with `BPF_EXIST` the oldest makes room.
    pub(super) fn push(&mut self, flags: u64) -> Result<usize, Errno> {
        if flags & NOEXIST != 0 || flags > EXIST {
            return Err(Errno::EINVAL);
        }
        if self.len == self.max {
            if flags & EXIST == 0 {
                return Err(Errno::E2BIG);
            }
            self.first = (self.first + 1) % self.max;
            self.len -= 1;
        }
        self.len += 1;
        Ok(self.place(self.len - 1))
    }

    /// Where the value stands that is next.
    pub(super) fn peek(&self) -> Option<usize> {
        let last = self.len.checked_sub(1)?;
        Some(self.place(if self.stack { last } else { 0 }))
    }

    /// As [`Self::peek`], and the value is gone.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let at = self.peek()?;
        self.len -= 1;
        if !self.stack {
            self.first = (self.first + 1) % self.max;
        }
        Some(at)
    }

    /// From the oldest on.
    pub(super) fn places(&self) -> Vec<usize> {
        (0..self.len).map(|n| self.place(n)).collect()
    }
}
