//! What an object file holds: programs, maps and globals, inert.
//!
//! Knows names. Knows neither ELF (see [`crate::link`]) nor a kernel: nothing is created here.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::insn::{Insn, PSEUDO_MAP_FD};
use crate::legal::{self, Sound};
use crate::link::{Linkage, Slot};
pub(crate) use crate::link::{Linked, Target};
use crate::{Error, ProgramKind, link};

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

/// Where in the source an instruction comes from, as BTF's line information has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SourceLine {
    /// The file, as the compiler was given it.
    pub file: String,
    /// Counted from 1; 0 if the compiler made the code up.
    pub line: u32,
    /// Counted from 1.
    pub column: u32,
    /// The line itself, without the white space around it.
    pub text: String,
}

/// An entry that an object wants in a map from the beginning (`.values`, or iproute2's section `ID/SLOT`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialValue {
    /// The map's name.
    pub map: String,
    /// The slot; the key is its four bytes, little endian.
    pub slot: u32,
    /// The program, for a program array; else the map, for an array or hash of maps.
    pub target: String,
}

#[derive(Clone)]
struct Contents {
    programs: BTreeMap<String, Arc<Linked>>,
    maps: Vec<MapDef>,
    /// Data sections: name and bytes.
    names: Vec<String>,
    sections: Vec<Vec<u8>>,
    globals: Vec<Global>,
    externs: Vec<String>,
    slots: Vec<Slot>,
    sound: OnceLock<Result<Vec<Arc<Sound>>, Error>>,
}

