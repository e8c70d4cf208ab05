//! What an object file holds: programs, maps and globals, inert. aya-obj reads and links it.
//!
//! Knows ELF as far as aya-obj does not check it before it relies on it. Knows no kernel: nothing is created here.

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use aya_obj::{EbpfSectionKind, ProgramSection};

use crate::insn::{Insn, PSEUDO_MAP_FD};
use crate::legal::{self, Sound};
use crate::{Error, ProgramKind, elf};

/// A map as an object describes it (`union bpf_attr` of `BPF_MAP_CREATE`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapDef {
    /// Its name.
    pub name: String,
    /// Its kind, the kernel's number; see [`crate::map_kind`].
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it can hold.
    pub max_entries: u32,
    /// `BPF_F_*` of `map_flags`.
    pub flags: u32,
    /// `map_extra`: how many hash functions a bloom filter has; else 0.
    pub extra: u64,
    /// Where in a value a `struct bpf_spin_lock` is, in bytes.
    pub lock: Option<u32>,
    /// What the inner maps of an array or hash of maps look like.
    pub inner: Option<Box<MapDef>>,
}

/// A value that stands in an object's data sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Global {
    /// The symbol's name.
    pub name: String,
    /// Bytes of it.
    pub size: usize,
    pub(crate) section: usize,
    pub(crate) offset: usize,
}

/// A program and the functions that it calls, linked: its own instructions first, pc-relative calls, maps and data
/// sections as indices into the object's lists.
pub(crate) struct Linked {
    pub(crate) kind: Option<ProgramKind>,
    pub(crate) section: String,
    pub(crate) instructions: Vec<Insn>,
}

struct Contents {
    programs: BTreeMap<String, Linked>,
    maps: Vec<MapDef>,
    sections: Vec<Vec<u8>>,
    globals: Vec<Global>,
    sound: OnceLock<Result<Vec<Arc<Sound>>, Error>>,
}

/// A BPF object. Cloning it is cheap, and clones share what is made executable.
#[derive(Clone)]
pub struct Object(Arc<Contents>);

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("programs", &self.programs().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Object {
    /// Reads an ELF object. Truncated and damaged bytes are an error.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let elf = object::File::parse(bytes).map_err(|e| Error::Object(e.to_string()))?;
        elf::check(&elf)?;
        // aya-obj trusts an object in places. `elf::check` refuses what is known of these; what is not known must not
        // take the process down either.
        let linked = catch_unwind(AssertUnwindSafe(|| link(&elf::without_btf_ext(bytes))))
            .map_err(|_| Error::Object("it contradicts itself".into()))?;
        let (programs, maps, sections) = linked?;
        let globals = elf::globals(&elf, &sections);
        let sections = sections.into_iter().map(|(_, data)| data).collect();
        Ok(Self(Arc::new(Contents { programs, maps, sections, globals, sound: OnceLock::new() })))
    }

    /// An object of one program, written as instructions: for using the vm without a compiler. A 16-byte load with
    /// source `BPF_PSEUDO_MAP_FD` (1) takes the map whose index in `maps` is its immediate.
    pub fn from_instructions(
        name: &str,
        kind: ProgramKind,
        instructions: &[u8],
        maps: &[MapDef],
    ) -> Result<Self, Error> {
        let whole = |what: &str| Error::Program { program: name.into(), what: what.into() };
        let insns = Insn::decode_all(instructions).ok_or_else(|| whole("not a multiple of 8 bytes"))?;
        let linked = Linked { kind: Some(kind), section: String::new(), instructions: insns };
        Ok(Self(Arc::new(Contents {
            programs: BTreeMap::from([(name.to_owned(), linked)]),
            maps: maps.to_vec(),
            sections: Vec::new(),
            globals: Vec::new(),
            sound: OnceLock::new(),
        })))
    }

    /// The names of the programs, in order.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.0.programs.keys().map(String::as_str)
    }

    /// The maps, by name in order. Data sections are not among them.
    pub fn maps(&self) -> &[MapDef] {
        &self.0.maps
    }

    /// The globals in data sections, by name in order.
    pub fn globals(&self) -> &[Global] {
        &self.0.globals
    }

    /// The instructions of a program and of the functions behind it; a 16-byte load counts as two.
    pub fn instruction_count(&self, program: &str) -> Option<usize> {
        self.0.programs.get(program).map(|p| p.instructions.len())
    }

    pub(crate) fn sections(&self) -> &[Vec<u8>] {
        &self.0.sections
    }

    /// All programs, ready for engines, in the order of their names; worked out at the first use.
    pub(crate) fn sound(&self) -> Result<&[Arc<Sound>], Error> {
        let all = || {
            let one = |(name, p): (&String, _)| legal::sound(name, p, self.0.maps.len(), &self.0.sections);
            self.0.programs.iter().map(|p| one(p).map(Arc::new)).collect()
        };
        self.0.sound.get_or_init(all).as_deref().map_err(Clone::clone)
    }
}

