//! Runs a row in the running kernel.

use crate::outcome::{Context, Entries, Outcome, event_len, started_at, sum_cpus};
use crate::row::{Row, policy_name};
use crate::world::{NEIGHBOUR, POD, Place, Pod, globals};
use skep_abi::map::{self, MAPS, MapKind, Scope};
use skep_abi::program::{self, Hook, Object};
use skep_agent_linux::{
    Error, Loaded, Map, MapShape, PerfReader, Program, RawMap, RawProgram, RawShape, SkbContext, Spec, load,
    monotonic_ns, probe,
};
use skep_object::ObjectSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Globals that differ from the node's.
type Overrides = BTreeMap<&'static str, Vec<u8>>;

/// The kernel, with one set of maps for all rows and the loads that rows have needed so far.
pub struct Machine {
    objects: ObjectSet,
    maps: BTreeMap<Place, Arc<Map>>,
    /// How many possible entries an object's declared maps have is not the tables' subject; names are.
    declared: BTreeMap<Object, Vec<MapShape>>,
    loads: BTreeMap<(Object, u16, Overrides), Loaded>,
    events: PerfReader,
    /// The kernel's clock when the maps were filled, seconds.
    start_s: u32,
    /// What the arrays of programs were last filled for: filling them patches code, and costs more than a run.
    plugged: Option<Plugs>,
    /// What stood in the maps when they were read last, if they were read after the last run.
    left: Option<Vec<(Place, Vec<Vec<u8>>)>>,
}

/// What decides which programs stand in which slots: the loads, and the slots that stay empty.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plugs {
    owner: Object,
    globals: Overrides,
    unplugged: Option<u32>,
    not_ready: Option<u16>,
}

/// Waits until the kernel runs for longer than conntrack's report interval.
///
/// A conntrack entry's time 0 is both "never" and the moment of boot: a kernel that has just started in QEMU would not
/// report an entry's first packet, as it should not, and differ from every clock that is further on.
fn wait_for_a_clock_beyond_never() {
    let first = Duration::from_secs(u64::from(map::CT_REPORT_INTERVAL) + 1);
    std::thread::sleep(first.saturating_sub(Duration::from_nanos(monotonic_ns())));
}

/// Conntrack's maps are allocated whole, and listing a map goes through all of its buckets; no row needs more entries
/// than this.
const ENTRIES: u32 = 1024;

impl Machine {
    /// Makes the maps.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot be asked.
    pub fn new(objects: ObjectSet) -> Result<Self, Error> {
        probe()?;
        wait_for_a_clock_beyond_never();
        let small = |spec: &map::MapSpec| {
            let shape = MapShape::from(spec);
            let hashes = matches!(spec.kind, MapKind::LruHash | MapKind::Hash | MapKind::PerCpuHash);
            let max_entries = if hashes { ENTRIES } else { shape.max_entries };
            Map::create(MapShape { max_entries, ..shape }).map(Arc::new)
        };
        let mut maps = BTreeMap::new();
        for spec in MAPS.iter().filter(|m| m.scope == Scope::Node) {
            maps.insert(Place::Node(spec.name), small(spec)?);
        }
        for pod in [POD, NEIGHBOUR] {
            maps.insert(Place::Policy(pod.id), small(&map::POLICY)?);
        }
        let events = PerfReader::open(&maps[&Place::Node(map::EVENTS.name)])?;
        let declared = Object::ALL
            .iter()
            .map(|o| Ok((*o, skep_agent_linux::shapes(o.name(), objects.bytes(*o))?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            objects,
            maps,
            declared,
            loads: BTreeMap::new(),
            events,
            start_s: 0,
            plugged: None,
            left: None,
        })
    }

    /// Runs a row.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, or events that were lost.
    pub fn run(&mut self, row: &Row) -> Result<Outcome, String> {
        self.run_row(row).map_err(|e| e.to_string())
    }

    /// How long the program of a row takes, in nanoseconds, on the average of `repeat` runs.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn time_ns(&mut self, row: &Row, repeat: u32) -> Result<u32, String> {
        let time = |m: &mut Self| -> Result<u32, Box<dyn std::error::Error>> {
            let key = m.prepare(row)?;
            let program = m.loads[&key].programs.get(row.program).ok_or("the object has no such program")?;
            Ok(program.time_ns(&row.frame, &context_in(&row.context), repeat)?)
        };
        time(self).map_err(|e| e.to_string())
    }

    /// Runs a row, again where a second has turned while it ran: the maps were filled for the one before.
    fn run_row(&mut self, row: &Row) -> Result<Outcome, Box<dyn std::error::Error>> {
        const ATTEMPTS: usize = 5;
        for _ in 1..ATTEMPTS {
            let outcome = self.run_once(row)?;
            if outcome.start_s == now_s() {
                return Ok(outcome);
            }
        }
        self.run_once(row)
    }

    /// Loads what a row needs and fills the maps, for programs that others will run.
    pub(crate) fn ready(&mut self, row: &Row) -> Result<(), Box<dyn std::error::Error>> {
        self.prepare(row).map(drop)
    }

