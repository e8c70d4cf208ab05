//! Runs a row in skep-vm.

use crate::outcome::{Context, Entries, Outcome, started_at, sum_cpus};
use crate::row::{Row, policy_name};
use crate::world::{NEIGHBOUR, POD, Place, Pod, globals};
use skep_abi::map::{self, MAPS, MapKind, Scope};
use skep_abi::program::{self, Hook, Object};
use skep_object::ObjectSet;
use skep_packet::SkBuff;
use skep_vm::{
    EngineKind, Environment, Input, Kernel, KernelConfig, LoadSpec, Loaded, MapDef, MapId, ProgramId, Run,
    Stats, UpdateMode,
};
use std::collections::BTreeMap;

/// The simulated clock at the start of every row, seconds. Any will do: what is compared are offsets from it.
const START_S: u32 = 100_000;

/// The clock of a run that starts in this second, nanoseconds.
const fn half_past(start_s: u32) -> u64 {
    start_s as u64 * 1_000_000_000 + 500_000_000
}

/// Bytes for events that nobody reads.
const RING: usize = 64 << 10;

/// What a run sees of the world, and the events that it sent.
struct World {
    events: Vec<Vec<u8>>,
    start_s: u32,
}

impl World {
    fn at(start_s: u32) -> Self {
        Self { events: Vec::new(), start_s }
    }
}

impl Environment for World {
    fn now_ns(&mut self) -> u64 {
        half_past(self.start_s)
    }

    fn random_u32(&mut self) -> u32 {
        4
    }

    fn emit(&mut self, _: MapId, event: &[u8], captured: &[u8]) {
        self.events.push([event, captured].concat());
    }
}

/// Objects that are ready to run.
pub struct Simulator {
    objects: BTreeMap<Object, skep_vm::Object>,
    standing: BTreeMap<SetUp, Node>,
    engine: EngineKind,
}

/// What of a row decides how its node is loaded.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SetUp {
    owner: Object,
    globals: BTreeMap<&'static str, Vec<u8>>,
    unplugged: Option<u32>,
    not_ready: Option<u16>,
}

impl SetUp {
    fn of(row: &Row) -> Result<Self, String> {
        let owner = program::by_name(row.program).ok_or("no such program")?.object;
        let (unplugged, not_ready) = (row.unplugged, row.not_ready);
        Ok(Self { owner, globals: row.globals.clone(), unplugged, not_ready })
    }
}

/// A row that is ready to be run.
pub struct Prepared {
    node: Node,
    program: ProgramId,
    packet: SkBuff,
    ring: Vec<u8>,
    last: Run,
}

/// A world whose events go where nobody reads them.
struct Unread<'a> {
    ring: &'a mut [u8],
    at: usize,
}

impl Environment for Unread<'_> {
    fn now_ns(&mut self) -> u64 {
        half_past(START_S)
    }

    fn random_u32(&mut self) -> u32 {
        4
    }

    fn emit(&mut self, _: MapId, event: &[u8], captured: &[u8]) {
        for bytes in [event, captured] {
            if self.at + bytes.len() > self.ring.len() {
                self.at = 0;
            }
            if let Some(place) = self.ring.get_mut(self.at..self.at + bytes.len()) {
                place.copy_from_slice(bytes);
                self.at += bytes.len();
            }
        }
    }
}

impl Prepared {
    /// Runs the program over the row's packet, which it must leave as it is, and over what runs before have left in
    /// the maps.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn run(&mut self) -> Result<Run, String> {
        let mut world = World::at(START_S);
        self.node.kernel.run(self.program, &mut self.packet, &mut world).map_err(|e| e.to_string())
    }

    /// Runs the program so many times over the row's packet, as `BPF_PROG_TEST_RUN` with `repeat` does. Time stands still,
    /// and events are copied into a ring that nobody reads, as the kernel's is meanwhile.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn repeat(&mut self, times: u32) -> Result<Stats, String> {
        let mut world = Unread { ring: &mut self.ring, at: 0 };
        let input = Input::Skb(&mut self.packet);
        let ran = self.node.kernel.run_repeated(self.program, input, &mut world, times, &mut self.last);
        ran.map_err(|e| e.to_string())
    }
}

/// A node on which programs are run one after the other.
pub struct Walk<'a> {
    node: &'a mut Node,
    world: World,
}

impl Walk<'_> {
    /// Runs a program on a packet: what it returned, and the redirect, `(ifindex, flags)`.
    ///
    /// # Errors
    ///
    /// A program that is not there, or a fault.
    pub fn run(&mut self, program: &str, skb: &mut SkBuff) -> Result<(i32, Option<(u32, u64)>), String> {
        let program = self.node.program(program)?;
        let run = self.node.kernel.run(program, skb, &mut self.world).map_err(|e| e.to_string())?;
        Ok((run.return_value, run.redirect.map(|r| (r.ifindex, r.flags))))
    }
}

fn packet(row: &Row) -> SkBuff {
    let mut skb = SkBuff::from_frame(&row.frame);
    skb.mark = row.context.mark;
    skb.priority = row.context.priority;
    skb.cb = row.context.cb;
    skb.ifindex = row.context.ifindex;
    skb.ingress_ifindex = row.context.ingress_ifindex;
    skb
}

