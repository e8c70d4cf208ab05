//! Maps: what the kernel's map kinds do, value bytes in the arena, all else outside of it.
//!
//! Knows sizes, flags, error numbers and order. Knows neither who asks nor that anything is recorded. What a map holds
//! that is no bytes (programs, maps, sockets) it holds by number.

mod all;
mod array;
mod bloom;
mod check;
mod hash;
pub mod kind;
mod layout;
mod lpm;
mod lru;
mod programs;
mod queue;
mod ring;
mod table;
mod targets;
mod trie;

use crate::arena::Arena;
use crate::{Errno, Error, KernelConfig, MapDef, MapId};
pub(crate) use all::Maps;
use layout::{Layout, Values};
pub use lru::Eviction;
use programs::Slots;
pub(crate) use ring::Ring;
use std::collections::BTreeMap;

/// `BPF_NOEXIST`
const NOEXIST: u64 = 1;
/// `BPF_EXIST`
const EXIST: u64 = 2;
/// `BPF_F_LOCK`
const LOCK: u64 = 4;

enum Kind {
    Array(array::Array),
    Hash(hash::Hash),
    Lpm(lpm::Lpm),
    Queue(queue::Queue),
    Bloom(bloom::Bloom),
    Ring(Ring),
    Programs(Slots),
    PerfEvents,
    /// Maps, sockets or control groups by index, by number.
    Numbers(BTreeMap<u32, u64>),
    Targets(targets::Targets),
}

/// A map.
pub(crate) struct Map {
    def: MapDef,
    layout: Layout,
    kind: Kind,
    /// Asked at each look-up.
    has_values: bool,
}

/// What a program's look-up finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// A value that stands here.
    Place(usize),
    /// A map.
    Map(MapId),
    /// A socket.
    Socket(u64),
}

impl Map {
    /// Creates a map, refusing what the kernel refuses.
    pub(crate) fn create(def: &MapDef, config: &KernelConfig, arena: &mut Arena) -> Result<Self, Error> {
        let mut def = def.clone();
        let cpus = config.cpus.max(1);
        if def.kind == kind::PERF_EVENT_ARRAY && def.max_entries == 0 {
            def.max_entries = cpus;
        }
        check::definition(&def).map_err(|what| Error::Map { map: def.name.clone(), what })?;
        let layout = Layout {
            size: def.value_size as usize,
            cpus: if kind::is_per_cpu(def.kind) { cpus as usize } else { 1 },
            lock: def.lock.map(|at| at as usize),
        };
        let kind = Self::kind(&def, layout, config, arena).ok_or_else(|| Error::Map {
            map: def.name.clone(),
            what: "no memory left in the simulated kernel".into(),
        })?;
        let has_values = match &kind {
            Kind::Array(_) | Kind::Lpm(_) | Kind::Targets(_) => true,
            Kind::Hash(_) => def.kind != kind::SK_STORAGE,
            Kind::Numbers(_) => def.kind != kind::CGROUP_ARRAY,
            _ => false,
        };
        Ok(Self { def, layout, kind, has_values })
    }

