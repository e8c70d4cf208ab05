//! The interpreter's loop.
//!
//! Registers are values with tags beside them. Memory is for [`super::access`].

use super::calls::{self, After};
use super::decode::{Do, Op, ZERO};
use super::regions::{CONTEXT, NUMBER, Regions, Shared, Tag, UNWRITTEN};
use super::{Checked, Stopped};
use crate::legal::{FRAME, FRAMES_MAX, MAY_GOTO_MAX, SPILL};
use crate::scope::{self, Argument, Scope};
use crate::{Doing, FaultKind, Region, Step, Why, helper};

/// From one function's frame pointer to its callee's.
const FRAME_STEP: u64 = (FRAME + SPILL) as u64;
pub(super) const R10: usize = 10;

/// What a call keeps of its caller.
#[derive(Clone, Copy, Default)]
pub(super) struct Caller {
    back_to: usize,
    registers: [u64; 5],
    tags: [Tag; 5],
    loops: i32,
}

/// What executes: registers, their tags, and where they come back to.
pub(super) struct Machine<'a> {
    program: &'a Checked,
    pub(super) r: [u64; 16],
    pub(super) t: [Tag; 16],
    /// The kernel's; not looked at while a helper runs.
    regions: Shared,
    /// Functions that wait for one that they called; what is kept of them is with the regions.
    depth: usize,
    loops: i32,
    fuel: i64,
}

/// Runs what the scope says is to be run.
pub(super) fn run<const OBSERVE: bool>(program: &Checked) -> Result<u64, Stopped> {
    let regions = scope::with(|s| s.kernel.regions.as_ref().map(Regions::shared));
    let Some(regions) = regions else {
        return Err(Stopped { instruction: None, kind: FaultKind::Engine });
    };
    let mut machine =
        Machine { program, r: [0; 16], t: [UNWRITTEN; 16], regions, depth: 0, loops: MAY_GOTO_MAX, fuel: 0 };
    let (start, frame) = scope::with(|s| machine.enter(s))?;
    let result = machine.execute::<OBSERVE>(start);
    let Machine { mut regions, fuel, depth, .. } = machine;
    regions.leave_frames(frame);
    // Of functions that waited when the run ended.
    let waiting = regions.callers.len().saturating_sub(depth);
    regions.callers.truncate(waiting);
    scope::with(|s| s.set_fuel(s.frame_pointer(), fuel));
    result.map_err(|(at, kind)| Stopped { instruction: Some(program.code.origin[at] as usize), kind })
}

