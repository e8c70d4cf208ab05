//! Random sequences of system calls on every kind of map that bpf(2) reaches, in skep-vm and in the running kernel:
//! results, error numbers and contents must be equal.
//!
//! `SKEP_OPS` says how many calls a map, `SKEP_SEED` which. A failure prints both and the last calls.

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A thread stays on one CPU, and one after another is as fast.
    arguments.test_threads = Some(1);
    let mut trials: Vec<Trial> = Vec::new();
    match compare::open() {
        Ok(()) => {
            for case in compare::cases() {
                trials.push(Trial::test(case.name.clone(), move || Ok(compare::run(&case)?)));
            }
        }
        Err(capability) => println!("SKIP map-sequences: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
mod compare {
    pub(super) struct Case {
        pub(super) name: String,
    }

    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn cases() -> Vec<Case> {
        Vec::new()
    }

    pub(super) fn run(_: &Case) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod compare {
    use skep_agent_linux::{RawMap, RawShape, possible_cpus, stay_on_cpu};
    use skep_vm::{Errno, Eviction, Kernel, KernelConfig, MapDef, MapId, Socket, map_kind as kind};
    use std::collections::{BTreeMap, VecDeque};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    /// A map, and the calls that it gets.
    #[derive(Clone)]
    pub(super) struct Case {
        pub(super) name: String,
        shape: RawShape,
        /// How many different keys there are; a third of the calls misses.
        keys: u32,
    }

    /// `BPF_F_NO_PREALLOC`, `BPF_F_NO_COMMON_LRU`, `BPF_F_ZERO_SEED`
    const NO_PREALLOC: u32 = 1;
    const OWN_LISTS: u32 = 2;
    const ZERO_SEED: u32 = 64;

    pub(super) fn open() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    pub(super) fn cases() -> Vec<Case> {
        let mut all = Vec::new();
        let mut add = |kind, key, value, entries, flags, keys| {
            let shape = RawShape { kind, key, value, entries, flags, extra: 0 };
            let kind = kind::name(kind).unwrap_or("map");
            let name = format!("{kind}/key {key}, value {value}, {entries} entries, flags {flags}");
            all.push(Case { name, shape, keys });
        };
        for flags in [0, NO_PREALLOC] {
            add(kind::HASH, 4, 8, 16, flags, 24);
            add(kind::HASH, 7, 5, 9, flags, 12);
            add(kind::HASH, 20, 64, 100, flags, 150);
            add(kind::PERCPU_HASH, 4, 8, 16, flags, 24);
            add(kind::PERCPU_HASH, 3, 13, 16, flags, 24);
        }
        for flags in [0, OWN_LISTS] {
            for entries in [4, 5, 16, 64, 300, 1000] {
                add(kind::LRU_HASH, 4, 8, entries, flags, entries * 2);
                add(kind::LRU_PERCPU_HASH, 4, 8, entries, flags, entries * 2);
            }
            add(kind::LRU_HASH, 14, 56, 300, flags, 310);
            add(kind::LRU_HASH, 14, 56, 300, flags, 3000);
        }
        add(kind::ARRAY, 4, 8, 10, 0, 14);
        add(kind::ARRAY, 4, 3, 1, 0, 3);
        add(kind::PERCPU_ARRAY, 4, 8, 10, 0, 14);
        add(kind::PERCPU_ARRAY, 4, 5, 10, 0, 14);
        add(kind::LPM_TRIE, 8, 4, 20, NO_PREALLOC, 40);
        add(kind::LPM_TRIE, 5, 9, 300, NO_PREALLOC, 600);
        add(kind::LPM_TRIE, 20, 4, 30, NO_PREALLOC, 60);
        for kind in [kind::QUEUE, kind::STACK] {
            add(kind, 0, 4, 7, 0, 1);
            add(kind, 0, 13, 1, 0, 1);
        }
        for value in [4, 5, 8, 13, 64] {
            add(kind::BLOOM_FILTER, 0, value, 50, ZERO_SEED, 200);
        }
        add(kind::ARRAY_OF_MAPS, 4, 4, 6, 0, 8);
        add(kind::HASH_OF_MAPS, 4, 4, 6, 0, 8);
        add(kind::HASH_OF_MAPS, 4, 4, 6, NO_PREALLOC, 8);
        add(kind::DEVMAP, 4, 4, 6, 0, 8);
        add(kind::DEVMAP, 4, 8, 6, 0, 8);
        add(kind::DEVMAP_HASH, 4, 4, 6, 0, 8);
        add(kind::DEVMAP_HASH, 4, 8, 6, 0, 8);
        add(kind::CPUMAP, 4, 4, 2, 0, 4);
        add(kind::CPUMAP, 4, 8, 2, 0, 4);
        add(kind::SOCKMAP, 4, 4, 6, 0, 8);
        add(kind::SOCKMAP, 4, 8, 6, 0, 8);
        add(kind::SOCKHASH, 4, 4, 6, 0, 8);
        add(kind::SOCKHASH, 4, 8, 6, 0, 8);
        if cgroups().is_some() {
            add(kind::CGROUP_ARRAY, 4, 4, 6, 0, 8);
        }
        add(kind::RINGBUF, 0, 0, 4096, 0, 1);
        all
    }

    /// The root of the control groups of version 2, where they are mounted.
    fn cgroups() -> Option<std::fs::File> {
        let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
        let mut fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        let mount = fields.find(|f| f.get(2) == Some(&"cgroup2"))?;
        std::fs::File::open(mount[1]).ok()
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        fn below(&mut self, end: u32) -> u32 {
            (self.next() % u64::from(end.max(1))) as u32
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| self.next() as u8).collect()
        }
    }

    /// What is written where a map holds no bytes: to the kernel and to skep-vm.
    struct Thing {
        real: u64,
        simulated: u64,
    }

    struct World {
        case: Case,
        real: RawMap,
        kernel: Kernel,
        map: MapId,
        cpu: u32,
        cpus: usize,
        random: Random,
        things: Vec<Thing>,
        /// Numbers that the kernel gives for things, as far as they are known.
        same: BTreeMap<u64, u64>,
        last: VecDeque<String>,
        _open: (Vec<RawMap>, Vec<TcpListener>, Option<std::fs::File>),
    }

    fn variable(name: &str, otherwise: u64) -> u64 {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
    }

    pub(super) fn run(case: &Case) -> Result<(), String> {
        let (ops, seed) = (variable("SKEP_OPS", 3000), variable("SKEP_SEED", 1));
        let mut world = World::new(case, seed)?;
        for n in 0..ops {
            world.step(n).map_err(|what| {
                let last: Vec<_> = world.last.iter().cloned().collect();
                format!("SKEP_SEED={seed}, call {n}: {what}\n  {}", last.join("\n  "))
            })?;
        }
        world.contents()
    }

    impl World {
        fn new(case: &Case, seed: u64) -> Result<Self, String> {
            let cpus = possible_cpus().map_err(|e| e.to_string())?;
            let cpu = 0;
            stay_on_cpu(cpu).map_err(|e| e.to_string())?;
            let config = KernelConfig { cpus, eviction: Eviction::Kernel, ..KernelConfig::default() };
            let mut kernel = Kernel::new(&config);
            let inner = RawShape { kind: kind::HASH, key: 4, value: 4, entries: 3, ..RawShape::default() };
            let template = RawMap::create(inner, None).map_err(|e| format!("the template: {e}"))?;
            let holds_maps = kind::holds_maps(case.shape.kind);
            let real = RawMap::create(case.shape, holds_maps.then_some(&template))
                .map_err(|e| format!("the kernel makes no such map: {e}"))?;
            let mut def = def(case.shape);
            if holds_maps {
                def.inner = Some(Box::new(self::def(inner)));
            }
            let map = kernel.create_map(def).map_err(|e| e.to_string())?;
            let mut world = Self {
                case: case.clone(),
                real,
                kernel,
                map,
                cpu,
                cpus: cpus as usize,
                random: Random(seed ^ u64::from(case.shape.kind) << 32),
                things: Vec::new(),
                same: BTreeMap::new(),
                last: VecDeque::new(),
                _open: (vec![template], Vec::new(), None),
            };
            world.add_things()?;
            Ok(world)
        }

        fn add_things(&mut self) -> Result<(), String> {
            let bad = Thing { real: 9999, simulated: 9999 };
            match self.case.shape.kind {
                kind::ARRAY_OF_MAPS | kind::HASH_OF_MAPS => {
                    let like =
                        RawShape { kind: kind::HASH, key: 4, value: 4, entries: 3, ..RawShape::default() };
                    let more = RawShape { entries: 7, ..like };
                    let other = RawShape { value: 8, ..like };
                    for shape in [like, like, more, other] {
                        let real = RawMap::create(shape, None).map_err(|e| e.to_string())?;
                        let id = self.kernel.create_map(def(shape)).map_err(|e| e.to_string())?;
                        let real_fd = real.descriptor() as u64;
                        self.things.push(Thing { real: real_fd, simulated: u64::from(id.number()) });
                        self._open.0.push(real);
                    }
                    self.things.push(bad);
                }
                kind::SOCKMAP | kind::SOCKHASH => {
                    for _ in 0..4 {
                        let socket = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
                        let id = self.kernel.add_socket(Socket::default()).ok_or("no memory")?;
                        self.things.push(Thing { real: socket.as_raw_fd() as u64, simulated: id.number() });
                        self._open.1.push(socket);
                    }
                    self.things.push(bad);
                }
                kind::CGROUP_ARRAY => {
                    let folder = cgroups().ok_or("no control groups of version 2 are mounted")?;
                    self.things.push(Thing { real: folder.as_raw_fd() as u64, simulated: 1 });
                    self._open.2 = Some(folder);
                }
                _ => {}
            }
            Ok(())
        }

        fn key(&mut self) -> Vec<u8> {
            let shape = self.case.shape;
            let n = self.random.below(self.case.keys);
            let mut key = n.to_le_bytes().to_vec();
            if shape.kind == kind::LPM_TRIE {
                let mut of_number = Random(u64::from(n));
                let bits = (shape.key - 4) * 8;
                key = of_number.below(bits + 2).to_le_bytes().to_vec();
                // Few different bits, so that prefixes nest; noise behind the prefix.
                key.extend((4..shape.key).map(|_| of_number.next() as u8 & 0x91));
                return key;
            }
            // What is hashed has bytes everywhere.
            key.extend((0..).map(|i| (n * 7 + i) as u8).take(shape.key as usize));
            key.truncate(shape.key as usize);
            key
        }

        fn flags(&mut self) -> u64 {
            [0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 8][self.random.below(14) as usize]
        }

        /// A value for the kernel and for skep-vm.
        fn value(&mut self) -> (Vec<u8>, Vec<u8>) {
            let shape = self.case.shape;
            let size = shape.value as usize;
            if !self.things.is_empty() {
                let thing = &self.things[self.random.below(self.things.len() as u32) as usize];
                let bytes = |n: u64| n.to_le_bytes()[..size].to_vec();
                return (bytes(thing.real), bytes(thing.simulated));
            }
            let value = match shape.kind {
                // Only the loopback device is sure to be there.
                kind::DEVMAP | kind::DEVMAP_HASH => {
                    let mut value = self.random.below(2).to_le_bytes().to_vec();
                    value.resize(size, 0);
                    value
                }
                kind::CPUMAP => {
                    let queue = [0, 1, 192, 16384, 16385][self.random.below(5) as usize];
                    let mut value = u32::to_le_bytes(queue).to_vec();
                    value.resize(size, 0);
                    value
                }
                kind::BLOOM_FILTER => {
                    let n = self.random.below(self.case.keys);
                    Random(u64::from(n)).bytes(size)
                }
                _ if kind::is_per_cpu(shape.kind) => {
                    // Of each CPU; what fills it up to eight bytes is not looked at.
                    let stride = size.next_multiple_of(8);
                    self.random.bytes(stride * self.cpus)
                }
                _ => self.random.bytes(size),
            };
            (value.clone(), value)
        }

        fn step(&mut self, n: u64) -> Result<(), String> {
            if self.random.below(60) == 0 {
                // Lists of free entries are kept a CPU.
                self.cpu = self.random.below(self.cpus as u32);
                stay_on_cpu(self.cpu).map_err(|e| e.to_string())?;
            }
            let key = self.key();
            let what = self.random.below(100);
            match what {
                0..50 => self.update(&key),
                50..68 => self.lookup(&key, false),
                68..82 => {
                    let real = self.real.delete(&key);
                    let simulated = self.kernel.map_delete(self.map, &key);
                    self.agree(&format!("delete {key:?}"), real, simulated).map(drop)
                }
                82..90 => self.lookup(&key, true),
                90..98 => self.next_key(&key),
                _ if n.is_multiple_of(5) => self.contents(),
                _ => Ok(()),
            }
        }

        fn agree<T: std::fmt::Debug>(
            &mut self,
            what: &str,
            real: Result<(), i32>,
            simulated: Result<T, Errno>,
        ) -> Result<Option<T>, String> {
            self.last.push_back(format!("{what} -> {real:?}"));
            if self.last.len() > 12 {
                self.last.pop_front();
            }
            match (real, simulated) {
                (Ok(()), Ok(value)) => Ok(Some(value)),
                (Err(real), Err(simulated)) if real == simulated.0 => Ok(None),
                (real, simulated) => Err(format!("{what}: kernel {real:?}, skep-vm {simulated:?}")),
            }
        }

        fn update(&mut self, key: &[u8]) -> Result<(), String> {
            let (flags, (real, simulated)) = (self.flags(), self.value());
            let real_result = self.real.update(key, &real, flags);
            let result = self.kernel.map_write(self.map, key, &simulated, flags, self.cpu);
            let what = format!("update {key:?} {simulated:?} flags {flags}");
            self.agree(&what, real_result, result).map(drop)
        }

        fn room(&self) -> usize {
            let size = self.case.shape.value as usize;
            if kind::is_per_cpu(self.case.shape.kind) { size.next_multiple_of(8) * self.cpus } else { size }
        }

        fn lookup(&mut self, key: &[u8], take: bool) -> Result<(), String> {
            let flags = [0, 0, 0, 0, 1, 4][self.random.below(6) as usize];
            let mut value = vec![0; self.room().max(8)];
            let mut asked = key.to_vec();
            if self.case.shape.kind == kind::BLOOM_FILTER {
                asked = self.value().0;
                value[..asked.len()].copy_from_slice(&asked);
            }
            let (real, simulated) = if take {
                (self.real.take(key, flags, &mut value), self.kernel.map_take(self.map, &asked, flags))
            } else {
                (self.real.lookup(key, flags, &mut value), self.kernel.map_read(self.map, &asked, flags))
            };
            let what = format!("{} {asked:?} flags {flags}", if take { "take" } else { "lookup" });
            match self.agree(&what, real, simulated)? {
                Some(values) => self.same_value(&what, &value, &values),
                None => Ok(()),
            }
        }

        fn same_value(&mut self, what: &str, real: &[u8], simulated: &[Vec<u8>]) -> Result<(), String> {
            let size = self.case.shape.value as usize;
            if !self.things.is_empty() {
                let number = |b: &[u8]| b.iter().take(size).rev().fold(0, |n, b| n << 8 | u64::from(*b));
                let (real, simulated) = (number(real), number(&simulated[0]));
                let known = *self.same.entry(real).or_insert(simulated);
                return if known == simulated {
                    Ok(())
                } else {
                    Err(format!("{what}: kernel gives what is {known}, skep-vm {simulated}"))
                };
            }
            let stride = size.next_multiple_of(8);
            for (cpu, value) in simulated.iter().enumerate() {
                let of_cpu =
                    if kind::is_per_cpu(self.case.shape.kind) { &real[cpu * stride..] } else { real };
                // The upper half of a device's or CPU's value names its program.
                let len = if matches!(self.case.shape.kind, kind::DEVMAP | kind::DEVMAP_HASH | kind::CPUMAP) {
                    4
                } else {
                    size
                };
                if of_cpu[..len] != value[..len] {
                    return Err(format!("{what}: kernel {:?}, skep-vm {value:?}", &of_cpu[..size]));
                }
            }
            Ok(())
        }

        /// Only whether there is a next key is comparable; all keys are compared by [`Self::contents`].
        fn next_key(&mut self, key: &[u8]) -> Result<(), String> {
            let mut next = vec![0; (self.case.shape.key as usize).max(8)];
            if self.by_index() {
                let real = self.real.next_key(Some(key), &mut next);
                let simulated = self.kernel.map_next_key(self.map, Some(key));
                let what = format!("next key of {key:?}");
                return match self.agree(&what, real, simulated)? {
                    Some(found) if found != next[..found.len()] => {
                        Err(format!("{what}: kernel {next:?}, skep-vm {found:?}"))
                    }
                    _ => Ok(()),
                };
            }
            let real = self.real.next_key(None, &mut next);
            let simulated = self.kernel.map_next_key(self.map, None);
            self.agree("first key", real, simulated).map(drop)
        }

        fn by_index(&self) -> bool {
            matches!(
                self.case.shape.kind,
                kind::ARRAY
                    | kind::PERCPU_ARRAY
                    | kind::ARRAY_OF_MAPS
                    | kind::DEVMAP
                    | kind::CPUMAP
                    | kind::SOCKMAP
                    | kind::CGROUP_ARRAY
            )
        }

        /// All keys, and what stands there.
        fn contents(&mut self) -> Result<(), String> {
            let size = self.case.shape.key as usize;
            let (mut real, mut simulated) = (Vec::new(), Vec::new());
            let mut key: Option<Vec<u8>> = None;
            loop {
                let mut next = vec![0; size.max(1)];
                if self.real.next_key(key.as_deref(), &mut next).is_err() {
                    break;
                }
                next.truncate(size);
                real.push(next.clone());
                key = Some(next);
            }
            let mut key = None;
            while let Ok(next) = self.kernel.map_next_key(self.map, key.as_deref()) {
                simulated.push(next.clone());
                key = Some(next);
            }
            real.sort();
            simulated.sort();
            if real != simulated {
                let only = |a: &[Vec<u8>], b: &[Vec<u8>]| -> Vec<_> {
                    a.iter().filter(|k| !b.contains(k)).cloned().collect()
                };
                return Err(format!(
                    "{} keys in the kernel, {} in skep-vm; only in one: {:?} {:?}",
                    real.len(),
                    simulated.len(),
                    only(&real, &simulated),
                    only(&simulated, &real)
                ));
            }
            for key in real {
                let mut value = vec![0; self.room().max(8)];
                let found = self.real.lookup(&key, 0, &mut value);
                let simulated = self.kernel.map_read(self.map, &key, 0);
                if let Some(values) = self.agree(&format!("content {key:?}"), found, simulated)? {
                    self.same_value(&format!("content {key:?}"), &value, &values)?;
                }
            }
            Ok(())
        }
    }

    fn def(shape: RawShape) -> MapDef {
        MapDef {
            name: "map".into(),
            kind: shape.kind,
            key_size: shape.key,
            value_size: shape.value,
            max_entries: shape.entries,
            flags: shape.flags,
            extra: shape.extra,
            ..MapDef::default()
        }
    }
}
