//! bpf(2) and the few other calls of the kernel that are needed, each behind a safe function.
//!
//! Knows the layout of `union bpf_attr` by offset (include/uapi/linux/bpf.h). Does not know maps or programs.
#![expect(unsafe_code, reason = "bpf(2), clock_gettime(2) and setrlimit(2) take addresses")]

use crate::Error;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// Commands of bpf(2) (`enum bpf_cmd`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    TestRun = 10,
    ObjInfo = 15,
    RawTracepointOpen = 17,
    BtfLoad = 18,
    MapTake = 21,
    MapFreeze = 22,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkNextId = 31,
    LinkDetach = 34,
}

/// Bytes up to `log_true_size` of BPF_PROG_LOAD. An older kernel takes a longer attribute whose end is zero.
const ATTR_SIZE: usize = 144;

/// `union bpf_attr`, written by offset; what is not written is zero, which every command takes for "not given".
///
/// Addresses in it are borrowed for as long as it lives, so that the kernel never sees one that is stale.
pub(super) struct Attr<'a> {
    words: [u64; ATTR_SIZE / 8],
    borrowed: std::marker::PhantomData<&'a mut [u8]>,
}

impl<'a> Attr<'a> {
    pub(super) fn new() -> Self {
        Self { words: [0; ATTR_SIZE / 8], borrowed: std::marker::PhantomData }
    }

    pub(super) fn u32(mut self, offset: usize, value: u32) -> Self {
        let (word, shift) = (offset / 8, if offset % 8 == low_half() { 0 } else { 32 });
        self.words[word] = self.words[word] & !(0xffff_ffff << shift) | u64::from(value) << shift;
        self
    }

    pub(super) fn u64(mut self, offset: usize, value: u64) -> Self {
        self.words[offset / 8] = value;
        self
    }

    pub(super) fn bytes(self, offset: usize, bytes: &'a [u8]) -> Self {
        self.u64(offset, bytes.as_ptr() as u64)
    }

    pub(super) fn bytes_mut(self, offset: usize, bytes: &'a mut [u8]) -> Self {
        self.u64(offset, bytes.as_mut_ptr() as u64)
    }

