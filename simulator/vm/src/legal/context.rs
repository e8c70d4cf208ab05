//! Which accesses are to the context, and how they are converted.
//!
//! The vm's context (see [`crate::context`]) has the fields of `struct __sk_buff` where programs expect them. Only
//! those must be converted where the program's view differs in width: the 32-bit `data`, `data_end` and `data_meta`
//! are 64-bit pointers, and `tc_index` and `queue_mapping` are 16 bits wide in `struct sk_buff`. As in the kernel's
//! verifier, what is converted depends on what a register holds, not on the offset: so registers and stack slots that
//! hold the context are followed through the program and into the functions that it calls.

use std::collections::BTreeMap;

use super::Illegal;
use super::cfg::{self, Function};
use super::emit::Emit;
use crate::context::{Layout, Shape};
use crate::insn::{ADD, ALU64, DW, FP, H, Insn, JGE, JMP, LDX, LOAD_ACQ, MEM, MOV, ST, STX, W};

/// A conversion of one access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// A load of a pointer, which stands here.
    Pointer(i16),
    /// A store to a field of 16 bits.
    Narrow,
    /// A store to `queue_mapping`, which ignores 0xffff and above.
    QueueMapping,
}

impl Access {
    pub(crate) fn emit(self, insn: Insn, out: &mut Emit) {
        let narrow = Insn { code: insn.code & !0x18 | H, ..insn };
        match self {
            Self::Pointer(at) => out.push(Insn::load(DW, insn.dst, insn.src, at)),
            Self::Narrow => out.push(narrow),
            Self::QueueMapping if insn.class() == ST => {
                if (insn.imm as u32) < 0xffff {
                    out.push(narrow);
                }
            }
            Self::QueueMapping => {
                let done = out.local();
                out.jump(Insn::new(JMP | JGE, insn.src, 0, 0, 0xffff), done);
                out.push(narrow);
                out.bind(done);
            }
        }
    }
}

/// What a register or stack slot may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    Other,
    Context,
    /// The frame pointer plus a constant.
    Frame(i32),
    /// The context on one way and something else on another.
    Mixed,
}

impl Held {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Context | Self::Mixed, _) | (_, Self::Context | Self::Mixed) => Self::Mixed,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct State {
    registers: [Held; 11],
    /// 8-byte stack slots that hold anything but `Other`.
    stack: BTreeMap<i32, Held>,
}

impl State {
    fn entry(arguments: [Held; 5]) -> Self {
        let mut registers = [Held::Other; 11];
        registers[1..=5].copy_from_slice(&arguments);
        registers[usize::from(FP)] = Held::Frame(0);
        Self { registers, stack: BTreeMap::new() }
    }

    fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(other.registers) {
            *mine = mine.join(theirs);
        }
        let slots: Vec<i32> = self.stack.keys().chain(other.stack.keys()).copied().collect();
        for slot in slots {
            let held = self.slot(slot).join(other.slot(slot));
            self.set_slot(slot, held);
        }
    }

    fn slot(&self, at: i32) -> Held {
        self.stack.get(&at).copied().unwrap_or(Held::Other)
    }

    fn set_slot(&mut self, at: i32, held: Held) {
        match held {
            Held::Other => self.stack.remove(&at),
            held => self.stack.insert(at, held),
        };
    }

    fn register(&self, r: u8) -> Held {
        self.registers[usize::from(r)]
    }

    fn set(&mut self, r: u8, held: Held) {
        self.registers[usize::from(r)] = held;
    }

    /// A store of `width` bytes through a register.
    fn store(&mut self, base: u8, off: i16, width: i32, value: Held) {
        let Held::Frame(frame) = self.register(base) else { return };
        let at = frame.wrapping_add(i32::from(off));
        self.stack.retain(|slot, _| *slot + 8 <= at || *slot >= at.saturating_add(width));
        if width == 8 {
            self.set_slot(at, value);
        }
    }

    /// Goes on over one instruction that is not a call of a function.
    fn step(&mut self, i: Insn) {
        match i.class() {
            LDX => {
                let held = match self.register(i.src) {
                    Held::Frame(at) if i.code == LDX | MEM | DW => {
                        self.slot(at.wrapping_add(i32::from(i.off)))
                    }
                    _ => Held::Other,
                };
                self.set(i.dst, held);
            }
            ST => self.store(i.dst, i.off, i.width(), Held::Other),
            STX if i.mode() == MEM => self.store(i.dst, i.off, i.width(), self.register(i.src)),
            STX => {
                if i.imm == LOAD_ACQ {
                    self.set(i.dst, Held::Other);
                } else {
                    self.store(i.dst, i.off, i.width(), Held::Other);
                    self.set(i.src, Held::Other);
                    self.set(0, Held::Other);
                }
            }
            JMP if i.is_call() => (0..=5).for_each(|r| self.set(r, Held::Other)),
            ALU64 if i.op() == MOV && i.is_reg() && i.off == 0 => self.set(i.dst, self.register(i.src)),
            ALU64 if i.op() == ADD && !i.is_reg() => {
                let held = match self.register(i.dst) {
                    Held::Frame(at) => Held::Frame(at.wrapping_add(i.imm)),
                    _ => Held::Other,
                };
                self.set(i.dst, held);
            }
            _ if !i.is_jump_class() => self.set(i.dst, Held::Other),
            _ => {}
        }
        // r10 is never written; an atomic operation may name it as its source.
        self.set(FP, Held::Frame(0));
    }
}

