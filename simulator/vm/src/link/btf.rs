//! BTF as an object carries it: types as far as map definitions need them, and the line of each instruction.
//!
//! Knows the layout of `.BTF` and `.BTF.ext` (`include/uapi/linux/btf.h`, `tools/lib/bpf/btf.h`). Believes no length
//! in it: what lies outside of the section is not there.

use std::collections::BTreeMap;

use crate::SourceLine;

/// A number and a place in a map's definition are never further away than this many types.
const RESOLVE_MAX: usize = 32;
/// A size beyond what the kernel allows for a value is no size.
const SIZE_MAX: u64 = 1 << 31;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().expect("four bytes")))
}

fn string_at(strings: &[u8], at: u32) -> Option<&str> {
    let from = strings.get(at as usize..)?;
    let end = from.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&from[..end]).ok()
}

/// A member of a struct, or a variable of a data section.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) of: u32,
    /// Bytes from the start.
    pub(crate) offset: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum Type {
    Sized(u32),
    Pointer(u32),
    Array {
        of: u32,
        count: u32,
    },
    Struct {
        name: String,
        size: u32,
        members: Vec<Member>,
    },
    Enum {
        size: u32,
        first: u64,
    },
    /// A typedef or a qualifier.
    Same(u32),
    Function,
    Variable {
        name: String,
        of: u32,
    },
    Section {
        name: String,
        variables: Vec<u32>,
    },
    Other,
}

/// The types of an object, from number 1.
#[derive(Default)]
pub(crate) struct Btf {
    types: Vec<Type>,
    strings: Vec<u8>,
}

impl Btf {
    /// Reads a `.BTF` section; `None` if it contradicts itself.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        let header = u32_at(bytes, 4)? as usize;
        let part = |offset: usize, len: usize| {
            let from = header.checked_add(u32_at(bytes, offset)? as usize)?;
            bytes.get(from..from.checked_add(u32_at(bytes, len)? as usize)?)
        };
        let (records, strings) = (part(8, 12)?, part(16, 20)?.to_vec());
        let (mut types, mut at) = (Vec::new(), 0);
        while at < records.len() {
            types.push(read_type(records, &mut at, &strings)?);
        }
        Some(Self { types, strings })
    }

    /// A type by number, without typedefs and qualifiers.
    pub(crate) fn resolve(&self, number: u32) -> Option<&Type> {
        let mut number = number;
        for _ in 0..RESOLVE_MAX {
            match self.types.get((number as usize).checked_sub(1)?)? {
                Type::Same(of) => number = *of,
                other => return Some(other),
            }
        }
        None
    }

    /// Bytes of a type.
    pub(crate) fn size(&self, number: u32) -> Option<u32> {
        let (mut number, mut count) = (number, 1u64);
        for _ in 0..RESOLVE_MAX {
            let size = match self.resolve(number)? {
                Type::Sized(size) | Type::Struct { size, .. } | Type::Enum { size, .. } => *size,
                Type::Pointer(_) => 8,
                Type::Array { of, count: n } => {
                    (number, count) = (*of, count.checked_mul(u64::from(*n))?);
                    continue;
                }
                _ => return None,
            };
            let all = count.checked_mul(size.into())?;
            return u32::try_from(all).ok().filter(|_| all < SIZE_MAX);
        }
        None
    }

    /// The variables of a data section: name and type.
    pub(crate) fn variables(&self, section: &str) -> Vec<(&str, u32)> {
        let numbers = self.types.iter().filter_map(|t| match t {
            Type::Section { name, variables } if name == section => Some(variables),
            _ => None,
        });
        let variable = |number: &u32| match self.resolve(*number)? {
            Type::Variable { name, of } => Some((name.as_str(), *of)),
            _ => None,
        };
        numbers.flatten().filter_map(variable).collect()
    }

    /// The source line at each place of each code section, from `.BTF.ext`: section, byte offset, line. What is
    /// damaged is left out.
    pub(crate) fn lines(&self, ext: &[u8]) -> BTreeMap<String, BTreeMap<usize, SourceLine>> {
        let mut all = BTreeMap::new();
        let _ = self.read_lines(ext, &mut all);
        all
    }

    fn read_lines(&self, ext: &[u8], all: &mut BTreeMap<String, BTreeMap<usize, SourceLine>>) -> Option<()> {
        if ext.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        let from = (u32_at(ext, 4)? as usize).checked_add(u32_at(ext, 16)? as usize)?;
        let part = ext.get(from..from.checked_add(u32_at(ext, 20)? as usize)?)?;
        let record = u32_at(part, 0)? as usize;
        if record < 16 {
            return None;
        }
        let mut at = 4;
        while at < part.len() {
            let section = string_at(&self.strings, u32_at(part, at)?)?.to_owned();
            let count = u32_at(part, at + 4)? as usize;
            at += 8;
            let lines: &mut BTreeMap<usize, SourceLine> = all.entry(section).or_default();
            for _ in 0..count {
                let bytes = part.get(at..at.checked_add(record)?)?;
                at += record;
                let field = |n| u32_at(bytes, n).expect("a record has 16 bytes");
                let Some(file) = string_at(&self.strings, field(4)) else { continue };
                let text = string_at(&self.strings, field(8)).unwrap_or_default().trim();
                let (line, column) = (field(12) >> 10, field(12) & 0x3ff);
                let source = SourceLine { file: file.into(), line, column, text: text.into() };
                lines.insert(field(0) as usize, source);
            }
        }
        Some(())
    }
}

