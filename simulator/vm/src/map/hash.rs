//! Hash maps: plain, a value a CPU, and those that evict (`kernel/bpf/hashtab.c`). Nothing is allocated before it is
//! used.

use super::lru::Lru;
use super::table::{Table, hash};
use super::{EXIST, Layout, Values, check_mode};
use crate::Errno;
use crate::arena::Arena;

pub(super) struct Hash {
    table: Table,
    max: u32,
    lru: Option<Lru>,
    per_cpu: bool,
}

impl Hash {
    pub(super) fn new(key_size: usize, layout: Layout, max: u32, per_cpu: bool, lru: Option<Lru>) -> Self {
        Self { table: Table::new(key_size, layout), max, lru, per_cpu }
    }

    pub(super) fn free(self, arena: &mut Arena) {
        self.table.release(arena);
    }

    pub(super) fn evicts(&self) -> bool {
        self.lru.is_some()
    }

    pub(super) fn len(&self) -> u32 {
        self.table.len()
    }

    pub(super) fn find(&self, key: &[u8], arena: &Arena) -> Option<Values> {
        self.table.find(key, hash(key), arena).map(|n| self.table.values(n))
    }

    /// A program's look-up.
    pub(super) fn find_and_use(&mut self, key: &[u8], arena: &Arena) -> Option<Values> {
        let node = self.table.find(key, hash(key), arena)?;
        if let Some(lru) = &mut self.lru {
            lru.touch(node);
        }
        Some(self.table.values(node))
    }

    /// The place to write a value to. Of a new entry of a map with a value a CPU, all are zero.
    pub(super) fn slot(
        &mut self,
        key: &[u8],
        flags: u64,
        cpu: u32,
        arena: &mut Arena,
    ) -> Result<Values, Errno> {
        if flags > EXIST {
            return Err(Errno::EINVAL);
        }
        let hash = hash(key);
        // What evicts does so before it looks: also for an entry that is there, unless it has a value a CPU and is
        // only to be replaced.
        let pops = self.lru.is_some() && !(self.per_cpu && flags == EXIST);
        // What is evicted exactly is another entry.
        let known = self.lru.as_ref().is_none_or(Lru::is_exact).then(|| self.table.find(key, hash, arena));
        if pops && !self.pop(known.flatten().is_some(), cpu, arena) {
            return Err(Errno::ENOMEM);
        }
        let old = known.unwrap_or_else(|| self.table.find(key, hash, arena));
        let checked = check_mode(flags, old.is_some()).and_then(|()| match old {
            None if self.lru.is_none() && self.table.len() >= self.max => Err(Errno::E2BIG),
            _ => Ok(()),
        });
        if let Err(errno) = checked {
            self.unpop(pops, cpu);
            return Err(errno);
        }
        if let Some(old) = old.filter(|_| self.per_cpu) {
            self.unpop(pops, cpu);
            if let Some(lru) = &mut self.lru {
                lru.touch(old);
            }
            return Ok(self.table.values(old));
        }
        let Some(new) = self.table.take(arena) else {
            self.unpop(pops, cpu);
            return Err(Errno::ENOMEM);
        };
        if let Some(lru) = &mut self.lru {
            lru.insert(new, cpu, old.is_some());
        }
        if let Some(old) = old {
            self.drop_node(old, arena);
        }
        self.table.link(new, key, hash, arena);
        let values = self.table.values(new);
        if self.per_cpu {
            arena.slice_mut(values.at, self.table.layout().total()).fill(0);
        }
        Ok(values)
    }

    /// Room for one more entry; may evict, also the key's own unless eviction is exact: then it is told whether the key is
    /// there.
    fn pop(&mut self, is_there: bool, cpu: u32, arena: &Arena) -> bool {
        let (Some(lru), table) = (&mut self.lru, &mut self.table) else { return true };
        if !lru.is_exact() {
            return lru.make_room(cpu, &mut |node| {
                table.unlink(node);
                table.give(node, arena);
            });
        }
        if table.len() >= self.max && !is_there {
            let Some(oldest) = lru.oldest() else { return false };
            lru.remove(oldest);
            table.unlink(oldest);
            table.give(oldest, arena);
        }
        true
    }

    /// Gives back what [`Self::pop`] made room for.
    fn unpop(&mut self, popped: bool, cpu: u32) {
        if let Some(lru) = self.lru.as_mut().filter(|_| popped) {
            lru.give_room(cpu);
        }
    }

    fn drop_node(&mut self, node: u32, arena: &Arena) {
        if let Some(lru) = &mut self.lru {
            lru.remove(node);
        }
        self.table.unlink(node);
        self.table.give(node, arena);
    }

    pub(super) fn delete(&mut self, key: &[u8], arena: &Arena) -> Result<Values, Errno> {
        let node = self.table.find(key, hash(key), arena).ok_or(Errno::ENOENT)?;
        let values = self.table.values(node);
        self.drop_node(node, arena);
        Ok(values)
    }

    /// The key behind this one in some order; the first if it is not there.
    pub(super) fn next_key(&self, key: Option<&[u8]>, arena: &Arena) -> Option<Vec<u8>> {
        let from = key.and_then(|k| self.table.find(k, hash(k), arena)).map_or(0, |n| n + 1);
        self.table.from(from).map(|n| self.table.key(n, arena).to_vec())
    }

    /// The first element at or behind a number: its number, where its key stands, and its values.
    pub(super) fn from(&self, number: u32) -> Option<(u32, usize, Values)> {
        let node = self.table.from(number)?;
        Some((node, self.table.key_at(node), self.table.values(node)))
    }

    /// By key in order.
    pub(super) fn places(&self, arena: &Arena) -> Vec<(Vec<u8>, Values)> {
        let place = |n| (self.table.key(n, arena).to_vec(), self.table.values(n));
        let mut places: Vec<_> = self.table.all().map(place).collect();
        places.sort_by(|a, b| a.0.cmp(&b.0));
        places
    }
}
