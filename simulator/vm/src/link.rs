//! Links an object: functions behind the programs that call them, maps and data sections by their place in a list.
//!
//! Knows what sections and relocations of BPF objects mean, as libbpf and iproute2 read them. Creates nothing: an
//! object is inert, and a mistake in it is told with section, function and instruction.

mod btf;
mod core;
mod elf;
mod functions;
mod maps;

use std::collections::{BTreeMap, BTreeSet};

use crate::insn::{FP, Insn, LD_IMM64, PSEUDO_BTF_ID, PSEUDO_CALL, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE};
use crate::{Error, Global, MapDef, ProgramKind, SourceLine};
use btf::Btf;
use elf::{Elf, Section, Symbol};
use functions::{Code, Function};

pub(crate) use self::core::relocate_core;

/// What the kernel loads at the most (`BPF_COMPLEXITY_LIMIT_INSNS`).
const INSTRUCTIONS_MAX: usize = 1_000_000;
/// As the source of a 16-byte load: the constant is the distance to a function, as in a call.
const PSEUDO_FUNC: u8 = 4;

/// A program and the functions that it calls, linked: its own instructions first, pc-relative calls, maps and data
/// sections as indices into the object's lists.
#[derive(Clone)]
pub(crate) struct Linked {
    pub(crate) kind: Option<ProgramKind>,
    pub(crate) section: String,
    pub(crate) instructions: Vec<Insn>,
    /// Where functions begin, and their names.
    pub(crate) functions: BTreeMap<usize, String>,
    /// Where the code of a source line begins.
    pub(crate) lines: BTreeMap<usize, SourceLine>,
    /// Why it cannot be loaded, though it can be read.
    pub(crate) problem: Option<Error>,
}

/// A data section.
pub(crate) struct Data {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// An entry that the object wants in a map from the beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// Index in the list of maps.
    pub(crate) map: usize,
    pub(crate) key: u32,
    pub(crate) target: Target,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Map(usize),
    Program(String),
}

/// All that an object holds.
pub(crate) struct Linkage {
    pub(crate) programs: BTreeMap<String, Linked>,
    pub(crate) maps: Vec<MapDef>,
    pub(crate) data: Vec<Data>,
    pub(crate) globals: Vec<Global>,
    pub(crate) externs: Vec<String>,
    pub(crate) slots: Vec<Slot>,
}

struct Linker<'a> {
    elf: &'a Elf<'a>,
    code: BTreeMap<usize, Code>,
    maps: Vec<maps::Found>,
    data: Vec<Data>,
    lines: BTreeMap<String, BTreeMap<usize, SourceLine>>,
    /// Symbols that nobody defines and that code refers to as values.
    externs: Vec<String>,
}

/// Links an object that is read as it stands.
pub(crate) fn link(bytes: &[u8]) -> Result<Linkage, Error> {
    let elf = Elf::parse(bytes)?;
    let section = |name| elf.section_named(name).map(|s| &s.data[..]);
    let btf = section(".BTF")
        .map(|bytes| Btf::parse(bytes).ok_or_else(|| Error::Object("section .BTF is damaged".into())));
    let btf = btf.transpose()?;
    let lines = btf.as_ref().zip(section(".BTF.ext")).map(|(btf, ext)| btf.lines(ext)).unwrap_or_default();
    let maps = maps::find(&elf, btf.as_ref())?;
    let data = data_sections(&elf);
    let code = functions::find(&elf)?;
    let externs = externs(&elf, &code);
    let linker = Linker { elf: &elf, code, maps, data, lines, externs };
    let programs = linker.programs()?;
    let slots = linker.slots(&programs)?;
    let globals = globals(&elf, &linker.data);
    let maps = linker.maps.into_iter().map(|found| found.def).collect();
    Ok(Linkage { programs, maps, data: linker.data, globals, externs: linker.externs, slots })
}

