//! Functions, blocks, and what no engine could run: unknown instructions, jumps to nowhere, recursion.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{FRAMES_MAX, Illegal};
use crate::helper;
use crate::insn::{
    ABS, ALU, ALU64, ATOMIC, B, CALL, CMPXCHG, DIV, DW, END, EXIT, FETCH, FP, H, Insn, JA, JCOND, JMP, JMP32,
    LD, LD_IMM64, LDX, LOAD_ACQ, MEM, MEMSX, MOD, MOV, NEG, PSEUDO_CALL, PSEUDO_FUNC, ST, STORE_REL, STX, W,
    XCHG,
};

/// A function: its instructions and its blocks, in order.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) start: usize,
    pub(crate) blocks: Vec<Block>,
}

/// Instructions that are executed one after another.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where it may go on, by number of the block.
    pub(crate) next: Vec<usize>,
}

/// The kernel's limits.
const FUNCTIONS_MAX: usize = 256;
const INSTRUCTIONS_MAX: usize = 1_000_000;

/// All functions that a program can reach, callers before the functions that they call: so every call goes forward.
/// With them, how deep the calls go.
pub(crate) fn functions(insns: &[Insn]) -> Result<(Vec<Function>, usize), Illegal> {
    if insns.is_empty() || insns.len() > INSTRUCTIONS_MAX {
        return Err(Illegal::Whole(format!("{} instructions", insns.len())));
    }
    let second = second_halves(insns)?;
    let starts = starts(insns, &second)?;
    let ends: Vec<usize> = starts.iter().copied().skip(1).chain([insns.len()]).collect();
    let ranges: BTreeMap<usize, Range<usize>> =
        starts.iter().zip(ends).map(|(start, end)| (*start, *start..end)).collect();
    let mut order = Vec::new();
    visit(insns, &ranges, 0, &mut Vec::new(), &mut order)?;
    order.reverse();
    let depth = check_depth(insns, &ranges, &order)?;
    let functions: Result<Vec<Function>, Illegal> =
        order.into_iter().map(|start| function(insns, &second, ranges[&start].clone())).collect();
    Ok((functions?, depth))
}

/// Which slots are the second half of a 16-byte load. Each instruction is checked by itself on the way.
fn second_halves(insns: &[Insn]) -> Result<BTreeSet<usize>, Illegal> {
    let mut second = BTreeSet::new();
    let mut at = 0;
    while at < insns.len() {
        check(insns[at]).map_err(|what| Illegal::At(at, what))?;
        if insns[at].code == LD_IMM64 {
            let next = insns.get(at + 1).filter(|n| n.code == 0 && n.dst == 0 && n.src == 0 && n.off == 0);
            next.ok_or_else(|| Illegal::at(at, "half of a 16-byte load"))?;
            second.insert(at + 1);
            at += 1;
        }
        at += 1;
    }
    Ok(second)
}

/// Whether an instruction by itself is one of the kernel's, with registers that exist.
fn check(i: Insn) -> Result<(), String> {
    let unknown = || Err(format!("unknown instruction {:#04x}", i.code));
    if i.dst > FP || i.src > FP {
        return Err(format!("register {} does not exist", i.dst.max(i.src)));
    }
    let writes_dst = match i.class() {
        LDX => true,
        ALU | ALU64 => true,
        _ => i.code == LD_IMM64,
    };
    if writes_dst && i.dst == FP {
        return Err("r10 is read only".into());
    }
    match i.class() {
        LDX if i.mode() == MEM => Ok(()),
        LDX if i.mode() == MEMSX && i.size() != DW => Ok(()),
        ST if i.mode() == MEM => Ok(()),
        STX if i.mode() == MEM => Ok(()),
        STX if i.mode() == ATOMIC && i.imm == STORE_REL => Ok(()),
        STX if i.mode() == ATOMIC && i.imm == LOAD_ACQ => {
            if i.dst == FP {
                Err("r10 is read only".into())
            } else {
                Ok(())
            }
        }
        STX if i.mode() == ATOMIC && matches!(i.size(), W | DW) => match i.imm {
            XCHG | CMPXCHG => Ok(()),
            op if matches!(op & !FETCH, 0x00 | 0x40 | 0x50 | 0xa0) => Ok(()),
            op => Err(format!("unknown atomic operation {op:#x}")),
        },
        ALU | ALU64 => check_alu(i).map_or_else(unknown, |()| Ok(())),
        JMP | JMP32 => check_jump(i),
        _ if i.code == LD_IMM64 => Ok(()),
        LD if i.is_packet_load() && matches!(i.size(), W | H | B) => {
            let reserved = i.dst != 0 || i.off != 0 || i.mode() == ABS && i.src != 0;
            if reserved { Err("a load from the packet with reserved fields".into()) } else { Ok(()) }
        }
        _ => unknown(),
    }
}

