//! Maps: what the kernel's map kinds do, value bytes in the arena, all else outside of it.
//!
//! Knows sizes, flags, error numbers and order. Knows neither who asks nor that anything is recorded.

mod array;
mod hash;
mod lpm;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::arena::Arena;
use crate::engine::Program;
use crate::{Errno, Error, MapDef, ProgramId};

/// The kernel's numbers of map kinds (`enum bpf_map_type`), of those that exist here.
pub mod kind {
    /// `BPF_MAP_TYPE_HASH`
    pub const HASH: u32 = 1;
    /// `BPF_MAP_TYPE_ARRAY`
    pub const ARRAY: u32 = 2;
    /// `BPF_MAP_TYPE_PROG_ARRAY`
    pub const PROG_ARRAY: u32 = 3;
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`
    pub const PERF_EVENT_ARRAY: u32 = 4;
    /// `BPF_MAP_TYPE_PERCPU_HASH`
    pub const PERCPU_HASH: u32 = 5;
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`
    pub const PERCPU_ARRAY: u32 = 6;
    /// `BPF_MAP_TYPE_LRU_HASH`
    pub const LRU_HASH: u32 = 9;
    /// `BPF_MAP_TYPE_LPM_TRIE`
    pub const LPM_TRIE: u32 = 11;
}

const F_NO_PREALLOC: u32 = 1;
const F_RDONLY_PROG: u32 = 1 << 7;
const F_WRONLY_PROG: u32 = 1 << 8;
const F_ACCESS: u32 = F_RDONLY_PROG | F_WRONLY_PROG | 1 << 3 | 1 << 4;
/// The largest value that the kernel allocates (`KMALLOC_MAX_SIZE`).
const VALUE_MAX: u32 = 4 << 20;
/// `MAX_BPF_STACK`: the longest key of a hash map.
const KEY_MAX: u32 = 512;

/// The values of one entry: one a CPU, each rounded up to 8 bytes, one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub(crate) at: usize,
}

/// How values lie in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    size: usize,
    cpus: usize,
}

impl Layout {
    fn stride(self) -> usize {
        self.size.next_multiple_of(8)
    }

    fn total(self) -> usize {
        self.stride() * self.cpus
    }

    fn get(self, values: Values, arena: &Arena) -> Vec<Vec<u8>> {
        (0..self.cpus).map(|cpu| arena.slice(values.at + cpu * self.stride(), self.size).to_vec()).collect()
    }

    /// Writes what a system call gives: one value for all CPUs, or one for each.
    fn set(self, values: Values, value: &[u8], arena: &mut Arena) {
        for cpu in 0..self.cpus {
            let from = if value.len() == self.size { value } else { &value[cpu * self.size..][..self.size] };
            arena.slice_mut(values.at + cpu * self.stride(), self.size).copy_from_slice(from);
        }
    }
}

enum Kind {
    Array(array::Array),
    Hash(hash::Hash),
    Lpm(lpm::Lpm),
    Programs(BTreeMap<u32, (ProgramId, Rc<Program>)>),
    PerfEvents,
}

/// A map.
pub(crate) struct Map {
    def: MapDef,
    layout: Layout,
    kind: Kind,
}

impl Map {
    /// Creates a map, refusing what the kernel refuses.
    pub(crate) fn create(def: &MapDef, cpus: u32, arena: &mut Arena) -> Result<Self, Error> {
        let mut def = def.clone();
        if def.kind == kind::PERF_EVENT_ARRAY && def.max_entries == 0 {
            def.max_entries = cpus;
        }
        check(&def).map_err(|what| Error::Map { map: def.name.clone(), what })?;
        let full =
            || Error::Map { map: def.name.clone(), what: "no memory left in the simulated kernel".into() };
        let per_cpu = matches!(def.kind, kind::PERCPU_ARRAY | kind::PERCPU_HASH);
        let layout = Layout { size: def.value_size as usize, cpus: if per_cpu { cpus as usize } else { 1 } };
        let kind = match def.kind {
            kind::ARRAY | kind::PERCPU_ARRAY => {
                Kind::Array(array::Array::create(layout, def.max_entries, arena).ok_or_else(full)?)
            }
            kind::LPM_TRIE => Kind::Lpm(lpm::Lpm::new(def.key_size as usize, def.max_entries)),
            kind::PROG_ARRAY => Kind::Programs(BTreeMap::new()),
            kind::PERF_EVENT_ARRAY => Kind::PerfEvents,
            _ => Kind::Hash(hash::Hash::new(def.max_entries, def.kind == kind::LRU_HASH)),
        };
        Ok(Self { def, layout, kind })
    }

