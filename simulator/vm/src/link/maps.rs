//! Map definitions: BTF's in `.maps`, and the structs that stood in `maps` before.
//!
//! Knows libbpf's rules for `.maps` and the layouts of libbpf's and iproute2's legacy structs. Creates nothing.

use super::btf::{Btf, Type};
use super::elf::{Elf, Section};
use crate::{Error, MapDef, map_kind_name};

/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`, `BPF_MAP_TYPE_HASH_OF_MAPS`
const MAPS_IN_MAPS: [u32; 2] = [12, 13];

/// A definition and where it stands.
pub(crate) struct Found {
    pub(crate) def: MapDef,
    /// Section and offset of its symbol.
    pub(crate) place: (usize, u64),
    /// Where its initial values begin, in bytes from its symbol.
    pub(crate) values: Option<u64>,
    pub(crate) legacy: Option<Legacy>,
}

/// What iproute2's `struct bpf_elf_map` says beyond a definition.
#[derive(Clone, Copy, Default)]
pub(crate) struct Legacy {
    /// A number of the map, for sections `ID/SLOT` and for `inner_id`.
    pub(crate) id: u32,
    /// The map that inner maps look like.
    pub(crate) inner_id: u32,
    /// The slot of the outer map in which this map stands.
    pub(crate) inner_idx: u32,
}

fn wrong(map: &str, what: impl Into<String>) -> Error {
    Error::Map { map: map.into(), what: what.into() }
}

/// All maps of an object, by name in order.
pub(crate) fn find(elf: &Elf<'_>, btf: Option<&Btf>) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for section in &elf.sections {
        if section.name == ".maps" {
            let Some(btf) = btf else {
                return Err(Error::Object(
                    "section .maps: its maps are described by BTF, and there is none".into(),
                ));
            };
            modern(elf, section, btf, &mut found)?;
        } else if section.name == "maps" || section.name.starts_with("maps/") {
            legacy(elf, section, &mut found)?;
        }
    }
    found.sort_by(|a, b| a.def.name.cmp(&b.def.name));
    if let Some(pair) = found.windows(2).find(|pair| pair[0].def.name == pair[1].def.name) {
        return Err(wrong(&pair[0].def.name, "it is defined twice"));
    }
    inner(&mut found)?;
    Ok(found)
}

fn modern(elf: &Elf<'_>, section: &Section<'_>, btf: &Btf, found: &mut Vec<Found>) -> Result<(), Error> {
    let variables = btf.variables(&section.name);
    for symbol in elf.symbols_in(section.index).filter(|s| !s.is_section && !s.name.is_empty()) {
        let Some((_, of)) = variables.iter().find(|(name, _)| *name == symbol.name) else {
            return Err(wrong(&symbol.name, "BTF does not describe it"));
        };
        let mut made = Found {
            def: MapDef { name: symbol.name.clone(), ..MapDef::default() },
            place: (section.index, symbol.address),
            values: None,
            legacy: None,
        };
        definition(btf, *of, &mut made.def, Some(&mut made.values))?;
        found.push(made);
    }
    Ok(())
}

/// Fills a definition in from a struct. `values` is `None` for an inner map, which has none.
fn definition(
    btf: &Btf,
    of: u32,
    def: &mut MapDef,
    mut values: Option<&mut Option<u64>>,
) -> Result<(), Error> {
    let name = def.name.clone();
    let Some(Type::Struct { members, .. }) = btf.resolve(of) else {
        return Err(wrong(&name, "its definition is no struct"));
    };
    for member in members {
        let bad =
            || wrong(&name, format!("its member {} is not what libbpf's macros make of it", member.name));
        let number = || number(btf, member.of).ok_or_else(bad);
        let pointed = || match btf.resolve(member.of) {
            Some(Type::Pointer(of)) => btf.size(*of).ok_or_else(bad),
            _ => Err(bad()),
        };
        match member.name.as_str() {
            "type" => def.kind = number()? as u32,
            "max_entries" => def.max_entries = number()? as u32,
            "map_flags" => def.flags = number()? as u32,
            "key_size" => def.key_size = number()? as u32,
            "value_size" => def.value_size = number()? as u32,
            "map_extra" => def.extra = number()?,
            "key" => def.key_size = pointed()?,
            "value" => {
                def.value_size = pointed()?;
                def.lock = lock(btf, member.of);
            }
            "pinning" | "numa_node" => {}
            "values" => {
                let Some(values) = values.as_deref_mut() else {
                    return Err(wrong(&name, "an inner map has no values"));
                };
                *values = Some(member.offset.into());
                let element = match btf.resolve(member.of) {
                    Some(Type::Array { of, .. }) => btf.resolve(*of),
                    _ => None,
                };
                let Some(Type::Pointer(target)) = element else { return Err(bad()) };
                if def.value_size == 0 {
                    def.value_size = 4;
                }
                if let Some(Type::Struct { .. }) = btf.resolve(*target) {
                    let mut inner = MapDef { name: format!("{name}.inner"), ..MapDef::default() };
                    definition(btf, *target, &mut inner, None)?;
                    def.inner = Some(Box::new(inner));
                }
            }
            other => return Err(wrong(&name, format!("member {other} is not known"))),
        }
    }
    Ok(())
}

/// Where in the value that is pointed to a `struct bpf_spin_lock` is, in bytes.
fn lock(btf: &Btf, pointer: u32) -> Option<u32> {
    let Some(Type::Pointer(value)) = btf.resolve(pointer) else { return None };
    let Some(Type::Struct { members, .. }) = btf.resolve(*value) else { return None };
    let is_lock =
        |of: u32| matches!(btf.resolve(of), Some(Type::Struct { name, .. }) if name == "bpf_spin_lock");
    members.iter().find(|m| is_lock(m.of)).map(|m| m.offset)
}

/// The number that `__uint` (the length of an array that is pointed to) or `__ulong` (an enumerator) encodes.
fn number(btf: &Btf, of: u32) -> Option<u64> {
    match btf.resolve(of)? {
        Type::Pointer(to) => match btf.resolve(*to)? {
            Type::Array { count, .. } => Some((*count).into()),
            _ => None,
        },
        Type::Enum { first, .. } => Some(*first),
        _ => None,
    }
}

/// Structs of 32-bit words: kind, key size, value size, entries, flags, and then what the loader of its time knew.
fn legacy(elf: &Elf<'_>, section: &Section<'_>, found: &mut Vec<Found>) -> Result<(), Error> {
    let mut symbols: Vec<_> =
        elf.symbols_in(section.index).filter(|s| !s.is_section && !s.name.is_empty()).collect();
    symbols.sort_by_key(|s| s.address);
    symbols.dedup_by_key(|s| s.address);
    let size = section.data.len().checked_div(symbols.len()).unwrap_or(0);
    if symbols.is_empty() || size * symbols.len() != section.data.len() || size < 20 {
        return Err(Error::Object(format!(
            "section {}: {} bytes for {} maps are not structs of one size",
            section.name,
            section.data.len(),
            symbols.len()
        )));
    }
    for symbol in symbols {
        let bytes =
            usize::try_from(symbol.address).ok().and_then(|at| section.data.get(at..at.checked_add(size)?));
        let bytes = bytes.ok_or_else(|| wrong(&symbol.name, "its struct reaches beyond its section"))?;
        let word = |n: usize| {
            bytes.get(4 * n..4 * n + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().expect("4")))
        };
        let (legacy, known) = match size {
            20 => (None, 5),
            28 => (Some(Legacy { id: word(5), ..Legacy::default() }), 7),
            // type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx
            _ => (Some(Legacy { id: word(5), inner_id: word(7), inner_idx: word(8) }), 9),
        };
        if (known..size / 4).any(|n| word(n) != 0) {
            return Err(wrong(
                &symbol.name,
                format!("its struct of {size} bytes has fields that are not known"),
            ));
        }
        let def = MapDef {
            name: symbol.name.clone(),
            kind: word(0),
            key_size: word(1),
            value_size: word(2),
            max_entries: word(3),
            flags: word(4),
            ..MapDef::default()
        };
        found.push(Found { def, place: (section.index, symbol.address), values: None, legacy });
    }
    Ok(())
}

/// Finds the templates that iproute2's structs name.
fn inner(found: &mut [Found]) -> Result<(), Error> {
    for at in 0..found.len() {
        let is_outer = MAPS_IN_MAPS.contains(&found[at].def.kind);
        let Some(id) = found[at].legacy.map(|l| l.inner_id).filter(|id| is_outer && *id != 0) else {
            continue;
        };
        let template = found.iter().find(|f| f.legacy.is_some_and(|l| l.id == id));
        let Some(template) = template.map(|f| f.def.clone()) else {
            let kind = map_kind_name(found[at].def.kind).unwrap_or("map");
            return Err(wrong(&found[at].def.name, format!("no map has the id {id} that this {kind} names")));
        };
        found[at].def.inner = Some(Box::new(template));
    }
    Ok(())
}
