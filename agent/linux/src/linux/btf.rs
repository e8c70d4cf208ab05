//! The running kernel's own types, as far as a probe of it needs them: where a field stands, which number a name has.
//!
//! Knows BTF's encoding (Documentation/bpf/btf.rst). Does not know what the types are for.

use crate::Error;
use std::collections::BTreeMap;
use std::io;

/// Where the kernel describes itself.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Kinds of types (`BTF_KIND_*`).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The kernel's types.
pub(super) struct KernelTypes {
    raw: Vec<u8>,
    strings: usize,
    /// Of each type where it stands; the first is the type of number 1.
    places: Vec<usize>,
}

fn word(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

impl KernelTypes {
    /// Reads the running kernel's types.
    pub(super) fn of_running_kernel() -> Result<Self, Error> {
        let raw = std::fs::read(VMLINUX).map_err(|e| Error::kernel(VMLINUX, e))?;
        Self::parse(raw).ok_or_else(|| Error::kernel(VMLINUX, io::Error::other("no BTF that can be read")))
    }

    fn parse(raw: Vec<u8>) -> Option<Self> {
        if raw.get(..2)? != [0x9f, 0xeb] {
            return None;
        }
        // struct btf_header: hdr_len at 4, type_off 8, type_len 12, str_off 16.
        let header = word(&raw, 4) as usize;
        let (types, length) = (header + word(&raw, 8) as usize, word(&raw, 12) as usize);
        let strings = header + word(&raw, 16) as usize;
        let mut places = Vec::new();
        let mut at = types;
        while at < types + length && at + 12 <= raw.len() {
            places.push(at);
            let info = word(&raw, at + 4);
            let entries = (info & 0xffff) as usize;
            at += 12
                + match info >> 24 & 31 {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * entries,
                    kind::ENUM | kind::FUNC_PROTO => 8 * entries,
                    _ => 0,
                };
        }
        Some(Self { raw, strings, places })
    }

    fn name(&self, offset: u32) -> &str {
        let from = self.strings + offset as usize;
        let rest = self.raw.get(from..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == 0).unwrap_or(0);
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    fn find(&self, kinds: &[u32], name: &str) -> Option<usize> {
        self.places.iter().position(|at| {
            kinds.contains(&(word(&self.raw, at + 4) >> 24 & 31)) && self.name(word(&self.raw, *at)) == name
        })
    }

    fn missing(&self, what: &str) -> Error {
        Error::kernel(VMLINUX, io::Error::new(io::ErrorKind::NotFound, format!("this kernel has no {what}")))
    }

    /// The number of a typedef.
    pub(super) fn typedef(&self, name: &str) -> Result<u32, Error> {
        let found = self.find(&[kind::TYPEDEF], name);
        found.map(|index| index as u32 + 1).ok_or_else(|| self.missing(name))
    }

    /// The offset in bytes of a field of a structure, through structures and unions without a name.
    pub(super) fn offset(&self, structure: &str, field: &str) -> Result<u32, Error> {
        let found =
            self.find(&[kind::STRUCT], structure).and_then(|index| self.member(self.places[index], field));
        found.map(|bits| bits / 8).ok_or_else(|| self.missing(&format!("{structure}.{field}")))
    }

    /// The offset in bits of a member.
    fn member(&self, at: usize, field: &str) -> Option<u32> {
        let info = word(&self.raw, at + 4);
        let bitfields = info >> 31 == 1;
        (0..(info & 0xffff) as usize).find_map(|i| {
            let entry = at + 12 + 12 * i;
            let offset = word(&self.raw, entry + 8) & if bitfields { 0xff_ffff } else { u32::MAX };
            match self.name(word(&self.raw, entry)) {
                "" => Some(offset + self.member(self.anonymous(word(&self.raw, entry + 4))?, field)?),
                name => (name == field).then_some(offset),
            }
        })
    }

    /// The structure or union behind qualifiers.
    fn anonymous(&self, number: u32) -> Option<usize> {
        let at = *self.places.get((number as usize).checked_sub(1)?)?;
        match word(&self.raw, at + 4) >> 24 & 31 {
            kind::STRUCT | kind::UNION => Some(at),
            kind::TYPEDEF | kind::CONST | kind::VOLATILE | kind::TYPE_TAG => {
                self.anonymous(word(&self.raw, at + 8))
            }
            _ => None,
        }
    }

    /// The names of an enumeration by number.
    pub(super) fn enumeration(&self, name: &str) -> Result<BTreeMap<u32, String>, Error> {
        let index = self.find(&[kind::ENUM], name).ok_or_else(|| self.missing(name))?;
        let at = self.places[index];
        let entries = (word(&self.raw, at + 4) & 0xffff) as usize;
        let entry = |i: usize| {
            let at = at + 12 + 8 * i;
            (word(&self.raw, at + 4), self.name(word(&self.raw, at)).to_owned())
        };
        Ok((0..entries).map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btf_is_none() {
        assert!(KernelTypes::parse(b"\x9f\xeb".to_vec()).is_some_and(|t| t.places.is_empty()));
        assert!(KernelTypes::parse(b"\x7fELF".to_vec()).is_none());
        assert!(KernelTypes::parse(Vec::new()).is_none());
    }
}
