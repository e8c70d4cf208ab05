//! The legaliser: makes of a linked program one that rbpf executes exactly as RFC 9669 and the kernel do.
//!
//! [`cfg`] finds functions and blocks and refuses what no engine could run: what it lets through is [`Sound`], and the
//! engine `checked` takes it from there. For rbpf, [`context`] finds the accesses to `struct __sk_buff` that must be
//! converted, [`rewrite`] has one small rewrite for each instruction that rbpf gets wrong or does not have, and [`emit`]
//! puts the result in a row. Nothing here depends on an address: maps and data sections stay symbolic until a load
//! fills them in.

pub(crate) mod cfg;
pub(crate) mod context;
mod count;
mod emit;
mod liveness;
mod rewrite;
mod stack;
mod translate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cfg::Function;
pub(crate) use emit::load64;

use crate::engine::checked;
use crate::insn::{
    Insn, LD_IMM64, PSEUDO_BTF_ID, PSEUDO_FUNC, PSEUDO_MAP_FD, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE,
    PSEUDO_MAP_VALUE,
};
use crate::object::Linked;
use crate::{Error, ProgramKind};

/// Every function has a frame of this size, the kernel's limit, so that no analysis can get it wrong.
pub(crate) const FRAME: i16 = 512;
/// Below the frame, for what a rewrite must put somewhere.
pub(crate) const SPILL: i16 = 96;
/// The deepest chain of functions (`MAX_CALL_FRAMES`).
pub(crate) const FRAMES_MAX: usize = 8;
/// Bytes of stack that a program needs at the most.
pub(crate) const STACK: usize = FRAMES_MAX * (FRAME + SPILL) as usize;

/// Slots of the spill area. The first keeps r0 over the instruction counter; 1 to 4 and 8 to 10 are the rewrites'.
pub(crate) const R0: i16 = 0;
/// How many instructions are left.
pub(crate) const FUEL: i16 = 5;
/// How often `may_goto` may still be passed.
pub(crate) const LOOPS: i16 = 6;
/// Of `may_goto`, and at the entry the function that is to be called, or 0.
pub(crate) const TEMPORARY: i16 = 7;

/// Where a slot of the spill area stands, from the frame pointer. At the entry slots 0 to 4 hold r1 to r5.
pub(crate) const fn spill(slot: i16) -> i16 {
    -FRAME - 8 * (slot + 1)
}

/// `BPF_MAX_LOOPS`: how often a function may pass a `may_goto`.
pub(crate) const MAY_GOTO_MAX: i32 = 8 * 1024 * 1024;

/// What a 16-byte load stands for until the program is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// The constant itself.
    Constant(u64),
    /// A map, by index in the object's list.
    Map(usize),
    /// A place in a data section.
    Data { section: usize, offset: usize },
    /// A symbol that is the loader's, by index in the object's list.
    Extern(usize),
    /// A function that a helper is to call, by its first instruction.
    Callback(usize),
    /// The place where legal code leaves its frame pointer for a helper that calls back.
    FrameCell,
    /// The place where r0 of a program that was tail called stands.
    TailResult,
}

/// A program of sound structure: every instruction is one of the kernel's, every jump stays in its function, and no
/// function is called without end. Whether its memory accesses are in bounds is for an engine or a kernel to say.
#[derive(Debug)]
pub(crate) struct Sound {
    pub(crate) name: String,
    pub(crate) kind: ProgramKind,
    pub(crate) insns: Vec<Insn>,
    /// Callers before the functions that they call; the program itself is the first.
    pub(crate) functions: Vec<Function>,
    /// Bytes that are used of each frame, by depth: so many frames it needs at the most.
    pub(crate) stack: Vec<u16>,
    /// What its 16-byte loads stand for, by instruction.
    pub(crate) values: BTreeMap<usize, Value>,
    /// Whether the kernel lets it run longer than its verifier follows it: `bpf_loop`, `may_goto`.
    pub(crate) may_loop: bool,
    legal: OnceLock<Result<Arc<Legal>, Error>>,
    decoded: OnceLock<Arc<checked::Code>>,
}

/// A legal program.
#[derive(Clone, Debug)]
pub(crate) struct Legal {
    pub(crate) code: Vec<Insn>,
    /// 16-byte loads to fill in, by position in `code`.
    pub(crate) fixups: Vec<(usize, Value)>,
    /// For each position in `code`, the instruction of the object that it came from.
    pub(crate) origin: Vec<u32>,
}

impl Sound {
    /// The program as rbpf's engines run it; worked out at the first use.
    pub(crate) fn legal(&self) -> Result<&Arc<Legal>, Error> {
        let translate = || translate::translate(self).map(Arc::new).map_err(|e| e.of(&self.name));
        self.legal.get_or_init(translate).as_ref().map_err(Clone::clone)
    }

