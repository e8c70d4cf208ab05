//! ELF as far as aya-obj does not read it, or does not check it before it relies on it.

use std::collections::BTreeMap;

use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{RelocationTarget, SectionKind, SymbolKind};

use crate::{Error, Global};

/// More functions than this are refused before anything follows calls between them; the kernel allows 256 a program.
const FUNCTIONS_MAX: usize = 1024;
/// The largest data section; each load has a copy.
const SECTION_MAX: u64 = 4 << 20;

/// Refuses what aya-obj would trip over.
pub(crate) fn check(elf: &object::File<'_>) -> Result<(), Error> {
    let bad = |what: String| Err(Error::Object(what));
    if elf.format() != object::BinaryFormat::Elf || !elf.is_little_endian() || !elf.is_64() {
        return bad("not a little-endian 64-bit ELF file".into());
    }
    if elf.architecture() != object::Architecture::Bpf {
        return bad(format!("it is for {:?} and not for BPF", elf.architecture()));
    }
    let mut functions = 0;
    for section in elf.sections() {
        let name = section.name().map_err(|e| Error::Object(e.to_string()))?;
        if section.size() > SECTION_MAX {
            return bad(format!("section {name} has {} bytes", section.size()));
        }
        if section.address() != 0 {
            return bad(format!("section {name} has an address; only relocatable objects are read"));
        }
    }
    for symbol in elf.symbols() {
        let name = symbol.name().map_err(|e| Error::Object(e.to_string()))?;
        let Some(index) = symbol.section_index() else { continue };
        let section = elf.section_by_index(index).map_err(|e| Error::Object(e.to_string()))?;
        let end = symbol.address().checked_add(symbol.size());
        if end.is_none_or(|end| end > section.size()) {
            return bad(format!("symbol {name} reaches beyond its section"));
        }
        functions += usize::from(symbol.kind() == SymbolKind::Text);
    }
    if functions > FUNCTIONS_MAX {
        return bad(format!("{functions} functions"));
    }
    elf.sections().try_for_each(|section| check_relocations(elf, &section))
}

/// References to code: to a function, or to the start of its section and then as far as the instruction says.
fn check_relocations(elf: &object::File<'_>, section: &object::Section<'_, '_>) -> Result<(), Error> {
    let bad =
        |what: &str| Err(Error::Object(format!("a relocation in {} {what}", section.name().unwrap_or("?"))));
    let data = section.data().map_err(|e| Error::Object(e.to_string()))?;
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(index) = relocation.target() else { return bad("names no symbol") };
        let Ok(symbol) = elf.symbol_by_index(index) else { return bad("names a symbol that is not there") };
        let to = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
        if section.kind() != SectionKind::Text || to.as_ref().is_some_and(|s| s.kind() != SectionKind::Text) {
            continue;
        }
        let immediate = usize::try_from(offset).ok().and_then(|at| data.get(at..)?.get(4..8));
        let immediate = immediate.map_or(-2, |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let inside = (-1..=data.len() as i64).contains(&i64::from(immediate));
        let known = match (symbol.kind(), relocation.size()) {
            (SymbolKind::Text, _) => to.is_some(),
            (SymbolKind::Section, 32) => inside,
            (SymbolKind::Section, 64) => inside && immediate >= 0,
            _ => false,
        };
        if !known {
            return bad("refers to no function");
        }
    }
    Ok(())
}

/// The bytes with `.BTF.ext` under another name, so that aya-obj leaves it alone: it holds line numbers, which nothing
/// here reads, and aya-obj believes every length in it.
pub(crate) fn without_btf_ext(bytes: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b".BTF.ext\0";
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(NAME.len()) {
        if bytes[at..].starts_with(NAME) {
            bytes[at + 1] = b'_';
        }
    }
    bytes
}

/// The named objects in data sections.
pub(crate) fn globals(elf: &object::File<'_>, sections: &[(usize, Vec<u8>)]) -> Vec<Global> {
    let mut globals = BTreeMap::new();
    for symbol in elf.symbols().filter(|s| s.kind() == SymbolKind::Data && s.size() > 0) {
        let (Ok(name), Some(index)) = (symbol.name(), symbol.section_index()) else { continue };
        let Some(section) = sections.iter().position(|(i, _)| *i == index.0) else { continue };
        let (offset, size) = (symbol.address() as usize, symbol.size() as usize);
        globals.insert(name.to_owned(), Global { name: name.to_owned(), size, section, offset });
    }
    globals.into_values().collect()
}
