//! Ring buffers (`kernel/bpf/ringbuf.c`): records in order of reservation, read by whoever holds the kernel.
//!
//! Positions, and so what fits, are the kernel's. The records themselves stand each in a place of their own, so that a
//! write behind one is found.

use std::collections::VecDeque;

use crate::arena::Arena;

/// `BPF_RINGBUF_HDR_SZ`
const HEADER: u64 = 8;
/// `RINGBUF_MAX_RECORD_SZ`
const RECORD_MAX: u64 = (u32::MAX / 4) as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Busy,
    Ready,
    Discarded,
}

struct Record {
    at: usize,
    len: usize,
    state: State,
}

pub(crate) struct Ring {
    size: u64,
    records: VecDeque<Record>,
    producer: u64,
    consumer: u64,
}

impl Ring {
    pub(crate) fn new(size: u32) -> Self {
        Self { size: u64::from(size), records: VecDeque::new(), producer: 0, consumer: 0 }
    }

    pub(crate) fn free(self, arena: &mut Arena) {
        for record in &self.records {
            arena.free(record.at, record.len);
        }
    }

    fn room(len: u64) -> u64 {
        (len + HEADER).next_multiple_of(8)
    }

    /// Where a record of so many bytes stands that is still to be written. `None` without room.
    pub(crate) fn reserve(&mut self, len: u64, arena: &mut Arena) -> Option<usize> {
        if len > RECORD_MAX || Self::room(len) > self.size {
            return None;
        }
        let producer = self.producer + Self::room(len);
        if producer - self.consumer > self.size - 1 {
            return None;
        }
        let at = arena.alloc(len as usize)?;
        self.records.push_back(Record { at, len: len as usize, state: State::Busy });
        self.producer = producer;
        Some(at)
    }

    /// Ends a reservation. False if nothing is reserved there.
    pub(crate) fn commit(&mut self, at: usize, discard: bool) -> bool {
        let mut newest_first = self.records.iter_mut().rev();
        let Some(record) = newest_first.find(|r| r.at == at && r.state == State::Busy) else { return false };
        record.state = if discard { State::Discarded } else { State::Ready };
        true
    }

    /// Reads up to the first record that is still reserved.
    pub(crate) fn read(&mut self, arena: &mut Arena, each: &mut dyn FnMut(&[u8])) {
        while let Some(record) = self.records.front() {
            match record.state {
                State::Busy => return,
                State::Ready => each(arena.slice(record.at, record.len)),
                State::Discarded => {}
            }
            arena.free(record.at, record.len);
            self.consumer += Self::room(record.len as u64);
            self.records.pop_front();
        }
    }

    /// `bpf_ringbuf_query`
    pub(crate) fn query(&self, what: u64) -> u64 {
        match what {
            0 => self.producer - self.consumer,
            1 => self.size,
            2 => self.consumer,
            3 => self.producer,
            _ => 0,
        }
    }
}