impl Machine<'_> {
    /// Gives the first operation and how many frames there were before.
    fn enter(&mut self, s: &mut Scope<'_>) -> Result<(usize, usize), Stopped> {
        let (function, fuel) = s.entry();
        let mut regions = self.regions;
        let given = regions.given();
        regions.take_tags();
        self.fuel = fuel;
        self.t[usize::from(ZERO)] = NUMBER;
        // The program itself is given one argument, or memory and its length.
        let count = match s.given(0) {
            _ if function != 0 => 5,
            Argument::Context(_) => 1,
            _ => 2,
        };
        for n in 0..count {
            self.t[n + 1] = calls::argument(s.given(n), given, s, &mut regions);
            self.r[n + 1] = s.argument(n);
        }
        let before = regions.depth();
        self.r[R10] = s.frame_pointer();
        let frame = regions.enter_frame(self.r[R10]);
        let start = match function {
            0 => Some(0),
            _ => self.program.code.callbacks.iter().find(|(start, _)| *start == function).map(|(_, op)| *op),
        };
        let (Some(tag), Some(start)) = (frame, start) else {
            return Err(Stopped { instruction: None, kind: FaultKind::Engine });
        };
        self.t[R10] = tag;
        Ok((start, before))
    }

    #[inline(always)]
    pub(super) fn regions(&self) -> &Regions {
        &self.regions
    }

    #[inline(always)]
    pub(super) fn regions_mut(&mut self) -> &mut Regions {
        &mut self.regions
    }

    #[inline(never)]
    fn helper(&mut self, function: helper::Function, nature: i32) -> Result<(), FaultKind> {
        let After { r0, tag } =
            calls::call((function, nature), &self.r, &self.t, self.regions, &mut self.fuel)?;
        (self.r[0], self.t[0]) = (r0, tag);
        self.t[1..6].fill(UNWRITTEN);
        Ok(())
    }

    fn call_register(&mut self, register: u8) -> Result<(), FaultKind> {
        let number = self.r[usize::from(register & 15)];
        let known = i32::try_from(number).ok().filter(|n| *n != helper::TAIL_CALL && helper::exists(*n));
        let function = known.and_then(|n| Some((n, helper::function(n)?)));
        let (number, function) = function.ok_or(FaultKind::Call(number))?;
        self.helper(function, calls::nature(number))
    }

    /// True if the target has run, and r0 is its result.
    fn tail_call(&mut self) -> Result<bool, FaultKind> {
        let mut regions = self.regions;
        let depth = regions.depth();
        let ran = scope::tail_call(self.r[2], self.r[3] as u32) != 0;
        scope::with(|s| {
            regions.leave_frames(depth);
            // A target that is compiled checks nothing, and says nothing of what it did to the packet.
            regions.after_helper(s.packet_bounds(), ran);
            s.kernel.arena.drain_freed(|_, _| {});
            if ran {
                (self.r[0], self.t[0]) = (s.tail_result, NUMBER);
            }
            if s.failed() { Err(FaultKind::Engine) } else { Ok(ran) }
        })
    }

    /// False where the packet is too short: then the function ends with 0.
    fn packet_load(&mut self, op: &Op) -> Result<bool, FaultKind> {
        if self.t[6] != CONTEXT {
            return Err(self.refused(Doing::Load, self.t[6], self.r[6], u64::from(op.width), Why::Outside));
        }
        let offset = self.r[usize::from(op.src & 15)].wrapping_add(op.imm as u64);
        let value = helper::load_packet(offset as i32, usize::from(op.width));
        let found = value as i64 >= 0;
        (self.r[0], self.t[0]) = (if found { value } else { 0 }, NUMBER);
        self.t[1..6].fill(UNWRITTEN);
        Ok(found)
    }

    fn call(&mut self, back_to: usize) -> Result<(), FaultKind> {
        let pointer = self.r[R10].wrapping_sub(FRAME_STEP);
        if self.depth == FRAMES_MAX {
            return Err(FaultKind::Engine);
        }
        let mut caller = Caller { back_to, loops: self.loops, ..Caller::default() };
        caller.registers.copy_from_slice(&self.r[6..11]);
        caller.tags.copy_from_slice(&self.t[6..11]);
        self.regions_mut().callers.push(caller);
        self.depth += 1;
        self.loops = MAY_GOTO_MAX;
        self.r[R10] = pointer;
        self.t[R10] = self.regions_mut().enter_frame(pointer).ok_or(FaultKind::Engine)?;
        self.t[6..10].fill(UNWRITTEN);
        self.t[0] = UNWRITTEN;
        Ok(())
    }

    /// Where to go on, or nothing if this was the first function.
    fn leave(&mut self) -> Result<Option<usize>, FaultKind> {
        if self.depth == 0 {
            return Ok(None);
        }
        if self.regions().belongs_to(self.t[0], self.t[R10]) {
            return Err(self.refused(Doing::Store, self.t[0], self.r[0], 8, Why::Escapes));
        }
        self.regions_mut().leave_frame();
        self.depth -= 1;
        let caller = self.regions_mut().callers.pop().expect("every call has kept its caller");
        self.r[6..11].copy_from_slice(&caller.registers);
        self.t[6..11].copy_from_slice(&caller.tags);
        self.t[1..6].fill(UNWRITTEN);
        self.loops = caller.loops;
        Ok(Some(caller.back_to))
    }

    #[cold]
    fn observe(&self, at: usize, op: &Op) {
        if op.what == Do::Check {
            return;
        }
        let instruction = self.program.code.origin[at] as usize;
        let shown = |register: u8| {
            let register = usize::from(register & 15);
            if self.t[register] == UNWRITTEN {
                return (Region::Number, 0);
            }
            self.regions().shown(self.t[register], self.r[register])
        };
        let (destination, source) = (shown(op.dst), shown(op.src));
        scope::with(|s| {
            if s.kernel.observe.coverage {
                self.program.covered[at].set(true);
            }
            if s.kernel.observe.trace {
                let (program, depth) = (s.program(), self.regions().depth() - 1);
                s.run.trace.push(Step { program, instruction, depth, destination, source });
            }
        });
    }

    /// What a slot holds.
    fn slot(&mut self, op: &Op) -> (u64, Tag) {
        let slot = self.program.slots[op.imm as usize];
        let tag = slot.section.map_or(NUMBER, |(start, len, is)| self.regions_mut().section(start, len, is));
        (slot.value, tag)
    }

    fn execute<const OBSERVE: bool>(&mut self, start: usize) -> Result<u64, (usize, FaultKind)> {
        let program = self.program;
        let ops = &program.code.ops[..];
        let mut at = start;
        // Here and not in memory: every operation counts.
        let mut fuel = self.fuel;
        let end = 'run: loop {
            macro_rules! or_fault {
                ($e:expr) => {
                    match $e {
                        Ok(v) => v,
                        Err(kind) => break 'run Err((at, kind)),
                    }
                };
            }
            // Not a copy: its fields are read where they stand.
            let op = &ops[at];
            if OBSERVE {
                self.observe(at, op);
            }
            fuel -= 1;
            if fuel < 0 {
                let limit = scope::with(|s| s.entry().1);
                break Err((at, FaultKind::Fuel(limit as u64)));
            }
            let (d, s) = (usize::from(op.dst & 15), usize::from(op.src & 15));
            // The operands, by the names that the operation gives them, and what it makes of them.
            macro_rules! alu64 {
                (|$a:tt, $b:tt| $result:expr) => {{
                    let ($a, $b): (u64, u64) = (self.r[d], self.r[s].wrapping_add(op.imm as u64));
                    self.r[d] = $result;
                    self.t[d] = NUMBER;
                }};
            }
            macro_rules! alu32 {
                (|$a:tt, $b:tt| $result:expr) => {{
                    let ($a, $b): (u32, u32) =
                        (self.r[d] as u32, (self.r[s] as u32).wrapping_add(op.imm as u32));
                    self.r[d] = u64::from($result);
                    self.t[d] = NUMBER;
                }};
            }
            macro_rules! jump64 {
                (|$a:tt, $b:tt| $result:expr) => {{
                    let ($a, $b): (u64, u64) = (self.r[d], self.r[s].wrapping_add(op.imm as u64));
                    if $result {
                        at = op.off as usize;
                        continue;
                    }
                }};
            }
            macro_rules! jump32 {
                (|$a:tt, $b:tt| $result:expr) => {{
                    let ($a, $b): (u32, u32) =
                        (self.r[d] as u32, (self.r[s] as u32).wrapping_add(op.imm as u32));
                    if $result {
                        at = op.off as usize;
                        continue;
                    }
                }};
            }
            macro_rules! loaded {
                ($width:literal) => {{
                    let (value, tag) = or_fault!(self.load::<$width>(op));
                    self.r[d] = value;
                    self.t[d] = tag;
                }};
                ($width:literal, $as:ty) => {{
                    let (value, _) = or_fault!(self.load::<$width>(op));
                    self.r[d] = value as $as as i64 as u64;
                    self.t[d] = NUMBER;
                }};
            }
            match op.what {
                Do::Add64 => {
                    let tag = self.t[s];
                    self.r[d] = self.r[d].wrapping_add(self.r[s].wrapping_add(op.imm as u64));
                    // A pointer and a number are a pointer; two pointers are nothing.
                    self.t[d] = match (self.t[d], tag) {
                        (own, NUMBER) => own,
                        (NUMBER, other) => other,
                        _ => NUMBER,
                    };
                }
                Do::Sub64 => {
                    self.r[d] = self.r[d].wrapping_sub(self.r[s].wrapping_add(op.imm as u64));
                    if self.t[s] != NUMBER {
                        self.t[d] = NUMBER;
                    }
                }
                Do::Mov64 => {
                    self.r[d] = self.r[s].wrapping_add(op.imm as u64);
                    self.t[d] = self.t[s];
                }
                Do::Mul64 => alu64!(|a, b| a.wrapping_mul(b)),
                Do::Or64 => alu64!(|a, b| a | b),
                Do::And64 => alu64!(|a, b| a & b),
                Do::Xor64 => alu64!(|a, b| a ^ b),
                Do::Lsh64 => alu64!(|a, b| a.wrapping_shl(b as u32)),
                Do::Rsh64 => alu64!(|a, b| a.wrapping_shr(b as u32)),
                Do::Arsh64 => alu64!(|a, b| (a as i64).wrapping_shr(b as u32) as u64),
                Do::Div64 => alu64!(|a, b| a.checked_div(b).unwrap_or(0)),
                Do::Mod64 => alu64!(|a, b| a.checked_rem(b).unwrap_or(a)),
                Do::Sdiv64 => {
                    alu64!(|a, b| if b == 0 { 0 } else { (a as i64).wrapping_div(b as i64) as u64 });
                }
                Do::Smod64 => {
                    alu64!(|a, b| if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 });
                }
                Do::Neg64 => alu64!(|a, _| a.wrapping_neg()),
                Do::Add32 => alu32!(|a, b| a.wrapping_add(b)),
                Do::Sub32 => alu32!(|a, b| a.wrapping_sub(b)),
                Do::Mul32 => alu32!(|a, b| a.wrapping_mul(b)),
                Do::Or32 => alu32!(|a, b| a | b),
                Do::And32 => alu32!(|a, b| a & b),
                Do::Xor32 => alu32!(|a, b| a ^ b),
                Do::Lsh32 => alu32!(|a, b| a.wrapping_shl(b)),
                Do::Rsh32 => alu32!(|a, b| a.wrapping_shr(b)),
                Do::Arsh32 => alu32!(|a, b| (a as i32).wrapping_shr(b) as u32),
                Do::Div32 => alu32!(|a, b| a.checked_div(b).unwrap_or(0)),
                Do::Mod32 => alu32!(|a, b| a.checked_rem(b).unwrap_or(a)),
                Do::Sdiv32 => {
                    alu32!(|a, b| if b == 0 { 0 } else { (a as i32).wrapping_div(b as i32) as u32 });
                }
                Do::Smod32 => {
                    alu32!(|a, b| if b == 0 { a } else { (a as i32).wrapping_rem(b as i32) as u32 });
                }
                Do::Neg32 => alu32!(|a, _| a.wrapping_neg()),
                Do::Mov32 => alu32!(|_, b| b),
                Do::Sign64 => {
                    self.r[d] = ((self.r[s] << op.off) as i64 >> op.off) as u64;
                    self.t[d] = NUMBER;
                }
                Do::Sign32 => {
                    self.r[d] = u64::from(((self.r[s] << op.off) as i64 >> op.off) as u32);
                    self.t[d] = NUMBER;
                }
                Do::Low16 => alu64!(|a, _| a & 0xffff),
                Do::Low32 => alu64!(|a, _| a & 0xffff_ffff),
                Do::Nothing => alu64!(|a, _| a),
                Do::Swap16 => alu64!(|a, _| u64::from((a as u16).swap_bytes())),
                Do::Swap32 => alu64!(|a, _| u64::from((a as u32).swap_bytes())),
                Do::Swap64 => alu64!(|a, _| a.swap_bytes()),
                Do::Load1 => loaded!(1),
                Do::Load2 => loaded!(2),
                Do::Load4 => loaded!(4),
                Do::Load8 => loaded!(8),
                Do::LoadSigned1 => loaded!(1, i8),
                Do::LoadSigned2 => loaded!(2, i16),
                Do::LoadSigned4 => loaded!(4, i32),
                Do::Store1 => or_fault!(self.store::<1>(op)),
                Do::Store2 => or_fault!(self.store::<2>(op)),
                Do::Store4 => or_fault!(self.store::<4>(op)),
                Do::Store8 => or_fault!(self.store::<8>(op)),
                Do::Atomic4 => or_fault!(self.atomic::<4>(op)),
                Do::Atomic8 => or_fault!(self.atomic::<8>(op)),
                Do::Constant => {
                    self.r[d] = op.imm as u64;
                    self.t[d] = NUMBER;
                }
                Do::Slot => (self.r[d], self.t[d]) = self.slot(op),
                Do::Jump => {
                    at = op.off as usize;
                    continue;
                }
                Do::MayGoto => {
                    if self.loops == 0 {
                        at = op.off as usize;
                        continue;
                    }
                    self.loops -= 1;
                }
                Do::Eq64 => jump64!(|a, b| a == b),
                Do::Gt64 => jump64!(|a, b| a > b),
                Do::Ge64 => jump64!(|a, b| a >= b),
                Do::Set64 => jump64!(|a, b| a & b != 0),
                Do::Ne64 => jump64!(|a, b| a != b),
                Do::Sgt64 => jump64!(|a, b| a as i64 > b as i64),
                Do::Sge64 => jump64!(|a, b| a as i64 >= b as i64),
                Do::Lt64 => jump64!(|a, b| a < b),
                Do::Le64 => jump64!(|a, b| a <= b),
                Do::Slt64 => jump64!(|a, b| (a as i64) < b as i64),
                Do::Sle64 => jump64!(|a, b| a as i64 <= b as i64),
                Do::Eq32 => jump32!(|a, b| a == b),
                Do::Gt32 => jump32!(|a, b| a > b),
                Do::Ge32 => jump32!(|a, b| a >= b),
                Do::Set32 => jump32!(|a, b| a & b != 0),
                Do::Ne32 => jump32!(|a, b| a != b),
                Do::Sgt32 => jump32!(|a, b| a as i32 > b as i32),
                Do::Sge32 => jump32!(|a, b| a as i32 >= b as i32),
                Do::Lt32 => jump32!(|a, b| a < b),
                Do::Le32 => jump32!(|a, b| a <= b),
                Do::Slt32 => jump32!(|a, b| (a as i32) < b as i32),
                Do::Sle32 => jump32!(|a, b| a as i32 <= b as i32),
                Do::Call => {
                    or_fault!(self.call(at + 1));
                    at = op.off as usize;
                    continue;
                }
                Do::Helper => {
                    let function = program.code.helpers[op.width as usize];
                    // A helper that calls back uses some of it.
                    self.fuel = fuel;
                    or_fault!(self.helper(function, op.off));
                    fuel = self.fuel;
                }
                Do::CallRegister => {
                    self.fuel = fuel;
                    or_fault!(self.call_register(op.dst));
                    fuel = self.fuel;
                }
                Do::TailCall => {
                    if or_fault!(self.tail_call()) {
                        match or_fault!(self.leave()) {
                            Some(back_to) => at = back_to,
                            None => break Ok(self.r[0]),
                        }
                        continue;
                    }
                    (self.r[0], self.t[0]) = (0, NUMBER);
                    self.t[1..6].fill(UNWRITTEN);
                }
                Do::PacketLoad => {
                    if !or_fault!(self.packet_load(op)) {
                        match or_fault!(self.leave()) {
                            Some(back_to) => at = back_to,
                            None => break Ok(0),
                        }
                        continue;
                    }
                }
                Do::Exit => match or_fault!(self.leave()) {
                    Some(back_to) => {
                        at = back_to;
                        continue;
                    }
                    None => break Ok(self.r[0]),
                },
                Do::Check => {
                    // Not an instruction.
                    fuel += 1;
                    if self.t[d] == UNWRITTEN {
                        break Err((at, FaultKind::Uninitialised(op.dst)));
                    }
                }
            }
            at += 1;
        };
        self.fuel = fuel;
        end
    }
}
