//! Whether somebody still reads r0 at the start of a block: what the instruction counter has to keep.

use super::cfg::{self, Function};
use crate::insn::{
    ALU, ALU64, ATOMIC, CMPXCHG, IND, Insn, JA, JCOND, JMP, JMP32, LD_IMM64, LDX, LOAD_ACQ, MOV, ST, STX,
};

/// For each block, whether r0 is live at its start.
pub(crate) fn r0_at_blocks(insns: &[Insn], function: &Function) -> Vec<bool> {
    // What a block itself does to r0: the first of reading and writing counts.
    let own: Vec<Option<bool>> = function
        .blocks
        .iter()
        .map(|block| cfg::instructions(insns, block).find_map(|at| first_use(insns[at])))
        .collect();
    let mut live: Vec<bool> = own.iter().map(|own| *own == Some(true)).collect();
    let mut changed = true;
    while changed {
        changed = false;
        for (i, block) in function.blocks.iter().enumerate().rev() {
            if own[i].is_none() && !live[i] && block.next.iter().any(|n| live[*n]) {
                live[i] = true;
                changed = true;
            }
        }
    }
    live
}

/// Whether an instruction reads r0 (true), only writes it (false), or leaves it alone.
fn first_use(i: Insn) -> Option<bool> {
    let (dst, src) = (i.dst == 0, i.src == 0);
    let (reads, writes) = match i.class() {
        LDX => (src, dst),
        ST => (dst, false),
        STX if i.mode() == ATOMIC && i.imm == LOAD_ACQ => (src, dst),
        STX => (dst || src || i.mode() == ATOMIC && i.imm == CMPXCHG, false),
        ALU | ALU64 if i.op() == MOV => (i.is_reg() && src, dst),
        ALU | ALU64 => (dst || i.is_reg() && src, dst),
        JMP | JMP32 if i.is_call() => (false, true),
        JMP | JMP32 if i.is_exit() => (true, false),
        JMP | JMP32 if i.is_callx() => (dst, true),
        JMP | JMP32 if matches!(i.op(), JA | JCOND) => (false, false),
        JMP | JMP32 => (dst || i.is_reg() && src, false),
        _ if i.is_packet_load() => (i.mode() == IND && src, true),
        _ => (false, dst && i.code == LD_IMM64),
    };
    if reads { Some(true) } else { writes.then_some(false) }
}
