//! One instruction as text, in the notation of the kernel's verifier log.
//!
//! Knows encodings. Does not know what maps, functions or helpers of the vm are called: those are an argument.

use crate::insn::*;

/// Names for what an instruction refers to.
pub(crate) trait Names {
    /// What a 16-byte load with a pseudo source gives.
    fn load(&self, at: usize, insn: Insn, next: Insn) -> String;
    /// A helper.
    fn helper(&self, number: i32) -> String;
    /// The function at an instruction.
    fn function(&self, at: usize) -> String;
}

/// The text of the instruction at `at`; `None` for the second half of a 16-byte load.
pub(crate) fn text(insns: &[Insn], at: usize, names: &dyn Names) -> Option<String> {
    let insn = insns[at];
    let is_second_half = insn.code == 0 && at > 0 && insns[at - 1].code == LD_IMM64;
    Some(match insn.class() {
        _ if is_second_half => return None,
        LD => load_constant(insn, at, insns.get(at + 1).copied().unwrap_or_default(), names),
        LDX => load(insn),
        ST | STX => store(insn),
        ALU | ALU64 => arithmetic(insn),
        _ => jump(insn, at, names),
    })
}

fn unknown(insn: Insn) -> String {
    format!("unknown opcode {:#04x}", insn.code)
}

fn load_constant(insn: Insn, at: usize, next: Insn, names: &dyn Names) -> String {
    let dst = insn.dst;
    match (insn.mode(), insn.size()) {
        (0x00, DW) if insn.src == 0 => {
            let value = u64::from(insn.imm as u32) | u64::from(next.imm as u32) << 32;
            format!("r{dst} = {value:#x} ll")
        }
        (0x00, DW) => format!("r{dst} = {}", names.load(at, insn, next)),
        (0x20, _) => format!("r0 = *(u{} *)skb[{}]", insn.width() * 8, insn.imm),
        (0x40, _) => format!("r0 = *(u{} *)skb[r{} + {}]", insn.width() * 8, insn.src, insn.imm),
        _ => unknown(insn),
    }
}

fn place(register: u8, off: i16, kind: char, width: i32) -> String {
    format!("*({kind}{} *)(r{register} {off:+})", width * 8)
}

fn load(insn: Insn) -> String {
    match insn.mode() {
        MEM => format!("r{} = {}", insn.dst, place(insn.src, insn.off, 'u', insn.width())),
        MEMSX => format!("r{} = {}", insn.dst, place(insn.src, insn.off, 's', insn.width())),
        _ => unknown(insn),
    }
}

fn store(insn: Insn) -> String {
    let to = place(insn.dst, insn.off, 'u', insn.width());
    match (insn.mode(), insn.class()) {
        (MEM, STX) => format!("{to} = r{}", insn.src),
        (MEM, _) => format!("{to} = {}", insn.imm),
        (ATOMIC, STX) => atomic(insn),
        _ => unknown(insn),
    }
}

fn atomic(insn: Insn) -> String {
    let Insn { dst, src, off, imm, .. } = insn;
    let bits = insn.width() * 8;
    let at = format!("(u{bits} *)(r{dst} {off:+})");
    let operation = match (imm & !FETCH) as u8 {
        ADD => ("add", "+="),
        0x40 => ("or", "|="),
        AND => ("and", "&="),
        XOR => ("xor", "^="),
        _ => ("", ""),
    };
    match imm {
        XCHG => format!("r{src} = atomic{bits}_xchg({at}, r{src})"),
        CMPXCHG => format!("r0 = atomic{bits}_cmpxchg({at}, r0, r{src})"),
        0x100 => format!("r{dst} = load_acquire((u{bits} *)(r{src} {off:+}))"),
        0x110 => format!("store_release({at}, r{src})"),
        _ if operation.0.is_empty() => unknown(insn),
        _ if imm & FETCH != 0 => format!("r{src} = atomic{bits}_fetch_{}({at}, r{src})", operation.0),
        _ => format!("lock *{at} {} r{src}", operation.1),
    }
}

fn arithmetic(insn: Insn) -> String {
    let wide = insn.class() == ALU64;
    let r = if wide { 'r' } else { 'w' };
    let (dst, signed) = (insn.dst, insn.off == 1);
    let operand = if insn.is_reg() { format!("{r}{}", insn.src) } else { insn.imm.to_string() };
    let operator = match insn.op() {
        ADD => "+=",
        0x10 => "-=",
        0x20 => "*=",
        DIV if signed => "s/=",
        DIV => "/=",
        0x40 => "|=",
        AND => "&=",
        LSH => "<<=",
        0x70 => ">>=",
        NEG => return format!("{r}{dst} = -{r}{dst}"),
        MOD if signed => "s%=",
        MOD => "%=",
        XOR => "^=",
        MOV if insn.is_reg() && insn.off != 0 => return format!("{r}{dst} = (s{}){operand}", insn.off),
        MOV => "=",
        ARSH => "s>>=",
        END => {
            let how = match (wide, insn.is_reg()) {
                (true, _) => "bswap",
                (false, true) => "be",
                (false, false) => "le",
            };
            return format!("r{dst} = {how}{} r{dst}", insn.imm);
        }
        _ => return unknown(insn),
    };
    format!("{r}{dst} {operator} {operand}")
}

fn jump(insn: Insn, at: usize, names: &dyn Names) -> String {
    let to = |offset: i64| (at as i64 + 1 + offset).to_string();
    let r = if insn.class() == JMP { 'r' } else { 'w' };
    let operator = match insn.op() {
        JA if insn.class() == JMP => return format!("goto {}", to(insn.off.into())),
        JA => return format!("gotol {}", to(insn.imm.into())),
        CALL if insn.is_reg() => return format!("callx r{}", insn.dst),
        CALL => {
            return match insn.src {
                0 => format!("call {}", names.helper(insn.imm)),
                PSEUDO_CALL => {
                    let target = at as i64 + 1 + i64::from(insn.imm);
                    format!("call {}", usize::try_from(target).map_or("?".into(), |at| names.function(at)))
                }
                _ => format!("call kernel function {}", insn.imm),
            };
        }
        EXIT => return "exit".into(),
        0xe0 => return format!("may_goto {}", to(insn.off.into())),
        JEQ => "==",
        JGT => ">",
        JGE => ">=",
        0x40 => "&",
        JNE => "!=",
        0x60 => "s>",
        0x70 => "s>=",
        JLT => "<",
        JLE => "<=",
        0xc0 => "s<",
        0xd0 => "s<=",
        _ => return unknown(insn),
    };
    let operand = if insn.is_reg() { format!("{r}{}", insn.src) } else { insn.imm.to_string() };
    format!("if {r}{} {operator} {operand} goto {}", insn.dst, to(insn.off.into()))
}
