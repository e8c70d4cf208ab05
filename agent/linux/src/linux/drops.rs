//! What the kernel's stacks drop, and why: a probe at the tracepoint skb:kfree_skb, for chosen namespaces only.
//!
//! The probe is written instruction by instruction, since where the fields that it reads stand is known only once the
//! running kernel was asked ([`super::btf`]). It changes nothing, and ends with the monitor.

use super::btf::KernelTypes;
use super::map::{Map, MapShape};
use super::perf::PerfReader;
use super::sys::{Attr, Command, bpf_fd};
use crate::{Error, Netns};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

/// A packet that a stack dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StackDrop {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The namespace, as [`DropMonitor::watch`] returned it.
    pub namespace: u32,
    /// The device at which the packet was; 0 if that is not known any more.
    pub ifindex: u32,
    /// `SKB_DROP_REASON_*`.
    pub reason: String,
    /// The packet's first bytes, from the IP header on.
    pub bytes: Vec<u8>,
}

/// Which namespaces are watched; can be handed to other threads.
#[derive(Clone, Debug)]
pub struct Watched(Arc<Map>);

/// The probe and what it wrote.
pub struct DropMonitor {
    _attached: OwnedFd,
    perf: PerfReader,
    /// Kept: an array of perf events forgets them when the descriptor closes through which they were put in.
    _events: Map,
    watched: Watched,
    reasons: BTreeMap<u32, String>,
}

/// How many namespaces can be watched at a time.
const NAMESPACES: u32 = 4096;
/// Bytes of a packet that are kept.
const CAPTURED: i32 = 64;
/// What the probe writes: namespace, reason, device, nothing, and the packet.
const RECORD: i32 = 16 + CAPTURED;
const RING_PAGES: usize = 64;

impl Watched {
    /// Watches a namespace, and returns its number.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub fn watch(&self, netns: &Netns) -> Result<u32, Error> {
        let file = std::fs::File::from(
            netns.as_fd().try_clone_to_owned().map_err(|e| Error::kernel("a network namespace", e))?,
        );
        let metadata = file.metadata().map_err(|e| Error::kernel("a network namespace", e))?;
        let number = metadata.ino() as u32;
        self.0.update(&number.to_ne_bytes(), &1_u32.to_ne_bytes())?;
        Ok(number)
    }
}

impl DropMonitor {
    /// Loads and attaches the probe.
    ///
    /// # Errors
    ///
    /// On a kernel without BTF, or before 5.17, which gives no reasons.
    pub fn open() -> Result<Self, Error> {
        let types = KernelTypes::of_running_kernel()?;
        let reasons = types.enumeration("skb_drop_reason")?;
        let shape = |name: &str, kind, value_size, max_entries| MapShape {
            name: name.to_owned(),
            kind,
            key_size: 4,
            value_size,
            max_entries,
            flags: 0,
        };
        let watched = Map::create(shape("watched", 1, 4, NAMESPACES))?;
        let events = Map::create(shape("drops", 4, 4, 0))?;
        let tracepoint = types.typedef("btf_trace_kfree_skb")?;
        let probe = |with_socket| {
            probe(&types, watched.fd().as_raw_fd(), events.fd().as_raw_fd(), with_socket)
                .and_then(|code| load(&code, tracepoint))
        };
        // Since 6.11 the tracepoint tells the receiving socket, too.
        let program = probe(true).or_else(|_| probe(false))?;
        let perf = PerfReader::with_pages(&events, RING_PAGES)?;
        // No name: the program says at which tracepoint it was loaded for.
        let mut attr = Attr::new().u32(8, program.as_raw_fd() as u32);
        let attached = bpf_fd(Command::RawTracepointOpen, &mut attr)
            .map_err(|e| Error::kernel("attaching the probe for drops", e))?;
        Ok(Self { _attached: attached, perf, _events: events, watched: Watched(Arc::new(watched)), reasons })
    }

    /// Which namespaces are watched.
    pub fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Takes all drops that are there, and how many were lost.
    pub fn drain(&mut self) -> (Vec<StackDrop>, u64) {
        let found = self.perf.drain();
        let word = |raw: &[u8], at: usize| {
            raw.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        let drops = found.stamps.iter().zip(&found.events).map(|((time_ns, _), raw)| {
            let reason = word(raw, 4);
            let name = self.reasons.get(&reason).cloned();
            StackDrop {
                time_ns: *time_ns,
                namespace: word(raw, 0),
                ifindex: word(raw, 8),
                reason: name.unwrap_or_else(|| format!("SKB_DROP_REASON_{reason}")),
                bytes: raw.get(16..RECORD as usize).unwrap_or_default().to_vec(),
            }
        });
        (drops.collect(), found.lost)
    }
}

/// One instruction: `struct bpf_insn`.
fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let (a, b) = (off.to_le_bytes(), imm.to_le_bytes());
    [code, dst | src << 4, a[0], a[1], b[0], b[1], b[2], b[3]]
}