    /// The program as `checked` runs it; worked out at the first use.
    pub(crate) fn decoded(&self) -> &Arc<checked::Code> {
        self.decoded.get_or_init(|| Arc::new(checked::Code::new(self)))
    }
}

/// What is wrong with an instruction.
#[derive(Debug)]
pub(crate) enum Illegal {
    At(usize, String),
    Helper(usize, i32),
    Whole(String),
}

impl Illegal {
    fn at(instruction: usize, what: impl Into<String>) -> Self {
        Self::At(instruction, what.into())
    }

    fn of(self, program: &str) -> Error {
        let program = program.to_owned();
        match self {
            Self::At(instruction, what) => Error::Instruction { program, instruction, what },
            Self::Helper(instruction, helper) => Error::Helper { program, instruction, helper },
            Self::Whole(what) => Error::Program { program, what },
        }
    }
}

/// What 16-byte loads may refer to: the object's maps, data sections and externs.
pub(crate) struct Given<'a> {
    pub(crate) maps: usize,
    pub(crate) sections: &'a [Vec<u8>],
    pub(crate) externs: usize,
}

/// Checks a program's structure.
pub(crate) fn sound(name: &str, linked: &Linked, given: &Given<'_>) -> Result<Sound, Error> {
    let Some(kind) = linked.kind else {
        let what =
            format!("programs of section kind {} are not supported here, only sched_cls", linked.section);
        return Err(Error::Program { program: name.into(), what });
    };
    let insns = linked.instructions.clone();
    let found = cfg::functions(&insns).and_then(|(functions, depth)| {
        check_packet_loads(&insns, kind)?;
        let values = values(&insns, &functions, given)?;
        Ok((functions, values, depth))
    });
    let (functions, values, depth) = found.map_err(|e| e.of(name))?;
    let (legal, decoded) = (OnceLock::new(), OnceLock::new());
    let may_loop =
        values.values().any(|v| matches!(v, Value::Callback(_))) || insns.iter().any(|i| i.is_may_goto());
    let stack = stack::used(&insns, &functions, depth);
    Ok(Sound { name: name.into(), kind, insns, functions, stack, values, may_loop, legal, decoded })
}

/// `may_access_skb`: only programs on packets have `LD_ABS` and `LD_IND`.
fn check_packet_loads(insns: &[Insn], kind: ProgramKind) -> Result<(), Illegal> {
    let at = insns.iter().position(|i| i.is_packet_load());
    match at {
        Some(at) if !kind.has_skb() => Err(Illegal::at(at, "LD_ABS and LD_IND are for programs on packets")),
        _ => Ok(()),
    }
}

fn values(
    insns: &[Insn],
    functions: &[Function],
    given: &Given<'_>,
) -> Result<BTreeMap<usize, Value>, Illegal> {
    let mut values = BTreeMap::new();
    for block in functions.iter().flat_map(|f| &f.blocks) {
        for at in cfg::instructions(insns, block).filter(|at| insns[*at].code == LD_IMM64) {
            let value = resolve(insns, at, given).map_err(|what| Illegal::At(at, what))?;
            values.insert(at, value);
        }
    }
    Ok(values)
}

/// What a 16-byte load's source and constant mean.
fn resolve(insns: &[Insn], at: usize, given: &Given<'_>) -> Result<Value, String> {
    let Given { maps, sections, externs } = *given;
    let (insn, next) = (insns[at], insns[at + 1]);
    let index = usize::try_from(insn.imm).unwrap_or(usize::MAX);
    match insn.src {
        0 => Ok(Value::Constant(u64::from(insn.imm as u32) | u64::from(next.imm as u32) << 32)),
        PSEUDO_MAP_FD | PSEUDO_MAP_IDX if index < maps => Ok(Value::Map(index)),
        PSEUDO_MAP_FD | PSEUDO_MAP_IDX => Err(format!("map {index} of {maps}")),
        PSEUDO_MAP_VALUE | PSEUDO_MAP_IDX_VALUE => {
            let offset = usize::try_from(next.imm).unwrap_or(usize::MAX);
            let len = sections.get(index).map_or(0, Vec::len);
            if offset < len {
                Ok(Value::Data { section: index, offset })
            } else {
                Err("a place outside of its data section".into())
            }
        }
        PSEUDO_FUNC => Ok(Value::Callback(cfg::callback(insn, at).expect("its source says so"))),
        PSEUDO_BTF_ID if index < externs => Ok(Value::Extern(index)),
        PSEUDO_BTF_ID => Err("a kernel variable (ksym) is not supported here".into()),
        other => Err(format!("a 16-byte load with source {other} is not supported here")),
    }
}
