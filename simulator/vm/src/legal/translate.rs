//! One program from beginning to end: the entry, each function's start, and each block.

use super::cfg::{self, Function};
use super::count::Count;
use super::emit::{Emit, Label, Row};
use super::{
    FRAME, FUEL, Illegal, LOOPS, Legal, MAY_GOTO_MAX, SPILL, Sound, TEMPORARY, Value, context, rewrite, spill,
};
use crate::helper;
use crate::insn::{ADD, ATOMIC, DW, FP, Insn, JEQ, JMP, LDX, LOAD_ACQ, MEM, MOV, ST, STX};

pub(super) fn translate(program: &Sound) -> Result<Legal, Illegal> {
    let (code, fixups, origin) = row(program)?;
    Ok(Legal { code, fixups, origin })
}

fn row(program: &Sound) -> Result<Row, Illegal> {
    let Sound { insns, functions, .. } = program;
    let accesses = match crate::context::layout(program.kind) {
        Some(layout) => context::accesses(insns, functions, layout)?,
        None => Default::default(),
    };
    let mut out = Emit::default();
    enter(&mut out, program);
    for (number, function) in functions.iter().enumerate() {
        out.begin_function(number, function.start);
        if loops(insns, function) {
            out.push(Insn::new(ST | MEM | DW, FP, 0, spill(LOOPS), MAY_GOTO_MAX));
        }
        let mut count = Count::new(insns, function);
        count.enter(&mut out);
        for (number, block) in function.blocks.iter().enumerate() {
            out.origin(block.start);
            out.bind(Label::Original(block.start));
            for at in cfg::instructions(insns, block) {
                out.origin(at);
                if let Some(access) = accesses.get(&at) {
                    access.emit(insns[at], &mut out);
                } else if let Some(target) = cfg::target(insns[at], at) {
                    let target = count.jump(number, target, &mut out);
                    rewrite::rewrite(insns[at], Some(target), &mut out);
                } else {
                    instruction(program, at, &mut out)?;
                }
            }
            count.leave(number, &mut out);
        }
    }
    out.resolve().map_err(|at| Illegal::at(at, "jumps further than rbpf can when made legal"))
}

fn loops(insns: &[Insn], function: &Function) -> bool {
    function.blocks.iter().any(|block| cfg::instructions(insns, block).any(|at| insns[at].is_may_goto()))
}

/// Before the first instruction: the frame pointer, which r1 points to, and the arguments, which differ from run to run,
/// and which of the functions is to be called. A callback is entered here as well.
fn enter(out: &mut Emit, program: &Sound) {
    out.push(Insn::load(DW, FP, 1, 0));
    for (slot, register) in (0..).zip(1..=5) {
        out.push(Insn::load(DW, register, FP, spill(slot)));
    }
    for (number, function) in program.functions.iter().enumerate() {
        let called = program.values.values().any(|v| *v == Value::Callback(function.start));
        if called {
            let next = out.local();
            out.push(Insn::load(DW, 0, FP, spill(TEMPORARY)));
            // One more than the function's first instruction, as 0 stands for the program.
            out.jump(Insn::new(JMP | crate::insn::JNE, 0, 0, 0, function.start as i32 + 1), next);
            out.call(number);
            out.push(Insn::exit());
            out.bind(next);
        }
    }
    out.push(Insn::alu64_imm(MOV, 0, 0));
}

fn instruction(program: &Sound, at: usize, out: &mut Emit) -> Result<(), Illegal> {
    let insn = program.insns[at];
    if let Some(value) = program.values.get(&at) {
        out.load64(insn.dst, *value);
        return Ok(());
    }
    if let Some(target) = cfg::callee(insn, at) {
        let number = program.functions.iter().position(|f| f.start == target);
        call(number.expect("cfg found every callee"), out);
        return Ok(());
    }
    if insn.is_callx() {
        return Err(Illegal::at(at, "calls through a register (callx) are not supported by this engine"));
    }
    if insn.is_call() && !helper::exists(insn.imm) {
        return Err(Illegal::Helper(at, insn.imm));
    }
    if insn.is_call() && insn.imm == helper::TAIL_CALL {
        let missed = out.local();
        out.push(insn);
        out.jump(Insn::new(JMP | JEQ, 0, 0, 0, 0), missed);
        out.load64(0, Value::TailResult);
        out.push(Insn::load(DW, 0, 0, 0));
        out.push(Insn::exit());
        out.bind(missed);
        return Ok(());
    }
    if insn.is_call() && helper::CALLS_BACK.contains(&insn.imm) {
        // The helper's callbacks get their frames below this one. r0 is free before a call.
        out.load64(0, Value::FrameCell);
        out.push(Insn::store(DW, 0, 0, FP));
    }
    check_stack(insn).map_err(|what| Illegal::At(at, what))?;
    rewrite::rewrite(insn, None, out);
    Ok(())
}

/// A frame of its own for the callee, and the count goes with it and comes back: r0 is free before a call, and r1
/// behind it.
fn call(number: usize, out: &mut Emit) {
    let frame = i32::from(FRAME + SPILL);
    out.push(Insn::load(DW, 0, FP, spill(FUEL)));
    out.push(Insn::alu64_imm(ADD, FP, -frame));
    out.push(Insn::store(DW, FP, spill(FUEL), 0));
    out.call(number);
    out.push(Insn::load(DW, 1, FP, spill(FUEL)));
    out.push(Insn::alu64_imm(ADD, FP, frame));
    out.push(Insn::store(DW, FP, spill(FUEL), 1));
}

/// What lies plainly outside of the frame would hit what the rewrites keep there.
fn check_stack(i: Insn) -> Result<(), String> {
    let acquire = i.class() == STX && i.mode() == ATOMIC && i.imm == LOAD_ACQ;
    let base = match i.class() {
        LDX => i.src,
        STX if acquire => i.src,
        ST | STX => i.dst,
        _ => return Ok(()),
    };
    let off = i32::from(i.off);
    if base == FP && (off < -i32::from(FRAME) || off + i.width() > 0) {
        return Err(format!("r10{off:+} is outside of the stack"));
    }
    Ok(())
}
