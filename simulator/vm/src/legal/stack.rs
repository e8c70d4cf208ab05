//! How much of each frame a program uses: what must be cleared before it runs.
//!
//! Every pointer into a frame begins as a copy of r10. Where a constant is added at once, as compilers do, the object lies
//! above that place; of any other copy nothing is known, and the whole frame counts. Accesses below a pointer count too.

use super::FRAME;
use super::cfg::{self, Function};
use crate::insn::{ADD, ALU64, ATOMIC, FP, Insn, LDX, LOAD_ACQ, MOV, ST, STX};

/// Bytes of the frame at each depth that the functions at that depth use. Functions come callers first.
pub(super) fn used(insns: &[Insn], functions: &[Function], depth: usize) -> Vec<u16> {
    let mut used = vec![0; depth];
    // At which depths a function is called, a bit each.
    let mut depths = vec![0u8; functions.len()];
    depths[0] = 1;
    for (number, function) in functions.iter().enumerate() {
        let bytes = of_function(insns, function);
        for level in (0..depth).filter(|level| depths[number] >> level & 1 == 1) {
            used[level] = used[level].max(bytes);
        }
        for at in function.blocks.iter().flat_map(|block| cfg::instructions(insns, block)) {
            let callee = cfg::callee(insns[at], at).or_else(|| cfg::callback(insns[at], at));
            let callee = callee.and_then(|start| functions.iter().position(|f| f.start == start));
            if let Some(callee) = callee {
                depths[callee] |= depths[number] << 1;
            }
        }
    }
    used
}

fn of_function(insns: &[Insn], function: &Function) -> u16 {
    let (mut lowest, mut below) = (0, 0);
    for block in &function.blocks {
        for at in cfg::instructions(insns, block) {
            let i = insns[at];
            let acquire = i.class() == STX && i.mode() == ATOMIC && i.imm == LOAD_ACQ;
            match i.class() {
                LDX | ST | STX => {
                    let base = if i.class() == LDX || acquire { i.src } else { i.dst };
                    let offset = i32::from(i.off);
                    if base == FP {
                        lowest = lowest.min(offset);
                    } else {
                        below = below.min(offset);
                    }
                    // r10 itself is kept somewhere.
                    if i.class() == STX && !acquire && i.src == FP {
                        return FRAME as u16;
                    }
                }
                ALU64 if i.is_reg() && i.src == FP => {
                    let next = insns.get(at + 1).filter(|_| at + 1 < block.end);
                    let next = next.filter(|n| n.code == ALU64 | ADD && n.dst == i.dst);
                    match next {
                        Some(next) if i.op() == MOV && i.off == 0 => lowest = lowest.min(next.imm),
                        _ => return FRAME as u16,
                    }
                }
                _ => {}
            }
        }
    }
    lowest.saturating_add(below).saturating_neg().clamp(0, i32::from(FRAME)) as u16
}
