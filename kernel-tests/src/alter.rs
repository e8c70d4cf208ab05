//! Breaks an object in one exact way, to see that the tables notice.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// The object with a program's first instructions replaced by `return TC_ACT_OK`; `None` without that program.
pub fn return_ok(object: &[u8], program: &str) -> Option<Vec<u8>> {
    /// `r0 = 0; exit`.
    const CODE: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let file = object::File::parse(object).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.is_global())?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let at = usize::try_from(section.file_range()?.0 + symbol.address()).ok()?;
    let mut out = object.to_vec();
    out.get_mut(at..at + CODE.len())?.copy_from_slice(&CODE);
    Some(out)
}
