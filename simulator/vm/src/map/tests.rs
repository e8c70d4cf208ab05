//! What each kind of map does, against the kernel's rules (`kernel/bpf/hashtab.c`, `arraymap.c`, `lpm_trie.c`).

use super::kind;
use crate::{Errno, Kernel, KernelConfig, MapDef, MapId, UpdateMode};

use UpdateMode::{Any, Exist, NoExist};

fn def(kind: u32, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    let flags = u32::from(kind == kind::LPM_TRIE);
    MapDef { name: "m".into(), kind, key_size, value_size, max_entries, flags, ..MapDef::default() }
}

fn kernel(def: MapDef) -> (Kernel, MapId) {
    let mut kernel = Kernel::new(&KernelConfig { cpus: 2, ..KernelConfig::default() });
    let map = kernel.create_map(def).unwrap();
    (kernel, map)
}

#[test]
fn a_hash_map_knows_its_flags_and_its_end() {
    let (mut k, m) = kernel(def(kind::HASH, 2, 3, 2));
    assert_eq!(k.map_update(m, b"ab", b"123", Exist), Err(Errno::ENOENT));
    assert_eq!(k.map_update(m, b"ab", b"123", NoExist), Ok(()));
    assert_eq!(k.map_update(m, b"ab", b"456", NoExist), Err(Errno::EEXIST));
    assert_eq!(k.map_update(m, b"ab", b"456", Exist), Ok(()));
    assert_eq!(k.map_update(m, b"aa", b"789", Any), Ok(()));
    assert_eq!(k.map_update(m, b"zz", b"789", Any), Err(Errno::E2BIG));
    assert_eq!(k.map_update(m, b"ab", b"012", Any), Ok(()));
    assert_eq!(k.entries(m), [(b"aa".to_vec(), b"789".to_vec()), (b"ab".to_vec(), b"012".to_vec())]);
    assert_eq!(k.map_delete(m, b"ab"), Ok(()));
    assert_eq!(k.map_delete(m, b"ab"), Err(Errno::ENOENT));
    assert_eq!(k.map_lookup(m, b"ab"), None);
    assert_eq!(k.map_update(m, b"abc", b"012", Any), Err(Errno::EINVAL));
    assert_eq!(k.map_update(m, b"ab", b"01", Any), Err(Errno::EINVAL));
}

#[test]
fn an_array_has_all_its_entries_and_keeps_them() {
    let (mut k, m) = kernel(def(kind::ARRAY, 4, 2, 3));
    assert_eq!(k.map_lookup(m, &2u32.to_le_bytes()), Some(vec![0, 0]));
    assert_eq!(k.map_lookup(m, &3u32.to_le_bytes()), None);
    assert_eq!(k.map_update(m, &2u32.to_le_bytes(), b"ab", Exist), Ok(()));
    assert_eq!(k.map_update(m, &2u32.to_le_bytes(), b"ab", NoExist), Err(Errno::EEXIST));
    assert_eq!(k.map_update(m, &3u32.to_le_bytes(), b"ab", Any), Err(Errno::E2BIG));
    assert_eq!(k.map_delete(m, &2u32.to_le_bytes()), Err(Errno::EINVAL));
    assert_eq!(k.entries(m), [(2u32.to_le_bytes().to_vec(), b"ab".to_vec())]);
}

#[test]
fn per_cpu_values_are_written_together_or_apart() {
    let (mut k, m) = kernel(def(kind::PERCPU_HASH, 1, 3, 4));
    k.map_update(m, b"k", b"abc", Any).unwrap();
    assert_eq!(k.map_lookup_cpus(m, b"k"), Some(vec![b"abc".to_vec(), b"abc".to_vec()]));
    k.map_update(m, b"k", b"abcdef", Any).unwrap();
    assert_eq!(k.map_lookup_cpus(m, b"k"), Some(vec![b"abc".to_vec(), b"def".to_vec()]));
    assert_eq!(k.map_lookup(m, b"k"), Some(b"abc".to_vec()));
}