    fn kind(def: &MapDef, layout: Layout, config: &KernelConfig, arena: &mut Arena) -> Option<Kind> {
        let (key, value, max, cpus) =
            (def.key_size as usize, layout.size, def.max_entries, config.cpus.max(1));
        let hash = |lru| Kind::Hash(hash::Hash::new(key, layout, max, kind::is_per_cpu(def.kind), lru));
        Some(match def.kind {
            kind::ARRAY | kind::PERCPU_ARRAY => Kind::Array(array::Array::create(layout, max, arena)?),
            kind::LPM_TRIE => Kind::Lpm(lpm::Lpm::new(key, layout, max)),
            kind::PROG_ARRAY => Kind::Programs(Slots::default()),
            kind::PERF_EVENT_ARRAY => Kind::PerfEvents,
            kind::QUEUE | kind::STACK => {
                Kind::Queue(queue::Queue::create(value, max, def.kind == kind::STACK, arena)?)
            }
            kind::BLOOM_FILTER => Kind::Bloom(bloom::Bloom::create(def.value_size, max, def.extra)?),
            kind::RINGBUF => Kind::Ring(Ring::new(max)),
            kind::ARRAY_OF_MAPS | kind::CGROUP_ARRAY | kind::SOCKMAP | kind::XSKMAP => {
                Kind::Numbers(BTreeMap::new())
            }
            kind::DEVMAP | kind::CPUMAP => {
                let array = array::Array::create(layout, max, arena)?;
                Kind::Targets(targets::Targets { array, filled: vec![false; max as usize] })
            }
            kind::LRU_HASH | kind::LRU_PERCPU_HASH => {
                let own = def.flags & check::NO_COMMON_LRU != 0;
                // With a list a CPU the kernel rounds up to the CPUs.
                let max = if own { max.checked_next_multiple_of(cpus).unwrap_or(max) } else { max };
                let lru = match config.eviction {
                    Eviction::Exact => lru::Lru::exact(),
                    Eviction::Kernel => lru::Lru::kernel(max, cpus, own),
                };
                Kind::Hash(hash::Hash::new(key, layout, max, kind::is_per_cpu(def.kind), Some(lru)))
            }
            kind::SK_STORAGE => Kind::Hash(hash::Hash::new(8, layout, u32::MAX, false, None)),
            _ => hash(None),
        })
    }

    pub(crate) fn def(&self) -> &MapDef {
        &self.def
    }

    pub(crate) fn free(self, arena: &mut Arena) {
        match self.kind {
            Kind::Array(m) => m.free(self.layout, arena),
            Kind::Hash(m) => m.free(arena),
            Kind::Lpm(m) => m.free(arena),
            Kind::Queue(m) => m.free(arena),
            Kind::Ring(m) => m.free(arena),
            Kind::Targets(m) => m.array.free(self.layout, arena),
            Kind::Bloom(_) | Kind::Programs(_) | Kind::PerfEvents | Kind::Numbers(_) => {}
        }
    }

    /// Whether the verifier lets programs look into it by key.
    pub(crate) fn has_values(&self) -> bool {
        self.has_values
    }

    /// Bytes of a key as it is kept: of a socket's storage, the socket's number.
    pub(crate) fn key_size(&self) -> usize {
        if self.def.kind == kind::SK_STORAGE { 8 } else { self.def.key_size as usize }
    }

    fn key_fits(&self, key: &[u8]) -> bool {
        key.len() == self.key_size()
    }

    /// Where a program finds the value on a CPU; counts as a use.
    pub(crate) fn lookup(&mut self, key: &[u8], cpu: u32, arena: &Arena) -> Option<Found> {
        if !self.key_fits(key) {
            return None;
        }
        let values = match &mut self.kind {
            Kind::Array(m) => m.find(key, self.layout)?,
            Kind::Hash(m) => m.find_and_use(key, arena)?,
            Kind::Lpm(m) => m.longest(key, arena)?,
            Kind::Targets(m) => m.find(key, self.layout)?,
            Kind::Numbers(m) => {
                let number = *m.get(&array::index(key))?;
                return Some(self.number(number));
            }
            _ => return None,
        };
        match self.def.kind {
            kind::HASH_OF_MAPS | kind::SOCKHASH => Some(self.number(number_at(values, arena))),
            _ => Some(Found::Place(values.at + self.cpu(cpu) * self.layout.stride())),
        }
    }

    fn number(&self, number: u64) -> Found {
        match self.def.kind {
            kind::SOCKMAP | kind::SOCKHASH => Found::Socket(number),
            _ => Found::Map(MapId(number as u32)),
        }
    }

    /// The bytes that a found place has.
    pub(crate) fn value_size(&self) -> usize {
        self.layout.size
    }

    fn cpu(&self, cpu: u32) -> usize {
        (cpu as usize).min(self.layout.cpus - 1)
    }

