//! One rewrite for each instruction that rbpf gets wrong or does not have. What is not listed passes as it is.
//!
//! A rewrite leaves all registers but its destination as they were. What it needs on the way it keeps in the spill
//! area below the function's frame; slot 0 there is the instruction counter's.

use super::emit::{Emit, Label};
use super::{LOOPS, TEMPORARY, spill};
use crate::helper;
use crate::insn::{
    ADD, ALU, ALU64, AND, ARSH, ATOMIC, CMPXCHG, DIV, DW, END, FETCH, FP, IND, Insn, JA, JEQ, JGE, JGT, JLE,
    JLT, JMP, JMP32, JNE, JSGE, LD, LDX, LOAD_ACQ, LSH, MEMSX, MOD, MOV, NEG, STORE_REL, STX, W, X, XCHG,
    XOR,
};

/// Emits what does in rbpf what `insn` does in the kernel. `target` is where it jumps, if it is a jump.
pub(crate) fn rewrite(insn: Insn, target: Option<Label>, out: &mut Emit) {
    match (insn.class(), insn.op()) {
        (JMP | JMP32, JA) => out.go(target.expect("a jump has a target")),
        (JMP, JEQ | JNE | JGT | JGE | JLT | JLE) if !insn.is_reg() && insn.imm < 0 => {
            negative_jump(insn, target.expect("a jump has a target"), out);
        }
        (JMP, _) if insn.is_may_goto() => may_goto(target.expect("a jump has a target"), out),
        (JMP | JMP32, _) => match target {
            Some(target) => out.jump(insn, target),
            None => out.push(insn),
        },
        (ALU | ALU64, MOV) if insn.is_reg() => mov(insn, out),
        (ALU | ALU64, END) => byte_order(insn, out),
        (ALU64, NEG) => negate(insn, out),
        (ALU | ALU64, DIV | MOD) if insn.off == 1 => signed_division(insn, out),
        (ALU, MOD) => {
            out.push(insn);
            out.push(Insn::alu32_imm(AND, insn.dst, -1));
        }
        (LDX, _) if insn.mode() == MEMSX => load_signed(insn, out),
        (STX, _) if insn.mode() == ATOMIC && insn.imm == LOAD_ACQ => {
            out.push(Insn::load(insn.size(), insn.dst, insn.src, insn.off));
        }
        (STX, _) if insn.mode() == ATOMIC && insn.imm == STORE_REL => {
            out.push(Insn::store(insn.size(), insn.dst, insn.off, insn.src));
        }
        (STX, _) if insn.mode() == ATOMIC => atomic(insn, out),
        (LD, _) if insn.is_packet_load() => packet_load(insn, out),
        _ => out.push(insn),
    }
}

/// rbpf compares with the immediate zero-extended, the kernel sign-extended. Complementing both sides turns the order
/// around and makes the immediate positive.
fn negative_jump(insn: Insn, target: Label, out: &mut Emit) {
    let swapped = match insn.op() {
        JGT => JLT,
        JGE => JLE,
        JLT => JGT,
        JLE => JGE,
        same => same,
    };
    let (taken, done) = (out.local(), out.local());
    let complement = Insn::alu64_imm(XOR, insn.dst, -1);
    out.push(complement);
    out.jump(Insn::new(JMP | swapped, insn.dst, 0, 0, !insn.imm), taken);
    out.push(complement);
    out.go(done);
    out.bind(taken);
    out.push(complement);
    out.go(target);
    out.bind(done);
}

/// `mov32` zero-extends, which rbpf's JIT forgets; `movsx` extends the sign, which rbpf forgets everywhere.
fn mov(insn: Insn, out: &mut Emit) {
    out.push(Insn::alu64(MOV, insn.dst, insn.src));
    if insn.off != 0 {
        extend_sign(insn.dst, 64 - i32::from(insn.off), out);
    }
    if insn.class() == ALU {
        out.push(Insn::alu32_imm(AND, insn.dst, -1));
    }
}

fn extend_sign(register: u8, by: i32, out: &mut Emit) {
    out.push(Insn::alu64_imm(LSH, register, by));
    out.push(Insn::alu64_imm(ARSH, register, by));
}

/// To little endian is truncation here; a swap is what "to big endian" does here.
fn byte_order(insn: Insn, out: &mut Emit) {
    let to_big = insn.is_reg() || insn.class() == ALU64;
    match insn.imm {
        _ if to_big => out.push(Insn::new(ALU | END | X, insn.dst, 0, 0, insn.imm)),
        16 => out.push(Insn::alu32_imm(AND, insn.dst, 0xffff)),
        32 => out.push(Insn::alu32_imm(AND, insn.dst, -1)),
        _ => {}
    }
}

/// rbpf overflows at the smallest number.
fn negate(insn: Insn, out: &mut Emit) {
    out.push(Insn::alu64_imm(XOR, insn.dst, -1));
    out.push(Insn::alu64_imm(ADD, insn.dst, 1));
}

fn load_signed(insn: Insn, out: &mut Emit) {
    out.push(Insn::load(insn.size(), insn.dst, insn.src, insn.off));
    extend_sign(insn.dst, 64 - 8 * insn.width(), out);
}

