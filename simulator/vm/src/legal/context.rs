//! Which accesses are to the context, and how they are converted.
//!
//! The vm's context (see [`crate::context`]) has the fields of `struct __sk_buff` where programs expect them. Only
//! those must be converted where the program's view differs in width: the 32-bit `data`, `data_end` and `data_meta`
//! are 64-bit pointers, and `tc_index` and `queue_mapping` are 16 bits wide in `struct sk_buff`. As in the kernel's
//! verifier, what is converted depends on what a register holds, not on the offset: so registers and stack slots that
//! hold the context are followed through the program and into the functions that it calls.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Illegal;
use super::cfg::{self, Function};
use super::emit::Emit;
use crate::context::{Layout, Shape};
use crate::insn::{ADD, ALU64, DW, FP, H, Insn, JGE, JMP, LDX, LOAD_ACQ, MEM, MOV, ST, STX, W};

/// Helpers that call a function of the program.
const FOR_EACH_MAP_ELEM: i32 = 164;
const TIMER_SET_CALLBACK: i32 = 170;
const LOOP: i32 = 181;
const USER_RINGBUF_DRAIN: i32 = 209;

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
    /// A frame pointer plus a constant: the function's own (0), its caller's (1) and so on.
    Frame(u8, i32),
    /// A function that a helper may call, by its first instruction.
    Callback(usize),
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
    /// 8-byte stack slots that hold anything but `Other`, of the function's own frame (0) and of its callers'.
    stack: BTreeMap<(u8, i32), Held>,
}

impl State {
    /// The program's.
    fn program() -> Self {
        let mut registers = [Held::Other; 11];
        registers[1] = Held::Context;
        registers[usize::from(FP)] = Held::Frame(0, 0);
        Self { registers, stack: BTreeMap::new() }
    }

    /// That of a function that is given what these registers hold.
    fn call(&self, arguments: [Option<u8>; 5]) -> Self {
        let seen = |held| match held {
            Held::Frame(level, at) => Held::Frame(level.saturating_add(1), at),
            held => held,
        };
        let mut registers = [Held::Other; 11];
        for (n, from) in arguments.into_iter().enumerate() {
            registers[n + 1] = from.map_or(Held::Other, |r| seen(self.register(r)));
        }
        registers[usize::from(FP)] = Held::Frame(0, 0);
        let stack =
            self.stack.iter().map(|((level, at), held)| ((level.saturating_add(1), *at), seen(*held)));
        Self { registers, stack: stack.collect() }
    }

    fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(other.registers) {
            *mine = mine.join(theirs);
        }
        let slots: Vec<(u8, i32)> = self.stack.keys().chain(other.stack.keys()).copied().collect();
        for slot in slots {
            let held = self.slot(slot).join(other.slot(slot));
            self.set_slot(slot, held);
        }
    }

    fn slot(&self, at: (u8, i32)) -> Held {
        self.stack.get(&at).copied().unwrap_or(Held::Other)
    }

    fn set_slot(&mut self, at: (u8, i32), held: Held) {
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
        let Held::Frame(level, frame) = self.register(base) else { return };
        let at = frame.wrapping_add(i32::from(off));
        let apart = |slot: i32| slot.saturating_add(8) <= at || slot >= at.saturating_add(width);
        self.stack.retain(|(of, slot), _| *of != level || apart(*slot));
        if width == 8 {
            self.set_slot((level, at), value);
        }
    }

    /// Goes on over one instruction that is not a call of a function.
    fn step(&mut self, i: Insn, at: usize) {
        if let Some(function) = cfg::callback(i, at) {
            self.set(i.dst, Held::Callback(function));
            return;
        }
        match i.class() {
            LDX => {
                let held = match self.register(i.src) {
                    Held::Frame(level, at) if i.code == LDX | MEM | DW => {
                        self.slot((level, at.wrapping_add(i32::from(i.off))))
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
                    Held::Frame(level, at) => Held::Frame(level, at.wrapping_add(i.imm)),
                    _ => Held::Other,
                };
                self.set(i.dst, held);
            }
            _ if !i.is_jump_class() => self.set(i.dst, Held::Other),
            _ => {}
        }
        // r10 is never written; an atomic operation may name it as its source.
        self.set(FP, Held::Frame(0, 0));
    }
}

/// All accesses to convert, by instruction. Functions come callers first.
pub(crate) fn accesses(
    insns: &[Insn],
    functions: &[Function],
    layout: &Layout,
) -> Result<BTreeMap<usize, Access>, Illegal> {
    let mut entries = BTreeMap::from([(0, State::program())]);
    let mut found = BTreeMap::new();
    for function in functions {
        // A function that nobody calls is not reached.
        let Some(entry) = entries.get(&function.start).cloned() else { continue };
        for (block, state) in function.blocks.iter().zip(solve(insns, function, entry)) {
            let Some(mut state) = state else { continue };
            for at in cfg::instructions(insns, block) {
                if let Some(access) =
                    access(insns[at], &state, layout).map_err(|what| Illegal::At(at, what))?
                {
                    found.insert(at, access);
                }
                if let Some((callee, given)) = called(insns[at], at, &state) {
                    match entries.entry(callee) {
                        Entry::Vacant(entry) => drop(entry.insert(given)),
                        Entry::Occupied(mut entry) => entry.get_mut().join(&given),
                    }
                }
                state.step(insns[at], at);
            }
        }
    }
    Ok(found)
}

/// Which function an instruction calls, itself or through a helper, and with what.
fn called(i: Insn, at: usize, state: &State) -> Option<(usize, State)> {
    if let Some(callee) = cfg::callee(i, at) {
        return Some((callee, state.call([Some(1), Some(2), Some(3), Some(4), Some(5)])));
    }
    let (callback, given) = match i.imm {
        _ if !i.is_call() || i.src != 0 => return None,
        FOR_EACH_MAP_ELEM => (2, [Some(1), None, None, Some(3), None]),
        LOOP => (2, [None, Some(3), None, None, None]),
        TIMER_SET_CALLBACK => (2, [None; 5]),
        USER_RINGBUF_DRAIN => (2, [None, Some(3), None, None, None]),
        _ => return None,
    };
    match state.register(callback) {
        Held::Callback(function) => Some((function, state.call(given))),
        _ => None,
    }
}

/// The state at the start of each block that can be reached.
fn solve(insns: &[Insn], function: &Function, entry: State) -> Vec<Option<State>> {
    let mut states: Vec<Option<State>> = vec![None; function.blocks.len()];
    states[0] = Some(entry);
    let mut work = vec![0];
    while let Some(number) = work.pop() {
        let block = &function.blocks[number];
        let mut state = states[number].clone().expect("a block in the work list has a state");
        cfg::instructions(insns, block).for_each(|at| state.step(insns[at], at));
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