/// A kernel with all loads of a row.
struct Node {
    kernel: Kernel,
    maps: BTreeMap<Place, MapId>,
    loads: BTreeMap<(Object, u16), Loaded>,
}

impl Simulator {
    /// Reads the objects.
    ///
    /// # Errors
    ///
    /// What skep-vm says about one that it cannot run.
    pub fn new(objects: &ObjectSet) -> Result<Self, String> {
        let parse = |o: &Object| {
            let parsed =
                skep_vm::Object::parse(objects.bytes(*o)).map_err(|e| format!("{}: {e}", o.name()))?;
            Ok((*o, parsed))
        };
        let objects = Object::ALL.iter().map(parse).collect::<Result<_, String>>()?;
        Ok(Self { objects, standing: BTreeMap::new(), engine: EngineKind::default() })
    }

    /// The same with programs executed so.
    pub fn with_engine(self, engine: EngineKind) -> Self {
        Self { engine, ..self }
    }

    /// Runs a row on a node of its own.
    ///
    /// # Errors
    ///
    /// A set-up that skep-vm refuses, or a fault.
    pub fn run(&self, row: &Row) -> Result<Outcome, String> {
        self.node(row, self.engine)?.run(row, START_S)
    }

    /// Runs a row at a time of the clock, in seconds, on the node of the last row that was set up as this one, with its
    /// maps emptied.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_at(&mut self, row: &Row, start_s: u32) -> Result<Outcome, String> {
        let key = SetUp::of(row)?;
        let mut node = match self.standing.remove(&key) {
            Some(node) => node,
            None => self.node(row, self.engine)?,
        };
        node.clear();
        // A node on which something went wrong does not stay.
        let outcome = node.run(row, start_s)?;
        self.standing.insert(key, node);
        Ok(outcome)
    }

    /// Packets one after the other on a node with a row's set-up and maps, at a time of the clock in seconds: `each` runs
    /// programs. What they have left behind.
    ///
    /// # Errors
    ///
    /// As [`Self::run`], and what `each` says.
    pub fn walk(
        &mut self,
        row: &Row,
        start_s: u32,
        each: &mut dyn FnMut(&mut Walk<'_>) -> Result<(), String>,
    ) -> Result<Outcome, String> {
        let key = SetUp::of(row)?;
        let mut node = match self.standing.remove(&key) {
            Some(node) => node,
            None => self.node(row, self.engine)?,
        };
        node.clear();
        node.fill(row, start_s)?;
        let mut walk = Walk { node: &mut node, world: World::at(start_s) };
        each(&mut walk)?;
        let events = walk.world.events;
        let outcome = Outcome { events, maps: node.dump(), start_s, ..Outcome::default() };
        self.standing.insert(key, node);
        Ok(outcome)
    }

    /// A row on a node of its own, to be run again and again.
    ///
    /// # Errors
    ///
    /// A set-up that skep-vm refuses.
    pub fn prepare(&self, row: &Row, engine: EngineKind) -> Result<Prepared, String> {
        let mut node = self.node(row, engine)?;
        node.fill(row, START_S)?;
        let program = node.program(row.program)?;
        Ok(Prepared { node, program, packet: packet(row), ring: vec![0; RING], last: Run::default() })
    }

    fn node(&self, row: &Row, engine: EngineKind) -> Result<Node, String> {
        let mut node = Node {
            kernel: Kernel::new(&KernelConfig { cpus: 2, engine, ..KernelConfig::default() }),
            maps: BTreeMap::new(),
            loads: BTreeMap::new(),
        };
        for spec in MAPS.iter().filter(|m| m.scope == Scope::Node) {
            let id = node.kernel.create_map(def(spec)).map_err(|e| e.to_string())?;
            node.maps.insert(Place::Node(spec.name), id);
        }
        for pod in [POD, NEIGHBOUR] {
            let id = node.kernel.create_map(def(&map::POLICY)).map_err(|e| e.to_string())?;
            node.maps.insert(Place::Policy(pod.id), id);
        }
        let owner = program::by_name(row.program).ok_or("no such program")?.object;
        for (object, pod) in
            [(Object::Lxc, POD), (Object::Lxc, NEIGHBOUR), (Object::Host, POD), (Object::Overlay, POD)]
        {
            let overrides = object == owner && pod.id == POD.id;
            self.load(&mut node, object, &pod, row, overrides)?;
        }
        Ok(node)
    }

    fn load(
        &self,
        node: &mut Node,
        object: Object,
        pod: &Pod,
        row: &Row,
        overrides: bool,
    ) -> Result<(), String> {
        let parsed = &self.objects[&object];
        let mut values = globals(object, pod);
        if overrides {
            values.extend(row.globals.clone());
        }
        values.retain(|name, _| parsed.globals().iter().any(|g| g.name == *name));
        let of_pod = Place::Policy(pod.id);
        let place = |name: &str| {
            node.maps.iter().find(|(p, _)| {
                matches!(p, Place::Node(n) if *n == name) || (name == map::POLICY.name && **p == of_pod)
            })
        };
        let maps = parsed.maps().iter().filter_map(|m| Some((m.name.clone(), *place(&m.name)?.1))).collect();
        let globals = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let loaded = node
            .kernel
            .load(parsed, &LoadSpec { globals, maps, ..LoadSpec::default() })
            .map_err(|e| e.to_string())?;
        let is_row = overrides.then_some(row.unplugged).flatten();
        for p in program::of(object) {
            let target = Some(*loaded.programs.get(p.name).ok_or_else(|| format!("no program {}", p.name))?);
            let (map, slot) = match p.hook {
                Hook::Calls(slot) if Some(slot) != is_row => (loaded.maps.get(map::CALLS.name), slot),
                Hook::CallPolicy if row.not_ready != Some(pod.id) => {
                    (node.maps.get(&Place::Node(map::CALL_POLICY.name)), u32::from(pod.id))
                }
                _ => continue,
            };
            let map = *map.ok_or_else(|| format!("{}: no map for it", p.name))?;
            node.kernel.prog_array_set(map, slot, target).map_err(|e| format!("{}: {e:?}", p.name))?;
        }
        let id = if object == Object::Lxc { pod.id } else { 0 };
        node.loads.insert((object, id), loaded);
        Ok(())
    }
}