/// Sections that loaders make a map of each: everything that stands in memory and is neither code nor map nor licence.
fn data_sections(elf: &Elf<'_>) -> Vec<Data> {
    let is_data = |s: &&Section<'_>| {
        let is_named = |name: &str| {
            s.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        s.is_allocated
            && !s.is_code
            && !s.data.is_empty()
            && [".rodata", ".data", ".bss"].iter().any(|n| is_named(n))
    };
    let data = |s: &Section<'_>| Data { index: s.index, name: s.name.clone(), bytes: s.data.to_vec() };
    let mut all: Vec<Data> = elf.sections.iter().filter(is_data).map(data).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name).then(a.index.cmp(&b.index)));
    all
}

/// The named values in data sections, by name in order.
fn globals(elf: &Elf<'_>, data: &[Data]) -> Vec<Global> {
    let mut globals = BTreeMap::new();
    for symbol in elf.symbols.iter().filter(|s| s.is_data && s.size > 0) {
        let Some(section) = data.iter().position(|d| Some(d.index) == symbol.section) else { continue };
        let (offset, size) = (symbol.address as usize, symbol.size as usize);
        globals.insert(symbol.name.clone(), Global { name: symbol.name.clone(), size, section, offset });
    }
    globals.into_values().collect()
}

/// The symbols that the object leaves to its loader, by name in order: what a 16-byte load refers to and nobody defines.
fn externs(elf: &Elf<'_>, code: &BTreeMap<usize, Code>) -> Vec<String> {
    let loads = code.values().flat_map(|c| {
        let is_load = |at: &usize| c.instructions.get(*at).is_some_and(|i| i.code == LD_IMM64);
        c.relocations.iter().filter(move |(at, _)| is_load(at)).map(|(_, symbol)| &elf.symbols[*symbol])
    });
    let names = loads.filter(|s| s.section.is_none() && !s.is_weak && !s.name.is_empty());
    names.map(|s| s.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What an instruction refers to.
enum Reference {
    Map(usize),
    Data {
        section: usize,
        offset: i64,
    },
    Function {
        section: usize,
        instruction: i64,
    },
    /// A symbol that nobody defines, by index: its value is the loader's.
    Extern(usize),
    /// A weak symbol that nobody defines.
    Null,
}

impl Linker<'_> {
    fn programs(&self) -> Result<BTreeMap<String, Linked>, Error> {
        let is_iproute2 = self.maps.iter().any(|m| m.legacy.is_some());
        let mut programs = BTreeMap::new();
        for (index, code) in &self.code {
            for (number, function) in code.functions.iter().enumerate().filter(|(_, f)| f.is_program) {
                let mut linked = self.program((*index, number))?;
                let kind = ProgramKind::of_section(&code.section);
                // To iproute2 a section's name says nothing of the kind.
                linked.kind = kind.or(is_iproute2.then_some(ProgramKind::SchedClassifier));
                linked.section = code.section.clone();
                if programs.insert(function.name.clone(), linked).is_some() {
                    return Err(Error::Object(format!("two programs are called {}", function.name)));
                }
            }
        }
        Ok(programs)
    }

    fn function(&self, (section, number): (usize, usize)) -> (&Code, &Function) {
        let code = &self.code[&section];
        (code, &code.functions[number])
    }

    /// A program with all that it calls.
    fn program(&self, entry: (usize, usize)) -> Result<Linked, Error> {
        let mut linked = Linked {
            kind: None,
            section: String::new(),
            instructions: Vec::new(),
            functions: BTreeMap::new(),
            lines: BTreeMap::new(),
            problem: None,
        };
        let mut placed = vec![(entry, 0)];
        let mut end = self.function(entry).1.len();
        let mut next = 0;
        while let Some(((section, number), base)) = placed.get(next).copied() {
            next += 1;
            let (code, function) = self.function((section, number));
            let mut insns = code.instructions[function.start..function.end].to_vec();
            for at in 0..insns.len() {
                let place = |wanted: (usize, usize)| {
                    if let Some((_, base)) = placed.iter().find(|(f, _)| *f == wanted) {
                        return *base;
                    }
                    let base = end;
                    end += self.function(wanted).1.len();
                    placed.push((wanted, base));
                    base
                };
                if let Err(what) = self.patch(section, function, &mut insns, at, base, place) {
                    let what = format!(
                        "section {}, function {}, instruction {at}: {what}",
                        code.section, function.name
                    );
                    let program = self.function(entry).1.name.clone();
                    linked.problem.get_or_insert(Error::Program { program, what });
                }
            }
            if end > INSTRUCTIONS_MAX {
                let what = format!("more than {INSTRUCTIONS_MAX} instructions with all that it calls");
                return Err(Error::Program { program: self.function(entry).1.name.clone(), what });
            }
            linked.functions.insert(base, function.name.clone());
            self.add_lines(&mut linked, code, function, base);
            linked.instructions.extend(insns);
        }
        Ok(linked)
    }

    fn add_lines(&self, linked: &mut Linked, code: &Code, function: &Function, base: usize) {
        let Some(lines) = self.lines.get(&code.section) else { return };
        let range = function.start * 8..function.end * 8;
        let here = |(at, line): (&usize, &SourceLine)| (base + at / 8 - function.start, line.clone());
        linked.lines.extend(lines.range(range).map(here));
    }

    /// Fills in what an instruction refers to. `place` says where a function begins in the program.
    fn patch(
        &self,
        section: usize,
        function: &Function,
        insns: &mut [Insn],
        at: usize,
        base: usize,
        mut place: impl FnMut((usize, usize)) -> usize,
    ) -> Result<(), String> {
        let code = &self.code[&section];
        let insn = insns[at];
        if insn.dst > FP || insn.src > FP {
            return Err("a register that does not exist".into());
        }
        let mut target = |section: usize, instruction: i64| {
            let found = self.code.get(&section).and_then(|c| c.function_at(instruction));
            found.map(|number| place((section, number))).ok_or("it refers to no function's start")
        };
        // Distances count from the next instruction.
        let distance = |to: usize| to as i64 - (base + at) as i64 - 1;
        let Some(relocation) = code.relocations.get(&(function.start + at)) else {
            if insn.is_call() && insn.src == PSEUDO_CALL && !insn.is_reg() {
                let to = target(section, (function.start + at + 1) as i64 + i64::from(insn.imm))?;
                insns[at].imm = distance(to) as i32;
            }
            return Ok(());
        };
        let reference = self.reference(&self.elf.symbols[*relocation], insn)?;
        if insn.is_call() {
            let Reference::Function { section, instruction } = reference else {
                return Err("a call of something that is no function".into());
            };
            let to = target(section, instruction)?;
            (insns[at].src, insns[at].imm) = (PSEUDO_CALL, distance(to) as i32);
            return Ok(());
        }
        if insn.code != LD_IMM64 || at + 1 >= insns.len() {
            return Err("a relocation of an instruction that cannot hold one".into());
        }
        let (source, first, second) = match reference {
            Reference::Map(index) => (PSEUDO_MAP_FD, index as i32, 0),
            Reference::Data { section, offset } => {
                let offset = i32::try_from(offset).ok().filter(|o| *o >= 0);
                (PSEUDO_MAP_VALUE, section as i32, offset.ok_or("a place outside of its data section")?)
            }
            Reference::Function { section, instruction } => {
                (PSEUDO_FUNC, distance(target(section, instruction)?) as i32, 0)
            }
            Reference::Extern(index) => (PSEUDO_BTF_ID, index as i32, 0),
            Reference::Null => (0, 0, 0),
        };
        (insns[at].src, insns[at].imm, insns[at + 1].imm) = (source, first, second);
        Ok(())
    }

    fn reference(&self, symbol: &Symbol, insn: Insn) -> Result<Reference, String> {
        let Some(index) = symbol.section else {
            if insn.is_call() {
                return Err(format!("{} is a function of the kernel, which is not here", symbol.name));
            }
            let index = self.externs.iter().position(|name| *name == symbol.name);
            return match (symbol.is_weak, index) {
                (true, _) => Ok(Reference::Null),
                (_, Some(index)) => Ok(Reference::Extern(index)),
                (_, None) => Err("a relocation of an instruction that cannot hold one".into()),
            };
        };
        if self.code.contains_key(&index) {
            // A call's constant counts instructions less one, a load's bytes; of a symbol of its own it adds nothing.
            let start = (symbol.address / 8) as i64;
            let instruction = match insn.is_call() {
                true => start + i64::from(insn.imm) + 1,
                false => start + i64::from(insn.imm) / 8,
            };
            return Ok(Reference::Function { section: index, instruction });
        }
        let place = (symbol.address as i64).checked_add(insn.imm.into());
        let place = place.ok_or_else(|| format!("{} stands beyond the end of every section", symbol.name))?;
        if let Some(section) = self.data.iter().position(|d| d.index == index) {
            return Ok(Reference::Data { section, offset: place });
        }
        let map = self.maps.iter().position(|m| m.place == (index, place as u64));
        map.map(Reference::Map).ok_or_else(|| {
            let name = self.elf.section(index).map_or("?", |s| s.name.as_str());
            format!("byte {place} of section {name} is neither a map nor data")
        })
    }

    /// What `.values` and sections called `ID/SLOT` put into maps.
    fn slots(&self, programs: &BTreeMap<String, Linked>) -> Result<Vec<Slot>, Error> {
        let mut slots = Vec::new();
        for (number, found) in self.maps.iter().enumerate() {
            if let Some(values) = found.values {
                self.values(number, found, values, &mut slots)?;
            }
            let Some(legacy) = found.legacy else { continue };
            for (program, linked) in programs.iter().filter(|_| legacy.id != 0) {
                if let Some((id, key)) = tail_call_slot(&linked.section)
                    && id == legacy.id
                {
                    slots.push(Slot { map: number, key, target: Target::Program(program.clone()) });
                }
            }
            for (inner, other) in self.maps.iter().enumerate() {
                let names =
                    other.legacy.is_some_and(|l| l.id != 0 && l.id == legacy.inner_id) && inner != number;
                if names && found.def.inner.is_some() {
                    let key = other.legacy.unwrap_or_default().inner_idx;
                    slots.push(Slot { map: number, key, target: Target::Map(inner) });
                }
            }
        }
        Ok(slots)
    }

    fn values(
        &self,
        map: usize,
        found: &maps::Found,
        values: u64,
        slots: &mut Vec<Slot>,
    ) -> Result<(), Error> {
        let name = &found.def.name;
        let wrong = |what: String| Error::Map { map: name.clone(), what };
        let section = self.elf.section(found.place.0).ok_or_else(|| wrong("it is in no section".into()))?;
        let start = found.place.1.saturating_add(values);
        let others = self.maps.iter().filter(|m| m.place.0 == found.place.0).map(|m| m.place.1);
        let end = others.filter(|at| *at > found.place.1).min().unwrap_or(u64::MAX);
        for relocation in section.relocations.iter().filter(|r| r.offset >= start && r.offset < end) {
            let key = (relocation.offset - start) / 8;
            let symbol = &self.elf.symbols[relocation.symbol];
            let place = symbol.section.map(|s| (s, symbol.address));
            let of_map = self.maps.iter().position(|m| Some(m.place) == place);
            let of_program = place.and_then(|(section, at)| {
                let code = self.code.get(&section)?;
                let function = &code.functions[code.function_at((at / 8) as i64)?];
                function.is_program.then(|| Target::Program(function.name.clone()))
            });
            let target = of_map.map(Target::Map).or(of_program);
            let target =
                target.ok_or_else(|| wrong(format!("its value {key} is neither a map nor a program")))?;
            slots.push(Slot { map, key: key as u32, target });
        }
        Ok(())
    }
}

/// iproute2's section `ID/SLOT`: the program stands in that slot of the program array with that id.
fn tail_call_slot(section: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let (id, slot) = section.split_once('/')?;
    Some((number(id)?, number(slot)?))
}