    pub(crate) fn def(&self) -> &MapDef {
        &self.def
    }

    pub(crate) fn free(self, arena: &mut Arena) {
        match self.kind {
            Kind::Array(m) => m.free(self.layout, arena),
            Kind::Hash(m) => m.free(self.layout, arena),
            Kind::Lpm(m) => m.free(self.layout, arena),
            Kind::Programs(_) | Kind::PerfEvents => {}
        }
    }

    fn key_fits(&self, key: &[u8]) -> bool {
        key.len() == self.def.key_size as usize
    }

    /// Where a program finds the value on its CPU; counts as a use.
    pub(crate) fn lookup(&mut self, key: &[u8], cpu: u32) -> Option<usize> {
        if !self.key_fits(key) {
            return None;
        }
        let values = match &mut self.kind {
            Kind::Array(m) => m.find(key, self.layout),
            Kind::Hash(m) => m.find_and_use(key),
            Kind::Lpm(m) => m.longest(key),
            Kind::Programs(_) | Kind::PerfEvents => None,
        }?;
        Some(values.at + self.cpu(cpu) * self.layout.stride())
    }

    /// The bytes that [`Self::lookup`] points to.
    pub(crate) fn value_size(&self) -> usize {
        self.layout.size
    }

    fn cpu(&self, cpu: u32) -> usize {
        (cpu as usize).min(self.layout.cpus - 1)
    }

    /// The values that stand at exactly this key, without counting as a use.
    fn peek(&self, key: &[u8]) -> Option<Values> {
        match &self.kind {
            _ if !self.key_fits(key) => None,
            Kind::Array(m) => m.find(key, self.layout),
            Kind::Hash(m) => m.find(key),
            Kind::Lpm(m) => m.exact(key),
            Kind::Programs(_) | Kind::PerfEvents => None,
        }
    }

    /// A copy of what stands at exactly this key on a CPU.
    pub(crate) fn peek_copy(&self, key: &[u8], cpu: u32, arena: &Arena) -> Option<Vec<u8>> {
        let values = self.peek(key)?;
        Some(arena.slice(values.at + self.cpu(cpu) * self.layout.stride(), self.layout.size).to_vec())
    }

    /// A system call's look-up.
    pub(crate) fn read(&self, key: &[u8], arena: &Arena) -> Option<Vec<Vec<u8>>> {
        let values = match &self.kind {
            Kind::Lpm(m) if self.key_fits(key) => m.longest(key),
            _ => self.peek(key),
        }?;
        Some(self.layout.get(values, arena))
    }

