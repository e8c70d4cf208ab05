//! Breaks an object in one exact way, to see that the tables notice.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

const INSN: usize = 8;
const MOV_R0_0: [u8; INSN] = [0xb7, 0, 0, 0, 0, 0, 0, 0];
const EXIT: [u8; INSN] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// The one instruction of 16 bytes.
const LD_IMM64: u8 = 0x18;
/// Bytes of an `Elf64_Rel`: where, and what.
const REL: usize = 16;

/// The object with a program's first instructions replaced by `return TC_ACT_OK`; `None` without that program.
pub fn return_ok(object: &[u8], program: &str) -> Option<Vec<u8>> {
    let file = object::File::parse(object).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.is_global())?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let at = usize::try_from(section.file_range()?.0 + symbol.address()).ok()?;
    let mut out = object.to_vec();
    let first = [MOV_R0_0, EXIT].concat();
    // Half of a long instruction is none.
    let tail: &[u8] = if *object.get(at + INSN)? == LD_IMM64 { &EXIT } else { &[] };
    let code = [first.as_slice(), tail].concat();
    out.get_mut(at..at + code.len())?.copy_from_slice(&code);
    let start = symbol.address();
    relocate_nothing(&mut out, &file, section.name().ok()?, start..start + code.len() as u64)?;
    Some(out)
}

/// Makes every relocation into these bytes of a section one that is made elsewhere anyway.
fn relocate_nothing(
    out: &mut [u8],
    file: &object::File<'_>,
    section: &str,
    bytes: std::ops::Range<u64>,
) -> Option<()> {
    let Some(table) = file.section_by_name(&format!(".rel{section}")) else { return Some(()) };
    let (start, len) = table.file_range()?;
    let table = out.get_mut(usize::try_from(start).ok()?..usize::try_from(start + len).ok()?)?;
    let offset = |entry: &[u8]| entry.get(..8).and_then(|o| o.try_into().ok()).map_or(0, u64::from_le_bytes);
    let harmless = table.chunks_exact(REL).find(|e| !bytes.contains(&offset(e)))?.to_vec();
    for entry in table.chunks_exact_mut(REL).filter(|e| bytes.contains(&offset(e))) {
        entry.copy_from_slice(&harmless);
    }
    Some(())
}