fn check_alu(i: Insn) -> Option<()> {
    match i.op() {
        END => {
            let swap = i.class() == ALU || !i.is_reg();
            (swap && matches!(i.imm, 16 | 32 | 64) && i.off == 0).then_some(())
        }
        NEG => (!i.is_reg() && i.off == 0).then_some(()),
        DIV | MOD => matches!(i.off, 0 | 1).then_some(()),
        MOV if i.is_reg() => {
            let ok = matches!(i.off, 0 | 8 | 16) || i.off == 32 && i.class() == ALU64;
            ok.then_some(())
        }
        0xe0 | 0xf0 => None,
        _ => (i.off == 0).then_some(()),
    }
}

fn check_jump(i: Insn) -> Result<(), String> {
    match i.op() {
        CALL if i.is_callx() => Ok(()),
        CALL if i.code != JMP | CALL => Err(format!("unknown call {:#04x}", i.code)),
        CALL if i.src == 2 => Err("calls of kernel functions (kfunc) are not supported here".into()),
        CALL if !matches!(i.src, 0 | PSEUDO_CALL) => {
            Err(format!("calls of kind {} are not supported here", i.src))
        }
        JCOND if i.is_may_goto() && i.dst == 0 && i.imm == 0 => Ok(()),
        EXIT if i.code != JMP | EXIT => Err("unknown exit".into()),
        JA if i.is_reg() => Err("jumps through a register are not supported here".into()),
        0xe0 | 0xf0 => Err(format!("unknown jump {:#04x}", i.code)),
        _ => Ok(()),
    }
}

/// Where a jump goes, if it is one.
pub(crate) fn target(i: Insn, at: usize) -> Option<usize> {
    if !i.is_jump_class() || matches!(i.op(), CALL | EXIT) {
        return None;
    }
    let by = if i.code == JMP32 | JA { i64::from(i.imm) } else { i64::from(i.off) };
    // What lies before the program becomes an instruction that is not there.
    Some(usize::try_from(at as i64 + 1 + by).unwrap_or(usize::MAX))
}

/// Which function a call calls, by its first instruction.
pub(crate) fn callee(i: Insn, at: usize) -> Option<usize> {
    (i.is_call() && i.src == PSEUDO_CALL).then(|| function_at(i, at))
}

/// Which function a 16-byte load names, for a helper to call it.
pub(crate) fn callback(i: Insn, at: usize) -> Option<usize> {
    (i.code == LD_IMM64 && i.src == PSEUDO_FUNC).then(|| function_at(i, at))
}

fn function_at(i: Insn, at: usize) -> usize {
    usize::try_from(at as i64 + 1 + i64::from(i.imm)).unwrap_or(usize::MAX)
}

fn starts(insns: &[Insn], second: &BTreeSet<usize>) -> Result<BTreeSet<usize>, Illegal> {
    let mut starts = BTreeSet::from([0]);
    for (at, insn) in insns.iter().enumerate().filter(|(at, _)| !second.contains(at)) {
        let Some(callee) = callee(*insn, at).or_else(|| callback(*insn, at)) else { continue };
        if callee >= insns.len() || second.contains(&callee) {
            return Err(Illegal::at(at, "calls what is no function"));
        }
        starts.insert(callee);
    }
    if starts.len() > FUNCTIONS_MAX {
        return Err(Illegal::Whole(format!("{} functions; the kernel allows {FUNCTIONS_MAX}", starts.len())));
    }
    Ok(starts)
}

