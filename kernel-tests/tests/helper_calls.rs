//! Random calls of helpers on random packets, in skep-vm and in the running kernel through BPF_PROG_TEST_RUN: what each
//! call returns, what it writes, and the packet and context afterwards must be equal.
//!
//! `SKEP_OPS` says how many programs a kind of program, `SKEP_SEED` which. A failure prints both and the calls.

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials: Vec<Trial> = Vec::new();
    match compare::open() {
        Ok(()) => {
            for name in compare::NAMES {
                trials.push(Trial::test(*name, move || Ok(compare::run(name)?)));
            }
        }
        Err(capability) => println!("SKIP helper-calls: {capability}"),
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
mod compare {
    pub(super) const NAMES: &[&str] = &[];

    pub(super) fn open() -> Result<(), &'static str> {
        Err("linux")
    }

    pub(super) fn run(_: &str) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod compare {
    use skep_agent_linux::{RawMap, RawProgram, RawShape};
    use skep_packet::SkBuff;
    use skep_vm::{
        Environment, Input, Kernel, KernelConfig, LoadSpec, MapDef, MapId, Object, ProgramKind, XdpBuff,
        map_kind,
    };

    /// Each a kind of program.
    pub(super) const NAMES: &[&str] = &["tc", "xdp"];

    pub(super) fn open() -> Result<(), &'static str> {
        skep_agent_linux::probe().map_err(|e| e.missing_capability().unwrap_or("bpf"))
    }

    /// SplitMix64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        fn below(&mut self, end: u32) -> i32 {
            (self.next() % u64::from(end.max(1))) as i32
        }

        fn of(&mut self, values: &[i64]) -> i64 {
            values[self.below(values.len() as u32) as usize]
        }
    }

    /// One instruction.
    fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[0] = code;
        bytes[1] = src << 4 | dst;
        bytes[2..4].copy_from_slice(&off.to_le_bytes());
        bytes[4..].copy_from_slice(&imm.to_le_bytes());
        bytes
    }

    #[derive(Clone, Copy, Debug)]
    enum Argument {
        Context,
        Number(i64),
        /// The scratch buffer on the stack.
        Buffer,
        /// Its second half.
        Half,
    }

    use Argument::{Buffer, Context, Half, Number};

    #[derive(Clone, Debug)]
    struct Call {
        helper: i32,
        arguments: Vec<Argument>,
        buffer: [u64; 8],
    }

    /// Bytes of results a call: r0, the buffer, and fields of the context.
    const RECORD: i16 = 8 + 64 + 32;
    /// Where the buffer is on the stack.
    const BUFFER: i16 = -64;

    fn program(calls: &[Call], fields: &[i16], map: i32) -> Vec<u8> {
        let mut out: Vec<[u8; 8]> = vec![
            insn(0xbf, 6, 1, 0, 0),
            insn(0x7a, 10, 0, -72, 0),
            insn(0x18, 1, 1, 0, map),
            insn(0, 0, 0, 0, 0),
            insn(0xbf, 2, 10, 0, 0),
            insn(0x07, 2, 0, 0, -72),
            insn(0x85, 0, 0, 0, 1),
            insn(0x55, 0, 0, 2, 0),
            insn(0xb7, 0, 0, 0, 0),
            insn(0x95, 0, 0, 0, 0),
            insn(0xbf, 9, 0, 0, 0),
        ];
        for (n, call) in calls.iter().enumerate() {
            let base = n as i16 * RECORD;
            for (i, word) in call.buffer.iter().enumerate() {
                out.push(insn(0x18, 1, 0, 0, *word as i32));
                out.push(insn(0, 0, 0, 0, (*word >> 32) as i32));
                out.push(insn(0x7b, 10, 1, BUFFER + 8 * i as i16, 0));
            }
            for (argument, register) in call.arguments.iter().zip(1..) {
                match argument {
                    Context => out.push(insn(0xbf, register, 6, 0, 0)),
                    Number(value) => {
                        out.push(insn(0x18, register, 0, 0, *value as i32));
                        out.push(insn(0, 0, 0, 0, (*value >> 32) as i32));
                    }
                    Buffer | Half => {
                        let at = if matches!(argument, Half) { BUFFER + 32 } else { BUFFER };
                        out.push(insn(0xbf, register, 10, 0, 0));
                        out.push(insn(0x07, register, 0, 0, at.into()));
                    }
                }
            }
            out.push(insn(0x85, 0, 0, 0, call.helper));
            out.push(insn(0x7b, 9, 0, base, 0));
            for i in 0..8 {
                out.push(insn(0x79, 1, 10, BUFFER + 8 * i, 0));
                out.push(insn(0x7b, 9, 1, base + 8 + 8 * i, 0));
            }
            for (field, at) in fields.iter().zip(0..) {
                out.push(insn(0x61, 1, 6, *field, 0));
                out.push(insn(0x63, 9, 1, base + 72 + 4 * at, 0));
            }
        }
        out.push(insn(0xb7, 0, 0, 0, 0));
        out.push(insn(0x95, 0, 0, 0, 0));
        out.concat()
    }

    fn call(random: &mut Random, name: &str, len: i32) -> Call {
        let mut buffer = [0; 8];
        buffer.iter_mut().for_each(|w| *w = random.next());
        let number = Number;
        let offset = |r: &mut Random| i64::from(r.below(len as u32 + 10));
        let size = |r: &mut Random| i64::from(1 + r.below(64));
        let choice = if name == "tc" { random.below(32) } else { 100 + random.below(9) };
        let (helper, arguments) = match choice {
            0 | 1 => {
                let flags = random.of(&[0, 0, 1, 2, 3, 4]);
                (9, vec![Context, number(offset(random)), Buffer, number(size(random)), number(flags)])
            }
            2 => (26, vec![Context, number(offset(random)), Buffer, number(size(random))]),
            3 => {
                let from = random.of(&[0, 1, 1, 2]);
                (68, vec![Context, number(offset(random)), Buffer, number(size(random)), number(from)])
            }
            4 | 5 => {
                let flags = random.of(&[0, 2, 4, 4, 3, 0x10]);
                let from =
                    if flags == 0 && random.below(4) > 0 { 0 } else { random.next() as i64 & 0xffff_ffff };
                let to = random.next() as i64 & 0xffff_ffff;
                (10, vec![Context, number(offset(random)), number(from), number(to), number(flags)])
            }
            6 | 7 => {
                let flags =
                    random.of(&[0, 2, 4]) | random.of(&[0, 0x10, 0x20, 0x30, 0x40, 0x60, 0x80, 0x90, 0x100]);
                let from = if flags & 15 == 0 && random.below(4) > 0 {
                    0
                } else {
                    random.next() as i64 & 0xffff_ffff
                };
                let to = random.next() as i64 & 0xffff_ffff;
                (11, vec![Context, number(offset(random)), number(from), number(to), number(flags)])
            }
            8 | 108 => {
                let (a, b) = (random.of(&[0, 4, 8, 32]), random.of(&[0, 4, 16, 32]));
                (28, vec![Buffer, number(a), Half, number(b), number(random.next() as i64 & 0xffff_ffff)])
            }
            9 => (
                31,
                vec![Context, number(random.of(&[0x0008, 0xdd86, 0x0608])), number(random.of(&[0, 0, 0, 1]))],
            ),
            10 => (32, vec![Context, number(random.below(6).into())]),
            11 => (39, vec![Context, number(offset(random))]),
            12 => {
                (43, vec![Context, number(random.of(&[0, 4, 14, 20, 100])), number(random.of(&[0, 0, 0, 1]))])
            }
            13..=16 => {
                let by = random.of(&[0, 4, 8, 20, 40, -4, -20, -40, 100, 5000]);
                let flags = random.of(&[
                    0,
                    0,
                    1,
                    2,
                    4,
                    6,
                    2 | 8,
                    2 | 16,
                    4 | 16,
                    2 | 8 | 16,
                    32,
                    64 | 2,
                    128,
                    256,
                    384,
                    512,
                    2 | 64 | 14 << 56,
                    2 | 14 << 56,
                    4 | 16 | 64 | 14 << 56,
                ]);
                (50, vec![Context, number(by), number(random.of(&[0, 1, 1, 2])), number(flags)])
            }
            17 | 18 => (
                18,
                vec![Context, number(random.of(&[0x0081, 0xa888, 0])), number(random.below(4096).into())],
            ),
            19 | 20 => (19, vec![Context]),
            21 => (48, vec![Context, number(random.below(1000).into())]),
            22 => (135, vec![Context, number(random.below(5).into())]),
            23 => (97, vec![Context]),
            24 | 107 => {
                buffer[0] = random.of(&[0, 0, 0, 100, 65536]) as u64;
                let difference = random.of(&[0, 0, 10, 70000, -5]);
                let flags = random.of(&[0, 0, 1, 2]);
                let device = random.of(&[0, 1, 1, 999_999]);
                (163, vec![Context, number(device), Buffer, number(difference), number(flags)])
            }
            25 => {
                let texts: [&[u8; 16]; 6] = [
                    b"  123 abc       ",
                    b"-0x1f           ",
                    b"0777777         ",
                    b"99999999999999999"[..16].try_into().expect("16 bytes"),
                    b"-9223372036854775"[..16].try_into().expect("16 bytes"),
                    b"zzz             ",
                ];
                let text = texts[random.below(6) as usize];
                buffer[0] = u64::from_le_bytes(text[..8].try_into().expect("8 bytes"));
                buffer[1] = u64::from_le_bytes(text[8..].try_into().expect("8 bytes"));
                let base = random.of(&[0, 8, 10, 16, 7, 32]);
                let helper = random.of(&[105, 106]) as i32;
                (helper, vec![Buffer, number(16), number(base), Half])
            }
            26 => {
                buffer[0] &= 0x00ff_ffff_00ff_ffff;
                buffer[2] &= 0x0000_ffff_ffff;
                buffer[3] &= 0xffff_ffff_0000_0000;
                let size = random.of(&[8, 22, 24, 28, 44, 44, 30]);
                (21, vec![Context, Buffer, number(size), number(random.of(&[0, 0, 2, 4, 8, 16, 32]))])
            }
            27 => {
                let size = random.of(&[8, 22, 24, 28, 44, 44, 30]);
                (20, vec![Context, Buffer, number(size), number(random.of(&[0, 0, 16, 1, 4]))])
            }
            28 => (30, vec![Context, Buffer, number(random.of(&[4, 8, 30, 32]))]),
            29 => (29, vec![Context, Buffer, number(random.of(&[4, 8, 64]))]),
            30 => (192, vec![Context, number(random.of(&[0, 5])), number(random.of(&[0, 1, 2, 4]))]),
            31 => (23, vec![number(1), number(random.of(&[0, 1, 2]))]),
            100 | 101 => (44, vec![Context, number(random.of(&[-256, -216, -100, -14, 0, 1, 14, 40, 100]))]),
            102 => (54, vec![Context, number(random.of(&[-32, -8, -4, -3, 0, 4, 8, -256, -252]))]),
            103 => (65, vec![Context, number(random.of(&[-100, -10, 0, 1, 50, 3000, 4000]))]),
            104 => (189, vec![Context, number(offset(random)), Buffer, number(size(random))]),
            105 => (190, vec![Context, number(offset(random)), Buffer, number(size(random))]),
            _ => (188, vec![Context]),
        };
        Call { helper, arguments, buffer }
    }

    fn frame(random: &mut Random) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame[11] = 1;
        let len = 40 + random.below(160) as usize;
        if random.below(5) == 0 {
            frame.extend([0x81, 0, 0, 5]);
        }
        match random.below(8) {
            0..4 => {
                frame.extend([8, 0, 0x45, random.next() as u8, 0, len as u8]);
            }
            4..7 => frame.extend([0x86, 0xdd, 0x60 | random.next() as u8 & 15, random.next() as u8]),
            _ => frame.extend([8, 6]),
        }
        while frame.len() < 14 + len {
            frame.push(random.next() as u8);
        }
        frame
    }

    /// Time stands, and the only device is the loopback.
    struct Still;

    impl Environment for Still {
        fn now_ns(&mut self) -> u64 {
            0
        }
        fn random_u32(&mut self) -> u32 {
            4
        }
        fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
        fn mtu(&mut self, ifindex: u32) -> Option<u32> {
            (ifindex == 1).then_some(65536)
        }
    }

    const SIZE: u32 = 4 * RECORD as u32;

    /// `len`, `pkt_type`, `protocol`, `vlan_present`, `vlan_tci`, `vlan_proto`, `tc_index`; XDP has none that change.
    const TC_FIELDS: &[i16] = &[0, 4, 16, 20, 24, 28, 44];

    fn variable(name: &str, otherwise: u64) -> u64 {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
    }

    pub(super) fn run(name: &str) -> Result<(), String> {
        let (ops, seed) = (variable("SKEP_OPS", 400), variable("SKEP_SEED", 1));
        let shape =
            RawShape { kind: map_kind::ARRAY, key: 4, value: SIZE, entries: 1, ..RawShape::default() };
        let map = RawMap::create(shape, None).map_err(|e| format!("the map: {e}"))?;
        for n in 0..ops {
            let mut random = Random(seed << 32 ^ n);
            one(name, &mut random, &map).map_err(|what| format!("SKEP_SEED={seed}, program {n}: {what}"))?;
        }
        Ok(())
    }

    fn one(name: &str, random: &mut Random, map: &RawMap) -> Result<(), String> {
        let frame = frame(random);
        let calls: Vec<Call> =
            (0..1 + random.below(4)).map(|_| call(random, name, frame.len() as i32)).collect();
        let (kind, fields) = match name {
            "tc" => (ProgramKind::SchedClassifier, TC_FIELDS),
            _ => (ProgramKind::Xdp, &[][..]),
        };
        map.update(&[0; 4], &vec![0; SIZE as usize], 0).map_err(|e| format!("clearing: {e}"))?;
        let code = program(&calls, fields, map.descriptor());
        let real = RawProgram::load(kind.number(), 0, &code)
            .map_err(|(e, log)| format!("the kernel refuses it: {e}\n{log}\n{calls:?}"))?;
        // A packet that the kernel does not run says nothing.
        let Ok(ran) = real.run(&frame, &[]) else { return Ok(()) };
        let mut results = vec![0; SIZE as usize];
        map.lookup(&[0; 4], 0, &mut results).map_err(|e| format!("reading: {e}"))?;

        let mut kernel = Kernel::new(&KernelConfig { memory: 8 << 20, ..KernelConfig::default() });
        let def = MapDef {
            name: "results".into(),
            kind: map_kind::ARRAY,
            key_size: 4,
            value_size: SIZE,
            max_entries: 1,
            ..MapDef::default()
        };
        let code = program(&calls, fields, 0);
        let object = Object::from_instructions("program", kind, &code, &[def]).map_err(|e| e.to_string())?;
        let loaded = kernel.load(&object, &LoadSpec::default()).map_err(|e| e.to_string())?;
        let id = loaded.programs["program"];
        let packet = if kind == ProgramKind::Xdp {
            let mut xdp = XdpBuff::new(&frame, 1);
            kernel.run_on(id, Input::Xdp(&mut xdp), &mut Still).map_err(|e| format!("{e}\n{calls:?}"))?;
            [xdp.frame.meta.clone(), xdp.frame.bytes().to_vec()].concat()
        } else {
            let mut skb = SkBuff::from_frame(&frame);
            skb.ifindex = 1;
            kernel.run_on(id, Input::Skb(&mut skb), &mut Still).map_err(|e| format!("{e}\n{calls:?}"))?;
            skb.bytes().to_vec()
        };
        let simulated = kernel.map_lookup(loaded.maps["results"], &[0; 4]).ok_or("no results")?;
        for (n, call) in calls.iter().enumerate() {
            let record = |all: &[u8]| all[n * RECORD as usize..][..RECORD as usize].to_vec();
            let (real, simulated) = (record(&results), record(&simulated));
            if real != simulated {
                let split = |r: &[u8]| {
                    let r0 = i64::from_le_bytes(r[..8].try_into().expect("eight bytes"));
                    format!("r0 {r0}\n    buffer {:02x?}\n    fields {:x?}", &r[8..72], &r[72..])
                };
                return Err(format!(
                    "call {n} differs\n  kernel:  {}\n  skep-vm: {}\n  frame {:02x?} ({} bytes)\n  {:?}",
                    split(&real),
                    split(&simulated),
                    &frame[..32],
                    frame.len(),
                    &calls[..=n].iter().map(|c| (c.helper, &c.arguments)).collect::<Vec<_>>(),
                ));
            }
            let _ = call;
        }
        let real = &ran.data;
        if *real != packet {
            let at = real.iter().zip(&packet).position(|(a, b)| a != b);
            return Err(format!(
                "the packet differs: {} bytes in the kernel, {} in skep-vm, first at {at:?}\n  {:02x?}\n  {:02x?}\n  {:?}",
                real.len(),
                packet.len(),
                &real[..real.len().min(64)],
                &packet[..packet.len().min(64)],
                calls.iter().map(|c| (c.helper, &c.arguments)).collect::<Vec<_>>(),
            ));
        }
        Ok(())
    }
}
