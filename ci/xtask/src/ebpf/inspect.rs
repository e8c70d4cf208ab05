//! What an object holds, by its symbols, and what it must not hold.

use super::manifest::ObjectEntry;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// The SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads programs, maps and globals of an object.
///
/// A reachable panic compiles and fails only at the verifier, with a message that does not name it; so an object
/// with a symbol of the panic machinery, or with the section for what is unlikely to run, is refused here.
pub(super) fn inspect(name: &str, bytes: &[u8]) -> Result<ObjectEntry, String> {
    let file = object::File::parse(bytes).map_err(|e| format!("{name}: {e}"))?;
    let sections = file.sections().filter_map(|s| s.name().ok());
    let symbols = file.symbols().filter_map(|s| s.name().ok());
    panic_gate(name, sections, symbols)?;
    let (mut programs, mut maps, mut globals) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for symbol in file.symbols().filter(|s| s.is_global()) {
        let (Ok(symbol_name), Some(section)) = (symbol.name(), symbol.section_index()) else { continue };
        let Ok(section) = file.section_by_index(section) else { continue };
        let section_name = section.name().unwrap_or_default();
        let into = match (symbol.kind(), section.kind()) {
            _ if section_name == ".maps" => &mut maps,
            (SymbolKind::Text, SectionKind::Text) if section_name != ".text" => &mut programs,
            (SymbolKind::Data, _) if section_name.starts_with(".rodata") => &mut globals,
            _ => continue,
        };
        into.insert(symbol_name.to_owned());
    }
    if programs.is_empty() {
        return Err(format!("{name}: no program"));
    }
    let list = |set: BTreeSet<String>| set.into_iter().collect();
    Ok(ObjectEntry {
        sha256: sha256(bytes),
        bytes: bytes.len(),
        programs: list(programs),
        maps: list(maps),
        globals: list(globals),
    })
}

fn panic_gate<'a>(
    name: &str,
    mut sections: impl Iterator<Item = &'a str>,
    mut symbols: impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let culprit =
        symbols.find(|s| s.contains("panic")).or_else(|| sections.find(|s| s.starts_with(".text.unlikely.")));
    match culprit {
        None => Ok(()),
        Some(culprit) => Err(format!(
            "{name}: `{culprit}`: a panic can be reached. Look for an index, a division by what may be zero, an \
             `expect`; read with `get`, and check first"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_gate_closes() {
        let gate = |section: &'static str, symbol: &'static str| {
            panic_gate("lxc", [section].into_iter(), [symbol].into_iter())
        };
        assert!(gate("classifier", "from_container").is_ok());
        assert!(gate(".text.unlikely.", "x").is_err());
        assert!(gate("classifier", "_ZN4core9panicking5panic17h0E").is_err());
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(inspect("lxc", b"no object").is_err());
    }
}
