//! Instructions as RFC 9669 encodes them.

/// BPF_LD
pub(crate) const LD: u8 = 0x00;
/// BPF_LDX
pub(crate) const LDX: u8 = 0x01;
/// BPF_ST
pub(crate) const ST: u8 = 0x02;
/// BPF_STX
pub(crate) const STX: u8 = 0x03;
/// BPF_ALU
pub(crate) const ALU: u8 = 0x04;
/// BPF_JMP
pub(crate) const JMP: u8 = 0x05;
/// BPF_JMP32
pub(crate) const JMP32: u8 = 0x06;
/// BPF_ALU64
pub(crate) const ALU64: u8 = 0x07;

/// BPF_X: the second operand is a register.
pub(crate) const X: u8 = 0x08;

pub(crate) const ADD: u8 = 0x00;
#[cfg(test)]
pub(crate) const SUB: u8 = 0x10;
pub(crate) const AND: u8 = 0x50;
pub(crate) const LSH: u8 = 0x60;
pub(crate) const DIV: u8 = 0x30;
pub(crate) const NEG: u8 = 0x80;
pub(crate) const MOD: u8 = 0x90;
pub(crate) const XOR: u8 = 0xa0;
pub(crate) const MOV: u8 = 0xb0;
pub(crate) const ARSH: u8 = 0xc0;
/// BPF_END
pub(crate) const END: u8 = 0xd0;

pub(crate) const JA: u8 = 0x00;
pub(crate) const JEQ: u8 = 0x10;
pub(crate) const JGT: u8 = 0x20;
pub(crate) const JGE: u8 = 0x30;
pub(crate) const JNE: u8 = 0x50;
pub(crate) const JSGE: u8 = 0x70;
pub(crate) const JLT: u8 = 0xa0;
pub(crate) const JLE: u8 = 0xb0;
pub(crate) const JSLT: u8 = 0xc0;
pub(crate) const CALL: u8 = 0x80;
pub(crate) const EXIT: u8 = 0x90;
/// BPF_JCOND: with source 0 it is `may_goto`.
pub(crate) const JCOND: u8 = 0xe0;

/// BPF_MEM
pub(crate) const MEM: u8 = 0x60;
/// BPF_MEMSX
pub(crate) const MEMSX: u8 = 0x80;
/// BPF_ABS
pub(crate) const ABS: u8 = 0x20;
/// BPF_IND
pub(crate) const IND: u8 = 0x40;
/// BPF_ATOMIC
pub(crate) const ATOMIC: u8 = 0xc0;

/// BPF_W
pub(crate) const W: u8 = 0x00;
/// BPF_H
pub(crate) const H: u8 = 0x08;
/// BPF_B
pub(crate) const B: u8 = 0x10;
/// BPF_DW
pub(crate) const DW: u8 = 0x18;

/// A 16-byte load of a constant.
pub(crate) const LD_IMM64: u8 = LD | DW;
/// As the source of a 16-byte load: the constant names a map.
pub(crate) const PSEUDO_MAP_FD: u8 = 1;
/// As the source of a 16-byte load: the constant names a place in a map's value.
pub(crate) const PSEUDO_MAP_VALUE: u8 = 2;
/// As the source of a 16-byte load: a function of the program, pc-relative, that a helper is to call.
pub(crate) const PSEUDO_FUNC: u8 = 4;
/// As the source of a 16-byte load: a variable that the object leaves to the loader, here by index in its list.
pub(crate) const PSEUDO_BTF_ID: u8 = 3;
/// As the source of a 16-byte load: the constant is a map's index.
pub(crate) const PSEUDO_MAP_IDX: u8 = 5;
/// As the source of a 16-byte load: the constant is a map's index, and what is meant is a place in its value.
pub(crate) const PSEUDO_MAP_IDX_VALUE: u8 = 6;
/// As the source of a call: a function of the program.
pub(crate) const PSEUDO_CALL: u8 = 1;

/// BPF_FETCH
pub(crate) const FETCH: i32 = 0x01;
/// BPF_XCHG
pub(crate) const XCHG: i32 = 0xe1;
/// BPF_CMPXCHG
pub(crate) const CMPXCHG: i32 = 0xf1;

/// BPF_LOAD_ACQ
pub(crate) const LOAD_ACQ: i32 = 0x100;
/// BPF_STORE_REL
pub(crate) const STORE_REL: i32 = 0x110;

