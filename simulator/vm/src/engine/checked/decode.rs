//! From instructions to operations: one for each instruction, in a form that needs no looking up when it is executed.
//!
//! Knows the encoding, and which registers are written on every way to an instruction: only where one may not be, a
//! check is put before it.

use super::calls;
use crate::helper;
use crate::insn::{
    ABS, ADD, ALU, ALU64, AND, ARSH, ATOMIC, CMPXCHG, DIV, END, FP, IND, Insn, JA, JEQ, JGE, JGT, JLE, JLT,
    JMP, JMP32, JNE, JSGE, JSLT, LD, LDX, LOAD_ACQ, LSH, MEMSX, MOD, MOV, NEG, ST, STORE_REL, STX, XOR,
};
use crate::legal::cfg::{self, Function};
use crate::legal::{Sound, Value};

/// What to do. `b` is the second operand: the source register plus the immediate, one of which is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Do {
    Add64,
    Sub64,
    Mul64,
    Or64,
    And64,
    Lsh64,
    Rsh64,
    Xor64,
    Arsh64,
    Div64,
    Mod64,
    Sdiv64,
    Smod64,
    Neg64,
    Mov64,
    Add32,
    Sub32,
    Mul32,
    Or32,
    And32,
    Lsh32,
    Rsh32,
    Xor32,
    Arsh32,
    Div32,
    Mod32,
    Sdiv32,
    Smod32,
    Neg32,
    Mov32,
    /// Extends the sign, `off` bits from the top.
    Sign64,
    Sign32,
    Low16,
    Low32,
    Nothing,
    Swap16,
    Swap32,
    Swap64,
    Load1,
    Load2,
    Load4,
    Load8,
    LoadSigned1,
    LoadSigned2,
    LoadSigned4,
    Store1,
    Store2,
    Store4,
    Store8,
    /// `imm` is the operation.
    Atomic4,
    Atomic8,
    /// A constant.
    Constant,
    /// What a load filled in, by index.
    Slot,
    Jump,
    MayGoto,
    Eq64,
    Gt64,
    Ge64,
    Set64,
    Ne64,
    Sgt64,
    Sge64,
    Lt64,
    Le64,
    Slt64,
    Sle64,
    Eq32,
    Gt32,
    Ge32,
    Set32,
    Ne32,
    Sgt32,
    Sge32,
    Lt32,
    Le32,
    Slt32,
    Sle32,
    /// A function, by operation.
    Call,
    /// A helper, by number.
    Helper,
    TailCall,
    /// A helper whose number is in a register.
    CallRegister,
    /// LD_ABS, LD_IND.
    PacketLoad,
    Exit,
    /// Not an instruction: the destination register must have been written.
    Check,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) what: Do,
    pub(super) dst: u8,
    pub(super) src: u8,
    /// Bytes.
    pub(super) width: u8,
    /// Of an access: the offset. Of a jump: the operation it goes to. Of a helper: its nature.
    pub(super) off: i32,
    pub(super) imm: i64,
}

/// As the source of an operation with an immediate: a register that is always 0.
pub(super) const ZERO: u8 = 15;

/// A program's operations; nothing here depends on a load.
#[derive(Debug)]
pub(crate) struct Code {
    pub(super) ops: Vec<Op>,
    /// The instruction that each operation came from.
    pub(super) origin: Vec<u32>,
    /// What the slots stand for.
    pub(super) slots: Vec<Value>,
    /// What its helper calls call; an operation has the index as its width.
    pub(super) helpers: Vec<helper::Function>,
    /// Where functions begin that helpers may call: first instruction, first operation.
    pub(super) callbacks: Vec<(usize, usize)>,
}

impl Code {
    pub(crate) fn new(program: &Sound) -> Self {
        let mut code = Self {
            ops: Vec::new(),
            origin: Vec::new(),
            slots: Vec::new(),
            helpers: Vec::new(),
            callbacks: Vec::new(),
        };
        let mut numbers = Vec::new();
        // For each instruction, its first operation.
        let mut starts = vec![0u32; program.insns.len()];
        let mut entries = vec![0u16; program.insns.len()];
        entries[0] = if program.kind == crate::ProgramKind::Memory { 0b110 } else { 0b10 };
        let mut known = vec![false; program.insns.len()];
        for function in &program.functions {
            if program.values.values().any(|v| *v == Value::Callback(function.start)) {
                entries[function.start] = 0;
                code.callbacks.push((function.start, code.ops.len()));
            }
            let states = written(&program.insns, function, entries[function.start] | 1 << FP);
            for (block, state) in function.blocks.iter().zip(states) {
                // What cannot be reached may do what it wants.
                let mut state = state.unwrap_or(0);
                for at in cfg::instructions(&program.insns, block) {
                    starts[at] = code.ops.len() as u32;
                    code.instruction(program, at, state, function.start == 0);
                    if let Some(callee) = cfg::callee(program.insns[at], at) {
                        let given = state & 0b11_1110;
                        entries[callee] = if known[callee] { entries[callee] & given } else { given };
                        known[callee] = true;
                    }
                    state = step(program.insns[at], state);
                }
            }
        }
        for op in &mut code.ops {
            if op.what == Do::Helper {
                let index = numbers.iter().position(|n| *n == op.imm).unwrap_or_else(|| {
                    numbers.push(op.imm);
                    numbers.len() - 1
                });
                op.width = u8::try_from(index).expect("there are fewer helpers");
                op.off = calls::nature(op.imm as i32);
            }
            if matches!(op.what, Do::Call | Do::Jump | Do::MayGoto) || op.what.is_condition() {
                op.off = starts[op.off as usize] as i32;
            }
        }
        let function = |n: &i64| helper::function(*n as i32).expect("a load has refused other helpers");
        code.helpers = numbers.iter().map(function).collect();
        code
    }