    /// A program as the row's set-up has it.
    pub(crate) fn program_of(&self, row: &Row, name: &str) -> Result<&Program, String> {
        let owner = |name| program::by_name(name).map(|p| p.object).ok_or("no such program");
        let (object, of_row) = (owner(name)?, owner(row.program)?);
        let overrides = if object == of_row { row.globals.clone() } else { BTreeMap::new() };
        let load = self.loads.get(&(object, load_id(object, &POD), overrides)).ok_or("it was not loaded")?;
        load.programs.get(name).ok_or_else(|| format!("the object has no {name}"))
    }

    /// Takes the events that are there.
    pub(crate) fn events(&mut self) -> Vec<Vec<u8>> {
        self.events.drain().events.into_iter().map(|e| e[..event_len(&e)].to_vec()).collect()
    }

    /// What programs that others ran have left behind.
    pub(crate) fn outcome(&mut self, events: Vec<Vec<u8>>) -> Result<Outcome, Error> {
        Ok(Outcome { events, maps: self.dump()?, start_s: self.start_s, ..Outcome::default() })
    }

    fn run_once(&mut self, row: &Row) -> Result<Outcome, Box<dyn std::error::Error>> {
        let key = self.prepare(row)?;
        let start_s = self.start_s;
        self.events.drain();
        let program = self.loads[&key].programs.get(row.program).ok_or("the object has no such program")?;
        let ran = program.run(&row.frame, &context_in(&row.context))?;
        let read = self.events.drain();
        if read.lost > 0 {
            return Err(format!("{} events were lost", read.lost).into());
        }
        Ok(Outcome {
            return_value: ran.return_value as i32,
            packet: ran.packet,
            context: context_out(&ran.context),
            maps: self.dump()?,
            events: read.events.into_iter().map(|e| e[..event_len(&e)].to_vec()).collect(),
            start_s,
            redirect: None,
            chain: None,
        })
    }

    /// Loads what a row needs and fills the maps; gives the load whose program is run.
    fn prepare(&mut self, row: &Row) -> Result<(Object, u16, Overrides), Box<dyn std::error::Error>> {
        let owner = program::by_name(row.program).ok_or("no such program")?.object;
        let wanted =
            [(Object::Lxc, POD), (Object::Lxc, NEIGHBOUR), (Object::Host, POD), (Object::Overlay, POD)].map(
                |(object, pod)| {
                    let overrides = if object == owner && pod.id == POD.id {
                        row.globals.clone()
                    } else {
                        BTreeMap::new()
                    };
                    (object, pod, overrides)
                },
            );
        for (object, pod, overrides) in wanted.clone() {
            self.ensure(object, &pod, overrides)?;
        }
        match self.left.take() {
            Some(left) => {
                for (place, keys) in left {
                    keys.iter().try_for_each(|k| self.maps[&place].delete(k).map(drop))?;
                }
            }
            None => self.data().try_for_each(|map| map.clear())?,
        }
        let plugs =
            Plugs { owner, globals: row.globals.clone(), unplugged: row.unplugged, not_ready: row.not_ready };
        if self.plugged.as_ref() != Some(&plugs) {
            self.plugged = None;
            for (object, pod, overrides) in &wanted {
                self.plug(*object, pod, overrides, row, *object == owner && pod.id == POD.id)?;
            }
            self.plugged = Some(plugs);
        }
        let start_s = now_s();
        self.start_s = start_s;
        self.fill(row, start_s)?;
        let (object, pod, overrides) = wanted.into_iter().find(|(o, ..)| *o == owner).ok_or("no load")?;
        Ok((object, load_id(object, &pod), overrides))
    }

    /// Loads an object for a pod, or for the node, once.
    fn ensure(&mut self, object: Object, pod: &Pod, overrides: Overrides) -> Result<(), Error> {
        let key = (object, load_id(object, pod), overrides);
        if self.loads.contains_key(&key) {
            return Ok(());
        }
        let bytes = self.objects.bytes(object);
        let mut values = globals(object, pod);
        values.extend(key.2.clone());
        let globals = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let declared = |name: &str| self.declared[&object].iter().any(|d| d.name == name);
        let maps = self
            .maps
            .iter()
            .filter_map(|(place, map)| {
                let name = match place {
                    Place::Node(name) => *name,
                    Place::Policy(id) if *id == pod.id => map::POLICY.name,
                    Place::Policy(_) => return None,
                };
                declared(name).then(|| (name.to_owned(), Arc::clone(map)))
            })
            .collect();
        let loaded = load(object.name(), bytes, &Spec { globals, maps })?;
        self.loads.insert(key, loaded);
        Ok(())
    }