/// A BPF object. Cloning it is cheap, and clones share what is made executable.
///
/// ```
/// # use skep_vm::Object;
/// let bytes = include_bytes!("../tests/objects/policy.o");
/// let object = Object::parse(bytes)?;
/// assert_eq!(object.programs().collect::<Vec<_>>(), ["policy"]);
/// let counters = object.maps().iter().find(|map| map.name == "counters").expect("it counts");
/// assert_eq!((counters.key_size, counters.value_size), (4, 16));
/// # Ok::<(), skep_vm::Error>(())
/// ```
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
    /// Reads an ELF object, as clang or bpf-linker make it: with BTF or without, maps in `.maps` or in `maps`. CO-RE
    /// relocations keep what the compiler has put there; see [`Self::parse_for`]. Truncated and damaged bytes are an
    /// error. A program that this vm cannot load is an error only where it is loaded.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let Linkage { programs, maps, data, globals, externs, slots } = link::link(bytes)?;
        let (names, sections) = data.into_iter().map(|data| (data.name, data.bytes)).unzip();
        let programs = programs.into_iter().map(|(name, linked)| (name, Arc::new(linked))).collect();
        Ok(Self(Arc::new(Contents {
            programs,
            maps,
            names,
            sections,
            globals,
            externs,
            slots,
            sound: OnceLock::new(),
        })))
    }

    /// The same with CO-RE relocations done for the kernel whose BTF is given (`/sys/kernel/btf/vmlinux`, or a copy of
    /// another machine's).
    pub fn parse_for(bytes: &[u8], kernel_btf: &[u8]) -> Result<Self, Error> {
        Self::parse(&link::relocate_core(bytes, kernel_btf)?)
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
        let linked = Linked {
            kind: Some(kind),
            section: String::new(),
            instructions: insns,
            functions: BTreeMap::from([(0, name.to_owned())]),
            lines: BTreeMap::new(),
            problem: None,
        };
        Ok(Self(Arc::new(Contents {
            programs: BTreeMap::from([(name.to_owned(), Arc::new(linked))]),
            maps: maps.to_vec(),
            names: Vec::new(),
            sections: Vec::new(),
            globals: Vec::new(),
            externs: Vec::new(),
            slots: Vec::new(),
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

    /// The symbols that the object leaves to its loader, by name in order. Loads of their address give the value that
    /// [`crate::LoadSpec::globals`] has for the name.
    pub fn externs(&self) -> &[String] {
        &self.0.externs
    }

    /// The value that the object itself gives a global.
    pub fn global_value(&self, name: &str) -> Option<&[u8]> {
        let global = self.0.globals.iter().find(|g| g.name == name)?;
        self.0.sections.get(global.section)?.get(global.offset..global.offset.checked_add(global.size)?)
    }

    /// What the object wants in its maps from the beginning.
    pub fn initial_values(&self) -> Vec<InitialValue> {
        let target = |target: &Target| match target {
            Target::Map(index) => self.0.maps[*index].name.clone(),
            Target::Program(name) => name.clone(),
        };
        let value = |s: &Slot| InitialValue {
            map: self.0.maps[s.map].name.clone(),
            slot: s.key,
            target: target(&s.target),
        };
        self.0.slots.iter().map(value).collect()
    }

    /// The instructions of a program and of the functions behind it; a 16-byte load counts as two.
    pub fn instruction_count(&self, program: &str) -> Option<usize> {
        self.0.programs.get(program).map(|p| p.instructions.len())
    }

    /// A program's linked instructions as they are encoded: a 16-byte load with source 1 holds a map's index in
    /// [`Self::maps`], with source 2 a data section's index in [`Self::data`] and the offset there. For loaders.
    pub fn linked_instructions(&self, program: &str) -> Option<Vec<u8>> {
        let linked = self.0.programs.get(program)?;
        Some(linked.instructions.iter().flat_map(|i| i.encode()).collect())
    }

    /// The data sections as the object holds them: name and bytes.
    pub fn data(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.names.iter().map(String::as_str).zip(self.0.sections.iter().map(Vec::as_slice))
    }

    /// The kind of a program; `None` if there is no such program or this vm does not know the kind.
    pub fn kind(&self, program: &str) -> Option<ProgramKind> {
        self.0.programs.get(program)?.kind
    }

    /// The section that a program stands in; empty if the object was no file.
    pub fn section(&self, program: &str) -> Option<&str> {
        self.0.programs.get(program).map(|p| p.section.as_str())
    }

    /// The source line that an instruction comes from; `None` without BTF's line information.
    pub fn source_line(&self, program: &str, instruction: usize) -> Option<&SourceLine> {
        let linked = self.0.programs.get(program)?;
        let start = self.function_start(linked, instruction)?;
        linked.lines.range(start..=instruction).next_back().map(|(_, line)| line)
    }

    /// The function that an instruction belongs to.
    pub fn function_of(&self, program: &str, instruction: usize) -> Option<&str> {
        let linked = self.0.programs.get(program).filter(|p| instruction < p.instructions.len())?;
        linked.functions.range(..=instruction).next_back().map(|(_, name)| name.as_str())
    }

    fn function_start(&self, linked: &Linked, instruction: usize) -> Option<usize> {
        linked.functions.range(..=instruction).next_back().map(|(start, _)| *start)
    }

    /// The same object with these programs only, and those that its program arrays hold from the beginning: a load
    /// then does not ask whether the vm can execute the others.
    pub fn only(&self, programs: &[&str]) -> Result<Self, Error> {
        if let Some(missing) = programs.iter().find(|name| !self.0.programs.contains_key(**name)) {
            return Err(Error::Program {
                program: (*missing).into(),
                what: "the object has none of this name".into(),
            });
        }
        let in_a_slot = |name: &str| {
            self.0.slots.iter().any(|s| matches!(&s.target, Target::Program(program) if program == name))
        };
        let mut contents = Contents::clone(&self.0);
        contents.programs.retain(|name, _| programs.contains(&name.as_str()) || in_a_slot(name));
        contents.sound = OnceLock::new();
        Ok(Self(Arc::new(contents)))
    }

    /// The same object with a program's kind as the caller knows it: for sections whose name does not tell it.
    pub fn with_kind(&self, program: &str, kind: ProgramKind) -> Result<Self, Error> {
        let mut contents = Contents::clone(&self.0);
        let Some(linked) = contents.programs.get_mut(program) else {
            return Err(Error::Program {
                program: program.into(),
                what: "the object has none of this name".into(),
            });
        };
        *linked = Arc::new(Linked { kind: Some(kind), ..Linked::clone(linked) });
        contents.sound = OnceLock::new();
        Ok(Self(Arc::new(contents)))
    }

    pub(crate) fn linked(&self, program: &str) -> Option<&Linked> {
        self.0.programs.get(program).map(|linked| &**linked)
    }

    pub(crate) fn sections(&self) -> &[Vec<u8>] {
        &self.0.sections
    }

    /// Whether programs may not write to a data section: loaders say so of constants (`BPF_F_RDONLY_PROG`).
    pub(crate) fn is_read_only(&self, section: usize) -> bool {
        let constants = |name: &String| name == ".rodata" || name.starts_with(".rodata.");
        self.0.names.get(section).is_some_and(constants)
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.0.slots
    }

    /// What stands at a place of a data section.
    pub(crate) fn place_name(&self, section: usize, offset: usize) -> String {
        let inside = |g: &&Global| g.section == section && (g.offset..g.offset + g.size).contains(&offset);
        match self.0.globals.iter().find(inside) {
            Some(global) if global.offset == offset => global.name.clone(),
            Some(global) => format!("{}+{}", global.name, offset - global.offset),
            None => format!("{}+{offset}", self.0.names.get(section).map_or("data", String::as_str)),
        }
    }

    /// The function of a program that begins at an instruction.
    pub(crate) fn function_name(&self, program: &str, at: usize) -> Option<String> {
        self.0.programs.get(program)?.functions.get(&at).cloned()
    }

    /// All programs, ready for engines, in the order of their names; worked out at the first use.
    pub(crate) fn sound(&self) -> Result<&[Arc<Sound>], Error> {
        let all = || self.0.programs.keys().map(|name| self.sound_program(name).map(Arc::new)).collect();
        self.0.sound.get_or_init(all).as_deref().map_err(Clone::clone)
    }

    /// One program, ready for engines.
    pub(crate) fn sound_program(&self, program: &str) -> Result<Sound, Error> {
        let linked = &self.0.programs[program];
        if let Some(problem) = &linked.problem {
            return Err(problem.clone());
        }
        let given = legal::Given {
            maps: self.0.maps.len(),
            sections: &self.0.sections,
            externs: self.0.externs.len(),
        };
        let sound = legal::sound(program, linked, &given);
        sound.map_err(|error| self.in_section(program, error))
    }

    /// An error of a program with the section that it stands in.
    pub(crate) fn in_section(&self, program: &str, error: Error) -> Error {
        match self.section(program) {
            Some(section) if !section.is_empty() => {
                Error::Section { section: section.to_owned(), error: Box::new(error) }
            }
            _ => error,
        }
    }
}

const _: () = assert!(PSEUDO_MAP_FD == 1, "documented at from_instructions");
