//! The legaliser: makes of a linked program one that rbpf executes exactly as RFC 9669 and the kernel do.
//!
//! [`cfg`] finds functions and blocks and refuses what no engine could run, [`context`] finds the accesses to
//! `struct __sk_buff` that must be converted, [`rewrite`] has one small rewrite for each instruction that rbpf gets
//! wrong or does not have, and [`emit`] puts the result in a row. Nothing here depends on an address: maps and data
//! sections stay symbolic until a load fills them in.

mod cfg;
mod context;
mod emit;
mod liveness;
mod rewrite;

#[cfg(test)]
mod tests;

use cfg::Function;
pub(crate) use emit::load64;
use emit::{Emit, Label};

use crate::insn::{ADD, FP, Insn, JEQ, JMP, LD_IMM64, MOV, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE};
use crate::object::Linked;
use crate::{Error, ProgramKind, helper};

/// Every function has a frame of this size, the kernel's limit, so that no analysis can get it wrong.
pub(crate) const FRAME: i16 = 512;
/// Below the frame, for what a rewrite must put somewhere.
pub(crate) const SPILL: i16 = 64;
/// The deepest chain of functions (`MAX_CALL_FRAMES`).
pub(crate) const FRAMES_MAX: usize = 8;
/// Bytes of stack that a program needs at the most.
pub(crate) const STACK: usize = FRAMES_MAX * (FRAME + SPILL) as usize;
/// rbpf computes a taken jump's target in 16 bits.
const LENGTH_MAX: usize = i16::MAX as usize;

/// The slot of the frame's spill area that keeps r0 over the instruction counter.
pub(crate) const SPILL_R0: i16 = -FRAME - 8;

/// What a 16-byte load stands for until the program is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// The constant itself.
    Constant(u64),
    /// A map, by index in the object's list.
    Map(usize),
    /// A place in a data section.
    Data { section: usize, offset: usize },
}