    /// Fills the tail calls of a load as the row wants them.
    fn plug(
        &self,
        object: Object,
        pod: &Pod,
        overrides: &Overrides,
        row: &Row,
        is_row: bool,
    ) -> Result<(), Error> {
        let loaded = &self.loads[&(object, load_id(object, pod), overrides.clone())];
        let call_policy = &self.maps[&Place::Node(map::CALL_POLICY.name)];
        for p in program::of(object) {
            let Some(program) = loaded.programs.get(p.name) else { continue };
            match (p.hook, loaded.maps.get(map::CALLS.name)) {
                (Hook::Calls(slot), Some(calls)) if is_row && row.unplugged == Some(slot) => {
                    calls.delete(&slot.to_ne_bytes())?;
                }
                (Hook::Calls(slot), Some(calls)) => calls.set_program(slot, program)?,
                (Hook::CallPolicy, _) if row.not_ready == Some(pod.id) => {
                    call_policy.delete(&u32::from(pod.id).to_ne_bytes())?;
                }
                (Hook::CallPolicy, _) => call_policy.set_program(pod.id.into(), program)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The maps that hold data.
    fn data(&self) -> impl Iterator<Item = &Arc<Map>> {
        let no_data = [MapKind::ProgArray as u32, MapKind::PerfEventArray as u32];
        self.maps.values().filter(move |m| !no_data.contains(&m.shape().kind))
    }

    fn fill(&self, row: &Row, start_s: u32) -> Result<(), Error> {
        for entry in &row.state.0 {
            let mut value = entry.value.clone();
            if matches!(entry.map, Place::Node(n) if n == map::CT4_GLOBAL.name || n == map::CT_ANY4_GLOBAL.name)
            {
                started_at(&mut value, start_s);
            }
            self.maps[&entry.map].update(&entry.key, &value)?;
        }
        Ok(())
    }

    fn dump(&mut self) -> Result<BTreeMap<String, Entries>, Error> {
        let (mut all, mut left) = (BTreeMap::new(), Vec::new());
        for (place, map) in &self.maps {
            if [MapKind::ProgArray as u32, MapKind::PerfEventArray as u32].contains(&map.shape().kind) {
                continue;
            }
            let name = match place {
                Place::Node(name) => (*name).to_owned(),
                Place::Policy(id) => policy_name(*id),
            };
            let per_cpu = map.shape().kind == MapKind::PerCpuHash as u32;
            let value = |v: Vec<Vec<u8>>| {
                if per_cpu { sum_cpus(&v) } else { v.into_iter().next().unwrap_or_default() }
            };
            let entries: Entries = map.entries()?.into_iter().map(|(k, v)| (k, value(v))).collect();
            left.push((*place, entries.keys().cloned().collect()));
            all.insert(name, entries);
        }
        self.left = Some(left);
        Ok(all)
    }
}

/// The kernel's clock, seconds, as programs read it.
pub(crate) fn now_s() -> u32 {
    (monotonic_ns() / 1_000_000_000) as u32
}

/// The pod's id for an object that is loaded for a pod; 0 for the node's.
fn load_id(object: Object, pod: &Pod) -> u16 {
    if object == Object::Lxc { pod.id } else { 0 }
}

fn context_in(c: &Context) -> SkbContext {
    SkbContext {
        mark: c.mark,
        priority: c.priority,
        ingress_ifindex: c.ingress_ifindex,
        ifindex: c.ifindex,
        cb: c.cb,
        tstamp: 0,
    }
}

fn context_out(c: &SkbContext) -> Context {
    Context {
        mark: c.mark,
        priority: c.priority,
        ingress_ifindex: c.ingress_ifindex,
        ifindex: c.ifindex,
        cb: c.cb,
    }
}

/// A program of a few instructions in the running kernel, to be timed: its average over so many runs, in nanoseconds.
///
/// # Errors
///
/// What the kernel refuses.
pub fn time_instructions(
    code: &[u8],
    maps: &[skep_vm::MapDef],
    entries: &[(Vec<u8>, Vec<u8>)],
) -> Result<impl FnMut(&[u8], u32) -> Result<u32, String> + use<>, String> {
    let shape = |m: &skep_vm::MapDef| RawShape {
        kind: m.kind,
        key: m.key_size,
        value: m.value_size,
        entries: m.max_entries,
        flags: m.flags,
        extra: m.extra,
    };
    let refused = |number| format!("error {number}");
    let maps = maps
        .iter()
        .map(|m| RawMap::create(shape(m), None))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    for (key, value) in entries {
        maps[0].update(key, value, 0).map_err(refused)?;
    }
    let mut code = code.to_vec();
    for insn in code.chunks_exact_mut(8).filter(|i| i[0] == 0x18 && i[1] >> 4 == 1) {
        let index = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]) as usize;
        insn[4..].copy_from_slice(&maps[index].descriptor().to_le_bytes());
    }
    let program =
        RawProgram::load(SCHED_CLS, 0, &code).map_err(|(number, log)| format!("error {number}: {log}"))?;
    Ok(move |frame: &[u8], repeat| {
        // The program needs its maps as long as it is run.
        let _ = &maps;
        program.time_ns(frame, repeat).map_err(refused)
    })
}

/// `BPF_PROG_TYPE_SCHED_CLS`
const SCHED_CLS: u32 = 3;
