//! Every rewrite against RFC 9669: a small evaluator, written from the RFC's tables alone, says what one instruction
//! does to registers and memory; the same instruction goes through the legaliser and rbpf.

use proptest::prelude::*;

use crate::insn::{
    ADD, ALU, ALU64, AND, ARSH, ATOMIC, B, CALL, CMPXCHG, DIV, DW, END, EXIT, FETCH, H, Insn, JA, JEQ, JMP,
    JMP32, LDX, LSH, MEM, MEMSX, MOD, MOV, NEG, ST, STX, W, X, XCHG, XOR,
};
use crate::{
    EngineKind, Environment, Error, Fault, FaultKind, Kernel, KernelConfig, LoadSpec, MapId, Object,
    ProgramKind,
};

struct Nothing;

impl Environment for Nothing {
    fn now_ns(&mut self) -> u64 {
        0
    }
    fn random_u32(&mut self) -> u32 {
        0
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

fn object(insns: &[Insn]) -> Object {
    let bytes: Vec<u8> = insns.iter().flat_map(|i| i.encode()).collect();
    Object::from_instructions("test", ProgramKind::Memory, &bytes, &[]).unwrap()
}

fn load(insns: &[Insn]) -> Result<(), Error> {
    let mut kernel = Kernel::new(&KernelConfig { engine: EngineKind::Rbpf, ..KernelConfig::default() });
    kernel.load(&object(insns), &LoadSpec::default()).map(|_| ())
}

fn run(insns: &[Insn], memory: &mut [u8]) -> Result<u64, Fault> {
    run_on(EngineKind::Rbpf, insns, memory)
}

/// The engines that this machine has.
fn engines() -> impl Iterator<Item = EngineKind> {
    let jit = cfg!(all(target_arch = "x86_64", unix));
    EngineKind::ALL.into_iter().filter(move |e| *e != EngineKind::RbpfJit || jit)
}

fn run_on(engine: EngineKind, insns: &[Insn], memory: &mut [u8]) -> Result<u64, Fault> {
    let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
    let loaded = kernel.load(&object(insns), &LoadSpec::default()).unwrap();
    kernel.run_memory(loaded.programs["test"], memory, &mut Nothing)
}

/// Registers that an instruction under test may use; r1 points to the memory around it.
const FREE: [u8; 9] = [0, 2, 3, 4, 5, 6, 7, 8, 9];
/// Where in that memory a jump that was not taken leaves a mark.
const MARK: usize = 80;
/// Where in that memory loads, stores and atomic operations act.
const DATA: usize = 88;
const MEMORY: usize = 96;

#[derive(Clone, PartialEq, Debug)]
struct Machine {
    registers: [u64; 10],
    mark: u64,
    data: u64,
}

impl Machine {
    fn to_memory(&self) -> Vec<u8> {
        let words = self.registers.iter().chain([&self.mark, &self.data]);
        words.flat_map(|w| w.to_le_bytes()).collect()
    }

    fn from_memory(memory: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        Self { registers: std::array::from_fn(|r| word(8 * r)), mark: word(MARK), data: word(DATA) }
    }
}

/// What the vm makes of one instruction.
fn executed(engine: EngineKind, insn: Insn, before: &Machine) -> Machine {
    let mut program: Vec<Insn> = FREE.iter().map(|r| Insn::load(DW, *r, 1, 8 * i16::from(*r))).collect();
    program.push(insn);
    program.push(Insn::new(ST | MEM | DW, 1, 0, MARK as i16, 1));
    program.extend(FREE.iter().map(|r| Insn::store(DW, 1, 8 * i16::from(*r), *r)));
    program.push(Insn::exit());
    let mut memory = before.to_memory();
    assert_eq!(memory.len(), MEMORY);
    run_on(engine, &program, &mut memory).unwrap();
    Machine::from_memory(&memory)
}

/// What RFC 9669 makes of it.
fn specified(i: Insn, before: &Machine) -> Machine {
    let mut m = before.clone();
    m.registers[1] = before.registers[1];
    m.mark = 1;
    let (d, s) = (usize::from(i.dst), usize::from(i.src));
    let wide = matches!(i.class(), ALU64 | JMP);
    let operand = |m: &Machine| if i.is_reg() { m.registers[s] } else { i64::from(i.imm) as u64 };
    match i.class() {
        ALU | ALU64 if i.op() == END => m.registers[d] = swapped(i, m.registers[d]),
        ALU | ALU64 => {
            let (a, b) = (m.registers[d], operand(&m));
            m.registers[d] = if wide { alu64(i, a, b) } else { u64::from(alu32(i, a as u32, b as u32)) };
        }
        JMP | JMP32 => {
            let (a, b) = (m.registers[d], operand(&m));
            let taken = if wide {
                jump(i.op(), a, b, a as i64, b as i64)
            } else {
                let (a, b) = (a as u32, b as u32);
                jump(i.op(), u64::from(a), u64::from(b), i64::from(a as i32), i64::from(b as i32))
            };
            m.mark = if taken { before.mark } else { 1 };
        }
        LDX => m.registers[d] = loaded(i, m.data),
        _ => atomic(i, &mut m),
    }
    m
}

fn swapped(i: Insn, v: u64) -> u64 {
    let bytes = (i.imm / 8) as usize;
    let swap = i.class() == ALU64 || i.is_reg();
    let mut low = v.to_le_bytes()[..bytes].to_vec();
    if swap {
        low.reverse();
    }
    low.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
}

fn alu64(i: Insn, a: u64, b: u64) -> u64 {
    let (sa, sb) = (i128::from(a as i64), i128::from(b as i64));
    match (i.op(), i.off) {
        (0x00, _) => a.wrapping_add(b),
        (0x10, _) => a.wrapping_sub(b),
        (0x20, _) => a.wrapping_mul(b),
        (DIV, 0) => a.checked_div(b).unwrap_or(0),
        (DIV, _) => {
            if b == 0 {
                0
            } else {
                (sa / sb) as u64
            }
        }
        (0x40, _) => a | b,
        (0x50, _) => a & b,
        (0x60, _) => a << (b & 63),
        (0x70, _) => a >> (b & 63),
        (NEG, _) => (!a).wrapping_add(1),
        (MOD, 0) => a.checked_rem(b).unwrap_or(a),
        (MOD, _) => {
            if b == 0 {
                a
            } else {
                (sa % sb) as u64
            }
        }
        (0xa0, _) => a ^ b,
        (MOV, 0) => b,
        (MOV, 8) => b as i8 as i64 as u64,
        (MOV, 16) => b as i16 as i64 as u64,
        (MOV, _) => b as i32 as i64 as u64,
        _ => ((a as i64) >> (b & 63)) as u64,
    }
}

fn alu32(i: Insn, a: u32, b: u32) -> u32 {
    let (sa, sb) = (i64::from(a as i32), i64::from(b as i32));
    match (i.op(), i.off) {
        (0x00, _) => a.wrapping_add(b),
        (0x10, _) => a.wrapping_sub(b),
        (0x20, _) => a.wrapping_mul(b),
        (DIV, 0) => a.checked_div(b).unwrap_or(0),
        (DIV, _) => {
            if b == 0 {
                0
            } else {
                (sa / sb) as u32
            }
        }
        (0x40, _) => a | b,
        (0x50, _) => a & b,
        (0x60, _) => a << (b & 31),
        (0x70, _) => a >> (b & 31),
        (NEG, _) => (!a).wrapping_add(1),
        (MOD, 0) => a.checked_rem(b).unwrap_or(a),
        (MOD, _) => {
            if b == 0 {
                a
            } else {
                (sa % sb) as u32
            }
        }
        (0xa0, _) => a ^ b,
        (MOV, 0) => b,
        (MOV, 8) => b as i8 as i32 as u32,
        (MOV, _) => b as i16 as i32 as u32,
        _ => ((a as i32) >> (b & 31)) as u32,
    }
}

fn jump(op: u8, a: u64, b: u64, sa: i64, sb: i64) -> bool {
    match op {
        JEQ => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => sa > sb,
        0x70 => sa >= sb,
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => sa < sb,
        _ => sa <= sb,
    }
}

fn loaded(i: Insn, data: u64) -> u64 {
    match (i.mode(), i.size()) {
        (MEMSX, B) => data as i8 as i64 as u64,
        (MEMSX, H) => data as i16 as i64 as u64,
        (MEMSX, _) => data as i32 as i64 as u64,
        (_, B) => data & 0xff,
        (_, H) => data & 0xffff,
        (_, W) => data & 0xffff_ffff,
        _ => data,
    }
}

fn atomic(i: Insn, m: &mut Machine) {
    let mask = if i.size() == W { u64::from(u32::MAX) } else { u64::MAX };
    let (old, s) = (m.data & mask, m.registers[usize::from(i.src)] & mask);
    let new = match i.imm {
        XCHG => s,
        CMPXCHG => {
            if old == m.registers[0] & mask {
                s
            } else {
                old
            }
        }
        op => match op & !FETCH {
            0x00 => old.wrapping_add(s) & mask,
            0x40 => old | s,
            0x50 => old & s,
            _ => old ^ s,
        },
    };
    m.data = m.data & !mask | new;
    match i.imm {
        CMPXCHG => m.registers[0] = old,
        op if op & FETCH != 0 => m.registers[usize::from(i.src)] = old,
        _ => {}
    }
}

fn register() -> impl Strategy<Value = u8> {
    prop::sample::select(FREE.to_vec())
}

/// Values at which arithmetic goes wrong, and any others.
fn word() -> impl Strategy<Value = u64> {
    let edge = prop::sample::select(vec![
        0,
        1,
        2,
        31,
        32,
        63,
        64,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
        u64::MAX - 21,
        0xffff_ffff_0000_0000,
        0xffff_ffff_8000_0000,
    ]);
    prop_oneof![edge, any::<u64>()]
}

fn immediate() -> impl Strategy<Value = i32> {
    prop_oneof![word().prop_map(|w| w as i32), Just(-22), Just(-1)]
}

fn arithmetic() -> impl Strategy<Value = Insn> {
    let ops = [0x00u8, 0x10, 0x20, DIV, 0x40, 0x50, LSH, 0x70, MOD, XOR, MOV, ARSH];
    let op = prop::sample::select(ops.to_vec());
    (prop::bool::ANY, op, prop::bool::ANY, register(), register(), immediate(), 0..4usize).prop_map(
        |(wide, op, reg, dst, src, imm, off)| {
            let off = match op {
                DIV | MOD => [0, 1, 0, 1][off],
                MOV if reg => [0, 8, 16, if wide { 32 } else { 0 }][off],
                _ => 0,
            };
            let (x, src, imm) = if reg { (X, src, 0) } else { (0, 0, imm) };
            Insn::new(if wide { ALU64 } else { ALU } | op | x, dst, src, off, imm)
        },
    )
}

fn unary() -> impl Strategy<Value = Insn> {
    let ops = [ALU | NEG, ALU64 | NEG, ALU | END, ALU | END | X, ALU64 | END];
    (prop::sample::select(ops.to_vec()), register(), prop::sample::select(vec![16, 32, 64]))
        .prop_map(|(code, dst, bits)| Insn::new(code, dst, 0, 0, if code & 0xf0 == END { bits } else { 0 }))
}

fn conditional() -> impl Strategy<Value = Insn> {
    let ops = [JEQ, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0];
    let op = prop::sample::select(ops.to_vec());
    (prop::bool::ANY, op, prop::bool::ANY, register(), register(), immediate()).prop_map(
        |(wide, op, reg, dst, src, imm)| {
            let (x, src, imm) = if reg { (X, src, 0) } else { (0, 0, imm) };
            Insn::new(if wide { JMP } else { JMP32 } | op | x, dst, src, 1, imm)
        },
    )
}

fn memory() -> impl Strategy<Value = Insn> {
    let ops = [ADD, 0x40, AND, XOR].map(i32::from);
    let ops: Vec<i32> = ops.iter().flat_map(|op| [*op, op | FETCH]).chain([XCHG, CMPXCHG]).collect();
    let loads = [LDX | MEMSX | B, LDX | MEMSX | H, LDX | MEMSX | W, LDX | MEM | B, LDX | MEM | DW];
    prop_oneof![
        (prop::sample::select(loads.to_vec()), register()).prop_map(|(code, dst)| Insn::new(
            code,
            dst,
            1,
            DATA as i16,
            0
        )),
        (prop::sample::select(vec![W, DW]), register(), prop::sample::select(ops))
            .prop_map(|(size, src, op)| Insn::new(STX | ATOMIC | size, 1, src, DATA as i16, op)),
    ]
}

fn machine() -> impl Strategy<Value = Machine> {
    (prop::array::uniform10(word()), word()).prop_map(|(registers, data)| Machine {
        registers,
        mark: 0,
        data,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_instruction_does_what_the_rfc_says(
        insn in prop_oneof![4 => arithmetic(), 1 => unary(), 3 => conditional(), 2 => memory()],
        before in machine(),
        same in prop::bool::ANY,
    ) {
        let mut before = before;
        if same && insn.is_reg() {
            before.registers[usize::from(insn.dst)] = before.registers[usize::from(insn.src)];
        }
        for engine in engines() {
            prop_assert_eq!(executed(engine, insn, &before), specified(insn, &before), "{}", engine);
        }
    }

    #[test]
    fn no_program_takes_the_vm_down(bytes in prop::collection::vec(any::<u8>(), 0..40).prop_map(plausible)) {
        let object = Object::from_instructions("test", ProgramKind::Memory, &bytes, &[]).unwrap();
        let mut kernel = Kernel::new(&KernelConfig { engine: EngineKind::Rbpf, ..KernelConfig::default() });
        if let Ok(loaded) = kernel.load(&object, &LoadSpec::default()) {
            let _ = kernel.run_memory(loaded.programs["test"], &mut [7; 64], &mut Nothing);
        }
    }
}

/// Bytes as instructions that often pass: codes, registers and offsets that exist.
fn plausible(bytes: Vec<u8>) -> Vec<u8> {
    const CODES: [u8; 14] =
        [0x07, 0x0f, 0xb7, 0xbf, 0x61, 0x79, 0x63, 0x7b, 0xdb, 0x05, 0x15, 0xa5, 0x85, 0x3f];
    let insn = |b: &[u8]| {
        let code = CODES[usize::from(b[0]) % CODES.len()];
        let imm = if code == 0x85 { i32::from(b[3]) } else { i32::from(b[3] as i8) };
        let call = u8::from(code == 0x85 && b[2] & 1 == 1);
        Insn::new(
            code,
            b[1] % 10,
            if code == 0x85 { call } else { b[1] / 16 % 11 },
            i16::from(b[2] as i8 % 8),
            imm,
        )
    };
    let program = bytes.chunks_exact(4).map(insn).chain([Insn::exit()]);
    program.flat_map(Insn::encode).collect()
}

#[test]
fn each_function_has_a_frame_of_its_own() {
    // Each writes its own number at r10-8 and at r10-512, calls the next, and adds up what it finds there afterwards.
    let body = |number: i32, last: bool| {
        let mut insns = vec![
            Insn::new(ST | MEM | DW, 10, 0, -8, number),
            Insn::new(ST | MEM | DW, 10, 0, -512, 10 * number),
            Insn::alu64_imm(MOV, 0, 0),
        ];
        if !last {
            insns.push(Insn::new(JMP | CALL, 0, 1, 0, 5));
        }
        insns.extend([
            Insn::load(DW, 1, 10, -8),
            Insn::load(DW, 2, 10, -512),
            Insn::alu64(ADD, 0, 1),
            Insn::alu64(ADD, 0, 2),
            Insn::exit(),
        ]);
        insns
    };
    let program: Vec<Insn> = (1..=8).flat_map(|n| body(n, n == 8)).collect();
    assert_eq!(run(&program, &mut []), Ok(36 * 11));
    let deeper: Vec<Insn> = (1..=9).flat_map(|n| body(n, n == 9)).collect();
    let Err(Error::Instruction { what, .. }) = load(&deeper) else { panic!("nine frames") };
    assert!(what.contains("8 functions deep"), "{what}");
}

#[test]
fn a_function_may_stand_before_its_caller() {
    // main jumps over nothing: it stands first, calls the third function, which calls the second.
    let program = [
        Insn::new(JMP | CALL, 0, 1, 0, 3), // -> 4
        Insn::exit(),
        Insn::alu64_imm(MOV, 0, 41),
        Insn::exit(),
        Insn::new(JMP | CALL, 0, 1, 0, -3), // -> 2
        Insn::alu64_imm(ADD, 0, 1),
        Insn::exit(),
    ];
    assert_eq!(run(&program, &mut []), Ok(42));
}

#[test]
fn a_loop_without_end_ends() {
    let program = [Insn::new(JMP | JA, 0, 0, -1, 0)];
    assert_eq!(run(&program, &mut []).unwrap_err().kind, FaultKind::Fuel(1_000_000));
}

#[test]
fn a_wild_pointer_is_a_fault_that_names_its_instruction_and_no_address() {
    let program = [Insn::alu64_imm(MOV, 2, 4096), Insn::load(DW, 0, 2, 0), Insn::exit()];
    let fault = run(&program, &mut []).unwrap_err();
    assert_eq!(fault.to_string(), "program test, instruction 1: access outside of memory");
}

#[test]
fn what_cannot_run_is_refused_with_its_place() {
    let exit = Insn::exit();
    let cases: [(&[Insn], &str); 9] = [
        (&[Insn::call(22), exit], "program test, instruction 0: helper 22 is not supported here"),
        (
            &[Insn::call(0x4000_0001), exit],
            "program test, instruction 0: helper 1073741825 is not supported here",
        ),
        (&[Insn::new(JMP | CALL, 0, 1, 0, -1), exit], "program test, instruction 0: recursion"),
        (&[Insn::new(JMP | JA, 0, 0, 7, 0), exit], "program test, instruction 0: jumps out of its function"),
        (&[Insn::new(0xff, 0, 0, 0, 0), exit], "program test, instruction 0: unknown instruction 0xff"),
        (&[Insn::alu64_imm(MOV, 10, 0), exit], "program test, instruction 0: r10 is read only"),
        (
            &[Insn::load(DW, 0, 10, -520), exit],
            "program test, instruction 0: r10-520 is outside of the stack",
        ),
        (
            &[Insn::alu64_imm(MOV, 0, 0)],
            "program test, instruction 0: the function's last instruction is not an exit or jump",
        ),
        (&[Insn::new(0x18, 0, 1, 0, 0), Insn::default(), exit], "program test, instruction 0: map 0 of 0"),
    ];
    for (program, want) in cases {
        assert_eq!(load(program).unwrap_err().to_string(), want);
    }
    assert_eq!(exit.code, JMP | EXIT);
}

#[test]
fn a_long_program_is_refused_by_one_engine_and_run_by_the_others() {
    let mut program = vec![Insn::alu64_imm(ADD, 0, 1); 33_000];
    program[0] = Insn::alu64_imm(MOV, 0, 0);
    program.push(Insn::exit());
    let Err(Error::Program { what, .. }) = load(&program) else { panic!("too long") };
    assert!(what.contains("rbpf's interpreter runs 32767"), "{what}");
    let mut engines = vec![EngineKind::Checked];
    if cfg!(all(target_arch = "x86_64", unix)) {
        engines.push(EngineKind::RbpfJit);
    }
    for engine in engines {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object(&program), &LoadSpec::default()).unwrap();
        assert_eq!(kernel.run_memory(loaded.programs["test"], &mut [], &mut Nothing), Ok(32_999), "{engine}");
    }
}
