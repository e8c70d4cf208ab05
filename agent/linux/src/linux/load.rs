//! The one loader: an object's bytes -> maps and programs of the running kernel.
//!
//! aya-obj parses and relocates; the loading itself is done here and not by aya, because aya drops the verifier's
//! log on success, and its last lines are the instruction and state counts that a report is about.
//!
//! Does not know which values globals and maps must have: a [`Spec`] says.

use super::map::{Map, MapShape};
use super::sys::{Attr, Command, bpf_fd};
use crate::Error;
use aya_obj::btf::BtfFeatures;
use aya_obj::generated::bpf_insn;
use aya_obj::obj::{EbpfSectionKind, Object};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What an object is loaded with.
#[derive(Clone, Default, Debug)]
pub struct Spec {
    /// Read-only globals by name, each as long as the object's. One that the object does not have is an error.
    pub globals: BTreeMap<String, Vec<u8>>,
    /// Maps to use in the place of new ones, by the object's name for them. One that it does not have is an error.
    pub maps: BTreeMap<String, Arc<Map>>,
}

/// What the verifier counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Instructions of the program with its subprograms.
    pub size: u32,
    /// Instructions that the verifier went through.
    pub verified: u64,
    /// Bytes of stack of the program and its subprograms, summed as veristat sums them.
    pub stack: Option<u32>,
    /// States that it made.
    pub states: u64,
    /// The most states that it held at one time.
    pub peak_states: u64,
}

/// A program of the running kernel. It lives as long as this, or a map or hook that holds it.
#[derive(Debug)]
pub struct Program {
    pub(super) fd: OwnedFd,
    /// Its name.
    pub name: String,
    /// What the verifier counted.
    pub statistics: Statistics,
}

/// An object in the running kernel.
#[derive(Debug)]
pub struct Loaded {
    /// Its programs by name.
    pub programs: BTreeMap<String, Program>,
    /// Its maps by name, those that were handed over and those that were made; without the sections of globals.
    pub maps: BTreeMap<String, Arc<Map>>,
}

impl Map {
    /// Puts a program into a slot of an array of programs.
    ///
    /// # Errors
    ///
    /// Where the map is not such an array, or has no such slot.
    pub fn set_program(&self, index: u32, program: &Program) -> Result<(), Error> {
        self.set_fd(index, &program.fd)
    }
}