/// Out of line, as a call that receives both operands. A JIT's call leaves nothing of r0 to r5.
fn signed_division(insn: Insn, out: &mut Emit) {
    let internal = match (insn.class(), insn.op()) {
        (ALU64, DIV) => helper::SDIV64,
        (ALU64, _) => helper::SMOD64,
        (_, DIV) => helper::SDIV32,
        _ => helper::SMOD32,
    };
    let kept = [(1, 0), (2, 1), (3, 2), (8, 3), (9, 4), (10, 5), (4, insn.dst)];
    for (slot, register) in kept {
        out.push(Insn::store(DW, FP, spill(slot), register));
    }
    if insn.is_reg() {
        out.push(Insn::alu64(MOV, 2, insn.src));
    } else {
        out.push(Insn::alu64_imm(MOV, 2, insn.imm));
    }
    out.push(Insn::load(DW, 1, FP, spill(4)));
    out.push(Insn::call(internal));
    out.push(Insn::store(DW, FP, spill(4), 0));
    for (slot, register) in kept {
        out.push(Insn::load(DW, register, FP, spill(slot)));
    }
}

/// Goes on until the function has passed here `MAY_GOTO_MAX` times; then jumps.
fn may_goto(target: Label, out: &mut Emit) {
    let (over, done) = (out.local(), out.local());
    out.push(Insn::store(DW, FP, spill(TEMPORARY), 0));
    out.push(Insn::load(DW, 0, FP, spill(LOOPS)));
    out.jump(Insn::new(JMP | JEQ, 0, 0, 0, 0), over);
    out.push(Insn::alu64_imm(ADD, 0, -1));
    out.push(Insn::store(DW, FP, spill(LOOPS), 0));
    out.push(Insn::load(DW, 0, FP, spill(TEMPORARY)));
    out.go(done);
    out.bind(over);
    out.push(Insn::load(DW, 0, FP, spill(TEMPORARY)));
    out.go(target);
    out.bind(done);
}

/// As `bpf_gen_ld_abs` does it: a helper, and the function's end with 0 where the packet is too short.
fn packet_load(insn: Insn, out: &mut Emit) {
    let done = out.local();
    if insn.mode() == IND {
        out.push(Insn::alu64(MOV, 2, insn.src));
        out.push(Insn::alu64_imm(ADD, 2, insn.imm));
    } else {
        out.push(Insn::alu64_imm(MOV, 2, insn.imm));
    }
    out.push(Insn::alu64(MOV, 1, 6));
    out.push(Insn::call(helper::PACKET_LOAD + insn.width()));
    out.jump(Insn::new(JMP | JSGE, 0, 0, 0, 0), done);
    out.push(Insn::alu64_imm(MOV, 0, 0));
    out.push(Insn::exit());
    out.bind(done);
}

/// One thread: load, operate, store. A register that takes no part holds the old value meanwhile.
fn atomic(insn: Insn, out: &mut Emit) {
    let Insn { dst, src, off, imm, .. } = insn;
    let size = insn.size();
    let class = if size == W { ALU } else { ALU64 };
    let busy = [dst, src, 0];
    let old = (1..=4).find(|r| !busy.contains(r)).expect("three registers cannot take four");
    out.push(Insn::store(DW, FP, spill(1), old));
    out.push(Insn::load(size, old, dst, off));
    match imm {
        XCHG => {
            out.push(Insn::store(size, dst, off, src));
            out.push(Insn::alu64(MOV, src, old));
        }
        CMPXCHG => {
            let differs = out.local();
            let compare = if size == W { JMP32 } else { JMP };
            out.jump(Insn::new(compare | JNE | X, old, 0, 0, 0), differs);
            out.push(Insn::store(size, dst, off, src));
            out.bind(differs);
            out.push(Insn::alu64(MOV, 0, old));
        }
        _ => {
            let fetch = imm & FETCH != 0;
            if fetch {
                out.push(Insn::store(DW, FP, spill(2), old));
            }
            out.push(Insn::new(class | (imm & !FETCH) as u8 | X, old, src, 0, 0));
            out.push(Insn::store(size, dst, off, old));
            if fetch {
                out.push(Insn::load(DW, src, FP, spill(2)));
            }
        }
    }
    out.push(Insn::load(DW, old, FP, spill(1)));
}

#[cfg(test)]
mod tests {
    use super::super::Value;
    use super::*;
    use crate::insn::{B, H, MEM};

    #[test]
    fn spill_slots_lie_below_the_frame_and_within_its_area() {
        use super::super::{FRAME, SPILL};
        assert_eq!(spill(0), -FRAME - 8);
        assert!(spill(10).min(spill(LOOPS.max(TEMPORARY))) >= -FRAME - SPILL);
    }

    #[test]
    fn what_rbpf_does_right_is_left_alone() {
        let mut out = Emit::default();
        let insns = [
            Insn::alu64_imm(ADD, 1, -1),
            Insn::load(B, 1, 2, 3),
            Insn::store(H, 1, 2, 3),
            Insn::new(ALU64 | MOD, 1, 0, 0, 7),
            Insn::new(LDX | MEM | DW, 3, 4, 0, 0),
        ];
        insns.iter().for_each(|i| rewrite(*i, None, &mut out));
        out.load64(1, Value::Constant(5));
        assert_eq!(out.resolve().unwrap().0[..5], insns);
    }
}
