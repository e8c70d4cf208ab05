//! BPF_PROG_TEST_RUN: one packet through one program, without a device.
//!
//! The kernel executes no redirect here, and its packet is linear, has no tunnel metadata and no partial checksum
//! (net/bpf/test_run.c).

use super::load::Program;
use super::sys::{Attr, Command, bpf};
use crate::Error;
use std::os::fd::AsRawFd as _;

/// What of `struct __sk_buff` the kernel takes in, or gives back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SkbContext {
    /// `mark`.
    pub mark: u32,
    /// `priority`.
    pub priority: u32,
    /// `ingress_ifindex`.
    pub ingress_ifindex: u32,
    /// `ifindex`; 0 in means the loopback device of the caller's network namespace.
    pub ifindex: u32,
    /// `cb`.
    pub cb: [u32; 5],
    /// `tstamp`, nanoseconds.
    pub tstamp: u64,
}

/// What a run left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// What the program returned.
    pub return_value: u32,
    /// The packet from its Ethernet header on.
    pub packet: Vec<u8>,
    /// The context.
    pub context: SkbContext,
}

/// Size of `struct __sk_buff` up to and with `hwtstamp`.
const CONTEXT_SIZE: usize = 192;
/// Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h).
const MARK: usize = 8;
const PRIORITY: usize = 32;
const INGRESS_IFINDEX: usize = 36;
const IFINDEX: usize = 40;
const CB: usize = 48;
const TSTAMP: usize = 152;
/// What a program may add before or behind a packet.
const ROOM: usize = 512;

impl SkbContext {
    fn to_bytes(self) -> [u8; CONTEXT_SIZE] {
        let mut raw = [0; CONTEXT_SIZE];
        let mut put = |at: usize, v: u32| raw[at..at + 4].copy_from_slice(&v.to_ne_bytes());
        put(MARK, self.mark);
        put(PRIORITY, self.priority);
        put(INGRESS_IFINDEX, self.ingress_ifindex);
        put(IFINDEX, self.ifindex);
        for (i, word) in self.cb.into_iter().enumerate() {
            put(CB + 4 * i, word);
        }
        raw[TSTAMP..TSTAMP + 8].copy_from_slice(&self.tstamp.to_ne_bytes());
        raw
    }

    fn from_bytes(raw: &[u8; CONTEXT_SIZE]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            mark: word(MARK),
            priority: word(PRIORITY),
            ingress_ifindex: word(INGRESS_IFINDEX),
            ifindex: word(IFINDEX),
            cb: std::array::from_fn(|i| word(CB + 4 * i)),
            tstamp: long(TSTAMP),
        }
    }
}

impl Program {
    /// How long a run takes, in nanoseconds, on the average of `repeat` runs over the same packet, each over what the
    /// one before has left.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn time_ns(&self, frame: &[u8], context: &SkbContext, repeat: u32) -> Result<u32, Error> {
        let input = context.to_bytes();
        let mut attr = Attr::new()
            .u32(0, self.fd.as_raw_fd() as u32)
            .u32(8, frame.len() as u32)
            .bytes(16, frame)
            .u32(32, repeat)
            .u32(40, CONTEXT_SIZE as u32)
            .bytes(48, &input);
        bpf(Command::TestRun, &mut attr).map_err(|e| Error::kernel(format!("timing {}", self.name), e))?;
        Ok(attr.read_u32(36))
    }

    /// Runs the program once on a frame (at least its Ethernet header), on the CPU that the caller is on.
    ///
    /// # Errors
    ///
    /// What the kernel refuses: a frame shorter than an Ethernet header, an ifindex that is not there.
    pub fn run(&self, frame: &[u8], context: &SkbContext) -> Result<Ran, Error> {
        let input = context.to_bytes();
        let mut output = [0; CONTEXT_SIZE];
        let mut packet = vec![0; frame.len() + ROOM];
        let room = packet.len() as u32;
        let (return_value, length) = {
            let mut attr = Attr::new()
                .u32(0, self.fd.as_raw_fd() as u32)
                .u32(8, frame.len() as u32)
                .u32(12, room)
                .bytes(16, frame)
                .bytes_mut(24, &mut packet)
                .u32(32, 1)
                .u32(40, CONTEXT_SIZE as u32)
                .u32(44, CONTEXT_SIZE as u32)
                .bytes(48, &input)
                .bytes_mut(56, &mut output);
            bpf(Command::TestRun, &mut attr)
                .map_err(|e| Error::kernel(format!("running {}", self.name), e))?;
            (attr.read_u32(4), attr.read_u32(12) as usize)
        };
        packet.truncate(length);
        Ok(Ran { return_value, packet, context: SkbContext::from_bytes(&output) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_round_trips() {
        let c = SkbContext {
            mark: 1,
            priority: 2,
            ingress_ifindex: 3,
            ifindex: 4,
            cb: [5, 6, 7, 8, 9],
            tstamp: 1 << 40,
        };
        assert_eq!(SkbContext::from_bytes(&c.to_bytes()), c);
    }
}
