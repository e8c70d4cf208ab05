//! The kernel's numbers of map kinds (`enum bpf_map_type`), of those that exist here.

macro_rules! kinds {
    ($( $name:ident = $number:literal, $text:literal; )*) => {
        $( #[doc = concat!("`BPF_MAP_TYPE_", stringify!($name), "`")] pub const $name: u32 = $number; )*

        /// The name that bpftool gives a kind; `None` for one that does not exist here.
        pub const fn name(kind: u32) -> Option<&'static str> {
            match kind { $( $number => Some($text), )* _ => None }
        }

        /// All kinds that exist here.
        pub const ALL: &[u32] = &[ $( $number ),* ];
    };
}

kinds! {
    HASH = 1, "hash";
    ARRAY = 2, "array";
    PROG_ARRAY = 3, "prog_array";
    PERF_EVENT_ARRAY = 4, "perf_event_array";
    PERCPU_HASH = 5, "percpu_hash";
    PERCPU_ARRAY = 6, "percpu_array";
    CGROUP_ARRAY = 8, "cgroup_array";
    LRU_HASH = 9, "lru_hash";
    LRU_PERCPU_HASH = 10, "lru_percpu_hash";
    LPM_TRIE = 11, "lpm_trie";
    ARRAY_OF_MAPS = 12, "array_of_maps";
    HASH_OF_MAPS = 13, "hash_of_maps";
    DEVMAP = 14, "devmap";
    SOCKMAP = 15, "sockmap";
    CPUMAP = 16, "cpumap";
    XSKMAP = 17, "xskmap";
    SOCKHASH = 18, "sockhash";
    QUEUE = 22, "queue";
    STACK = 23, "stack";
    SK_STORAGE = 24, "sk_storage";
    DEVMAP_HASH = 25, "devmap_hash";
    RINGBUF = 27, "ringbuf";
    BLOOM_FILTER = 30, "bloom_filter";
}

/// Whether an entry has a value a CPU.
pub const fn is_per_cpu(kind: u32) -> bool {
    matches!(kind, PERCPU_HASH | PERCPU_ARRAY | LRU_PERCPU_HASH)
}

pub(super) const fn is_plain_hash(kind: u32) -> bool {
    matches!(kind, HASH | PERCPU_HASH | LRU_HASH | LRU_PERCPU_HASH)
}

pub(super) const fn holds_sockets(kind: u32) -> bool {
    matches!(kind, SOCKMAP | SOCKHASH)
}

/// Whether entries are other maps.
pub const fn holds_maps(kind: u32) -> bool {
    matches!(kind, ARRAY_OF_MAPS | HASH_OF_MAPS)
}
