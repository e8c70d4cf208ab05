//! Maps and programs of the running kernel without an object: for comparing another kernel with it, call by call.
//!
//! Knows bpf(2)'s arguments and gives its error numbers back as they are. Knows nothing of what maps and programs are for.

use super::sys::{Attr, Command, bpf, bpf_fd};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

/// An error number of the kernel, positive; 0 where the kernel gave none.
type Number = i32;

fn number(e: std::io::Error) -> Number {
    e.raw_os_error().unwrap_or(0)
}

/// A map as it is created: type, bytes of a key and of a value, entries, flags, and `map_extra`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawShape {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Entries.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// `map_extra`.
    pub extra: u64,
}

/// A map of the running kernel. Where a map has no key or no value, that is empty.
#[derive(Debug)]
pub struct RawMap(OwnedFd);

impl RawMap {
    /// Makes a map; `inner` is the template of a map of maps.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn create(shape: RawShape, inner: Option<&Self>) -> Result<Self, Number> {
        let mut attr = Attr::new()
            .u32(0, shape.kind)
            .u32(4, shape.key)
            .u32(8, shape.value)
            .u32(12, shape.entries)
            .u32(16, shape.flags)
            .u32(20, inner.map_or(0, |m| m.0.as_raw_fd() as u32))
            .u64(64, shape.extra);
        bpf_fd(Command::MapCreate, &mut attr).map(Self).map_err(number)
    }

    /// Its descriptor, for instructions and for maps of maps.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn attr<'a>(&self, key: &'a [u8], flags: u64) -> Attr<'a> {
        let attr = Attr::new().u32(0, self.0.as_raw_fd() as u32).u64(24, flags);
        if key.is_empty() { attr } else { attr.bytes(8, key) }
    }

    /// `BPF_MAP_LOOKUP_ELEM` into `value`, which is as long as the kernel writes: all CPUs' values of a per-CPU map.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn lookup(&self, key: &[u8], flags: u64, value: &mut [u8]) -> Result<(), Number> {
        let mut attr = self.attr(key, flags).bytes_mut(16, value);
        bpf(Command::MapLookup, &mut attr).map(drop).map_err(number)
    }

    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, as [`Self::lookup`].
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn take(&self, key: &[u8], flags: u64, value: &mut [u8]) -> Result<(), Number> {
        let mut attr = self.attr(key, flags).bytes_mut(16, value);
        bpf(Command::MapTake, &mut attr).map(drop).map_err(number)
    }

    /// `BPF_MAP_UPDATE_ELEM`.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Number> {
        bpf(Command::MapUpdate, &mut self.attr(key, flags).bytes(16, value)).map(drop).map_err(number)
    }

    /// `BPF_MAP_DELETE_ELEM`.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn delete(&self, key: &[u8]) -> Result<(), Number> {
        bpf(Command::MapDelete, &mut self.attr(key, 0)).map(drop).map_err(number)
    }

    /// `BPF_MAP_GET_NEXT_KEY` into `next`, which has a key's size.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<(), Number> {
        let mut attr = self.attr(key.unwrap_or(&[]), 0).bytes_mut(16, next);
        bpf(Command::MapNextKey, &mut attr).map(drop).map_err(number)
    }
}

/// The type that [`load_btf`] gives every function.
const FUNCTION: u32 = 3;

/// Type information with one type, of a static function `int f(void)`: of static functions the verifier believes no more.
fn load_btf() -> std::io::Result<OwnedFd> {
    // name, info (kind << 24), size or type: `int` of 4 bytes, signed, 32 bits; its prototype; the function.
    let types = [1_u32, 1 << 24, 4, 1 << 24 | 32, 0, 13 << 24, 1, 5, 12 << 24, 2];
    let strings = b"\0int\0f\0";
    let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
    let (len, text) = (types.len() as u32, strings.len() as u32);
    // `struct btf_header`: magic and version, its length; where types and strings begin and how long they are.
    let header = [0x1_eb9f_u32, 24, 0, len, len, text];
    let mut btf: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
    btf.extend(types);
    btf.extend(strings);
    let mut attr = Attr::new().bytes(0, &btf).u32(16, btf.len() as u32);
    bpf_fd(Command::BtfLoad, &mut attr)
}

/// A program of the running kernel.
#[derive(Debug)]
pub struct RawProgram(OwnedFd);