    fn push(&mut self, at: usize, op: Op) {
        self.ops.push(op);
        self.origin.push(at as u32);
    }

    fn instruction(&mut self, program: &Sound, at: usize, written: u16, main: bool) {
        let insn = program.insns[at];
        let missing = reads(insn, main) & !written;
        for register in (0..=FP).filter(|r| missing >> r & 1 == 1) {
            self.push(at, Op { what: Do::Check, dst: register, src: ZERO, width: 0, off: 0, imm: 0 });
        }
        let op = match program.values.get(&at) {
            Some(Value::Constant(constant)) => {
                Op { what: Do::Constant, dst: insn.dst, src: ZERO, width: 0, off: 0, imm: *constant as i64 }
            }
            Some(value) => {
                self.slots.push(*value);
                let imm = self.slots.len() as i64 - 1;
                Op { what: Do::Slot, dst: insn.dst, src: ZERO, width: 0, off: 0, imm }
            }
            None => operation(insn, at),
        };
        self.push(at, op);
    }
}

impl Do {
    fn is_condition(self) -> bool {
        (Self::Eq64 as u8..=Self::Sle32 as u8).contains(&(self as u8))
    }
}

/// One instruction that is not a 16-byte load. `cfg` has refused what is none of the kernel's.
fn operation(i: Insn, at: usize) -> Op {
    let is_store = matches!(i.class(), STX) || i.class() == LDX;
    let (src, imm) = match i.class() {
        _ if is_store => (i.src, 0),
        ALU | ALU64 | JMP | JMP32 if i.is_reg() => (i.src, 0),
        _ => (ZERO, i64::from(i.imm)),
    };
    let width = i.width() as u8;
    let plain = Op { what: Do::Nothing, dst: i.dst, src, width, off: i32::from(i.off), imm };
    match i.class() {
        ALU | ALU64 => Op { what: arithmetic(i), off: 64 - i32::from(i.off), ..plain },
        JMP | JMP32 => jump(i, at, plain),
        LDX if i.mode() == MEMSX => {
            let what = [Do::LoadSigned1, Do::LoadSigned2, Do::LoadSigned4][width.ilog2() as usize];
            Op { what, ..plain }
        }
        LDX => Op { what: [Do::Load1, Do::Load2, Do::Load4, Do::Load8][width.ilog2() as usize], ..plain },
        STX if i.mode() == ATOMIC && i.imm == LOAD_ACQ => {
            Op { what: [Do::Load1, Do::Load2, Do::Load4, Do::Load8][width.ilog2() as usize], ..plain }
        }
        STX if i.mode() == ATOMIC && i.imm != STORE_REL => {
            Op { what: if width == 8 { Do::Atomic8 } else { Do::Atomic4 }, imm: i64::from(i.imm), ..plain }
        }
        ST | STX => {
            Op { what: [Do::Store1, Do::Store2, Do::Store4, Do::Store8][width.ilog2() as usize], ..plain }
        }
        _ => {
            debug_assert!(i.class() == LD && matches!(i.mode(), ABS | IND), "cfg lets no other load through");
            let src = if i.mode() == IND { i.src } else { ZERO };
            Op { what: Do::PacketLoad, src, imm: i64::from(i.imm), ..plain }
        }
    }
}

