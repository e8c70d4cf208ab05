//! An object with a program that only newer kernels accept, to see that the check of verdicts notices.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use skep_abi::program::Object;
use skep_object::ObjectSet;
use std::path::Path;

/// `r0 = 0; r0 = (s8)r0; exit`: the move that extends a sign came with CPU v4, in Linux 6.6.
const CODE: [u8; 24] = [
    0xb7, 0, 0, 0, 0, 0, 0, 0, //
    0xbf, 0, 8, 0, 0, 0, 0, 0, //
    0x95, 0, 0, 0, 0, 0, 0, 0,
];

/// The program that is replaced; it is one of the object host's.
pub const PROGRAM: &str = "from_netdev";

/// Whether kernels of a series know the instructions of CPU v4.
pub fn is_known_to(series: &str) -> bool {
    let mut numbers = series.split('.').map(|n| n.parse().unwrap_or(0_u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// Writes the objects into a folder, with one program of them beginning with the code above and ending there.
///
/// # Errors
///
/// Where the folder cannot be written, or no object has such a program.
pub fn write(objects: &ObjectSet, program: &str, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut altered = false;
    for object in Object::ALL {
        let mut bytes = objects.bytes(*object).to_vec();
        if let Some(at) = place(&bytes, program) {
            bytes[at..at + CODE.len()].copy_from_slice(&CODE);
            altered = true;
        }
        std::fs::write(folder.join(format!("{}.o", object.name())), bytes)?;
    }
    if altered {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("no object has a program {program} with room for another")))
    }
}

/// Where in the file a program begins, if it is long enough and none of these bytes is relocated.
fn place(object: &[u8], program: &str) -> Option<usize> {
    let file = object::File::parse(object).ok()?;
    let symbol = file.symbols().find(|s| s.name() == Ok(program) && s.is_global())?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let code = symbol.address()..symbol.address() + CODE.len() as u64;
    let is_free = section.relocations().all(|(at, _)| !code.contains(&at));
    let at = usize::try_from(section.file_range()?.0 + symbol.address()).ok()?;
    (is_free && symbol.size() >= CODE.len() as u64 && at + CODE.len() <= object.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_is_another_and_the_rest_is_as_it_was() {
        let (folder, objects) = (tempfile::tempdir().unwrap(), ObjectSet::built_in());
        write(&objects, PROGRAM, folder.path()).unwrap();
        let altered = ObjectSet::from_folder(folder.path()).unwrap();
        let differ = |o: Object| {
            let pairs = objects.bytes(o).iter().zip(altered.bytes(o));
            pairs.filter(|(a, b)| a != b).count()
        };
        assert!((1..=CODE.len()).contains(&differ(Object::Host)));
        assert_eq!((differ(Object::Lxc), differ(Object::Overlay)), (0, 0));
        assert!(write(&objects, "no_such", folder.path()).is_err());
        assert!(is_known_to("6.12") && is_known_to("7.2") && !is_known_to("6.1") && !is_known_to("5.10"));
    }
}