/// What `BPF_PROG_TEST_RUN` gave back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRan {
    /// What the program returned.
    pub return_value: u32,
    /// The packet.
    pub data: Vec<u8>,
    /// The context.
    pub context: Vec<u8>,
}

impl RawProgram {
    /// Loads instructions, as they are encoded, under the GPL.
    ///
    /// # Errors
    ///
    /// The error number and the verifier's log.
    pub fn load(kind: u32, attach: u32, instructions: &[u8]) -> Result<Self, (Number, String)> {
        Self::load_functions(kind, attach, instructions, &[])
    }

    /// The same with the instruction at which each function begins, in order, the program itself at 0: the kernel takes
    /// callbacks only where type information calls them static functions.
    ///
    /// # Errors
    ///
    /// The error number and the verifier's log.
    pub fn load_functions(
        kind: u32,
        attach: u32,
        instructions: &[u8],
        functions: &[u32],
    ) -> Result<Self, (Number, String)> {
        let btf = if functions.is_empty() {
            None
        } else {
            Some(load_btf().map_err(|e| (number(e), String::new()))?)
        };
        let info: Vec<u8> =
            functions.iter().flat_map(|at| [*at, FUNCTION]).flat_map(u32::to_ne_bytes).collect();
        let mut log = vec![0; 1 << 20];
        let size = log.len() as u32;
        let loaded = {
            let mut attr = Attr::new()
                .u32(0, kind)
                .u32(4, (instructions.len() / 8) as u32)
                .bytes(8, instructions)
                .bytes(16, b"GPL\0")
                .u32(24, 1)
                .u32(28, size)
                .bytes_mut(32, &mut log)
                .u32(68, attach);
            if let Some(btf) = &btf {
                // `struct bpf_func_info` has 8 bytes.
                attr = attr.u32(72, btf.as_raw_fd() as u32).u32(76, 8).bytes(80, &info);
                attr = attr.u32(88, functions.len() as u32);
            }
            bpf_fd(Command::ProgLoad, &mut attr)
        };
        loaded.map(Self).map_err(|e| {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            (number(e), String::from_utf8_lossy(&log[..end]).into_owned())
        })
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Runs it for a cgroup (a descriptor of its folder) at a hook (`enum bpf_attach_type`), until what is given back is
    /// closed.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn attach(&self, cgroup: BorrowedFd<'_>, hook: u32) -> Result<OwnedFd, Number> {
        let mut attr = Attr::new().u32(0, self.0.as_raw_fd() as u32);
        attr = attr.u32(4, cgroup.as_raw_fd() as u32).u32(8, hook);
        bpf_fd(Command::LinkCreate, &mut attr).map_err(number)
    }

    /// Nanoseconds of one run on the average of `repeat` runs over the same packet.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn time_ns(&self, data: &[u8], repeat: u32) -> Result<u32, Number> {
        let mut attr = Attr::new().u32(0, self.0.as_raw_fd() as u32).u32(8, data.len() as u32);
        attr = attr.bytes(16, data).u32(32, repeat);
        bpf(Command::TestRun, &mut attr).map_err(number)?;
        Ok(attr.read_u32(36))
    }

    /// `BPF_PROG_TEST_RUN`, once. An empty context is none.
    ///
    /// # Errors
    ///
    /// The error number.
    pub fn run(&self, data: &[u8], context: &[u8]) -> Result<RawRan, Number> {
        let mut data_out = vec![0; 1 << 17];
        let mut context_out = vec![0; context.len()];
        let (return_value, data_len, context_len) = {
            let mut attr = Attr::new().u32(0, self.0.as_raw_fd() as u32).u32(32, 1);
            if !data.is_empty() {
                attr = attr
                    .u32(8, data.len() as u32)
                    .bytes(16, data)
                    .u32(12, 1 << 17)
                    .bytes_mut(24, &mut data_out);
            }
            if !context.is_empty() {
                attr = attr
                    .u32(40, context.len() as u32)
                    .u32(44, context.len() as u32)
                    .bytes(48, context)
                    .bytes_mut(56, &mut context_out);
            }
            bpf(Command::TestRun, &mut attr).map_err(number)?;
            (attr.read_u32(4), attr.read_u32(12) as usize, attr.read_u32(44) as usize)
        };
        data_out.truncate(data_len);
        context_out.truncate(context_len);
        Ok(RawRan { return_value, data: data_out, context: context_out })
    }
}