/// The maps that an object declares, by name; sections of globals are not among them.
///
/// # Errors
///
/// [`Error::BadObject`].
pub fn shapes(object: &str, bytes: &[u8]) -> Result<Vec<MapShape>, Error> {
    let parsed = parse(object, bytes)?;
    let mut all: Vec<MapShape> =
        parsed.maps.iter().filter(|(_, m)| !is_data(m)).map(|(name, m)| shape(name, m)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Loads all programs of an object.
///
/// # Errors
///
/// [`Error::BadObject`], [`Error::Missing`] for a global or map that the object does not have, [`Error::Refused`]
/// by the verifier, and what else the kernel says.
pub fn load(object: &str, bytes: &[u8], spec: &Spec) -> Result<Loaded, Error> {
    let prepared = Prepared::new(object, bytes, spec)?;
    let mut programs = BTreeMap::new();
    for name in prepared.programs() {
        let program = prepared.load(&name)?.map_err(|refusal| Error::Refused {
            program: name.clone(),
            log: refusal.last_lines().join("\n"),
        })?;
        programs.insert(name, program);
    }
    Ok(Loaded { programs, maps: prepared.maps })
}

/// A program that the kernel did not take.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) source: io::Error,
    pub(super) log: String,
    pub(super) statistics: Statistics,
}

impl Refusal {
    /// How many of the log's lines say where and why.
    const LAST: usize = 12;

    pub(super) fn last_lines(&self) -> Vec<String> {
        let lines: Vec<&str> = self.log.lines().filter(|l| !l.trim().is_empty()).collect();
        let mut last: Vec<String> =
            lines[lines.len().saturating_sub(Self::LAST)..].iter().map(|l| (*l).to_owned()).collect();
        if last.is_empty() {
            last.push(self.source.to_string());
        }
        last
    }
}

/// An object with its maps made and its code relocated: all but the programs.
pub(super) struct Prepared {
    name: String,
    object: Object,
    btf: Option<OwnedFd>,
    pub(super) maps: BTreeMap<String, Arc<Map>>,
    /// Kept because the code holds their descriptors.
    _data: Vec<Map>,
}

impl Prepared {
    pub(super) fn new(name: &str, bytes: &[u8], spec: &Spec) -> Result<Self, Error> {
        let bad =
            |why: &dyn std::fmt::Display| Error::BadObject { object: name.to_owned(), why: why.to_string() };
        let mut object = parse(name, bytes)?;
        let globals: HashMap<&str, (&[u8], bool)> =
            spec.globals.iter().map(|(k, v)| (k.as_str(), (v.as_slice(), true))).collect();
        object.patch_map_data(globals).map_err(|e| bad(&e))?;

        let (mut maps, mut data, mut relocated) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (map_name, map) in &object.maps {
            let fd = if is_data(map) {
                let made = make_data(map_name, map)?;
                let fd = made.fd().as_raw_fd();
                data.push(made);
                fd
            } else {
                let made = match spec.maps.get(map_name) {
                    Some(given) => Arc::clone(given),
                    None => Arc::new(Map::create(shape(map_name, map))?),
                };
                let fd = made.fd().as_raw_fd();
                maps.insert(map_name.clone(), made);
                fd
            };
            relocated.push((map_name.clone(), fd, map.clone()));
        }
        if let Some(unknown) = spec.maps.keys().find(|k| !maps.contains_key(*k)) {
            return Err(missing(name, &format!("map `{unknown}`"), maps.keys().cloned().collect()));
        }
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(relocated.iter().map(|(n, fd, m)| (n.as_str(), *fd, m)), &text)
            .map_err(|e| bad(&e))?;
        object.relocate_calls(&text).map_err(|e| bad(&e))?;
        let btf = load_btf(&mut object);
        Ok(Self { name: name.to_owned(), object, btf, maps, _data: data })
    }

    /// The names of the programs, in order.
    pub(super) fn programs(&self) -> Vec<String> {
        let mut names: Vec<String> = self.object.programs.keys().cloned().collect();
        names.sort();
        names
    }

    /// Hands one program to the verifier.
    pub(super) fn load(&self, program: &str) -> Result<Result<Program, Refusal>, Error> {
        let function = self
            .object
            .programs
            .get(program)
            .and_then(|p| self.object.functions.get(&p.function_key()))
            .ok_or_else(|| missing(&self.name, &format!("program `{program}`"), self.programs()))?;
        let code = encode(&function.instructions);
        let size = function.instructions.len() as u32;
        let (functions, lines) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
        let license = self.object.license.as_bytes_with_nul();
        let attempt = |level: u32, log: &mut [u8]| {
            let log_size = log.len() as u32;
            let mut attr = Attr::new()
                .u32(0, SCHED_CLS)
                .u32(4, size)
                .bytes(8, &code)
                .bytes(16, license)
                .u32(24, level)
                .u32(28, log_size)
                .bytes_mut(32, log)
                .name(48, program);
            if let Some(btf) = &self.btf {
                attr = attr
                    .u32(72, btf.as_raw_fd() as u32)
                    .u32(76, FUNC_INFO_SIZE)
                    .bytes(80, &functions)
                    .u32(88, (functions.len() / FUNC_INFO_SIZE as usize) as u32)
                    .u32(92, LINE_INFO_SIZE)
                    .bytes(96, &lines)
                    .u32(104, (lines.len() / LINE_INFO_SIZE as usize) as u32);
            }
            bpf_fd(Command::ProgLoad, &mut attr)
        };
        let mut log = vec![0; STATISTICS_LOG];
        match attempt(LOG_STATISTICS, &mut log) {
            Ok(fd) => {
                let statistics = Statistics { size, ..statistics(&text_of(&log)) };
                Ok(Ok(Program { fd, name: program.to_owned(), statistics }))
            }
            Err(_) => {
                // Once more with all of the log, for its end. A kernel before 6.4 does not rotate the buffer: it
                // must then hold everything, and ENOSPC is not the reason for which the program was refused.
                let mut log = vec![0; WHOLE_LOG];
                match attempt(LOG_ALL | LOG_STATISTICS, &mut log) {
                    Ok(fd) => {
                        let statistics = Statistics { size, ..statistics(&text_of(&log)) };
                        Ok(Ok(Program { fd, name: program.to_owned(), statistics }))
                    }
                    Err(source) => {
                        let log = text_of(&log);
                        let statistics = Statistics { size, ..statistics(&log) };
                        Ok(Err(Refusal { source, log, statistics }))
                    }
                }
            }
        }
    }
}

/// BPF_PROG_TYPE_SCHED_CLS: what all programs of the datapath are.
const SCHED_CLS: u32 = 3;
/// Size of `struct bpf_func_info` and `struct bpf_line_info`.
const FUNC_INFO_SIZE: u32 = 8;
const LINE_INFO_SIZE: u32 = 16;
/// BPF_LOG_LEVEL1 and BPF_LOG_STATS.
const LOG_ALL: u32 = 1;
const LOG_STATISTICS: u32 = 4;
const STATISTICS_LOG: usize = 64 << 10;
const WHOLE_LOG: usize = 16 << 20;

/// aya-obj indexes by what a file says; what it cannot hold is an error here and no panic of the command.
fn parse(object: &str, bytes: &[u8]) -> Result<Object, Error> {
    let bad = |why: String| Error::BadObject { object: object.to_owned(), why };
    match catch_unwind(AssertUnwindSafe(|| Object::parse(bytes))) {
        Ok(Ok(parsed)) if parsed.programs.is_empty() => Err(bad("it has no program".to_owned())),
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(e)) => Err(bad(e.to_string())),
        Err(_) => Err(bad("its sections and symbols contradict each other".to_owned())),
    }
}