    /// The values that stand at exactly this key, without counting as a use.
    fn peek(&self, key: &[u8], arena: &Arena) -> Option<Values> {
        match &self.kind {
            _ if !self.key_fits(key) => None,
            Kind::Array(m) => m.find(key, self.layout),
            Kind::Hash(m) => m.find(key, arena),
            Kind::Lpm(m) => m.exact(key, arena),
            Kind::Targets(m) => m.find(key, self.layout),
            _ => None,
        }
    }

    /// A copy of what stands at exactly this key on a CPU.
    pub(crate) fn peek_copy(&self, key: &[u8], cpu: u32, arena: &Arena) -> Option<Vec<u8>> {
        let values = self.peek(key, arena)?;
        Some(self.layout.get_one(values, self.cpu(cpu), arena))
    }

    /// `BPF_MAP_LOOKUP_ELEM`: the values of all CPUs. Of a bloom filter `key` is the value.
    pub(crate) fn read(&self, key: &[u8], flags: u64, arena: &Arena) -> Result<Vec<Vec<u8>>, Errno> {
        self.check_flags(flags, LOCK)?;
        match &self.kind {
            Kind::Queue(m) => {
                let at = m.peek().ok_or(Errno::ENOENT)?;
                return Ok(vec![arena.slice(at, self.layout.size).to_vec()]);
            }
            Kind::Bloom(m) if key.len() == self.layout.size => {
                return if m.peek(key) { Ok(vec![key.to_vec()]) } else { Err(Errno::ENOENT) };
            }
            Kind::Ring(_) | Kind::PerfEvents => return Err(Errno::ENOTSUPP),
            _ if matches!(self.def.kind, kind::CGROUP_ARRAY) => return Err(Errno::ENOTSUPP),
            _ if self.def.kind == kind::XSKMAP => return Err(Errno::EOPNOTSUPP),
            _ if !self.key_fits(key) => return Err(Errno::EINVAL),
            _ => {}
        }
        let values = match &self.kind {
            Kind::Lpm(m) => m.longest(key, arena),
            Kind::Programs(slots) => {
                let (id, _) = slots.get(array::index(key)).ok_or(Errno::ENOENT)?;
                return Ok(vec![id.0.to_le_bytes().to_vec()]);
            }
            Kind::Numbers(m) => {
                if kind::holds_sockets(self.def.kind) && self.layout.size != 8 {
                    return Err(Errno::ENOSPC);
                }
                let number = m.get(&array::index(key)).ok_or(Errno::ENOENT)?;
                return Ok(vec![number.to_le_bytes()[..self.layout.size].to_vec()]);
            }
            _ if self.def.kind == kind::SOCKHASH && self.layout.size != 8 => return Err(Errno::ENOSPC),
            _ => self.peek(key, arena),
        };
        Ok(self.layout.get(values.ok_or(Errno::ENOENT)?, arena))
    }

    /// What system calls refuse on all kinds (`bpf_map_check_op_flags`).
    fn check_flags(&self, flags: u64, allowed: u64) -> Result<(), Errno> {
        if flags & !allowed != 0 || flags & LOCK != 0 && self.layout.lock.is_none() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// `BPF_MAP_UPDATE_ELEM`, from a CPU.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u64,
        cpu: u32,
        arena: &mut Arena,
    ) -> Result<(), Errno> {
        if flags & LOCK != 0 && self.layout.lock.is_none() {
            return Err(Errno::EINVAL);
        }
        if let Kind::Queue(_) | Kind::Bloom(_) = &self.kind {
            if !key.is_empty() {
                return Err(Errno::EINVAL);
            }
            return self.push(value, flags, arena);
        }
        let sizes = [self.layout.size, self.layout.size * self.layout.cpus, self.layout.total()];
        if !self.key_fits(key) || !sizes.contains(&value.len()) {
            return Err(if matches!(self.kind, Kind::Ring(_)) { Errno::ENOTSUPP } else { Errno::EINVAL });
        }
        match &mut self.kind {
            Kind::Ring(_) => return Err(Errno::ENOTSUPP),
            Kind::PerfEvents => return self.check_index(key, flags),
            Kind::Targets(_) => return self.set_target(key, value, flags, arena),
            Kind::Numbers(_) => return self.set_number(key, value, flags),
            _ => {}
        }
        if self.def.kind == kind::DEVMAP_HASH {
            return self.set_device(key, value, flags, cpu, arena);
        }
        let values = self.slot(key, flags, cpu, arena)?;
        self.layout.set(values, value, arena);
        Ok(())
    }

