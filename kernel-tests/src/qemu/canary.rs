//! An object with a program that only newer kernels accept, to see that the check of verdicts notices.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use skep_abi::program::Object;
use skep_object::ObjectSet;
use std::path::Path;

/// The program that is altered; it is one of the object overlay's.
pub const PROGRAM: &str = "from_overlay";

const INSN: usize = 8;
/// The one instruction of 16 bytes.
const LD_IMM64: u8 = 0x18;
/// `htobe`; and `bswap`, which does the same on a machine whose byte order is little, and came with CPU v4 in Linux 6.6
/// (RFC 9669, 4.2). Another newcomer of v4, the long jump, is in Debian's 6.1 too.
const TO_BIG_ENDIAN: u8 = 0xdc;
const SWAP: u8 = 0xd7;

/// Whether kernels of a series know that instruction.
pub fn is_known_to(series: &str) -> bool {
    let mut numbers = series.split('.').map(|n| n.parse().unwrap_or(0_u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Writes the objects into a folder, with one instruction of one program being another that does the same.
///
/// # Errors
///
/// Where the folder cannot be written, or no object has such a program with such an instruction.
pub fn write(objects: &ObjectSet, program: &str, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut altered = false;
    for object in Object::ALL {
        let mut bytes = objects.bytes(*object).to_vec();
        if let Some(at) = place(&bytes, program) {
            bytes[at] = SWAP;
            altered = true;
        }
        std::fs::write(folder.join(format!("{}.o", object.name())), bytes)?;
    }
    if altered {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("no object has a program {program} that changes a byte order")))
    }
}

/// Where in the file a program's first change of byte order stands.
fn place(object: &[u8], program: &str) -> Option<usize> {
    let file = object::File::parse(object).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.is_global())?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let start = usize::try_from(section.file_range()?.0 + symbol.address()).ok()?;
    let code = object.get(start..start + usize::try_from(symbol.size()).ok()?)?;
    let mut at = 0;
    while let Some(insn) = code.get(at..at + INSN) {
        match insn[0] {
            TO_BIG_ENDIAN => return Some(start + at),
            LD_IMM64 => at += 2 * INSN,
            _ => at += INSN,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_one_program_is_another_and_the_rest_is_as_it_was() {
        let (folder, objects) = (tempfile::tempdir().unwrap(), ObjectSet::built_in());
        write(&objects, PROGRAM, folder.path()).unwrap();
        let altered = ObjectSet::from_folder(folder.path()).unwrap();
        let differ = |o: Object| {
            let pairs = objects.bytes(o).iter().zip(altered.bytes(o));
            pairs.filter(|(a, b)| a != b).count()
        };
        let counts: Vec<usize> = Object::ALL.iter().map(|o| differ(*o)).collect();
        assert_eq!(counts, [0, 0, 1]);
        assert!(write(&objects, "no_such", folder.path()).is_err());
        assert!(is_known_to("6.12") && is_known_to("7.2") && !is_known_to("6.1") && !is_known_to("5.10"));
    }
}