/// The probe: `if (watched[namespace]) output(namespace, reason, ifindex, packet)`.
///
/// The namespace is that of `skb->dev`; where a layer has taken the device away (`tcp_v4_rcv` does before a socket has
/// the packet), that of the receiving socket, if the tracepoint tells it.
fn probe(types: &KernelTypes, watched: i32, events: i32, with_socket: bool) -> Result<Vec<u8>, Error> {
    // Operation codes: loads of 2, 4 and 8 bytes, store of 4, moves, addition, jump if equal, call, exit, and the
    // load of a map, which takes two places.
    const LOAD16: u8 = 0x69;
    const LOAD32: u8 = 0x61;
    const LOAD64: u8 = 0x79;
    const STORE32: u8 = 0x63;
    const ZERO32: u8 = 0x62;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const SET32: u8 = 0xb4;
    const ADD: u8 = 0x07;
    const ADD_REGISTER: u8 = 0x0f;
    const IF_ZERO: u8 = 0x15;
    const IF_NOT_ZERO: u8 = 0x55;
    const GO: u8 = 0x05;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const MAP: u8 = 0x18;
    const FRAME: u8 = 10;
    const LOOKUP: i32 = 1;
    const OUTPUT: i32 = 25;
    const READ: i32 = 113;
    let at = |structure: &str, field: &str| types.offset(structure, field).map(|o| o as i16);
    let net_of_device = at("net_device", "nd_net")?;
    let number_of_net = at("net", "ns")? + at("ns_common", "inum")?;
    let map = |to: u8, fd: i32| [insn(MAP, to, 1, 0, fd), insn(0, 0, 0, 0, 0)];
    // r6 the tracepoint's arguments, r7 the packet, r8 its device's index. How far it is from a test against zero to
    // the end is filled in below.
    let mut code = vec![
        insn(MOVE, 6, 1, 0, 0),
        insn(LOAD64, 7, 6, 0, 0),
        insn(LOAD64, 2, 7, at("sk_buff", "dev")?, 0),
        insn(SET, 8, 0, 0, 0),
    ];
    let of_device =
        [insn(LOAD32, 8, 2, at("net_device", "ifindex")?, 0), insn(LOAD64, 1, 2, net_of_device, 0)];
    if with_socket {
        let net_of_socket = at("sock", "__sk_common")? + at("sock_common", "skc_net")?;
        code.push(insn(IF_NOT_ZERO, 2, 0, 4, 0));
        code.push(insn(LOAD64, 2, 6, 24, 0));
        code.push(insn(IF_ZERO, 2, 0, 0, 0));
        code.push(insn(LOAD64, 1, 2, net_of_socket, 0));
        code.push(insn(GO, 0, 0, 2, 0));
    } else {
        code.push(insn(IF_ZERO, 2, 0, 0, 0));
    }
    code.extend(of_device);
    code.extend([
        insn(IF_ZERO, 1, 0, 0, 0),
        insn(LOAD32, 1, 1, number_of_net, 0),
        insn(STORE32, FRAME, 1, -(RECORD as i16), 0),
        insn(MOVE, 2, FRAME, 0, 0),
        insn(ADD, 2, 0, 0, -RECORD),
    ]);
    code.extend(map(1, watched));
    code.extend([
        insn(CALL, 0, 0, 0, LOOKUP),
        insn(IF_ZERO, 0, 0, 0, 0),
        insn(LOAD64, 1, 6, 16, 0),
        insn(STORE32, FRAME, 1, 4 - RECORD as i16, 0),
        insn(STORE32, FRAME, 8, 8 - RECORD as i16, 0),
        insn(ZERO32, FRAME, 0, 12 - RECORD as i16, 0),
        insn(LOAD64, 3, 7, at("sk_buff", "head")?, 0),
        insn(LOAD16, 1, 7, at("sk_buff", "network_header")?, 0),
        insn(ADD_REGISTER, 3, 1, 0, 0),
        insn(MOVE, 1, FRAME, 0, 0),
        insn(ADD, 1, 0, 0, -CAPTURED),
        insn(SET, 2, 0, 0, CAPTURED),
        insn(CALL, 0, 0, 0, READ),
        insn(MOVE, 1, 6, 0, 0),
    ]);
    code.extend(map(2, events));
    code.extend([
        // BPF_F_CURRENT_CPU, without a sign.
        insn(SET32, 3, 0, 0, -1),
        insn(MOVE, 4, FRAME, 0, 0),
        insn(ADD, 4, 0, 0, -RECORD),
        insn(SET, 5, 0, 0, RECORD),
        insn(CALL, 0, 0, 0, OUTPUT),
        insn(SET, 0, 0, 0, 0),
        insn(EXIT, 0, 0, 0, 0),
    ]);
    let end = code.len() as i16 - 2;
    for (i, instruction) in code.iter_mut().enumerate() {
        if instruction[0] == IF_ZERO {
            [instruction[2], instruction[3]] = (end - i as i16 - 1).to_le_bytes();
        }
    }
    Ok(code.concat())
}

/// Hands the probe to the verifier, as a program of the tracepoint whose type has this number.
fn load(code: &[u8], tracepoint: u32) -> Result<OwnedFd, Error> {
    const TRACING: u32 = 26;
    const TRACE_RAW_TP: u32 = 23;
    let mut log = vec![0; 64 << 10];
    let size = log.len() as u32;
    let result = {
        let mut attr = Attr::new()
            .u32(0, TRACING)
            .u32(4, (code.len() / 8) as u32)
            .bytes(8, code)
            .bytes(16, b"GPL\0")
            .u32(24, 1)
            .u32(28, size)
            .bytes_mut(32, &mut log)
            .name(48, "skep_drops")
            .u32(68, TRACE_RAW_TP)
            .u32(108, tracepoint);
        bpf_fd(Command::ProgLoad, &mut attr)
    };
    result.map_err(|e| {
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.trim_end_matches('\0').lines().collect();
        let last = lines[lines.len().saturating_sub(6)..].join("\n");
        Error::Refused { program: "the probe for drops".to_owned(), log: format!("{e}\n{last}") }
    })
}
