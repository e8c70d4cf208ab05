//! rbpf's JIT for x86-64, with memory that is never writable and executable at the same time.
//!
//! Knows how machine code is entered and left. Compiled code checks nothing: it is for programs that a kernel has
//! verified. Each helper is entered through a thunk, because rbpf's code calls with whatever alignment the stack has and
//! because no panic may unwind through code without unwind tables.
#![expect(unsafe_code, reason = "machine code is made and entered here")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::{Engine, Site, Stopped, filled, rbpf, refused};
use crate::legal::Sound;
use crate::{Error, FaultKind, helper, scope};

/// The longest that rbpf makes of one instruction is a 64-bit division, 50 bytes.
const BYTES_AN_INSTRUCTION: usize = 64;
/// Entry and exit.
const BYTES_AROUND: usize = 512;

/// Memory of the process, in pages, unmapped at the end.
struct Pages {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: after `protect` nobody writes to the pages any more.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Writable pages. The kernel gives memory to those that are touched.
    fn new(len: usize) -> Result<Self, String> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let len = len.next_multiple_of(4096);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        let failed = || format!("no memory for code: {}", std::io::Error::last_os_error());
        let at = if at == libc::MAP_FAILED { None } else { NonNull::new(at.cast()) };
        Ok(Self { at: at.ok_or_else(failed)?, len })
    }

    /// From now on executable, and no longer writable.
    fn protect(&self) -> Result<(), String> {
        // SAFETY: the pages are ours.
        let result =
            unsafe { libc::mprotect(self.at.as_ptr().cast(), self.len, libc::PROT_READ | libc::PROT_EXEC) };
        if result == 0 { Ok(()) } else { Err(format!("code: {}", std::io::Error::last_os_error())) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; whoever borrows the pages is dropped before.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}

pub(super) struct Jit {
    /// Declared first, so that it is dropped before what it borrows.
    vm: ::rbpf::EbpfVmMbuff<'static>,
    _pages: Pages,
    _code: Box<[u8]>,
}

impl Jit {
    pub(super) fn new(sound: &Sound, site: &Site<'_>) -> Result<Self, Error> {
        let insns = filled(sound.legal()?, site);
        let code: Box<[u8]> = insns.iter().flat_map(|i| i.encode()).collect();
        // SAFETY: the bytes stay where they are and unchanged as long as the box beside the engine lives, and the
        // engine is dropped before it.
        let borrowed: &'static [u8] = unsafe { &*std::ptr::from_ref(&*code) };
        let debug = |e: ::rbpf::lib::Error| refused(sound, format!("{e:?}"));
        let mut vm = rbpf::machine(borrowed).map_err(debug)?;
        let thunks = thunks().as_ref().map_err(|e| refused(sound, e))?;
        for (number, _) in rbpf::called(&insns) {
            vm.register_helper(number, thunks.function(number as i32)).map_err(debug)?;
        }
        let pages =
            Pages::new(insns.len() * BYTES_AN_INSTRUCTION + BYTES_AROUND).map_err(|e| refused(sound, e))?;
        // SAFETY: the pages live as long as the engine, and nobody else writes to them.
        let memory = unsafe { std::slice::from_raw_parts_mut(pages.at.as_ptr(), pages.len) };
        vm.set_jit_exec_memory(memory).map_err(debug)?;
        vm.jit_compile().map_err(debug)?;
        pages.protect().map_err(|e| refused(sound, e))?;
        Ok(Self { vm, _pages: pages, _code: code })
    }
}

impl Engine for Jit {
    fn execute(&self) -> Result<u64, Stopped> {
        let mut frame = scope::with(|s| s.frame_pointer()).to_ne_bytes();
        // SAFETY: legal code reads it once, at its start.
        let frame: &'static mut [u8] = unsafe { &mut *std::ptr::from_mut(&mut frame) };
        // SAFETY: the code is compiled from legal instructions, whose jumps stay inside, and whose memory accesses a
        // kernel has verified or the caller vouches for; it keeps neither slice.
        let result = unsafe { self.vm.execute_program_jit(&mut [], frame) };
        result.map_err(|_| Stopped { instruction: None, kind: FaultKind::Engine })
    }
}

/// One thunk for each helper, made once for the process.
struct Thunks {
    pages: Pages,
    at: BTreeMap<i32, usize>,
}

/// Bytes of a thunk with what fills it up.
const THUNK: usize = 40;

impl Thunks {
    fn new() -> Result<Self, String> {
        let helpers: Vec<(i32, helper::Function)> = helper::all().collect();
        let pages = Pages::new(helpers.len() * THUNK)?;
        // SAFETY: the pages were just mapped, writable and of this length.
        let bytes = unsafe { std::slice::from_raw_parts_mut(pages.at.as_ptr(), pages.len) };
        let mut at = BTreeMap::new();
        for (slot, (number, function)) in helpers.into_iter().enumerate() {
            bytes[slot * THUNK..][..THUNK].copy_from_slice(&thunk(function));
            at.insert(number, slot * THUNK);
        }
        pages.protect()?;
        Ok(Self { pages, at })
    }

    /// The thunk as rbpf wants it; only compiled code may call it.
    fn function(&self, number: i32) -> helper::Function {
        let at = self.pages.at.as_ptr() as usize + self.at[&number];
        // SAFETY: a function pointer is as wide as an address, and rbpf does no more with this one than to put its
        // address into the code that it compiles.
        unsafe { std::mem::transmute::<usize, helper::Function>(at) }
    }
}

fn thunks() -> &'static Result<Thunks, String> {
    static THUNKS: OnceLock<Result<Thunks, String>> = OnceLock::new();
    THUNKS.get_or_init(Thunks::new)
}

/// `push rbp; mov rbp, rsp; and rsp, -16; mov r9, helper; mov rax, enter; call rax; mov rsp, rbp; pop rbp; ret`
fn thunk(function: helper::Function) -> [u8; THUNK] {
    let mut code = vec![0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0];
    code.extend([0x49, 0xb9]);
    code.extend((function as usize as u64).to_le_bytes());
    code.extend([0x48, 0xb8]);
    code.extend((enter as *const () as usize as u64).to_le_bytes());
    code.extend([0xff, 0xd0, 0x48, 0x89, 0xec, 0x5d, 0xc3]);
    code.resize(THUNK, 0xcc);
    code.try_into().expect("filled up to its size")
}

/// Where thunks lead: the five arguments, and in the sixth place the helper that is meant.
extern "C" fn enter(a: u64, b: u64, c: u64, d: u64, e: u64, helper: usize) -> u64 {
    // SAFETY: only thunks call this, and each has put a helper's address here.
    let helper = unsafe { std::mem::transmute::<usize, helper::Function>(helper) };
    catch_unwind(AssertUnwindSafe(|| helper(a, b, c, d, e))).unwrap_or_else(|panic| {
        scope::with(|scope| scope.fail(FaultKind::Panic(scope::message(&*panic))));
        0
    })
}
