//! What the kernel does not create (`map_alloc_check` of each kind).

use super::kind;
use crate::MapDef;

const NO_PREALLOC: u32 = 1;
/// `BPF_F_NO_COMMON_LRU`
pub(super) const NO_COMMON_LRU: u32 = 1 << 1;
const NUMA_NODE: u32 = 1 << 2;
const RDONLY: u32 = 1 << 3;
const WRONLY: u32 = 1 << 4;
const ZERO_SEED: u32 = 1 << 6;
const RDONLY_PROG: u32 = 1 << 7;
const WRONLY_PROG: u32 = 1 << 8;
const CLONE: u32 = 1 << 9;
const MMAPABLE: u32 = 1 << 10;
const PRESERVE_ELEMS: u32 = 1 << 11;
const INNER_MAP: u32 = 1 << 12;
const ACCESS: u32 = RDONLY | WRONLY | RDONLY_PROG | WRONLY_PROG;
/// The largest value that the kernel allocates (`KMALLOC_MAX_SIZE`).
const VALUE_MAX: u32 = 4 << 20;
/// `MAX_BPF_STACK`: the longest key of a hash map.
const KEY_MAX: u32 = 512;
const PAGE: u32 = 4096;

fn allowed_flags(def: &MapDef) -> Option<u32> {
    Some(match def.kind {
        kind::HASH | kind::PERCPU_HASH | kind::HASH_OF_MAPS => NO_PREALLOC | NUMA_NODE | ACCESS | ZERO_SEED,
        kind::LRU_HASH | kind::LRU_PERCPU_HASH => NO_COMMON_LRU | NUMA_NODE | ACCESS | ZERO_SEED,
        kind::ARRAY => NUMA_NODE | ACCESS | MMAPABLE | PRESERVE_ELEMS | INNER_MAP,
        kind::PERCPU_ARRAY => ACCESS | PRESERVE_ELEMS,
        kind::LPM_TRIE => NO_PREALLOC | NUMA_NODE | ACCESS,
        kind::ARRAY_OF_MAPS => NUMA_NODE | ACCESS | PRESERVE_ELEMS,
        kind::PROG_ARRAY | kind::CGROUP_ARRAY => 0,
        kind::PERF_EVENT_ARRAY => PRESERVE_ELEMS,
        kind::DEVMAP | kind::DEVMAP_HASH | kind::XSKMAP => NUMA_NODE | RDONLY | WRONLY,
        kind::SOCKMAP | kind::SOCKHASH => NUMA_NODE | RDONLY | WRONLY,
        kind::CPUMAP | kind::RINGBUF => NUMA_NODE,
        kind::QUEUE | kind::STACK => NUMA_NODE | ACCESS,
        kind::BLOOM_FILTER => NUMA_NODE | ZERO_SEED | ACCESS,
        kind::SK_STORAGE => NO_PREALLOC | CLONE,
        _ => return None,
    })
}

pub(super) fn definition(def: &MapDef) -> Result<(), String> {
    let Some(allowed) = allowed_flags(def) else {
        return Err(format!("maps of kind {} are not supported here", def.kind));
    };
    if def.flags & !allowed != 0 {
        return Err(format!("flags {:#x} are not supported for kind {}", def.flags & !allowed, def.kind));
    }
    if def.extra != 0 && (def.kind != kind::BLOOM_FILTER || def.extra > 15) {
        return Err(format!("map_extra {}", def.extra));
    }
    entries(def)?;
    value(def)?;
    key(def)?;
    if matches!(def.kind, kind::LPM_TRIE | kind::SK_STORAGE) && def.flags & NO_PREALLOC == 0 {
        let what = if def.kind == kind::LPM_TRIE { "an LPM trie" } else { "a socket's storage" };
        return Err(format!("{what} needs BPF_F_NO_PREALLOC"));
    }
    if def.lock.is_some_and(|at| at.checked_add(4).is_none_or(|end| end > def.value_size)) {
        return Err("its lock lies outside of the value".into());
    }
    Ok(())
}

fn entries(def: &MapDef) -> Result<(), String> {
    match def.kind {
        kind::SK_STORAGE if def.max_entries != 0 => Err("max_entries of a socket's storage is 0".into()),
        kind::SK_STORAGE => Ok(()),
        _ if def.max_entries == 0 => Err("max_entries is 0".into()),
        kind::RINGBUF if !def.max_entries.is_power_of_two() || !def.max_entries.is_multiple_of(PAGE) => {
            Err(format!("a ring of {} bytes is no power of two of pages", def.max_entries))
        }
        kind::PROG_ARRAY | kind::PERF_EVENT_ARRAY | kind::DEVMAP | kind::CPUMAP
            if def.max_entries > 1 << 20 =>
        {
            Err(format!("{} entries", def.max_entries))
        }
        _ => Ok(()),
    }
}

fn value(def: &MapDef) -> Result<(), String> {
    let ok = match def.kind {
        kind::RINGBUF => def.value_size == 0,
        kind::PROG_ARRAY
        | kind::PERF_EVENT_ARRAY
        | kind::CGROUP_ARRAY
        | kind::ARRAY_OF_MAPS
        | kind::HASH_OF_MAPS
        | kind::XSKMAP => def.value_size == 4,
        kind::DEVMAP | kind::DEVMAP_HASH | kind::CPUMAP | kind::SOCKMAP | kind::SOCKHASH => {
            matches!(def.value_size, 4 | 8)
        }
        _ => (1..=VALUE_MAX).contains(&def.value_size),
    };
    if ok { Ok(()) } else { Err(format!("a value of {} bytes", def.value_size)) }
}

fn key(def: &MapDef) -> Result<(), String> {
    let ok = match def.kind {
        kind::ARRAY
        | kind::PERCPU_ARRAY
        | kind::PROG_ARRAY
        | kind::PERF_EVENT_ARRAY
        | kind::CGROUP_ARRAY
        | kind::ARRAY_OF_MAPS
        | kind::DEVMAP
        | kind::DEVMAP_HASH
        | kind::CPUMAP
        | kind::XSKMAP
        | kind::SOCKMAP
        | kind::SK_STORAGE => def.key_size == 4,
        kind::LPM_TRIE => (5..=4 + 256).contains(&def.key_size),
        kind::QUEUE | kind::STACK | kind::BLOOM_FILTER | kind::RINGBUF => def.key_size == 0,
        _ => (1..=KEY_MAX).contains(&def.key_size),
    };
    if ok { Ok(()) } else { Err(format!("a key of {} bytes", def.key_size)) }
}
