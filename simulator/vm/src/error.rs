//! What can go wrong: an object that cannot be read or loaded, a refused system call, a program that misbehaves.
//!
//! No message holds an address of this process: the same mistake gives the same text in every run.

use std::fmt;

use crate::MapId;

/// Why an object cannot be read or loaded. Each text names what to look at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no BPF object, or a damaged one.
    #[error("not a readable BPF object: {0}")]
    Object(String),
    /// A program cannot be linked or executed here.
    #[error("program {program}, instruction {instruction}: {what}")]
    Instruction {
        /// The program's name.
        program: String,
        /// Counted from the program's first, a 16-byte load as two, subprograms behind their program.
        instruction: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A program as a whole cannot be executed here.
    #[error("program {program}: {what}")]
    Program {
        /// The program's name.
        program: String,
        /// What is wrong with it.
        what: String,
    },
    /// A program calls a helper that this vm does not have.
    #[error("program {program}, instruction {instruction}: helper {helper} is not supported here")]
    Helper {
        /// The program's name.
        program: String,
        /// As in [`Error::Instruction`].
        instruction: usize,
        /// The helper's number (`enum bpf_func_id`).
        helper: i32,
    },
    /// What is wrong with a program, and the section that it stands in.
    #[error("section {section}, {error}")]
    Section {
        /// The section's name.
        section: String,
        /// What is wrong.
        error: Box<Error>,
    },
    /// A map cannot be created, or the one given for it does not fit.
    #[error("map {map}: {what}")]
    Map {
        /// The map's name.
        map: String,
        /// What is wrong with it.
        what: String,
    },
    /// A load names a global that the object does not have, or gives it a value of another size.
    #[error("global {global}: {what}")]
    Global {
        /// The global's name.
        global: String,
        /// What is wrong with it.
        what: String,
    },
    /// A load names a map that the object does not have.
    #[error("the object has no map {0}; leave it out of the load")]
    UnknownMap(String),
}

macro_rules! errno {
    ($( $name:ident = $number:literal, )*) => {
        impl Errno {
            $( #[doc = concat!("`", stringify!($name), "`, ", $number, ".")] pub const $name: Errno = Errno($number); )*

            /// The kernel's name, such as `ENOENT`.
            pub const fn name(self) -> &'static str {
                match self.0 { $( $number => stringify!($name), )* _ => "errno" }
            }
        }
    };
}

/// An error number of the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Errno(pub i32);

