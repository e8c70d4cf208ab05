//! The ELF file, read once: sections, symbols and relocations as plain lists, everything inside of the file.
//!
//! Knows ELF. Does not know what sections mean.

use object::read::{Object as _, ObjectSection as _, ObjectSymbol as _};
use object::{RelocationFlags, RelocationTarget, SectionFlags, SymbolKind};

use crate::Error;

/// The largest section that is read, but for those of debuggers, which are not.
const SECTION_MAX: u64 = 4 << 20;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;

pub(crate) struct Section<'a> {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) data: std::borrow::Cow<'a, [u8]>,
    pub(crate) is_code: bool,
    pub(crate) is_allocated: bool,
    pub(crate) relocations: Vec<Relocation>,
}

#[derive(Clone, Copy)]
pub(crate) struct Relocation {
    pub(crate) offset: u64,
    /// Index in [`Elf::symbols`].
    pub(crate) symbol: usize,
}

pub(crate) struct Symbol {
    pub(crate) name: String,
    /// The section that it is in; `None` if it is in none of this file's.
    pub(crate) section: Option<usize>,
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) is_function: bool,
    pub(crate) is_data: bool,
    pub(crate) is_section: bool,
    pub(crate) is_global: bool,
    pub(crate) is_weak: bool,
}

pub(crate) struct Elf<'a> {
    pub(crate) sections: Vec<Section<'a>>,
    pub(crate) symbols: Vec<Symbol>,
}

fn bad(what: impl Into<String>) -> Error {
    Error::Object(what.into())
}

impl<'a> Elf<'a> {
    /// Reads a relocatable BPF object.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let file = object::File::parse(bytes).map_err(|e| bad(e.to_string()))?;
        if file.format() != object::BinaryFormat::Elf || !file.is_little_endian() || !file.is_64() {
            return Err(bad("not a little-endian 64-bit ELF file"));
        }
        if file.architecture() != object::Architecture::Bpf {
            return Err(bad(format!("it is for {:?} and not for BPF", file.architecture())));
        }
        let mut elf = Self { sections: Vec::new(), symbols: Vec::new() };
        // The position of a symbol in the list, by its index in the file.
        let mut positions = std::collections::BTreeMap::new();
        for symbol in file.symbols() {
            let name = symbol.name().map_err(|e| bad(format!("a symbol's name: {e}")))?;
            positions.insert(symbol.index().0, elf.symbols.len());
            elf.symbols.push(Symbol {
                name: name.to_owned(),
                section: symbol.section_index().map(|i| i.0),
                address: symbol.address(),
                size: symbol.size(),
                is_function: symbol.kind() == SymbolKind::Text,
                is_data: symbol.kind() == SymbolKind::Data,
                is_section: symbol.kind() == SymbolKind::Section,
                is_global: symbol.is_global(),
                is_weak: symbol.is_weak(),
            });
        }
        for section in file.sections() {
            elf.sections.push(read_section(&section, &positions)?);
        }
        elf.check_symbols()?;
        Ok(elf)
    }

    /// Symbols lie inside of their sections.
    fn check_symbols(&self) -> Result<(), Error> {
        for symbol in &self.symbols {
            let Some(index) = symbol.section else { continue };
            let section =
                self.section(index).ok_or_else(|| bad(format!("symbol {} is in no section", symbol.name)))?;
            // Of a section that is not read nothing is known.
            let len = if section.is_allocated { section.data.len() as u64 } else { continue };
            if symbol.address.checked_add(symbol.size).is_none_or(|end| end > len) {
                return Err(bad(format!(
                    "symbol {} reaches beyond its section {}",
                    symbol.name, section.name
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn section(&self, index: usize) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.index == index)
    }

    pub(crate) fn section_named(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name)
    }

    pub(crate) fn symbols_in(&self, section: usize) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(move |s| s.section == Some(section))
    }
}

fn read_section<'a>(
    section: &object::Section<'a, '_>,
    positions: &std::collections::BTreeMap<usize, usize>,
) -> Result<Section<'a>, Error> {
    let name = section.name().map_err(|e| bad(format!("a section's name: {e}")))?.to_owned();
    let SectionFlags::Elf { sh_flags } = section.flags() else { return Err(bad("not an ELF section")) };
    let is_allocated = sh_flags & SHF_ALLOC != 0;
    let is_read = is_allocated || name.starts_with(".BTF");
    if is_read && section.size() > SECTION_MAX {
        return Err(bad(format!("section {name} has {} bytes", section.size())));
    }
    if section.address() != 0 {
        return Err(bad(format!("section {name} has an address; only relocatable objects are read")));
    }
    let is_nobits = section.kind() == object::SectionKind::UninitializedData;
    let data = match () {
        () if !is_read => Default::default(),
        () if is_nobits => vec![0; section.size() as usize].into(),
        () => section.data().map_err(|e| bad(format!("section {name}: {e}")))?.into(),
    };
    let mut relocations = Vec::new();
    // Those of BTF and of debuggers are for linkers of ELF files.
    for (offset, relocation) in section.relocations().take_while(|_| is_allocated) {
        let RelocationTarget::Symbol(symbol) = relocation.target() else {
            return Err(bad(format!("section {name}, byte {offset}: a relocation names no symbol")));
        };
        let symbol = positions.get(&symbol.0).copied();
        let symbol = symbol.ok_or_else(|| {
            bad(format!("section {name}, byte {offset}: a relocation names a symbol that is not there"))
        })?;
        if !matches!(relocation.flags(), RelocationFlags::Elf { r_type: 1 | 2 | 10 }) {
            return Err(bad(format!(
                "section {name}, byte {offset}: a relocation of a type that is not known"
            )));
        }
        relocations.push(Relocation { offset, symbol });
    }
    relocations.sort_by_key(|r| r.offset);
    Ok(Section {
        index: section.index().0,
        name,
        data,
        is_code: sh_flags & SHF_EXECINSTR != 0,
        is_allocated,
        relocations,
    })
}
