//! The simulated kernel: programs, maps and the memory that they stand in.
//!
//! Knows the system calls on maps and programs. Knows neither how a program is made executable nor how it runs.

use std::collections::BTreeMap;
use std::rc::Rc;

use skep_packet::SkBuff;

use crate::arena::Arena;
use crate::engine::Program;
use crate::engine::checked::{Kept, Observe};
use crate::input::Input;
use crate::legal::STACK;
use crate::map::{Eviction, Map, Maps};
use crate::packet::SLOT;
use crate::scope::{Running, STACKS};
use crate::sock::{Socket, SocketId, Sockets};
use crate::{
    EngineKind, Environment, Errno, Error, Fault, FaultKind, MapDef, Object, Run, Stats, context, map_kind,
};

/// How a simulated kernel is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelConfig {
    /// How many CPUs it has: how many values an entry of a per-CPU map holds. At least 1.
    pub cpus: u32,
    /// What executes its programs.
    pub engine: EngineKind,
    /// How LRU maps choose what to evict.
    pub eviction: Eviction,
    /// Bytes of address space for all that programs see; they are committed as they are used.
    pub memory: usize,
    /// How many instructions a program may execute before it is stopped; `None` for what the kernel's verifier lets it.
    pub fuel: Option<u32>,
}

impl Default for KernelConfig {
    fn default() -> Self {
        let (engine, eviction) = (EngineKind::default(), Eviction::Exact);
        Self { cpus: 1, engine, eviction, memory: 256 << 20, fuel: None }
    }
}

/// A map of one [`Kernel`]. Numbers are given in order of creation and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MapId(pub(crate) u32);

/// A loaded program of one [`Kernel`]. Numbers are given in order of loading and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProgramId(pub(crate) u32);

impl MapId {
    /// The number, for display: the first map of a kernel is 1.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl ProgramId {
    /// The number, for display: the first program of a kernel is 1.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What an update does about an entry that is or is not there (`BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum UpdateMode {
    /// Create or replace.
    Any = 0,
    /// Create; `EEXIST` if it is there.
    NoExist = 1,
    /// Replace; `ENOENT` if it is not there.
    Exist = 2,
}

/// What a load fills in. Whatever the object does not have is an error; whatever is left out keeps the object's own
/// value (globals) or is created anew (maps).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadSpec {
    /// Values of globals by symbol name, in the object's byte order (little endian), of exactly their size; and of
    /// [`Object::externs`], 1 to 8 bytes.
    pub globals: BTreeMap<String, Vec<u8>>,
    /// Maps to use in place of the object's own; kind, key and value size must be equal.
    pub maps: BTreeMap<String, MapId>,
    /// Whether a kernel has verified the programs: then [`EngineKind::Auto`] takes an engine that checks nothing.
    pub verified: bool,
}

/// A loaded object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Its programs by name.
    pub programs: BTreeMap<String, ProgramId>,
    /// All its maps by name, given or created.
    pub maps: BTreeMap<String, MapId>,
    /// The maps that this load created; [`Kernel::unload`] deletes them.
    pub(crate) created: Vec<MapId>,
    /// Where its globals stand.
    pub(crate) globals: Vec<(usize, usize)>,
}

/// A simulated kernel.
pub struct Kernel {
    pub(crate) arena: Arena,
    pub(crate) config: KernelConfig,
    pub(crate) cpus: u32,
    pub(crate) maps: Maps,
    pub(crate) programs: BTreeMap<ProgramId, Rc<Program>>,
    pub(crate) next_program: u32,
    pub(crate) record: bool,
    pub(crate) engine: EngineKind,
    /// What `checked` knows of memory, if some of the programs may be run by it.
    pub(crate) regions: Option<Kept>,
    pub(crate) observe: Observe,
    pub(crate) slots: Slots,
    pub(crate) sockets: Sockets,
    /// Empty, for the next run.
    pub(crate) running: Vec<Running>,
    /// For copies of keys and values.
    pub(crate) scratch: Vec<u8>,
}

/// Where in the arena a run's own memory stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    pub(crate) context: usize,
    pub(crate) stacks: usize,
    pub(crate) packet: usize,
    /// Where legal code leaves its frame pointer before it calls a helper that calls back, and behind that r0 of what was
    /// tail called.
    pub(crate) frame: usize,
}