errno! {
    ENOENT = 2, E2BIG = 7, ENOMEM = 12, EFAULT = 14, EBUSY = 16, EEXIST = 17, EINVAL = 22, ENOSPC = 28, EPROTO = 71,
    EPERM = 1, EBADF = 9, EAGAIN = 11, ENODEV = 19, EDOM = 33, ERANGE = 34, EOVERFLOW = 75, EMSGSIZE = 90,
    EPROTONOSUPPORT = 93, ESOCKTNOSUPPORT = 94, EOPNOTSUPP = 95, EAFNOSUPPORT = 97, EADDRINUSE = 98, ENETUNREACH = 101,
    ENOTCONN = 107, ECONNREFUSED = 111, EHOSTUNREACH = 113, EACCES = 13, ESRCH = 3, ENXIO = 6, ENOPROTOOPT = 92,
    ENOTSOCK = 88, ENOSYS = 38, ENODATA = 61, EALREADY = 114, EBADMSG = 74, ENETDOWN = 100, EADDRNOTAVAIL = 99,
    ENOTSUPP = 524,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl std::error::Error for Errno {}

/// Why a run ended before its program did. A program that a kernel has verified never gets here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("program {program}{}: {kind}", .instruction.map(|i| format!(", instruction {i}")).unwrap_or_default())]
pub struct Fault {
    /// The program that was running.
    pub program: String,
    /// Its instruction, where known, counted as in [`Error::Instruction`].
    pub instruction: Option<usize>,
    /// What happened.
    pub kind: FaultKind,
}

/// What ended a run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultKind {
    /// A load or store outside all memory.
    #[error("access outside of memory")]
    Memory,
    /// A helper was given a pointer to something else than memory of its size.
    #[error("helper {helper}: argument {argument} does not point to {size} bytes of memory")]
    Argument {
        /// The helper's number.
        helper: i32,
        /// Counted from 1.
        argument: u8,
        /// How many bytes it must point to.
        size: usize,
    },
    /// A helper was given something else than a map, or a map of a kind that it cannot use.
    #[error("helper {helper}: {what}")]
    Map {
        /// The helper's number.
        helper: i32,
        /// What is wrong.
        what: &'static str,
    },
    /// More instructions than a verified program can execute.
    #[error("more than {0} instructions: it may loop for ever")]
    Fuel(u64),
    /// A helper for packets was not given the context, or there is no packet.
    #[error("helper {helper}: argument 1 is not the context")]
    Context {
        /// The helper's number.
        helper: i32,
    },
    /// A feature of a helper that this vm does not have.
    #[error("helper {helper}: {what}")]
    Unsupported {
        /// The helper's number.
        helper: i32,
        /// What is missing.
        what: &'static str,
    },
    /// There is no program with this id, or it was unloaded, or it is of a kind that is run in another way.
    #[error("no such program of the kind that was to run")]
    NoProgram,
    /// The packet does not fit into the vm's packet slot.
    #[error("a packet of {0} bytes is too long")]
    PacketTooLong(usize),
    /// A load or store that the engine `checked` does not let through.
    #[error("{0}")]
    Access(#[from] BadAccess),
    /// An instruction reads a register that nobody has written, or that a call has made void.
    #[error("r{0} is read and was not written")]
    Uninitialised(u8),
    /// A helper was given a pointer that the engine `checked` does not let it use.
    #[error("helper {helper}, argument {argument}: {access}")]
    Given {
        /// The helper's number.
        helper: i32,
        /// Counted from 1.
        argument: u8,
        /// What is wrong with it.
        access: BadAccess,
    },
    /// A call through a register that does not hold a helper's number.
    #[error("a call of helper {0}, which does not exist here")]
    Call(u64),
    /// A helper panicked: a bug of this vm.
    #[error("a helper panicked: {0}")]
    Panic(String),
    /// Anything else that the engine reports.
    #[error("the engine stopped")]
    Engine,
}

/// What kind of memory a pointer was made for. No address: the same in every run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Region {
    /// None: the register holds a number, or a pointer that arithmetic has spoilt.
    Number,
    /// The context. Offsets count from its start.
    Context,
    /// The packet, from `data` to `data_end`. Offsets count from `data`.
    Packet,
    /// What a driver or program put before the packet.
    PacketMeta,
    /// `data_end`: it may be compared and not read.
    PacketEnd,
    /// A packet as it was before a helper moved or changed it.
    StalePacket,
    /// A function's frame; the program that was entered first has frame 0. Offsets count from the frame pointer, so
    /// they are negative.
    Stack(usize),
    /// A frame whose function has returned.
    StaleStack(usize),
    /// A value of a map.
    MapValue(MapId),
    /// A value of a map that was deleted meanwhile.
    DeletedValue(MapId),
    /// A key that a helper shows to a callback.
    MapKey,
    /// A data section of the object.
    Data,
    /// A data section of the object that programs may not write.
    ReadOnlyData,
    /// The memory of a program of the kind [`crate::ProgramKind::Memory`].
    Memory,
    /// Memory that a helper gave, such as a record of a ring buffer.
    Given,
    /// The same after it was given back.
    GivenBack,
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number => f.write_str("a number"),
            Self::Context => f.write_str("the context"),
            Self::Packet => f.write_str("the packet"),
            Self::PacketMeta => f.write_str("the packet's metadata"),
            Self::PacketEnd => f.write_str("data_end"),
            Self::StalePacket => f.write_str("the packet as it was before a helper changed it"),
            Self::Stack(frame) => write!(f, "the stack of frame {frame}"),
            Self::StaleStack(frame) => write!(f, "the stack of frame {frame}, which has returned"),
            Self::MapValue(map) => write!(f, "a value of map {}", map.number()),
            Self::DeletedValue(map) => write!(f, "a deleted value of map {}", map.number()),
            Self::MapKey => f.write_str("a map's key"),
            Self::Data => f.write_str("the data section"),
            Self::ReadOnlyData => f.write_str("the read-only data section"),
            Self::Memory => f.write_str("the memory"),
            Self::Given => f.write_str("memory that a helper gave"),
            Self::GivenBack => f.write_str("memory that was given back to a helper"),
        }
    }
}

/// What was to be done to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// It was to be read.
    Load,
    /// It was to be written.
    Store,
}

/// Why an access is bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It does not lie inside of its region, or there is no such region any more.
    Outside,
    /// Not all of it was written before.
    Uninitialised,
    /// The region, or the field, is read only.
    ReadOnly,
    /// There is no such field in the context, or it is not accessed in this width.
    NoField,
    /// A pointer to a frame would outlive it.
    Escapes,
}

/// A load or store that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{} of {size} bytes at {region}{offset:+}: {}",
    match .doing { Doing::Load => "load", Doing::Store => "store" },
    self.reason()
)]
pub struct BadAccess {
    /// What was to be done.
    pub doing: Doing,
    /// How many bytes.
    pub size: usize,
    /// What the pointer was made for.
    pub region: Region,
    /// From where the region counts; of a number, the number itself.
    pub offset: i64,
    /// How many bytes the region has.
    pub len: usize,
    /// What is wrong.
    pub why: Why,
}

impl BadAccess {
    fn reason(&self) -> String {
        match self.why {
            Why::Outside if self.region == Region::Number => "no memory belongs to it".into(),
            Why::Outside => format!("it has {} bytes", self.len),
            Why::Uninitialised => "not all of it was written".into(),
            Why::ReadOnly => "it is read only".into(),
            Why::NoField => "no field is accessed so".into(),
            Why::Escapes => "a pointer to a frame would outlive it".into(),
        }
    }
}