/// All accesses to convert, by instruction. Functions come callers first.
pub(crate) fn accesses(
    insns: &[Insn],
    functions: &[Function],
    layout: &Layout,
) -> Result<BTreeMap<usize, Access>, Illegal> {
    let mut entries: BTreeMap<usize, [Held; 5]> = BTreeMap::new();
    let mut entry = [Held::Other; 5];
    entry[0] = Held::Context;
    entries.insert(0, entry);
    let mut found = BTreeMap::new();
    for function in functions {
        let arguments = entries.get(&function.start).copied().unwrap_or([Held::Other; 5]);
        for (block, state) in function.blocks.iter().zip(solve(insns, function, arguments)) {
            let Some(mut state) = state else { continue };
            for at in cfg::instructions(insns, block) {
                if let Some(access) =
                    access(insns[at], &state, layout).map_err(|what| Illegal::At(at, what))?
                {
                    found.insert(at, access);
                }
                if let Some(callee) = cfg::callee(insns[at], at) {
                    // Another function's frame pointer is no frame pointer of the callee.
                    let given = [1, 2, 3, 4, 5].map(|r| match state.register(r) {
                        Held::Frame(_) => Held::Other,
                        held => held,
                    });
                    let known = entries.entry(callee).or_insert(given);
                    *known = std::array::from_fn(|i| known[i].join(given[i]));
                }
                state.step(insns[at]);
            }
        }
    }
    Ok(found)
}

/// The state at the start of each block that can be reached.
fn solve(insns: &[Insn], function: &Function, arguments: [Held; 5]) -> Vec<Option<State>> {
    let mut states: Vec<Option<State>> = vec![None; function.blocks.len()];
    states[0] = Some(State::entry(arguments));
    let mut work = vec![0];
    while let Some(number) = work.pop() {
        let block = &function.blocks[number];
        let mut state = states[number].clone().expect("a block in the work list has a state");
        cfg::instructions(insns, block).for_each(|at| state.step(insns[at]));
        for next in &block.next {
            let joined = match &states[*next] {
                None => state.clone(),
                Some(known) => {
                    let mut joined = known.clone();
                    joined.join(&state);
                    joined
                }
            };
            if states[*next].as_ref() != Some(&joined) {
                states[*next] = Some(joined);
                work.push(*next);
            }
        }
    }
    states
}

/// How an instruction's access is converted, if it is one to the context that has to be.
fn access(i: Insn, state: &State, layout: &Layout) -> Result<Option<Access>, String> {
    let (base, is_load) = match i.class() {
        LDX => (i.src, true),
        ST | STX => (i.dst, false),
        _ => return Ok(None),
    };
    let held = state.register(base);
    if !matches!(held, Held::Context | Held::Mixed) {
        return Ok(None);
    }
    let Some(field) = layout.touched(i32::from(i.off), i.width()) else { return Ok(None) };
    let access = match (field.shape, is_load) {
        (Shape::Pointer(at), true) if field.offset == i.off && i.size() == W && i.mode() == MEM => {
            Access::Pointer(at)
        }
        (Shape::Pointer(_), _) => {
            return Err(format!("{} is read as 32 bits and never written", field.name));
        }
        (Shape::Narrow, false) if i.size() == W => Access::Narrow,
        (Shape::QueueMapping, false) if i.size() == W => Access::QueueMapping,
        _ => return Ok(None),
    };
    match held {
        Held::Mixed => {
            Err("the register holds the context on one way here and something else on another".into())
        }
        _ => Ok(Some(access)),
    }
}