    /// `bpf_fd_array_map_update_elem`, of what holds descriptors.
    pub(crate) fn check_index(&self, key: &[u8], flags: u64) -> Result<(), Errno> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        if array::index(key) < self.def.max_entries { Ok(()) } else { Err(Errno::E2BIG) }
    }

    fn set_number(&mut self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        let (index, max) = (array::index(key), self.def.max_entries);
        let exclusive = self.def.kind != kind::SOCKMAP && self.def.kind != kind::XSKMAP;
        let Kind::Numbers(numbers) = &mut self.kind else { return Err(Errno::EINVAL) };
        if flags > if exclusive { 0 } else { EXIST } {
            return Err(Errno::EINVAL);
        }
        if index >= max {
            return Err(Errno::E2BIG);
        }
        check_mode(flags, numbers.contains_key(&index))?;
        numbers.insert(index, little_endian(value));
        Ok(())
    }

    /// `dev_map_update_elem` and `cpu_map_update_elem`: zero takes away.
    fn set_target(&mut self, key: &[u8], value: &[u8], flags: u64, arena: &mut Arena) -> Result<(), Errno> {
        let index = array::index(key);
        let (first, second) = (little_endian(&value[..4]), value.get(4..).map_or(0, little_endian));
        if flags > EXIST {
            return Err(Errno::EINVAL);
        }
        if index >= self.def.max_entries {
            return Err(Errno::E2BIG);
        }
        if flags == NOEXIST {
            return Err(Errno::EEXIST);
        }
        let Kind::Targets(targets) = &mut self.kind else { return Err(Errno::EINVAL) };
        match self.def.kind {
            kind::CPUMAP if first > 16384 => return Err(Errno::EOVERFLOW),
            kind::DEVMAP if first == 0 && second as i32 > 0 => return Err(Errno::EINVAL),
            _ => {}
        }
        targets.filled[index as usize] = first != 0;
        let at = targets.array.place(index, self.layout);
        self.layout.set(at, value, arena);
        Ok(())
    }

    /// `__dev_map_hash_update_elem`: `BPF_EXIST` does not ask for an entry.
    fn set_device(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u64,
        cpu: u32,
        arena: &mut Arena,
    ) -> Result<(), Errno> {
        if flags > EXIST || little_endian(&value[..4]) == 0 {
            return Err(Errno::EINVAL);
        }
        let values = self.slot(key, flags & NOEXIST, cpu, arena)?;
        self.layout.set(values, value, arena);
        Ok(())
    }

    /// A program's update: the value of its own CPU; the others of a new entry are zero.
    pub(crate) fn update(
        &mut self,
        key: &[u8],
        value: &[u8],
        flags: u64,
        cpu: u32,
        arena: &mut Arena,
    ) -> Result<(), Errno> {
        let values = self.slot(key, flags, cpu, arena)?;
        self.layout.set_one(values.at + self.cpu(cpu) * self.layout.stride(), value, arena);
        Ok(())
    }

    /// The place for an entry; of a new one with a value a CPU all are zero.
    fn slot(&mut self, key: &[u8], flags: u64, cpu: u32, arena: &mut Arena) -> Result<Values, Errno> {
        let locks = self.layout.lock.is_some();
        match &mut self.kind {
            Kind::Array(m) => m.slot(key, flags, self.layout, locks),
            Kind::Hash(m) if flags & LOCK != 0 && locks && !m.evicts() => match m.find(key, arena) {
                Some(values) => check_mode(flags & !LOCK, true).map(|()| values),
                None => m.slot(key, flags & !LOCK, cpu, arena),
            },
            Kind::Hash(m) => m.slot(key, flags, cpu, arena),
            Kind::Lpm(m) => m.slot(key, flags, arena),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Deletes an entry, for a system call or a program.
    pub(crate) fn delete(&mut self, key: &[u8], arena: &mut Arena) -> Result<(), Errno> {
        match &self.kind {
            Kind::Ring(_) => return Err(Errno::ENOTSUPP),
            Kind::Bloom(_) => return Err(Errno::EOPNOTSUPP),
            _ if !self.key_fits(key) => return Err(Errno::EINVAL),
            _ => {}
        }
        let index = array::index(key);
        let beyond = index >= self.def.max_entries;
        match &mut self.kind {
            Kind::Hash(m) => m.delete(key, arena).map(drop),
            Kind::Lpm(m) => m.delete(key, arena).map(drop),
            Kind::Targets(_) if beyond => Err(Errno::EINVAL),
            Kind::Targets(m) => {
                m.filled[index as usize] = false;
                Ok(())
            }
            Kind::Numbers(_) if beyond && kind::holds_sockets(self.def.kind) => Err(Errno::EINVAL),
            Kind::Numbers(_) | Kind::Programs(_) | Kind::PerfEvents if beyond => Err(Errno::E2BIG),
            Kind::Numbers(m) => {
                let missing = if kind::holds_sockets(self.def.kind) { Errno::EINVAL } else { Errno::ENOENT };
                m.remove(&index).map(drop).ok_or(missing)
            }
            Kind::Programs(m) => m.set(index, None).map(drop).ok_or(Errno::ENOENT),
            Kind::PerfEvents => Err(Errno::ENOENT),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`
    pub(crate) fn take(&mut self, key: &[u8], flags: u64, arena: &mut Arena) -> Result<Vec<Vec<u8>>, Errno> {
        self.check_flags(flags, LOCK)?;
        let size = self.layout.size;
        match &mut self.kind {
            Kind::Queue(_) if flags != 0 => Err(Errno::EINVAL),
            Kind::Queue(m) => {
                let at = m.pop().ok_or(Errno::ENOENT)?;
                Ok(vec![arena.slice(at, size).to_vec()])
            }
            Kind::Hash(m) if kind::is_plain_hash(self.def.kind) => {
                let values = m.delete(key, arena)?;
                Ok(self.layout.get(values, arena))
            }
            _ => Err(Errno::ENOTSUPP),
        }
    }

    /// `BPF_MAP_GET_NEXT_KEY`: every key once, in no order that means anything; the first if `key` is not there.
    pub(crate) fn next_key(&self, key: Option<&[u8]>, arena: &Arena) -> Result<Vec<u8>, Errno> {
        match &self.kind {
            Kind::Queue(_) => Err(Errno::EINVAL),
            Kind::Bloom(_) => Err(Errno::EOPNOTSUPP),
            Kind::Ring(_) => Err(Errno::ENOTSUPP),
            _ if self.def.kind == kind::SK_STORAGE => Err(Errno::ENOTSUPP),
            _ if key.is_some_and(|k| !self.key_fits(k)) => Err(Errno::EINVAL),
            Kind::Hash(m) => m.next_key(key, arena).ok_or(Errno::ENOENT),
            Kind::Lpm(m) => m.next_key(key, arena).ok_or(Errno::ENOENT),
            _ => array::next_index(key, self.def.max_entries),
        }
    }

    /// `bpf_map_push_elem`, and a system call's update of what has no keys.
    pub(crate) fn push(&mut self, value: &[u8], flags: u64, arena: &mut Arena) -> Result<(), Errno> {
        if value.len() != self.layout.size {
            return Err(Errno::EINVAL);
        }
        match &mut self.kind {
            Kind::Queue(m) => {
                let at = m.push(flags)?;
                arena.slice_mut(at, value.len()).copy_from_slice(value);
                Ok(())
            }
            Kind::Bloom(m) if flags == 0 => {
                m.push(value);
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// `bpf_map_pop_elem` and `bpf_map_peek_elem` of queues and stacks: where the value stands.
    pub(crate) fn front(&mut self, pop: bool) -> Result<usize, Errno> {
        match &mut self.kind {
            Kind::Queue(m) if pop => m.pop().ok_or(Errno::ENOENT),
            Kind::Queue(m) => m.peek().ok_or(Errno::ENOENT),
            Kind::Bloom(_) if pop => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EINVAL),
        }
    }

    /// `bpf_map_peek_elem` of a bloom filter.
    pub(crate) fn contains(&self, value: &[u8]) -> Option<bool> {
        let Kind::Bloom(m) = &self.kind else { return None };
        Some(m.peek(value))
    }

    /// For `bpf_for_each_map_elem`: the first element at or behind a number: its number, its key, where the key stands if it
    /// stands anywhere, and where the value stands. `None` at the end and for kinds that have no elements.
    pub(crate) fn element(&self, number: u32, cpu: u32) -> Option<(u32, Option<usize>, usize)> {
        let values = |v: Values| v.at + self.cpu(cpu) * self.layout.stride();
        match &self.kind {
            Kind::Array(m) if number < m.entries() => {
                Some((number, None, values(m.place(number, self.layout))))
            }
            Kind::Hash(m) => m.from(number).map(|(n, key, v)| (n, Some(key), values(v))),
            _ => None,
        }
    }

    fn forget_socket(&mut self, socket: u64, arena: &mut Arena) {
        match (&mut self.kind, self.def.kind) {
            (Kind::Numbers(m), kind::SOCKMAP) => m.retain(|_, number| *number != socket),
            (Kind::Hash(m), kind::SK_STORAGE) => {
                // Most sockets have none.
                let _ = m.delete(&socket.to_le_bytes(), arena);
            }
            (Kind::Hash(m), kind::SOCKHASH) => {
                for (key, values) in m.places(arena) {
                    if number_at(values, arena) == socket {
                        let _ = m.delete(&key, arena);
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn ring(&mut self) -> Option<&mut Ring> {
        let Kind::Ring(ring) = &mut self.kind else { return None };
        Some(ring)
    }

    /// How many entries there are; of an array, how many it has room for.
    pub(crate) fn len(&self) -> u32 {
        match &self.kind {
            Kind::Hash(m) => m.len(),
            Kind::Lpm(m) => m.len(),
            Kind::Queue(m) => m.len(),
            Kind::Numbers(m) => m.len() as u32,
            Kind::Programs(m) => m.all().count() as u32,
            Kind::Targets(m) => m.filled.iter().filter(|f| **f).count() as u32,
            Kind::Array(m) => m.entries(),
            Kind::Bloom(_) | Kind::Ring(_) | Kind::PerfEvents => 0,
        }
    }

    pub(crate) fn entries_cpus(&self, arena: &Arena) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        let places = match &self.kind {
            Kind::Array(m) => m.places(self.layout, arena),
            Kind::Hash(m) => m.places(arena),
            Kind::Lpm(m) => m.places(),
            Kind::Queue(m) => m.places().into_iter().map(|at| (Vec::new(), Values { at })).collect(),
            Kind::Targets(m) => m.places(self.layout),
            Kind::Numbers(m) => {
                let bytes = |n: &u64| vec![n.to_le_bytes()[..self.layout.size.min(8)].to_vec()];
                return m.iter().map(|(i, n)| (i.to_le_bytes().to_vec(), bytes(n))).collect();
            }
            _ => Vec::new(),
        };
        places.into_iter().map(|(key, values)| (key, self.layout.get(values, arena))).collect()
    }

    pub(crate) fn entries(&self, arena: &Arena) -> Vec<(Vec<u8>, Vec<u8>)> {
        let first = |(key, values): (_, Vec<Vec<u8>>)| Some((key, values.into_iter().next()?));
        self.entries_cpus(arena).into_iter().filter_map(first).collect()
    }
}

/// The number that an entry of a hash of maps or sockets holds.
fn number_at(values: Values, arena: &Arena) -> u64 {
    little_endian(arena.slice(values.at, 8))
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// The part of the flags that all kinds share: `BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`, and no other.
fn check_mode(flags: u64, exists: bool) -> Result<(), Errno> {
    match (flags, exists) {
        (0, _) | (1, false) | (2, true) => Ok(()),
        (1, true) => Err(Errno::EEXIST),
        (2, false) => Err(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests;
