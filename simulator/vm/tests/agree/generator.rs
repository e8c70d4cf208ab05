//! Random programs that every engine has to run alike: legal, without a fault, and of every operation that the
//! instruction set has. Knows the encoding and nothing of the vm.
//!
//! r9 points to the memory, r10 to a stack whose first 64 bytes are written, all other registers hold numbers. Jumps go
//! forward, but for loops around a counter; functions get the memory's address as their first argument.

/// Bytes of memory that a program is given.
pub(crate) const MEMORY: usize = 128;
/// Where in the stack loops count; below it is what the program may use.
const COUNTER: i16 = -72;

/// xorshift64*: the same programs from the same seed on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.word();
        random
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.word() >> 16) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A number at which arithmetic goes wrong, or any other.
    pub(crate) fn number(&mut self) -> u64 {
        const EDGES: [u64; 14] = [
            0,
            1,
            2,
            31,
            63,
            64,
            0x7f,
            0x80,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
            i64::MIN as u64,
            u64::MAX,
        ];
        if self.below(2) == 0 { self.pick(&EDGES) } else { self.word() >> self.below(64) }
    }
}

/// One instruction.
fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    u64::from(code)
        | u64::from(dst) << 8
        | u64::from(src) << 12
        | u64::from(off as u16) << 16
        | u64::from(imm as u32) << 32
}

/// Instructions on the way to a program.
struct Body<'r> {
    random: &'r mut Random,
    code: Vec<u64>,
    /// Jumps, and which of the marks they go to; and where marks are.
    jumps: Vec<(usize, usize)>,
    marks: Vec<usize>,
    /// Registers that hold numbers, and the one that points to memory.
    free: &'static [u8],
    memory: u8,
    helpers: bool,
}

const EXIT: u8 = 0x95;
const CALL: u8 = 0x85;

impl<'r> Body<'r> {
    fn new(random: &'r mut Random, free: &'static [u8]) -> Self {
        Self {
            random,
            code: Vec::new(),
            jumps: Vec::new(),
            marks: Vec::new(),
            free,
            memory: 9,
            helpers: true,
        }
    }

    fn push(&mut self, code: u8, dst: u8, src: u8, off: i16, imm: i32) {
        self.code.push(insn(code, dst, src, off, imm));
    }

    fn constant(&mut self, register: u8) {
        let value = self.random.number();
        self.push(0x18, register, 0, 0, value as u32 as i32);
        self.push(0, 0, 0, 0, (value >> 32) as u32 as i32);
    }

    fn register(&mut self) -> u8 {
        self.random.pick(self.free)
    }

    /// Somewhere in memory or in the written part of the stack: base and offset of `width` bytes.
    fn place(&mut self, width: u64) -> (u8, i16) {
        if self.random.below(2) == 0 {
            let slots = MEMORY as u64 / width;
            (self.memory, (self.random.below(slots) * width) as i16)
        } else {
            (10, -64 + (self.random.below(64 / width) * width) as i16)
        }
    }

    fn arithmetic(&mut self) {
        let op =
            self.random.pick(&[0x00u8, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xa0, 0xb0, 0xc0]);
        let class = self.random.pick(&[0x04u8, 0x07]);
        let by_register = self.random.below(2) == 0;
        let (dst, src) = (self.register(), self.register());
        let off = match op {
            0x30 | 0x90 => self.random.pick(&[0, 1]),
            0xb0 if by_register => self.random.pick(if class == 7 { &[0, 8, 16, 32] } else { &[0, 8, 16] }),
            _ => 0,
        };
        let imm = match op {
            // The kernel refuses to divide by a constant 0 and to shift by more than there is.
            0x30 | 0x90 => (self.random.number() as i32).max(1),
            0x60 | 0x70 | 0xc0 => self.random.below(if class == 7 { 64 } else { 32 }) as i32,
            _ => self.random.number() as i32,
        };
        if by_register {
            self.push(class | op | 8, dst, src, off, 0);
        } else {
            self.push(class | op, dst, 0, off, imm);
        }
    }