    /// A system call's update.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: &[u8],
        mode: u64,
        arena: &mut Arena,
    ) -> Result<(), Errno> {
        let all = self.layout.size * self.layout.cpus;
        if !self.key_fits(key) || (value.len() != self.layout.size && value.len() != all) {
            return Err(Errno::EINVAL);
        }
        let values = self.slot(key, mode, arena)?;
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
        let values = self.slot(key, flags, arena)?;
        let at = values.at + self.cpu(cpu) * self.layout.stride();
        arena.slice_mut(at, self.layout.size).copy_from_slice(value);
        Ok(())
    }

    /// The place for an entry; of a new one all is zero.
    fn slot(&mut self, key: &[u8], flags: u64, arena: &mut Arena) -> Result<Values, Errno> {
        match &mut self.kind {
            Kind::Array(m) => m.slot(key, flags, self.layout),
            Kind::Hash(m) => m.slot(key, flags, self.layout, arena),
            Kind::Lpm(m) => m.slot(key, flags, self.layout, arena),
            Kind::Programs(_) | Kind::PerfEvents => Err(Errno::EINVAL),
        }
    }

    /// Deletes an entry, for a system call or a program.
    pub(crate) fn delete(&mut self, key: &[u8], arena: &mut Arena) -> Result<(), Errno> {
        if !self.key_fits(key) {
            return Err(Errno::EINVAL);
        }
        match &mut self.kind {
            Kind::Hash(m) => m.delete(key, self.layout, arena),
            Kind::Lpm(m) => m.delete(key, self.layout, arena),
            Kind::Array(_) | Kind::Programs(_) | Kind::PerfEvents => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn entries_cpus(&self, arena: &Arena) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        let places = match &self.kind {
            Kind::Array(m) => m.places(self.layout, arena),
            Kind::Hash(m) => m.places(),
            Kind::Lpm(m) => m.places(),
            Kind::Programs(_) | Kind::PerfEvents => Vec::new(),
        };
        places.into_iter().map(|(key, values)| (key, self.layout.get(values, arena))).collect()
    }

    pub(crate) fn entries(&self, arena: &Arena) -> Vec<(Vec<u8>, Vec<u8>)> {
        let first = |(key, values): (_, Vec<Vec<u8>>)| Some((key, values.into_iter().next()?));
        self.entries_cpus(arena).into_iter().filter_map(first).collect()
    }

    pub(crate) fn set_program(
        &mut self,
        index: u32,
        target: Option<(ProgramId, Rc<Program>)>,
    ) -> Result<(), Errno> {
        let Kind::Programs(slots) = &mut self.kind else { return Err(Errno::EINVAL) };
        if index >= self.def.max_entries {
            return Err(Errno::E2BIG);
        }
        match target {
            Some(target) => slots.insert(index, target),
            None => slots.remove(&index),
        };
        Ok(())
    }

    pub(crate) fn program(&self, index: u32) -> Option<(ProgramId, Rc<Program>)> {
        let Kind::Programs(slots) = &self.kind else { return None };
        slots.get(&index).cloned()
    }

    pub(crate) fn program_slots(&self) -> Vec<(u32, ProgramId)> {
        let Kind::Programs(slots) = &self.kind else { return Vec::new() };
        slots.iter().map(|(index, (id, _))| (*index, *id)).collect()
    }
}

/// What `map_alloc_check` of each kind refuses.
fn check(def: &MapDef) -> Result<(), String> {
    let allowed = match def.kind {
        kind::HASH | kind::PERCPU_HASH | kind::LPM_TRIE => F_NO_PREALLOC | F_ACCESS,
        kind::LRU_HASH | kind::ARRAY | kind::PERCPU_ARRAY => F_ACCESS,
        kind::PROG_ARRAY | kind::PERF_EVENT_ARRAY => 0,
        other => return Err(format!("maps of kind {other} are not supported here")),
    };
    if def.flags & !allowed != 0 {
        return Err(format!("flags {:#x} are not supported for kind {}", def.flags & !allowed, def.kind));
    }
    if def.max_entries == 0 {
        return Err("max_entries is 0".into());
    }
    if def.value_size == 0 || def.value_size > VALUE_MAX {
        return Err(format!("a value of {} bytes", def.value_size));
    }
    let key_ok = match def.kind {
        kind::ARRAY | kind::PERCPU_ARRAY | kind::PROG_ARRAY | kind::PERF_EVENT_ARRAY => def.key_size == 4,
        kind::LPM_TRIE => (5..=4 + 256).contains(&def.key_size),
        _ => (1..=KEY_MAX).contains(&def.key_size),
    };
    if !key_ok {
        return Err(format!("a key of {} bytes", def.key_size));
    }
    let descriptors = matches!(def.kind, kind::PROG_ARRAY | kind::PERF_EVENT_ARRAY);
    if descriptors && (def.value_size != 4 || def.max_entries > 1 << 20) {
        return Err(format!("{} values of {} bytes: it holds descriptors", def.max_entries, def.value_size));
    }
    if def.kind == kind::LPM_TRIE && def.flags & F_NO_PREALLOC == 0 {
        return Err("an LPM trie needs BPF_F_NO_PREALLOC".into());
    }
    Ok(())
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