    /// A name, cut to the 15 bytes that the kernel holds, with what it does not take replaced.
    pub(super) fn name(mut self, offset: usize, name: &str) -> Self {
        let clean = |b: u8| if b.is_ascii_alphanumeric() || b == b'.' { b } else { b'_' };
        let mut raw = [0; 16];
        for (to, from) in raw[..15].iter_mut().zip(name.bytes()) {
            *to = clean(from);
        }
        for (i, chunk) in raw.chunks_exact(4).enumerate() {
            self = self.u32(offset + 4 * i, u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        }
        self
    }

    pub(super) fn read_u32(&self, offset: usize) -> u32 {
        let shift = if offset % 8 == low_half() { 0 } else { 32 };
        (self.words[offset / 8] >> shift) as u32
    }
}

/// At which offset in a 64-bit word its lower half stands.
const fn low_half() -> usize {
    if cfg!(target_endian = "little") { 0 } else { 4 }
}

/// One call of bpf(2).
///
/// The attribute holds the addresses that the command needs, each written from a slice whose length was written
/// beside it: that is what the callers in this module's siblings keep.
pub(super) fn bpf(command: Command, attr: &mut Attr<'_>) -> io::Result<i32> {
    // SAFETY: `attr` is ATTR_SIZE readable and writable bytes. The kernel follows only the addresses in it; those come
    // from slices that `Attr` keeps borrowed, with lengths that the callers take from the same slices or from the
    // map's own sizes, to which they have cut or checked them.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr.words.as_mut_ptr(), ATTR_SIZE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// One call of bpf(2) that makes a descriptor.
pub(super) fn bpf_fd(command: Command, attr: &mut Attr<'_>) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the command succeeded and returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// perf_event_open(2) for what a program writes with bpf_perf_event_output on one CPU.
pub(super) fn perf_event_open(cpu: u32) -> io::Result<OwnedFd> {
    // `struct perf_event_attr`, PERF_ATTR_SIZE_VER5: type, size, config, sample_period, sample_type, read_format,
    // flags, wakeup_events. PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, PERF_SAMPLE_RAW and PERF_SAMPLE_TIME,
    // use_clockid with CLOCK_MONOTONIC (1, at offset 92), a wake-up an event.
    const SIZE: usize = 112;
    let mut attr = [0_u64; SIZE / 8];
    attr[0] = 1 | (SIZE as u64) << 32;
    attr[1] = 10;
    attr[2] = 1;
    attr[3] = 1 << 10 | 1 << 2;
    attr[5] = 1 << 25;
    attr[6] = 1;
    attr[11] = 1 << 32;
    /// PERF_FLAG_FD_CLOEXEC.
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let (any_process, no_group): (libc::c_long, libc::c_long) = (-1, -1);
    // SAFETY: `attr` is SIZE readable bytes, and the upper half of its first word says so.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attr.as_ptr(),
            any_process,
            libc::c_long::from(cpu),
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Enables a perf event.
pub(super) fn perf_event_enable(fd: &OwnedFd) -> io::Result<()> {
    /// `_IO('$', 0)`.
    const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
    // SAFETY: this request takes no address.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps the calling thread on one CPU: what a per-CPU map or list is then touched from.
///
/// # Errors
///
/// What the kernel said: no such CPU.
pub fn stay_on_cpu(cpu: u32) -> Result<(), Error> {
    let mut set = [0_u64; 16];
    set[cpu as usize / 64 % 16] = 1 << (cpu % 64);
    // SAFETY: the set is a readable array of so many bytes; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&set), set.as_ptr()) };
    if result < 0 { Err(Error::kernel("sched_setaffinity", io::Error::last_os_error())) } else { Ok(()) }
}

/// Nanoseconds of CLOCK_MONOTONIC: what bpf_ktime_get_ns returns.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec to write to, and the clock is one that every Linux has.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC exists");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether this process may ask this kernel's verifier at all: makes one map, and closes it.
///
/// # Errors
///
/// [`Error::NotPermitted`] and [`Error::NoBpf`] for what a user can mend, else what the kernel said.
pub fn probe() -> Result<(), Error> {
    raise_locked_memory();
    const ARRAY: u32 = 2;
    let mut attr = Attr::new().u32(0, ARRAY).u32(4, 4).u32(8, 4).u32(12, 1);
    if let Err(e) = bpf_fd(Command::MapCreate, &mut attr) {
        return Err(refusal("BPF_MAP_CREATE", e));
    }
    // An ordinary user may make an array on some systems, and still not load a tc program: `r0 = 0; exit`.
    const SCHED_CLS: u32 = 3;
    let code = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut attr = Attr::new().u32(0, SCHED_CLS).u32(4, 2).bytes(8, &code).bytes(16, b"GPL\0");
    bpf_fd(Command::ProgLoad, &mut attr).map(drop).map_err(|e| refusal("BPF_PROG_LOAD", e))
}

/// A failed call, as what the user can do about it.
fn refusal(what: &str, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::NotPermitted,
        Some(libc::ENOSYS) => Error::NoBpf,
        _ => Error::kernel(what, e),
    }
}

/// Before 5.11 maps counted as locked memory. That the limit cannot be raised shows later, as EPERM of a map.
fn raise_locked_memory() {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `all` is a readable rlimit.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) };
}

/// How many CPUs the kernel may ever have: how many values a per-CPU map has for a key.
///
/// # Errors
///
/// If the kernel does not say.
pub fn possible_cpus() -> Result<u32, Error> {
    const FILE: &str = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(FILE).map_err(|e| Error::kernel(FILE, e))?;
    cpu_list_len(text.trim())
        .ok_or_else(|| Error::kernel(FILE, io::Error::other(format!("not a CPU list: {text}"))))
}

/// One more than the highest number of a list such as `0-3,5`.
fn cpu_list_len(list: &str) -> Option<u32> {
    list.split(',')
        .map(|r| r.rsplit('-').next()?.parse::<u32>().ok())
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .max()?
        .checked_add(1)
}

/// The running kernel's release, such as `6.18.44`.
pub fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |s| s.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_counts_up_to_its_highest() {
        assert_eq!(cpu_list_len("0"), Some(1));
        assert_eq!(cpu_list_len("0-3"), Some(4));
        assert_eq!(cpu_list_len("0-3,7"), Some(8));
        assert_eq!(cpu_list_len(""), None);
    }

    #[test]
    fn fields_of_an_attribute_do_not_overwrite_each_other() {
        let a = Attr::new().u32(0, 1).u32(4, 2).u32(0, 3).name(8, "a/long-name-that-is-cut");
        assert_eq!((a.read_u32(0), a.read_u32(4)), (3, 2));
        assert_eq!(a.read_u32(8).to_ne_bytes(), *b"a_lo");
        assert_eq!(a.read_u32(20).to_ne_bytes()[3], 0);
    }
}