fn arithmetic(i: Insn) -> Do {
    use Do::*;
    let wide = i.class() == ALU64;
    let pick = |a, b| if wide { a } else { b };
    match i.op() {
        ADD => pick(Add64, Add32),
        0x10 => pick(Sub64, Sub32),
        0x20 => pick(Mul64, Mul32),
        DIV if i.off == 1 => pick(Sdiv64, Sdiv32),
        DIV => pick(Div64, Div32),
        0x40 => pick(Or64, Or32),
        AND => pick(And64, And32),
        LSH => pick(Lsh64, Lsh32),
        0x70 => pick(Rsh64, Rsh32),
        NEG => pick(Neg64, Neg32),
        MOD if i.off == 1 => pick(Smod64, Smod32),
        MOD => pick(Mod64, Mod32),
        XOR => pick(Xor64, Xor32),
        MOV if i.off != 0 => pick(Sign64, Sign32),
        MOV => pick(Mov64, Mov32),
        ARSH => pick(Arsh64, Arsh32),
        END => match (i.imm, i.is_reg() || wide) {
            (16, true) => Swap16,
            (32, true) => Swap32,
            (_, true) => Swap64,
            (16, false) => Low16,
            (32, false) => Low32,
            _ => Nothing,
        },
        _ => Nothing,
    }
}

fn jump(i: Insn, at: usize, plain: Op) -> Op {
    use Do::*;
    if i.is_exit() {
        return Op { what: Exit, ..plain };
    }
    if i.is_callx() {
        return Op { what: CallRegister, imm: 0, ..plain };
    }
    if let Some(callee) = cfg::callee(i, at) {
        return Op { what: Call, off: callee as i32, ..plain };
    }
    if i.is_call() {
        let what = if i.imm == helper::TAIL_CALL { TailCall } else { Helper };
        return Op { what, ..plain };
    }
    let wide = i.class() == JMP;
    let pick = |a, b| if wide { a } else { b };
    let what = match i.op() {
        JA => Jump,
        JEQ => pick(Eq64, Eq32),
        JGT => pick(Gt64, Gt32),
        JGE => pick(Ge64, Ge32),
        0x40 => pick(Set64, Set32),
        JNE => pick(Ne64, Ne32),
        0x60 => pick(Sgt64, Sgt32),
        JSGE => pick(Sge64, Sge32),
        JLT => pick(Lt64, Lt32),
        JLE => pick(Le64, Le32),
        JSLT => pick(Slt64, Slt32),
        0xd0 => pick(Sle64, Sle32),
        _ => MayGoto,
    };
    let target = cfg::target(i, at).expect("every other jump has a target");
    Op { what, off: target as i32, ..plain }
}

/// Which registers an instruction reads, a bit each. Of a helper's arguments nobody knows here.
fn reads(i: Insn, main: bool) -> u16 {
    let (dst, src) = (1u16 << i.dst, 1u16 << i.src);
    match i.class() {
        LDX => src,
        ST => dst,
        STX if i.mode() == ATOMIC && i.imm == LOAD_ACQ => src,
        STX if i.mode() == ATOMIC && i.imm == CMPXCHG => dst | src | 1,
        STX => dst | src,
        ALU | ALU64 if i.op() == MOV && i.is_reg() => src,
        ALU | ALU64 if i.op() == MOV => 0,
        ALU | ALU64 if i.op() == END || i.op() == NEG => dst,
        ALU | ALU64 => dst | if i.is_reg() { src } else { 0 },
        // A function of the program may have nothing to give; the program itself has.
        _ if i.is_exit() => u16::from(main),
        _ if i.is_call() && i.src == 0 => helper::reads(i.imm),
        _ if i.is_call() || i.is_may_goto() => 0,
        _ if i.is_callx() => dst,
        JMP | JMP32 if i.op() == JA => 0,
        JMP | JMP32 => dst | if i.is_reg() { src } else { 0 },
        _ if i.is_packet_load() => 1 << 6 | if i.mode() == IND { src } else { 0 },
        _ => 0,
    }
}

/// Which registers are surely written behind an instruction.
fn step(i: Insn, written: u16) -> u16 {
    let dst = 1u16 << i.dst;
    match i.class() {
        LDX | ALU | ALU64 => written | dst,
        STX if i.mode() == ATOMIC && i.imm == LOAD_ACQ => written | dst,
        // A call of the program's own may give nothing.
        _ if cfg::callee(i, 0).is_some() => written & !0b11_1111,
        _ if i.is_call() || i.is_callx() || i.is_packet_load() => written & !0b11_1110 | 1,
        LD => written | dst,
        _ => written,
    }
}

/// For each block that can be reached, the registers that are written on every way to it.
fn written(insns: &[Insn], function: &Function, entry: u16) -> Vec<Option<u16>> {
    let mut states: Vec<Option<u16>> = vec![None; function.blocks.len()];
    let start =
        function.blocks.iter().position(|b| b.start == function.start).expect("a function has a first block");
    states[start] = Some(entry);
    let mut work = vec![start];
    while let Some(number) = work.pop() {
        let block = &function.blocks[number];
        let mut state = states[number].expect("a block in the work list has a state");
        cfg::instructions(insns, block).for_each(|at| state = step(insns[at], state));
        for next in &block.next {
            let joined = states[*next].map_or(state, |known| known & state);
            if states[*next] != Some(joined) {
                states[*next] = Some(joined);
                work.push(*next);
            }
        }
    }
    states
}