fn missing(object: &str, what: &str, mut has: Vec<String>) -> Error {
    has.sort();
    Error::Missing { object: object.to_owned(), what: what.to_owned(), has: has.join(", ") }
}

fn is_data(map: &aya_obj::Map) -> bool {
    matches!(map.section_kind(), EbpfSectionKind::Data | EbpfSectionKind::Rodata | EbpfSectionKind::Bss)
}

fn shape(name: &str, map: &aya_obj::Map) -> MapShape {
    MapShape {
        name: name.to_owned(),
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    }
}

/// A section of globals, as an array of one entry; constants are frozen, so that the verifier may fold them.
fn make_data(name: &str, map: &aya_obj::Map) -> Result<Map, Error> {
    let made = Map::create(shape(name, map))?;
    if map.section_kind() != EbpfSectionKind::Bss {
        made.update(&0_u32.to_ne_bytes(), map.data())?;
    }
    if map.section_kind() == EbpfSectionKind::Rodata {
        made.freeze()?;
    }
    Ok(made)
}

/// The object's type information in the kernel. Without it (an old kernel refuses kinds that it does not know)
/// programs still load, with less to say in the log.
fn load_btf(object: &mut Object) -> Option<OwnedFd> {
    let newest = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let btf = object.fixup_and_sanitize_btf(&newest).ok()??.to_bytes();
    let mut attr = Attr::new().bytes(0, &btf).u32(16, btf.len() as u32);
    bpf_fd(Command::BtfLoad, &mut attr).ok()
}

/// Instructions as the kernel reads them.
fn encode(code: &[bpf_insn]) -> Vec<u8> {
    code.iter()
        .flat_map(|i| {
            let (a, b) = (i.off.to_ne_bytes(), i.imm.to_ne_bytes());
            [i.code, i.dst_reg() | i.src_reg() << 4, a[0], a[1], b[0], b[1], b[2], b[3]]
        })
        .collect()
}

fn text_of(log: &[u8]) -> String {
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end]).into_owned()
}

/// Reads the lines that end every log (`print_verification_stats` in kernel/bpf/verifier.c).
fn statistics(log: &str) -> Statistics {
    let mut s = Statistics::default();
    for line in log.lines() {
        if let Some(depths) = line.strip_prefix("stack depth ") {
            // Since 7.x the deepest chain of calls follows: `88+24 max 112`.
            let depths = depths.split_once(" max ").map_or(depths, |(each, _)| each);
            s.stack = depths.split('+').map(|d| d.trim().parse::<u32>().ok()).sum();
        } else if line.starts_with("processed ") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|w| *w == name)?;
                words.get(at + 1)?.parse().ok()
            };
            s.verified = after("processed").unwrap_or(0);
            s.states = after("total_states").unwrap_or(0);
            s.peak_states = after("peak_states").unwrap_or(0);
        }
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logs_last_lines_are_read() {
        let log = "verification time 35 usec\nstack depth 208+0+32\nprocessed 8420 insns (limit 1000000) \
                   max_states_per_insn 4 total_states 367 peak_states 366 mark_read 12\n";
        let s = statistics(log);
        assert_eq!((s.verified, s.stack, s.states, s.peak_states), (8420, Some(240), 367, 366));
        assert_eq!(statistics("stack depth 16+40+24 max 96\ninsns processed 3\n").stack, Some(80));
        assert_eq!(statistics("processed\nstack depth x"), Statistics::default());
    }

    #[test]
    fn what_is_no_object_is_an_error_with_its_name() {
        let e = parse("lxc", b"\x7fELF and nothing more").expect_err("no object");
        assert!(e.to_string().starts_with("lxc: not an object"), "{e}");
    }
}