impl Kernel {
    /// A kernel without maps and programs.
    pub fn new(config: &KernelConfig) -> Self {
        let mut arena = Arena::new(config.memory);
        let checks = matches!(config.engine, EngineKind::Auto | EngineKind::Checked);
        if checks {
            arena.watch_freed();
        }
        let mut reserve = |len| arena.alloc(len).expect("an empty arena has room for a run");
        let slots = Slots {
            context: reserve(context::SIZE),
            stacks: reserve(STACKS * STACK),
            packet: reserve(SLOT),
            frame: reserve(16),
        };
        Self {
            arena,
            slots,
            config: *config,
            cpus: config.cpus.max(1),
            maps: Maps::default(),
            programs: BTreeMap::new(),
            next_program: 1,
            record: false,
            engine: config.engine,
            regions: checks.then(Kept::default),
            observe: Observe::default(),
            sockets: Sockets::default(),
            running: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Whether runs list their map accesses ([`Run::accesses`]). Off at the start: it costs copies.
    pub fn record_accesses(&mut self, on: bool) {
        self.record = on;
    }

    /// Whether runs list every instruction ([`Run::trace`]). Only the engine `checked` can do so.
    pub fn trace_instructions(&mut self, on: bool) {
        self.observe.trace = on;
    }

    /// Whether the engine `checked` remembers which instructions were executed ([`Self::covered`]).
    pub fn record_coverage(&mut self, on: bool) {
        self.observe.coverage = on;
    }

    /// Which instructions of a program have been executed since it was loaded, while [`Self::record_coverage`] was on.
    /// Counted as in [`Error::Instruction`]. `None` if there is no such program or its engine does not know.
    pub fn covered(&self, program: ProgramId) -> Option<Vec<usize>> {
        self.programs.get(&program)?.covered()
    }

    /// What executes a program; never [`EngineKind::Auto`].
    pub fn engine(&self, program: ProgramId) -> Option<EngineKind> {
        self.programs.get(&program).map(|p| p.engine())
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Creates a map (`BPF_MAP_CREATE`). A perf event array of zero entries gets one a CPU, as loaders do it; a map of maps
    /// needs [`MapDef::inner`].
    pub fn create_map(&mut self, def: MapDef) -> Result<MapId, Error> {
        let map = Map::create(&def, &self.config, &mut self.arena)?;
        Ok(self.maps.insert(map))
    }

    /// Deletes a map; false if it is not there. Programs that still use it fault.
    pub fn delete_map(&mut self, map: MapId) -> bool {
        let Some(map) = self.maps.remove(map) else { return false };
        map.free(&mut self.arena);
        true
    }

    /// How a map was created.
    pub fn map_def(&self, map: MapId) -> Option<&MapDef> {
        self.maps.get(map).map(Map::def)
    }

    /// How many entries a map has; of an array, how many it has room for.
    pub fn map_len(&self, map: MapId) -> u32 {
        self.maps.get(map).map_or(0, Map::len)
    }

    /// The value at `key`; of a per-CPU map, that of CPU 0. `None` also if the key has the wrong size or the kind
    /// has no values. An LPM trie gives the longest match, and an LRU map does not count this as a use.
    pub fn map_lookup(&self, map: MapId, key: &[u8]) -> Option<Vec<u8>> {
        self.map_lookup_cpus(map, key)?.into_iter().next()
    }

    /// The values at `key`, one a CPU; of a map that is not per-CPU, one.
    pub fn map_lookup_cpus(&self, map: MapId, key: &[u8]) -> Option<Vec<Vec<u8>>> {
        self.map_read(map, key, 0).ok()
    }

    /// `BPF_MAP_LOOKUP_ELEM` with its flags and error numbers: the values of all CPUs. A queue or stack has an empty key;
    /// of a bloom filter `key` is the value that is asked for. Maps, programs and sockets are given by number.
    pub fn map_read(&self, map: MapId, key: &[u8], flags: u64) -> Result<Vec<Vec<u8>>, Errno> {
        self.maps.get(map).ok_or(Errno::ENOENT)?.read(key, flags, &self.arena)
    }

    /// Writes an entry (`BPF_MAP_UPDATE_ELEM`). Of a per-CPU map the value may be one value, for every CPU, or one
    /// after another for each CPU. `EINVAL` for a key or value of the wrong size, `ENOENT` for a map that is not
    /// there, else as the kind of map says.
    pub fn map_update(
        &mut self,
        map: MapId,
        key: &[u8],
        value: &[u8],
        mode: UpdateMode,
    ) -> Result<(), Errno> {
        self.map_write(map, key, value, mode as u64, 0)
    }

    /// `BPF_MAP_UPDATE_ELEM` with its flags, called on a CPU: an LRU map with [`Eviction::Kernel`] keeps lists a CPU.
    pub fn map_write(
        &mut self,
        map: MapId,
        key: &[u8],
        value: &[u8],
        flags: u64,
        cpu: u32,
    ) -> Result<(), Errno> {
        let kind = self.map_def(map).ok_or(Errno::ENOENT)?.kind;
        if flags & 4 != 0 && self.map_def(map).is_some_and(|d| d.lock.is_none()) {
            // `BPF_F_LOCK` without a lock.
            return Err(Errno::EINVAL);
        }
        let number = || value.try_into().map(u32::from_le_bytes).map_err(|_| Errno::EINVAL);
        if kind == map_kind::PROG_ARRAY {
            let index = key.try_into().map(u32::from_le_bytes).map_err(|_| Errno::EINVAL)?;
            if flags != 0 {
                return Err(Errno::EINVAL);
            }
            return self.prog_array_set(map, index, Some(ProgramId(number()?)));
        }
        if kind == map_kind::ARRAY_OF_MAPS {
            // Before the map is looked for that the value names.
            self.maps.get(map).ok_or(Errno::ENOENT)?.check_index(key, flags)?;
        }
        if map_kind::holds_maps(kind) {
            self.check_inner(map, MapId(number()?))?;
        }
        if matches!(kind, map_kind::SOCKMAP | map_kind::SOCKHASH) {
            let number = value.iter().take(8).rev().fold(0, |n, b| n << 8 | u64::from(*b));
            self.socket(SocketId(number)).ok_or(Errno::EBADF)?;
        }
        let cpu = cpu.min(self.cpus - 1);
        self.maps.get_mut(map).ok_or(Errno::ENOENT)?.write(key, value, flags, cpu, &mut self.arena)
    }

    /// `bpf_map_meta_equal`: what a map of maps takes. `EBADF` for a map that is not there.
    fn check_inner(&self, outer: MapId, inner: MapId) -> Result<(), Errno> {
        let given = self.map_def(inner).ok_or(Errno::EBADF)?;
        let wanted = self.map_def(outer).and_then(|d| d.inner.as_deref());
        let Some(wanted) = wanted else { return Ok(()) };
        let shape = |d: &MapDef| (d.kind, d.key_size, d.value_size, d.flags, d.lock);
        let fixed = given.kind == map_kind::ARRAY && wanted.flags & 1 << 12 == 0;
        if shape(given) != shape(wanted) || fixed && given.max_entries != wanted.max_entries {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Deletes an entry (`BPF_MAP_DELETE_ELEM`). `ENOENT` if it is not there; arrays refuse with `EINVAL`.
    pub fn map_delete(&mut self, map: MapId, key: &[u8]) -> Result<(), Errno> {
        self.maps.get_mut(map).ok_or(Errno::ENOENT)?.delete(key, &mut self.arena)
    }

    /// Reads and deletes an entry (`BPF_MAP_LOOKUP_AND_DELETE_ELEM`), or takes the next value off a queue or stack.
    pub fn map_take(&mut self, map: MapId, key: &[u8], flags: u64) -> Result<Vec<Vec<u8>>, Errno> {
        self.maps.get_mut(map).ok_or(Errno::ENOENT)?.take(key, flags, &mut self.arena)
    }

    /// The key behind `key` (`BPF_MAP_GET_NEXT_KEY`); the first for `None` and for a key that is not there. `ENOENT` at
    /// the end.
    pub fn map_next_key(&self, map: MapId, key: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
        self.maps.get(map).ok_or(Errno::ENOENT)?.next_key(key, &self.arena)
    }

    /// Reads a ring buffer up to the first record that a program has reserved and not yet submitted; the space is free
    /// again. Nothing for a map of another kind.
    pub fn ring_read(&mut self, map: MapId, mut each: impl FnMut(&[u8])) {
        if let Some(ring) = self.maps.get_mut(map).and_then(Map::ring) {
            ring.read(&mut self.arena, &mut each);
        }
    }

    /// All entries, ordered by key as bytes; of an array those that are not all zero. Values as [`Self::map_lookup`].
    /// An LPM trie's keys are as they were written.
    pub fn entries(&self, map: MapId) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.maps.get(map).map(|m| m.entries(&self.arena)).unwrap_or_default()
    }

    /// All entries with the values of each CPU, ordered by key as bytes.
    pub fn entries_cpus(&self, map: MapId) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        self.maps.get(map).map(|m| m.entries_cpus(&self.arena)).unwrap_or_default()
    }

    /// Adds a socket that programs can find, look at and keep in maps. `None` if memory is full.
    pub fn add_socket(&mut self, socket: Socket) -> Option<SocketId> {
        self.sockets.add(socket, &mut self.arena)
    }

    /// A socket.
    pub fn socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get(id)
    }

    /// Replaces a socket; false if there is no such one.
    pub fn set_socket(&mut self, id: SocketId, socket: Socket) -> bool {
        let Some(place) = self.sockets.get_mut(id) else { return false };
        *place = socket;
        self.sockets.refresh(id, &mut self.arena);
        true
    }

    /// Closes a socket. It is also gone from the maps that hold it, with its storage.
    pub fn remove_socket(&mut self, id: SocketId) -> Option<Socket> {
        let socket = self.sockets.remove(id, &mut self.arena)?;
        self.maps.forget_socket(id.0, &mut self.arena);
        Some(socket)
    }

    /// Sets or clears a slot of a program array. `ENOENT` if there is no such map or program, `EINVAL` if the map is
    /// of another kind, `E2BIG` beyond its last slot.
    pub fn prog_array_set(
        &mut self,
        map: MapId,
        index: u32,
        program: Option<ProgramId>,
    ) -> Result<(), Errno> {
        let target = match program {
            Some(id) => Some((id, self.programs.get(&id).cloned().ok_or(Errno::ENOENT)?)),
            None => None,
        };
        self.maps.get_mut(map).ok_or(Errno::ENOENT)?.set_program(index, target)
    }

    /// The filled slots of a program array, in order.
    pub fn prog_array(&self, map: MapId) -> Vec<(u32, ProgramId)> {
        self.maps.get(map).map(Map::program_slots).unwrap_or_default()
    }

    /// Loads all programs of an object. The object is made executable once, however often it is loaded.
    pub fn load(&mut self, object: &Object, spec: &LoadSpec) -> Result<Loaded, Error> {
        crate::load::load(self, object, spec)
    }

    /// Takes the programs and the maps that the load created away. Whatever is left in a program array elsewhere
    /// can still be tail called, as in the kernel, but faults when it uses a map that is gone.
    pub fn unload(&mut self, loaded: &Loaded) {
        for id in loaded.programs.values() {
            self.programs.remove(id);
        }
        for id in &loaded.created {
            self.delete_map(*id);
        }
        for (at, len) in &loaded.globals {
            self.arena.free(*at, *len);
        }
    }

    /// The name of a program.
    pub fn program_name(&self, program: ProgramId) -> Option<&str> {
        self.programs.get(&program).map(|p| p.name())
    }

    /// Runs a program over a packet, with the programs that it tail calls. Return value, packet and `skb` are as
    /// `BPF_PROG_TEST_RUN` would give them back; redirects are recorded and not followed.
    ///
    /// After a fault the packet is in no particular state.
    pub fn run(
        &mut self,
        program: ProgramId,
        skb: &mut SkBuff,
        env: &mut dyn Environment,
    ) -> Result<Run, Fault> {
        crate::run::run(self, program, Input::Skb(skb), env)
    }

    /// The same of any kind of program. [`FaultKind::NoProgram`] if the input is not what the program expects.
    pub fn run_on(
        &mut self,
        program: ProgramId,
        input: Input<'_>,
        env: &mut dyn Environment,
    ) -> Result<Run, Fault> {
        crate::run::run(self, program, input, env)
    }

    /// As [`Self::run_on`], into a [`Run`] that was used before: its lists keep their memory, so that a packet costs no
    /// allocation. After a fault it holds nothing that means anything.
    pub fn run_again(
        &mut self,
        program: ProgramId,
        input: Input<'_>,
        env: &mut dyn Environment,
        run: &mut Run,
    ) -> Result<(), Fault> {
        crate::run::run_again(self, program, input, env, run)
    }

    /// As `BPF_PROG_TEST_RUN` with `repeat`: packet and context are put in place once, the program runs so many times (at
    /// least once) over what the time before has left of them, and they are taken back at the end. `run` is the last run;
    /// what comes back is what all of them took together.
    pub fn run_repeated(
        &mut self,
        program: ProgramId,
        input: Input<'_>,
        env: &mut dyn Environment,
        repeat: u32,
        run: &mut Run,
    ) -> Result<Stats, Fault> {
        crate::run::run_repeated(self, program, input, env, repeat, run)
    }

    /// Runs a program of the kind [`crate::ProgramKind::Memory`]: r1 points to `memory`, or is 0 if that is empty, and r2
    /// is its length. Gives r0.
    pub fn run_memory(
        &mut self,
        program: ProgramId,
        memory: &mut [u8],
        env: &mut dyn Environment,
    ) -> Result<u64, Fault> {
        crate::run::run_memory(self, program, memory, env)
    }

    pub(crate) fn program(&self, id: ProgramId) -> Result<Rc<Program>, Fault> {
        self.programs.get(&id).cloned().ok_or_else(|| Fault {
            program: format!("#{}", id.0),
            instruction: None,
            kind: FaultKind::NoProgram,
        })
    }
}