impl Node {
    fn program(&self, name: &str) -> Result<ProgramId, String> {
        let object = program::by_name(name).ok_or("no such program")?.object;
        let load = &self.loads[&(object, if object == Object::Lxc { POD.id } else { 0 })];
        Ok(*load.programs.get(name).ok_or("the object has no such program")?)
    }

    /// Fills the maps, which are empty, and runs the row.
    fn run(&mut self, row: &Row, start_s: u32) -> Result<Outcome, String> {
        self.fill(row, start_s)?;
        let program = self.program(row.program)?;
        let mut skb = packet(row);
        let mut world = World::at(start_s);
        let run = self.kernel.run(program, &mut skb, &mut world).map_err(|e| e.to_string())?;
        let name = |p| self.kernel.program_name(p).unwrap_or("?").to_owned();
        Ok(Outcome {
            return_value: run.return_value,
            packet: skb.bytes().to_vec(),
            context: Context {
                mark: skb.mark,
                priority: skb.priority,
                ingress_ifindex: skb.ingress_ifindex,
                ifindex: skb.ifindex,
                cb: skb.cb,
            },
            maps: self.dump(),
            events: world.events,
            start_s,
            redirect: Some(run.redirect.map(|r| (r.ifindex, r.flags))),
            chain: Some(run.chain.into_iter().map(name).collect()),
        })
    }

    /// Empties the maps that hold data.
    fn clear(&mut self) {
        for (place, id) in &self.maps {
            let kind = spec_of(place).map(|s| s.kind);
            if matches!(kind, Some(MapKind::ProgArray | MapKind::PerfEventArray) | None) {
                continue;
            }
            for (key, _) in self.kernel.entries(*id) {
                self.kernel.map_delete(*id, &key).expect("a key that was just listed");
            }
        }
    }

    fn fill(&mut self, row: &Row, start_s: u32) -> Result<(), String> {
        for entry in &row.state.0 {
            let mut value = entry.value.clone();
            if matches!(entry.map, Place::Node(n) if n == map::CT4_GLOBAL.name || n == map::CT_ANY4_GLOBAL.name)
            {
                started_at(&mut value, start_s);
            }
            if entry.map == Place::Node(map::METRICS.name) {
                // The kernel's loader gives the value to the first CPU, and zeros to the others.
                value.resize(value.len() * self.kernel.cpus() as usize, 0);
            }
            let id = *self.maps.get(&entry.map).ok_or("no such map")?;
            let result = self.kernel.map_update(id, &entry.key, &value, UpdateMode::Any);
            result.map_err(|e| format!("{:?}: {e:?}", entry.map))?;
        }
        Ok(())
    }

    fn dump(&self) -> BTreeMap<String, Entries> {
        let mut all = BTreeMap::new();
        for (place, id) in &self.maps {
            let name = match place {
                Place::Node(name) => (*name).to_owned(),
                Place::Policy(id) => policy_name(*id),
            };
            let entries = match spec_of(place).map(|s| s.kind) {
                Some(MapKind::ProgArray | MapKind::PerfEventArray) | None => continue,
                Some(MapKind::PerCpuHash) => {
                    self.kernel.entries_cpus(*id).into_iter().map(|(k, v)| (k, sum_cpus(&v))).collect()
                }
                Some(_) => self.kernel.entries(*id).into_iter().collect(),
            };
            all.insert(name, entries);
        }
        all
    }
}

fn spec_of(place: &Place) -> Option<&'static map::MapSpec> {
    match place {
        Place::Node(name) => map::by_name(name),
        Place::Policy(_) => Some(&map::POLICY),
    }
}

fn def(spec: &map::MapSpec) -> MapDef {
    MapDef {
        name: spec.name.to_owned(),
        kind: spec.kind as u32,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        ..MapDef::default()
    }
}