fn read_type(records: &[u8], at: &mut usize, strings: &[u8]) -> Option<Type> {
    let (name, info, last) = (u32_at(records, *at)?, u32_at(records, *at + 4)?, u32_at(records, *at + 8)?);
    let count = (info & 0xffff) as usize;
    let (kind, flag) = (info >> 24 & 0x1f, info >> 31 == 1);
    let name = || string_at(strings, name).map(str::to_owned);
    *at += 12;
    let behind = *at;
    let mut skip = |bytes: usize| {
        *at = behind.checked_add(bytes)?;
        (*at <= records.len()).then_some(())
    };
    Some(match kind {
        // BTF_KIND_INT and BTF_KIND_FLOAT
        1 => skip(4).map(|()| Type::Sized(last))?,
        16 => Type::Sized(last),
        2 => Type::Pointer(last),
        3 => {
            skip(12)?;
            Type::Array { of: u32_at(records, behind)?, count: u32_at(records, behind + 8)? }
        }
        // Struct and union
        4 | 5 => {
            skip(count * 12)?;
            let member = |n: usize| {
                let from = behind + n * 12;
                let bits = u32_at(records, from + 8)? & if flag { 0xff_ffff } else { u32::MAX };
                let name = string_at(strings, u32_at(records, from)?)?.to_owned();
                Some(Member { name, of: u32_at(records, from + 4)?, offset: bits / 8 })
            };
            let members = (0..count).map(member).collect::<Option<_>>()?;
            Type::Struct { name: name()?, size: last, members }
        }
        6 => {
            skip(count * 8)?;
            let first = if count > 0 { u32_at(records, behind + 4)? } else { 0 };
            Type::Enum { size: last, first: first.into() }
        }
        19 => {
            skip(count * 12)?;
            let half = |n| if count > 0 { u32_at(records, behind + n) } else { Some(0) };
            Type::Enum { size: last, first: u64::from(half(4)?) | u64::from(half(8)?) << 32 }
        }
        // Typedef, volatile, const, restrict, type tag
        8..=11 | 18 => Type::Same(last),
        12 => Type::Function,
        13 => skip(count * 8).map(|()| Type::Function)?,
        14 => {
            skip(4)?;
            Type::Variable { name: name()?, of: last }
        }
        15 => {
            skip(count * 12)?;
            let variables = (0..count).map(|n| u32_at(records, behind + n * 12)).collect::<Option<_>>()?;
            Type::Section { name: name()?, variables }
        }
        17 => skip(4).map(|()| Type::Other)?,
        7 => Type::Other,
        _ => return None,
    })
}