    fn unary(&mut self) {
        let (dst, bits) = (self.register(), self.random.pick(&[16, 32, 64]));
        match self.random.below(5) {
            0 => self.push(0x84, dst, 0, 0, 0),
            1 => self.push(0x87, dst, 0, 0, 0),
            2 => self.push(0xd4, dst, 0, 0, bits),
            3 => self.push(0xdc, dst, 0, 0, bits),
            _ => self.push(0xd7, dst, 0, 0, bits),
        }
    }

    fn access(&mut self) {
        let (size, width) = self.random.pick(&[(0x00u8, 4u64), (0x08, 2), (0x10, 1), (0x18, 8)]);
        let (base, off) = self.place(width);
        let register = self.register();
        match self.random.below(5) {
            0 => self.push(0x61 | size, register, base, off, 0),
            1 if width < 8 => self.push(0x81 | size, register, base, off, 0),
            1 => self.push(0x61 | size, register, base, off, 0),
            2 => {
                let imm = self.random.number() as i32;
                self.push(0x62 | size, base, 0, off, imm);
            }
            3 => self.push(0x63 | size, base, register, off, 0),
            // Load-acquire and store-release.
            _ if self.random.below(2) == 0 => self.push(0xc3 | size, register, base, off, 0x100),
            _ => self.push(0xc3 | size, base, register, off, 0x110),
        }
    }

    fn atomic(&mut self) {
        let (size, width) = self.random.pick(&[(0x00u8, 4u64), (0x18, 8)]);
        let (base, off) = self.place(width);
        let op = self.random.pick(&[0x00, 0x40, 0x50, 0xa0, 0x01, 0x41, 0x51, 0xa1, 0xe1, 0xf1]);
        let src = self.register();
        self.push(0xc3 | size, base, src, off, op);
        if op == 0xf1 && width == 4 && !self.helpers {
            // Linux 6.18 on x86-64 does not always clear r0's upper half where the exchange succeeds (in one of some
            // 30000 of these programs), which RFC 9669 and its own documentation ask for.
            self.push(0xbc, 0, 0, 0, 0);
        }
    }

    /// Forward over some of what follows: the mark is set later.
    fn jump(&mut self) -> usize {
        let mark = self.marks.len();
        self.marks.push(usize::MAX);
        self.jumps.push((self.code.len(), mark));
        let (dst, src) = (self.register(), self.register());
        let op = self.random.pick(&[0x10u8, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0]);
        let class = self.random.pick(&[5u8, 6]);
        let imm = self.random.number() as i32;
        let kind = self.random.below(12);
        match kind {
            0 => self.push(0x05, 0, 0, 0, 0),
            1 => self.push(0x06, 0, 0, 0, 0),
            2 => self.push(0xe5, 0, 0, 0, 0),
            3..8 => self.push(class | op | 8, dst, src, 0, 0),
            _ => self.push(class | op, dst, 0, 0, imm),
        }
        if kind < 2 && !self.helpers {
            // The kernel refuses what cannot be reached.
            self.jumps.pop();
        }
        mark
    }

    /// Behind a call the registers of its arguments are void.
    fn renew(&mut self) {
        for register in 1..=5 {
            self.constant(register);
        }
    }

    fn helper(&mut self) {
        let number = self.random.pick(&[5, 7, 8]);
        self.push(CALL, 0, 0, 0, number);
        self.renew();
    }

    /// `count` instructions and more, with jumps and up to `depth` loops around each other.
    fn instructions(&mut self, count: u64, depth: u8, functions: bool, calls: &mut Vec<usize>) {
        let mut open: Vec<(usize, u64)> = Vec::new();
        for at in 0..count {
            let here = self.code.len();
            open.retain(|(mark, until)| {
                if *until <= at {
                    self.marks[*mark] = here;
                }
                *until > at
            });
            match self.random.below(20) {
                0..8 => self.arithmetic(),
                8..10 => self.unary(),
                10..13 => self.access(),
                13..15 => self.atomic(),
                15 => {
                    let register = self.register();
                    self.constant(register);
                }
                16 | 17 => {
                    let mark = self.jump();
                    let until = at + 1 + self.random.below(6);
                    open.push((mark, until));
                }
                18 if depth > 0 => self.repeat(depth, calls),
                19 if functions && self.random.below(2) == 0 => {
                    self.push(0xbf, 1, self.memory, 0, 0);
                    calls.push(self.code.len());
                    self.push(CALL, 0, 1, 0, 0);
                    self.renew();
                }
                _ if functions && self.helpers => self.helper(),
                _ => self.arithmetic(),
            }
        }
        let here = self.code.len();
        open.iter().for_each(|(mark, _)| self.marks[*mark] = here);
    }

