//! How many instructions have been executed, counted by the legal code itself, and where it stops when they are too many.
//!
//! A block does not count itself. Where a function is entered, the instructions of the way through it that looks longest
//! are counted beforehand; where another way is taken, the difference is. So what is executed most counts least, and at
//! a function's end the count is exact. Whoever goes back in a loop or enters a function looks whether there are too many
//! already: what is counted beforehand is less than the program's length and does not stop it.

use super::cfg::{self, Block, Function};
use super::emit::{Emit, Label};
use super::{FUEL, R0, liveness, spill};
use crate::helper;
use crate::insn::{ADD, DW, FP, Insn, JMP, JSGE, MEM, MOV, ST};

/// After so many slots what waits to be emitted is, so that jumps reach it.
const NEAR: usize = 8192;

/// What a jump leads to before it goes where it wants to.
struct Detour {
    label: Label,
    from: usize,
    to: usize,
    at: usize,
}

/// The counting of one function.
pub(super) struct Count<'a> {
    insns: &'a [Insn],
    blocks: &'a [Block],
    /// Of each block: how many instructions it has.
    lengths: Vec<i32>,
    /// Of each block: how many are counted already where it begins, its own among them.
    ahead: Vec<i32>,
    r0_live: Vec<bool>,
    /// More than that are never counted beforehand.
    slack: i32,
    waiting: Vec<Detour>,
    waiting_since: usize,
}

impl<'a> Count<'a> {
    pub(super) fn new(insns: &'a [Insn], function: &'a Function) -> Self {
        let blocks = &function.blocks[..];
        let lengths: Vec<i32> = blocks.iter().map(|b| cfg::length(insns, b) as i32).collect();
        let mut ahead = lengths.clone();
        for (number, block) in blocks.iter().enumerate().rev() {
            // Such a block may end the function in its middle, or as if its end were one.
            let ends = cfg::instructions(insns, block)
                .any(|at| insns[at].is_packet_load() || is_tail_call(insns[at]));
            let forward = block.next.iter().filter(|next| **next > number);
            if let Some(most) = forward.map(|next| ahead[*next]).max().filter(|_| !ends) {
                ahead[number] += most;
            }
        }
        let r0_live = liveness::r0_at_blocks(insns, function);
        let slack = i32::try_from(insns.len()).expect("cfg lets no longer program through");
        let (waiting, waiting_since) = (Vec::new(), 0);
        Self { insns, blocks, lengths, ahead, r0_live, slack, waiting, waiting_since }
    }

    /// At the function's start.
    pub(super) fn enter(&self, out: &mut Emit) {
        self.add(self.ahead[0], true, self.r0_live[0], out);
    }

    /// What is still to be counted on the way from one block to another.
    fn difference(&self, from: usize, to: usize) -> i32 {
        self.lengths[from] + self.ahead[to] - self.ahead[from]
    }

    fn edge(&self, from: usize, to: usize, out: &mut Emit) {
        let back = to <= from;
        let difference = self.difference(from, to);
        if difference != 0 || back {
            self.add(difference, back, self.r0_live[to], out);
        }
    }

    /// Where a block's jump, which is emitted next, has to go instead.
    pub(super) fn jump(&mut self, from: usize, target: usize, out: &mut Emit) -> Label {
        let to = self.blocks.binary_search_by_key(&target, |b| b.start);
        let to = to.expect("where a jump goes, a block starts");
        let at = self.last(from);
        if self.insns[at].is_ja() {
            self.edge(from, to, out);
            return Label::Original(target);
        }
        if self.difference(from, to) == 0 && to > from {
            return Label::Original(target);
        }
        let label = out.local();
        if self.waiting.is_empty() {
            self.waiting_since = out.len();
        }
        self.waiting.push(Detour { label, from, to, at });
        label
    }

    fn last(&self, block: usize) -> usize {
        cfg::instructions(self.insns, &self.blocks[block]).last().expect("a block has instructions")
    }

    /// Behind a block's last instruction.
    pub(super) fn leave(&mut self, from: usize, out: &mut Emit) {
        let last = self.insns[self.last(from)];
        let goes_on = !last.is_exit() && !last.is_ja();
        if goes_on {
            self.edge(from, from + 1, out);
        }
        if goes_on && out.len() - self.waiting_since < NEAR {
            return;
        }
        let over = (goes_on && !self.waiting.is_empty()).then(|| out.local());
        if let Some(over) = over {
            out.go(over);
        }
        for Detour { label, from, to, at } in std::mem::take(&mut self.waiting) {
            out.origin(at);
            out.bind(label);
            self.edge(from, to, out);
            out.go(Label::Original(self.blocks[to].start));
        }
        if let Some(over) = over {
            out.bind(over);
        }
    }

    /// Counts so many, and stops where the run has to end. Keeps r0 if somebody still reads it.
    fn add(&self, instructions: i32, stops: bool, r0_live: bool, out: &mut Emit) {
        if r0_live {
            out.push(Insn::store(DW, FP, spill(R0), 0));
        }
        out.push(Insn::load(DW, 0, FP, spill(FUEL)));
        out.push(Insn::alu64_imm(ADD, 0, -instructions));
        out.push(Insn::store(DW, FP, spill(FUEL), 0));
        if stops {
            let on = out.local();
            // Signed comparisons are the ones whose negative numbers rbpf understands.
            out.jump(Insn::new(JMP | JSGE, 0, 0, 0, -self.slack), on);
            // Whatever is taken back on the way to the end, it stays too little.
            out.push(Insn::new(ST | MEM | DW, FP, 0, spill(FUEL), i32::MIN));
            out.push(Insn::alu64_imm(MOV, 0, 0));
            out.push(Insn::exit());
            out.bind(on);
        }
        if r0_live {
            out.push(Insn::load(DW, 0, FP, spill(R0)));
        }
    }
}

fn is_tail_call(i: Insn) -> bool {
    i.is_call() && i.src == 0 && i.imm == helper::TAIL_CALL
}
