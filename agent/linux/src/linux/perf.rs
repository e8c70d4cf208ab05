//! What programs write with bpf_perf_event_output: one ring a CPU, read whole.
//!
//! Knows the ring's layout (perf_event_open(2)). Does not know what an event is.
#![expect(unsafe_code, reason = "a perf ring is memory that is shared with the kernel")]

use super::map::Map;
use super::sys::{perf_event_enable, perf_event_open, possible_cpus};
use crate::Error;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The rings of all CPUs behind one BPF_MAP_TYPE_PERF_EVENT_ARRAY.
#[derive(Debug)]
pub struct PerfReader {
    rings: Vec<Ring>,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Events {
    /// The events' bytes: structure and captured packet, padded to what the ring holds. By CPU, then in order.
    pub events: Vec<Vec<u8>>,
    /// How many the kernel had no room for.
    pub lost: u64,
    /// Of each event the time, nanoseconds of CLOCK_MONOTONIC, and the CPU.
    pub stamps: Vec<(u64, u32)>,
}

impl PerfReader {
    /// Opens a ring for every CPU and puts it into the map.
    ///
    /// # Errors
    ///
    /// What perf_event_open(2) or mmap(2) refuse.
    pub fn open(map: &Map) -> Result<Self, Error> {
        Self::with_pages(map, PAGES)
    }

    /// As [`PerfReader::open`], with room for so many pages of events a CPU: a power of two.
    ///
    /// # Errors
    ///
    /// As [`PerfReader::open`].
    pub fn with_pages(map: &Map, pages: usize) -> Result<Self, Error> {
        let mut rings = Vec::new();
        for cpu in 0..possible_cpus()? {
            let ring = match Ring::open(cpu, pages) {
                // A CPU that may exist and is not there: no program runs on it.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => continue,
                other => other.map_err(|e| Error::kernel("opening a perf ring", e))?,
            };
            map.set_fd(cpu, &ring.fd)?;
            rings.push(ring);
        }
        Ok(Self { rings })
    }

    /// Takes all events that are there.
    pub fn drain(&mut self) -> Events {
        let mut all = Events::default();
        for ring in &mut self.rings {
            ring.drain(&mut all);
        }
        all
    }
}

/// Pages of data in a ring, if nobody says: a power of two.
const PAGES: usize = 32;
/// Offsets of `data_head` and `data_tail` in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const RECORD_LOST: u32 = 2;
const RECORD_SAMPLE: u32 = 9;
/// Bytes of `struct perf_event_header`: type, misc, size.
const HEADER: usize = 8;

#[derive(Debug)]
struct Ring {
    fd: OwnedFd,
    cpu: u32,
    base: NonNull<u8>,
    page: usize,
    pages: usize,
}

impl Ring {
    fn open(cpu: u32, pages: usize) -> io::Result<Self> {
        let fd = perf_event_open(cpu)?;
        // SAFETY: sysconf takes no address.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the kernel chooses the place; the result is checked before it is used, and `drop` unmaps it.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page * (pages + 1),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        perf_event_enable(&fd)?;
        Ok(Self { fd, cpu, base, page, pages })
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the first page is mapped and aligned, both counters are aligned words in it, and the kernel
        // touches them as whole words, so that an atomic is how both sides may share them.
        unsafe { self.base.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// Copies `len` bytes that the kernel has written at position `from` of the endless stream.
    fn copy(&self, from: u64, len: usize) -> Vec<u8> {
        let size = self.page * self.pages;
        (0..len)
            .map(|i| {
                let at = self.page + (from as usize + i) % size;
                // SAFETY: `at` lies behind the first page and within the mapping, by the remainder; the kernel does
                // not write what lies between tail and head.
                unsafe { self.base.add(at).read_volatile() }
            })
            .collect()
    }

    fn drain(&mut self, out: &mut Events) {
        // Acquire pairs with the kernel's barrier before it moves the head: the records are complete.
        let head = self.counter(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.counter(DATA_TAIL).load(Ordering::Relaxed);
        while tail < head {
            let header = self.copy(tail, HEADER);
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let size = usize::from(u16::from_ne_bytes([header[6], header[7]])).max(HEADER);
            let body = self.copy(tail + HEADER as u64, size - HEADER);
            match kind {
                // PERF_SAMPLE_TIME: eight bytes. PERF_SAMPLE_RAW: a length, then as many bytes.
                RECORD_SAMPLE if body.len() >= 12 => {
                    let time: [u8; 8] = std::array::from_fn(|i| body[i]);
                    let len = u32::from_ne_bytes([body[8], body[9], body[10], body[11]]) as usize;
                    out.stamps.push((u64::from_ne_bytes(time), self.cpu));
                    out.events.push(body[12..].iter().take(len).copied().collect());
                }
                // An id, then how many.
                RECORD_LOST if body.len() >= 16 => {
                    let lost: [u8; 8] = std::array::from_fn(|i| body[8 + i]);
                    out.lost += u64::from_ne_bytes(lost);
                }
                _ => {}
            }
            tail += size as u64;
        }
        // Release: all was copied before the kernel may write over it.
        self.counter(DATA_TAIL).store(tail, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: `open` mapped exactly this, and nothing borrowed from it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page * (self.pages + 1)) };
    }
}