    fn repeat(&mut self, depth: u8, calls: &mut Vec<usize>) {
        let counter = COUNTER - 8 * i16::from(depth);
        let times = 1 + self.random.below(4) as i32;
        self.push(0x7a, 10, 0, counter, times);
        let top = self.code.len();
        let length = 1 + self.random.below(6);
        self.instructions(length, depth - 1, false, calls);
        self.push(0x79, 0, 10, counter, 0);
        self.push(0x07, 0, 0, 0, -1);
        self.push(0x7b, 10, 0, counter, 0);
        let back = top as i64 - self.code.len() as i64 - 1;
        self.push(0x65, 0, 0, back as i16, 0);
    }

    /// r9 = the map's first value
    fn look_up(&mut self, map: i32) {
        self.push(0x7a, 10, 0, -8, 0);
        self.push(0x18, 1, 1, 0, map);
        self.push(0, 0, 0, 0, 0);
        self.push(0xbf, 2, 10, 0, 0);
        self.push(0x07, 2, 0, 0, -8);
        self.push(CALL, 0, 0, 0, 1);
        self.push(0x55, 0, 0, 1, 0);
        self.push(EXIT, 0, 0, 0, 0);
        self.push(0xbf, 9, 0, 0, 0);
    }

    /// Writes the stack that the rest may read, and gives every register that is not given a number.
    fn begin(&mut self, given: &[u8]) {
        for slot in 1..=8i16 {
            let imm = self.random.number() as i32;
            self.push(0x7a, 10, 0, -8 * slot, imm);
        }
        for counter in 1..=2i16 {
            self.push(0x7a, 10, 0, COUNTER - 8 * counter, 0);
        }
        for register in self.free.iter().filter(|r| !given.contains(r)) {
            self.constant(*register);
        }
    }

    fn resolve(&mut self) {
        for (at, mark) in &self.jumps {
            let by = self.marks[*mark] as i64 - *at as i64 - 1;
            let far = self.code[*at] & 0xff == 0x06;
            let (shift, mask) = if far { (32, 0xffff_ffff) } else { (16, 0xffff) };
            self.code[*at] |= (by as u64 & mask) << shift;
        }
    }
}

/// Where a program has its memory from.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Its first argument.
    Argument,
    /// The first value of an array, named by its index or descriptor; then no helper is called whose result differs
    /// from run to run.
    Map(i32),
}

/// A program of about `length` instructions, as bytes.
pub(crate) fn program(random: &mut Random, length: u64, start: Start) -> Vec<u8> {
    let mut calls = Vec::new();
    let mut main = Body::new(random, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    match start {
        Start::Argument => main.push(0xbf, 9, 1, 0, 0),
        Start::Map(map) => main.look_up(map),
    }
    main.helpers = matches!(start, Start::Argument);
    main.begin(&[]);
    main.instructions(length, 2, true, &mut calls);
    // What registers hold shows in memory, and a few of them in r0.
    for (slot, register) in (0..).zip(0..=8) {
        main.push(0x7b, 9, register, 8 * slot, 0);
    }
    for register in 1..=8 {
        main.push(0xaf, 0, register, 0, 0);
    }
    main.push(EXIT, 0, 0, 0, 0);
    main.resolve();
    let mut code = main.code;
    let mut function = Body::new(random, &[0, 2, 3, 4, 5, 6, 7, 8]);
    function.helpers = matches!(start, Start::Argument);
    function.push(0xbf, 9, 1, 0, 0);
    function.begin(&[2, 3, 4, 5]);
    function.instructions(length / 4, 1, false, &mut Vec::new());
    function.push(EXIT, 0, 0, 0, 0);
    function.resolve();
    let entry = code.len();
    for at in &calls {
        code[*at] |= ((entry as i64 - *at as i64 - 1) as u64 & 0xffff_ffff) << 32;
    }
    if !calls.is_empty() {
        code.extend(function.code);
    }
    code.iter().flat_map(|insn| insn.to_le_bytes()).collect()
}