type Parts = (BTreeMap<String, Linked>, Vec<MapDef>, Vec<(usize, Vec<u8>)>);

/// Reads and links with aya-obj, the index in the lists standing for a descriptor.
fn link(bytes: &[u8]) -> Result<Parts, Error> {
    let unreadable = |e: &dyn std::error::Error| {
        let cause = e.source().map(|s| format!(": {s}")).unwrap_or_default();
        Error::Object(format!("{e}{cause}"))
    };
    let mut read = aya_obj::Object::parse(bytes).map_err(|e| unreadable(&e))?;
    let is_data = |m: &aya_obj::Map| {
        matches!(m.section_kind(), EbpfSectionKind::Data | EbpfSectionKind::Rodata | EbpfSectionKind::Bss)
    };
    let all: BTreeMap<String, aya_obj::Map> = read.maps.drain().collect();
    let (mut data, maps): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, m)| is_data(m));
    data.retain(|(_, m)| !m.data().is_empty());
    let descriptors = (0..).zip(&data).chain((0..).zip(&maps));
    let text: HashSet<usize> = read.functions.keys().map(|(section, _)| *section).collect();
    read.relocate_maps(descriptors.map(|(fd, (name, map))| (name.as_str(), fd, map)), &text)
        .map_err(|e| unreadable(&e))?;
    read.relocate_calls(&text).map_err(|e| unreadable(&e))?;

    let mut programs = BTreeMap::new();
    for (name, program) in &read.programs {
        let function = read.functions.get(&program.function_key());
        let function = function.ok_or_else(|| Error::Object(format!("program {name} has no function")))?;
        let linked = Linked {
            kind: kind_of(&program.section),
            section: format!("{:?}", program.section),
            instructions: function.instructions.iter().map(Insn::from_aya).collect(),
        };
        programs.insert(name.clone(), linked);
    }
    let maps = maps.iter().map(|(name, m)| map_def(name, m)).collect();
    let sections = data.iter().map(|(_, m)| (m.section_index(), m.data().to_vec())).collect();
    Ok((programs, maps, sections))
}

/// aya-obj keeps what it made of a section's name.
fn kind_of(section: &ProgramSection) -> Option<ProgramKind> {
    Some(match section {
        ProgramSection::SchedClassifier => ProgramKind::SchedClassifier,
        ProgramSection::Xdp { .. } => ProgramKind::Xdp,
        ProgramSection::CgroupSkb { .. } => ProgramKind::CgroupSkb,
        ProgramSection::CgroupSock { .. } => ProgramKind::CgroupSock,
        ProgramSection::CgroupSockAddr { .. } => ProgramKind::CgroupSockAddr,
        ProgramSection::CgroupSockopt { .. } => ProgramKind::CgroupSockopt,
        ProgramSection::SockOps => ProgramKind::SockOps,
        ProgramSection::SkMsg => ProgramKind::SkMsg,
        ProgramSection::SkSkbStream { .. } => ProgramKind::SkSkb,
        ProgramSection::SocketFilter => ProgramKind::SocketFilter,
        _ => return None,
    })
}

fn map_def(name: &str, map: &aya_obj::Map) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
        ..MapDef::default()
    }
}

const _: () = assert!(PSEUDO_MAP_FD == 1, "documented at from_instructions");