/// The frame pointer.
pub(crate) const FP: u8 = 10;

/// One 8-byte slot of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) dst: u8,
    pub(crate) src: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

impl Insn {
    pub(crate) const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        Self { code, dst, src, off, imm }
    }

    /// `dst op= src`, 64 bits.
    pub(crate) const fn alu64(op: u8, dst: u8, src: u8) -> Self {
        Self::new(ALU64 | op | X, dst, src, 0, 0)
    }

    /// `dst op= imm`, 64 bits.
    pub(crate) const fn alu64_imm(op: u8, dst: u8, imm: i32) -> Self {
        Self::new(ALU64 | op, dst, 0, 0, imm)
    }

    /// `dst op= imm`, 32 bits.
    pub(crate) const fn alu32_imm(op: u8, dst: u8, imm: i32) -> Self {
        Self::new(ALU | op, dst, 0, 0, imm)
    }

    /// `dst = *(size *)(src + off)`
    pub(crate) const fn load(size: u8, dst: u8, src: u8, off: i16) -> Self {
        Self::new(LDX | MEM | size, dst, src, off, 0)
    }

    /// `*(size *)(dst + off) = src`
    pub(crate) const fn store(size: u8, dst: u8, off: i16, src: u8) -> Self {
        Self::new(STX | MEM | size, dst, src, off, 0)
    }

    /// A call of a helper.
    pub(crate) const fn call(helper: i32) -> Self {
        Self::new(JMP | CALL, 0, 0, 0, helper)
    }

    /// `exit`
    pub(crate) const fn exit() -> Self {
        Self::new(JMP | EXIT, 0, 0, 0, 0)
    }

    pub(crate) const fn class(self) -> u8 {
        self.code & 7
    }

    /// Operation of an ALU or jump instruction.
    pub(crate) const fn op(self) -> u8 {
        self.code & 0xf0
    }

    /// Mode of a load or store.
    pub(crate) const fn mode(self) -> u8 {
        self.code & 0xe0
    }

    /// Size of a load or store, as it is encoded.
    pub(crate) const fn size(self) -> u8 {
        self.code & 0x18
    }

    /// Size of a load or store in bytes.
    pub(crate) const fn width(self) -> i32 {
        match self.size() {
            W => 4,
            H => 2,
            B => 1,
            _ => 8,
        }
    }

    /// Whether the second operand is a register.
    pub(crate) const fn is_reg(self) -> bool {
        self.code & X != 0
    }

    pub(crate) const fn is_jump_class(self) -> bool {
        matches!(self.class(), JMP | JMP32)
    }

    pub(crate) const fn is_call(self) -> bool {
        self.code == JMP | CALL
    }

    /// A call through a register, which no kernel has.
    pub(crate) const fn is_callx(self) -> bool {
        self.code == JMP | CALL | X
    }

    /// `may_goto`
    pub(crate) const fn is_may_goto(self) -> bool {
        self.code == JMP | JCOND && self.src == 0
    }

    /// A load from the packet by offset, in network byte order.
    pub(crate) const fn is_packet_load(self) -> bool {
        self.class() == LD && matches!(self.mode(), ABS | IND)
    }

    pub(crate) const fn is_exit(self) -> bool {
        self.code == JMP | EXIT
    }

    /// An unconditional jump, also the one with a 32-bit offset.
    pub(crate) const fn is_ja(self) -> bool {
        self.is_jump_class() && self.op() == JA
    }

    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        bytes.len().is_multiple_of(8).then(|| bytes.chunks_exact(8).map(Self::decode).collect())
    }

    fn decode(b: &[u8]) -> Self {
        let imm = i32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        Self::new(b[0], b[1] & 15, b[1] >> 4, i16::from_le_bytes([b[2], b[3]]), imm)
    }

    pub(crate) fn encode(self) -> [u8; 8] {
        let (o, i) = (self.off.to_le_bytes(), self.imm.to_le_bytes());
        [self.code, self.dst | self.src << 4, o[0], o[1], i[0], i[1], i[2], i[3]]
    }

    pub(crate) fn from_aya(insn: &aya_obj::generated::bpf_insn) -> Self {
        Self::new(insn.code, insn.dst_reg(), insn.src_reg(), insn.off, insn.imm)
    }
}
