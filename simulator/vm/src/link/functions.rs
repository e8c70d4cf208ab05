//! Code sections as rows of functions.
//!
//! Knows which functions are programs. Does not know what they call.

use std::collections::BTreeMap;

use super::elf::{Elf, Section};
use crate::Error;
use crate::insn::Insn;

/// More functions than this are refused before anything follows calls between them; the kernel allows 256 a program.
const FUNCTIONS_MAX: usize = 4096;

/// A code section.
pub(crate) struct Code {
    pub(crate) section: String,
    pub(crate) instructions: Vec<Insn>,
    /// In order of their starts; they do not overlap.
    pub(crate) functions: Vec<Function>,
    /// Symbol by instruction.
    pub(crate) relocations: BTreeMap<usize, usize>,
}

/// Instructions from `start` up to `end`.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it can be loaded by itself.
    pub(crate) is_program: bool,
}

impl Function {
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }
}

impl Code {
    /// The function that begins here.
    pub(crate) fn function_at(&self, instruction: i64) -> Option<usize> {
        let start = usize::try_from(instruction).ok()?;
        self.functions.binary_search_by_key(&start, |f| f.start).ok()
    }
}

/// All code sections by index.
pub(crate) fn find(elf: &Elf<'_>) -> Result<BTreeMap<usize, Code>, Error> {
    let mut all = BTreeMap::new();
    let mut count = 0;
    for section in elf.sections.iter().filter(|s| s.is_code && !s.data.is_empty()) {
        let code = read(elf, section)?;
        count += code.functions.len();
        if count > FUNCTIONS_MAX {
            return Err(Error::Object(format!("more than {FUNCTIONS_MAX} functions")));
        }
        all.insert(section.index, code);
    }
    Ok(all)
}

fn read(elf: &Elf<'_>, section: &Section<'_>) -> Result<Code, Error> {
    let bad = |what: String| Error::Object(format!("section {}: {what}", section.name));
    let instructions =
        Insn::decode_all(&section.data).ok_or_else(|| bad("its length is no multiple of 8 bytes".into()))?;
    // What every loader holds to: functions that are called stand in .text, programs in sections that name their kind.
    let has_programs = !(section.name == ".text" || section.name.starts_with(".text."));
    let named = || elf.symbols_in(section.index).filter(|s| !s.is_section && !s.name.is_empty());
    let mut symbols: Vec<_> = named().filter(|s| s.is_function).collect();
    if symbols.is_empty() {
        // Compilers before clang 7 gave symbols no type.
        symbols = named().filter(|s| s.is_global).collect();
    }
    symbols.sort_by_key(|s| (s.address, !s.is_global));
    symbols.dedup_by_key(|s| s.address);
    let mut functions: Vec<Function> = Vec::new();
    for (number, symbol) in symbols.iter().enumerate() {
        let limit = symbols.get(number + 1).map_or(section.data.len() as u64, |next| next.address);
        let end = if symbol.size == 0 { limit } else { symbol.address.saturating_add(symbol.size) };
        if symbol.address % 8 != 0 || end % 8 != 0 || end > limit || end <= symbol.address {
            return Err(bad(format!("function {} does not end where an instruction ends", symbol.name)));
        }
        let (start, end) = ((symbol.address / 8) as usize, (end / 8) as usize);
        let is_program = has_programs && symbol.is_global;
        functions.push(Function { name: symbol.name.clone(), start, end, is_program });
    }
    if functions.is_empty() && has_programs {
        let (name, end) = (section.name.clone(), instructions.len());
        functions.push(Function { name, start: 0, end, is_program: true });
    }
    let mut relocations = BTreeMap::new();
    for relocation in &section.relocations {
        let at = relocation.offset / 8;
        if relocation.offset % 8 != 0 || at >= instructions.len() as u64 {
            return Err(bad(format!("byte {}: a relocation outside of an instruction", relocation.offset)));
        }
        relocations.insert(at as usize, relocation.symbol);
    }
    Ok(Code { section: section.name.clone(), instructions, functions, relocations })
}