/// A legal program.
#[derive(Clone, Debug)]
pub(crate) struct Legal {
    pub(crate) name: String,
    pub(crate) kind: ProgramKind,
    pub(crate) code: Vec<Insn>,
    /// 16-byte loads to fill in, by position in `code`.
    pub(crate) fixups: Vec<(usize, Value)>,
    /// For each position in `code`, the instruction of the object that it came from.
    pub(crate) origin: Vec<u32>,
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

/// Makes a program legal. `maps` and `sections` are what its 16-byte loads may refer to.
pub(crate) fn legalise(
    name: &str,
    linked: &Linked,
    maps: usize,
    sections: &[Vec<u8>],
) -> Result<Legal, Error> {
    let Some(kind) = linked.kind else {
        let what =
            format!("programs of section kind {} are not supported here, only sched_cls", linked.section);
        return Err(Error::Program { program: name.into(), what });
    };
    let values = |insn, next| resolve(insn, next, maps, sections);
    let (code, fixups, origin) = translate(&linked.instructions, kind, &values).map_err(|e| e.of(name))?;
    Ok(Legal { name: name.into(), kind, code, fixups, origin })
}

type Resolve<'a> = &'a dyn Fn(Insn, Insn) -> Result<Value, String>;

fn translate(insns: &[Insn], kind: ProgramKind, values: Resolve<'_>) -> Result<emit::Row, Illegal> {
    let functions = cfg::functions(insns)?;
    let accesses = match crate::context::layout(kind) {
        Some(layout) => context::accesses(insns, &functions, layout)?,
        None => Default::default(),
    };
    let mut out = Emit::default();
    enter(&mut out, kind);
    for (number, function) in functions.iter().enumerate() {
        out.begin_function(number, function.start);
        let r0_live = liveness::r0_at_blocks(insns, function);
        for (block, r0_live) in function.blocks.iter().zip(r0_live) {
            out.origin(block.start);
            out.bind(Label::Original(block.start));
            count(&mut out, cfg::length(insns, block), r0_live);
            for at in cfg::instructions(insns, block) {
                out.origin(at);
                if let Some(access) = accesses.get(&at) {
                    access.emit(insns[at], &mut out);
                } else {
                    instruction(insns, at, &functions, values, &mut out)?;
                }
            }
        }
        out.bind(Label::Stop);
        out.push(Insn::alu64_imm(MOV, 0, 0));
        out.push(Insn::exit());
    }
    let row = out.resolve();
    if row.0.len() > LENGTH_MAX {
        let what = format!("{} instructions when made legal; this engine runs {LENGTH_MAX}", row.0.len());
        return Err(Illegal::Whole(what));
    }
    Ok(row)
}

/// Before the first instruction: the frame pointer and the arguments, which differ from run to run.
fn enter(out: &mut Emit, kind: ProgramKind) {
    for (register, internal) in
        [(FP, helper::ENTER_STACK), (2, helper::ENTER_LENGTH), (1, helper::ENTER_ARGUMENT)]
    {
        if register != 2 || kind == ProgramKind::Memory {
            out.push(Insn::call(internal));
            out.push(Insn::alu64(MOV, register, 0));
        }
    }
    out.push(Insn::alu64_imm(MOV, 0, 0));
}

/// Counts a block's instructions and stops when the run has to end. Keeps r0 if somebody still reads it.
fn count(out: &mut Emit, instructions: usize, r0_live: bool) {
    if r0_live {
        out.push(Insn::store(crate::insn::DW, FP, SPILL_R0, 0));
    }
    let mut left = instructions;
    while left > 0 {
        let step = left.min(helper::COUNT_MAX);
        out.push(Insn::call(helper::COUNT + step as i32));
        left -= step;
    }
    out.jump(Insn::new(JMP | JEQ, 0, 0, 0, 0), Label::Stop);
    if r0_live {
        out.push(Insn::load(crate::insn::DW, 0, FP, SPILL_R0));
    }
}

fn instruction(
    insns: &[Insn],
    at: usize,
    functions: &[Function],
    values: Resolve<'_>,
    out: &mut Emit,
) -> Result<(), Illegal> {
    let insn = insns[at];
    if insn.code == LD_IMM64 {
        let value = values(insn, insns[at + 1]).map_err(|what| Illegal::At(at, what))?;
        out.load64(insn.dst, value);
        return Ok(());
    }
    if let Some(target) = cfg::callee(insn, at) {
        let number = functions.iter().position(|f| f.start == target).expect("cfg found every callee");
        out.push(Insn::alu64_imm(ADD, FP, -i32::from(FRAME + SPILL)));
        out.call(number);
        out.push(Insn::alu64_imm(ADD, FP, i32::from(FRAME + SPILL)));
        return Ok(());
    }
    if insn.is_call() && !helper::exists(insn.imm) {
        return Err(Illegal::Helper(at, insn.imm));
    }
    if insn.is_call() && insn.imm == helper::TAIL_CALL {
        let missed = out.local();
        out.push(insn);
        out.jump(Insn::new(JMP | JEQ, 0, 0, 0, 0), missed);
        out.push(Insn::call(helper::TAIL_RESULT));
        out.push(Insn::exit());
        out.bind(missed);
        return Ok(());
    }
    rewrite::rewrite(insn, cfg::target(insn, at).map(Label::Original), out);
    Ok(())
}

/// What a 16-byte load's source and constant mean.
fn resolve(insn: Insn, next: Insn, maps: usize, sections: &[Vec<u8>]) -> Result<Value, String> {
    let index = usize::try_from(insn.imm).unwrap_or(usize::MAX);
    match insn.src {
        0 => Ok(Value::Constant(u64::from(insn.imm as u32) | u64::from(next.imm as u32) << 32)),
        PSEUDO_MAP_FD if index < maps => Ok(Value::Map(index)),
        PSEUDO_MAP_VALUE => {
            let offset = usize::try_from(next.imm).unwrap_or(usize::MAX);
            let len = sections.get(index).map_or(0, Vec::len);
            if offset < len {
                Ok(Value::Data { section: index, offset })
            } else {
                Err("a place outside of its data section".into())
            }
        }
        PSEUDO_MAP_FD => Err(format!("map {index} of {maps}")),
        4 => Err("callbacks are not supported here".into()),
        other => Err(format!("a 16-byte load with source {other} is not supported here")),
    }
}
