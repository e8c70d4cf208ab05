//! CO-RE: field offsets, sizes and existence as another kernel's BTF has them. aya-obj works them out.
//!
//! Knows how to give aya-obj an object and to take the instructions back. aya-obj trusts an object in places, and a
//! panic in it is an error here, without a word on stderr.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use object::read::{Object as _, ObjectSection as _};

use crate::Error;
use crate::insn::Insn;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The result of `f`; `None` if it panicked, which nobody is told. Panics of other threads are reported as ever.
fn quietly<R>(f: impl FnOnce() -> R) -> Option<R> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(false);
    result.ok()
}

/// The bytes of an object with its CO-RE relocations done for the kernel whose BTF (`/sys/kernel/btf/vmlinux`, or a
/// file of it) is given.
pub(crate) fn relocate_core(bytes: &[u8], target: &[u8]) -> Result<Vec<u8>, Error> {
    let contradicts = || Error::Object("its BTF contradicts itself".into());
    quietly(|| relocate(bytes, target)).ok_or_else(contradicts)?
}

fn relocate(bytes: &[u8], target: &[u8]) -> Result<Vec<u8>, Error> {
    let unreadable = |e: &dyn std::error::Error| {
        let cause = e.source().map(|s| format!(": {s}")).unwrap_or_default();
        Error::Object(format!("{e}{cause}"))
    };
    let target = aya_obj::btf::Btf::parse(target, object::Endianness::Little).map_err(|e| unreadable(&e))?;
    let mut read = aya_obj::Object::parse(bytes).map_err(|e| unreadable(&e))?;
    if !read.has_btf_relocations() {
        return Ok(bytes.to_vec());
    }
    read.relocate_btf(&target).map_err(|e| unreadable(&e))?;
    let file = object::File::parse(bytes).map_err(|e| Error::Object(e.to_string()))?;
    let mut out = bytes.to_vec();
    for ((section, offset), function) in &read.functions {
        let place = file.section_by_index(object::SectionIndex(*section)).ok().and_then(|s| s.file_range());
        let Some((start, len)) = place else { continue };
        let code: Vec<u8> = function.instructions.iter().flat_map(|i| Insn::from_aya(i).encode()).collect();
        let from = start.saturating_add(*offset);
        let fits = from.saturating_add(code.len() as u64) <= start.saturating_add(len);
        let range = from as usize..(from as usize).saturating_add(code.len());
        match out.get_mut(range).filter(|_| fits) {
            Some(place) => place.copy_from_slice(&code),
            None => return Err(Error::Object("a function lies outside of its section".into())),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_one_is_not_quiet() {
        assert_eq!(quietly(|| 5), Some(5));
        assert_eq!(quietly(|| -> u32 { panic!("nobody hears this") }), None);
        assert!(!QUIET.get());
    }

    #[test]
    fn what_is_no_btf_is_an_error() {
        assert!(relocate_core(b"", b"").is_err());
    }
}