fn calls(insns: &[Insn], range: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    // The second half of a 16-byte load has code 0 and is no call.
    range.filter_map(|at| Some((at, callee(insns[at], at).or_else(|| callback(insns[at], at))?)))
}

/// Depth first, callees before their callers.
fn visit(
    insns: &[Insn],
    ranges: &BTreeMap<usize, Range<usize>>,
    start: usize,
    path: &mut Vec<usize>,
    done: &mut Vec<usize>,
) -> Result<(), Illegal> {
    path.push(start);
    for (at, callee) in calls(insns, ranges[&start].clone()) {
        if path.contains(&callee) {
            return Err(Illegal::at(at, "recursion"));
        }
        if !done.contains(&callee) {
            visit(insns, ranges, callee, path, done)?;
        }
    }
    path.pop();
    done.push(start);
    Ok(())
}

/// The deepest chain of functions.
fn check_depth(
    insns: &[Insn],
    ranges: &BTreeMap<usize, Range<usize>>,
    order: &[usize],
) -> Result<usize, Illegal> {
    let mut depths = BTreeMap::from([(0, 1)]);
    for start in order {
        let depth = depths.get(start).copied().unwrap_or(1);
        for (at, callee) in calls(insns, ranges[start].clone()) {
            if depth == FRAMES_MAX {
                return Err(Illegal::at(at, format!("more than {FRAMES_MAX} functions deep")));
            }
            let known = depths.entry(callee).or_insert(0);
            *known = (*known).max(depth + 1);
        }
    }
    Ok(depths.into_values().max().unwrap_or(1))
}

fn ends_block(i: Insn) -> bool {
    i.is_jump_class() && (i.op() != CALL || i.is_call() && i.src == 0 && i.imm == helper::TAIL_CALL)
}

fn function(insns: &[Insn], second: &BTreeSet<usize>, range: Range<usize>) -> Result<Function, Illegal> {
    let last = range.end - 1;
    let closed = !second.contains(&last) && (insns[last].is_exit() || insns[last].is_ja());
    if !closed {
        return Err(Illegal::at(last, "the function's last instruction is not an exit or jump"));
    }
    let mut leaders = BTreeSet::from([range.start]);
    for at in range.clone().filter(|at| !second.contains(at)) {
        if let Some(target) = target(insns[at], at) {
            if !range.contains(&target) || second.contains(&target) {
                return Err(Illegal::at(at, "jumps out of its function"));
            }
            leaders.insert(target);
        }
        if ends_block(insns[at]) && at < last {
            leaders.insert(at + 1);
        }
    }
    let starts: Vec<usize> = leaders.iter().copied().collect();
    let number = |at: usize| starts.binary_search(&at).expect("where a block goes on, a block starts");
    let mut blocks = Vec::new();
    for (i, start) in starts.iter().copied().enumerate() {
        let end = starts.get(i + 1).copied().unwrap_or(range.end);
        // The last slot may be the second half of a load: then it is neither jump nor exit, by its code.
        let tail = if second.contains(&(end - 1)) { insns[end - 2] } else { insns[end - 1] };
        let mut next: Vec<usize> = target(tail, end - 1).map(number).into_iter().collect();
        if !tail.is_exit() && !tail.is_ja() && end < range.end && !next.contains(&(i + 1)) {
            next.push(i + 1);
        }
        blocks.push(Block { start, end, next });
    }
    Ok(Function { start: range.start, blocks })
}

/// The instructions of a block, a 16-byte load as one.
pub(crate) fn instructions<'a>(insns: &'a [Insn], block: &Block) -> impl Iterator<Item = usize> + use<'a> {
    let (mut at, end) = (block.start, block.end);
    std::iter::from_fn(move || {
        let this = at;
        (this < end).then(|| {
            at += if insns[this].code == LD_IMM64 { 2 } else { 1 };
            this
        })
    })
}

/// How many instructions a block has.
pub(crate) fn length(insns: &[Insn], block: &Block) -> usize {
    instructions(insns, block).count()
}