#[test]
fn an_lru_map_evicts_the_entry_that_was_written_first() {
    let (mut k, m) = kernel(def(kind::LRU_HASH, 1, 1, 2));
    for key in [b"a", b"b", b"a", b"c"] {
        k.map_update(m, key, b"v", Any).unwrap();
    }
    // A system call's look-up is no use: `htab_lru_map_lookup_elem_sys`.
    k.map_lookup(m, b"a");
    let keys: Vec<_> = k.entries(m).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"a", b"c"]);
    k.map_update(m, b"d", b"v", Any).unwrap();
    assert_eq!(k.map_lookup(m, b"a"), None);
}

#[test]
fn a_large_lru_map_costs_nothing_empty() {
    let mut k = Kernel::new(&KernelConfig::default());
    for _ in 0..1000 {
        k.create_map(def(kind::LRU_HASH, 14, 56, 524_288)).unwrap();
    }
}

fn prefix(len: u32, address: [u8; 4]) -> Vec<u8> {
    [len.to_le_bytes(), address].concat()
}

#[test]
fn the_longest_prefix_wins_and_the_keys_own_length_counts() {
    let (mut k, m) = kernel(def(kind::LPM_TRIE, 8, 1, 3));
    k.map_update(m, &prefix(8, [10, 9, 9, 9]), b"8", Any).unwrap();
    k.map_update(m, &prefix(20, [10, 1, 0x30, 0]), b"t", Any).unwrap();
    k.map_update(m, &prefix(32, [10, 1, 0x31, 7]), b"h", Any).unwrap();
    let find = |k: &Kernel, len, address| k.map_lookup(m, &prefix(len, address));
    assert_eq!(find(&k, 32, [10, 1, 0x31, 7]), Some(b"h".to_vec()));
    assert_eq!(find(&k, 31, [10, 1, 0x31, 7]), Some(b"t".to_vec()));
    assert_eq!(find(&k, 32, [10, 1, 0x40, 7]), Some(b"8".to_vec()));
    assert_eq!(find(&k, 32, [11, 1, 0x40, 7]), None);
    assert_eq!(find(&k, 33, [10, 1, 0x31, 7]), None);
    assert_eq!(k.map_update(m, &prefix(0, [0; 4]), b"0", Any), Err(Errno::ENOSPC));
    assert_eq!(k.map_update(m, &prefix(8, [10, 0, 0, 0]), b"9", NoExist), Err(Errno::EEXIST));
    assert_eq!(k.map_update(m, &prefix(8, [10, 0, 0, 0]), b"9", Any), Ok(()));
    assert_eq!(k.map_update(m, &prefix(33, [0; 4]), b"0", Any), Err(Errno::EINVAL));
    assert_eq!(k.map_delete(m, &prefix(8, [10, 77, 0, 0])), Ok(()));
    assert_eq!(k.map_delete(m, &prefix(8, [10, 0, 0, 0])), Err(Errno::ENOENT));
    assert_eq!(find(&k, 32, [10, 1, 0x40, 7]), None);
}

#[test]
fn what_the_kernel_does_not_create_is_refused() {
    let refused = |def| Kernel::new(&KernelConfig::default()).create_map(def).unwrap_err().to_string();
    assert_eq!(refused(def(kind::HASH, 4, 4, 0)), "map m: max_entries is 0");
    assert_eq!(refused(def(kind::ARRAY, 8, 4, 1)), "map m: a key of 8 bytes");
    assert_eq!(refused(def(kind::HASH, 4, 0, 1)), "map m: a value of 0 bytes");
    assert_eq!(refused(def(26, 4, 0, 1)), "map m: maps of kind 26 are not supported here");
    let trie = MapDef { flags: 0, ..def(kind::LPM_TRIE, 8, 4, 1) };
    assert_eq!(refused(trie), "map m: an LPM trie needs BPF_F_NO_PREALLOC");
    assert_eq!(
        refused(def(kind::ARRAY, 4, 1 << 20, 1 << 20)),
        "map m: no memory left in the simulated kernel"
    );
}

#[test]
fn a_perf_event_array_of_no_size_has_one_slot_a_cpu() {
    let (k, m) = kernel(def(kind::PERF_EVENT_ARRAY, 4, 4, 0));
    assert_eq!(k.map_def(m).unwrap().max_entries, 2);
}
