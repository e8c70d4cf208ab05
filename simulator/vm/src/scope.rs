//! The scope of a run: where helpers, which rbpf calls without context, find the kernel, the packet and the record.
//!
//! One pointer a thread, set while an engine executes. A helper borrows the scope through [`with`] and gives it back
//! before anything else runs; a tail call executes its target between two such borrows.
#![expect(
    unsafe_code,
    reason = "rbpf's helpers are plain functions: their world reaches them through a thread-local"
)]

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

use crate::engine::{Program, Stopped};
use crate::input::Rest;
use crate::kernel::Slots;
use crate::legal::{self, FRAME, SPILL, STACK};
use crate::packet::Packet;
use crate::{
    Environment, Fault, FaultKind, Kernel, MapId, ProgramId, ProgramKind, Run, TailCall, context, map_kind,
};

/// What the kernel's verifier lets a program execute (`BPF_COMPLEXITY_LIMIT_INSNS`).
const FUEL: i64 = 1_000_000;
/// The same for programs with loops that the verifier does not follow to their end: `bpf_loop` and `may_goto` go round
/// 8 million times at the most.
const FUEL_OF_LOOPS: i64 = 1 << 28;
/// `MAX_TAIL_CALL_CNT`.
const TAIL_CALLS_MAX: usize = 33;
/// How many programs have a stack at the same time: the entry and all that it can tail call.
pub(crate) const STACKS: usize = TAIL_CALLS_MAX + 1;

/// Everything that helpers need.
pub(crate) struct Scope<'a> {
    pub(crate) kernel: &'a mut Kernel,
    pub(crate) env: &'a mut dyn Environment,
    pub(crate) packet: Option<Packet<'a>>,
    pub(crate) cpu: u32,
    /// Memory of a program of the kind `Memory`: address and length.
    pub(crate) memory: (u64, u64),
    pub(crate) run: Run,
    pub(crate) tail_result: u64,
    /// Records of ring buffers that are neither submitted nor discarded.
    pub(crate) reserved: Vec<(MapId, usize)>,
    /// What of the input is no packet.
    pub(crate) rest: Rest<'a>,
    /// What a helper's result points to: how many bytes of what.
    pub(crate) made: Option<(u64, crate::Region)>,
    pub(crate) running: Vec<Running>,
    /// What the function is given that a helper calls now.
    called_with: [Argument; 5],
    fault: Option<Fault>,
    /// How many were running when a helper failed, until it is known which of the program's instructions called it.
    failed_in: Option<usize>,
}

/// A program, or a function of it that a helper calls, while it executes.
pub(crate) struct Running {
    id: ProgramId,
    program: Rc<Program>,
    /// Where its stack begins in the arena; it grows down from here.
    top: usize,
    /// Where it must end.
    bottom: usize,
    fuel: i64,
    /// Counted from the program's first; 0 is the program itself.
    function: usize,
}

/// What a function is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Argument {
    /// A number, or a map's handle.
    Number(u64),
    /// The context.
    Context(u64),
    /// The memory of a program of the kind `Memory`.
    Memory(u64),
    /// Whatever the helper that calls back was given, counted from 1.
    Given(u8),
    /// A value of a map.
    MapValue { map: MapId, address: u64 },
    /// A copy of a map's key, of this many bytes.
    MapKey { address: u64, size: usize },
}

impl Argument {
    /// What stands in the register; `given` is what the helper that calls was given.
    fn value(self, given: [u64; 5]) -> u64 {
        match self {
            Self::Number(value) | Self::Context(value) | Self::Memory(value) => value,
            Self::Given(n) => given[usize::from(n) - 1],
            Self::MapValue { address, .. } | Self::MapKey { address, .. } => address,
        }
    }
}

/// A function that a helper calls, as many times as it wants to. Made within a borrow of the scope and used outside.
pub(crate) struct Callback {
    id: ProgramId,
    program: Rc<Program>,
    function: usize,
    /// The frame pointer of the caller, in the arena, and where its stack ends.
    frame: usize,
    bottom: usize,
    given: [(u64, u32); 5],
}

thread_local! {
    static CURRENT: Cell<Option<NonNull<()>>> = const { Cell::new(None) };
}

/// Puts the previous scope back, also when a helper panics.
struct Restore(Option<NonNull<()>>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Borrows the scope of the run that this thread executes.
pub(crate) fn with<R>(f: impl for<'s> FnOnce(&mut Scope<'s>) -> R) -> R {
    let current = CURRENT.get().expect("helpers run only while a scope executes");
    // SAFETY: `Scope::execute` sets the pointer to a scope that outlives the execution and does not use it meanwhile.
    // Helpers do not nest, and `tail_call` executes its target outside of its borrows.
    f(unsafe { current.cast::<Scope<'_>>().as_mut() })
}

impl<'a> Scope<'a> {
    pub(crate) fn new(
        kernel: &'a mut Kernel,
        env: &'a mut dyn Environment,
        packet: Option<Packet<'a>>,
        run: Run,
    ) -> Self {
        let cpu = env.cpu().min(kernel.cpus - 1);
        let (running, fault) = (std::mem::take(&mut kernel.running), None);
        let (memory, reserved) = ((0, 0), Vec::new());
        let (rest, made) = (Rest::None, None);
        Self {
            kernel,
            env,
            packet,
            cpu,
            memory,
            run,
            tail_result: 0,
            reserved,
            rest,
            made,
            running,
            called_with: [Argument::Number(0); 5],
            fault,
            failed_in: None,
        }
    }

    pub(crate) fn slots(&self) -> Slots {
        self.kernel.slots
    }

    /// Executes the entry program and gives r0.
    pub(crate) fn execute(&mut self, id: ProgramId, program: &Rc<Program>) -> Result<u64, Fault> {
        self.begin(id, program);
        self.run_entered(program)
    }

    /// The same of one function of it, which nothing calls but the world: it has no packet.
    pub(crate) fn execute_function(
        &mut self,
        id: ProgramId,
        program: &Rc<Program>,
        function: usize,
        arguments: [Argument; 5],
    ) -> Result<u64, Fault> {
        let bottom = self.slots().stacks;
        self.run.chain.push(id);
        let (top, fuel) = (bottom + STACK, self.fuel_of(program));
        self.running.push(Running { id, program: Rc::clone(program), top, bottom, fuel, function });
        self.clear(program, function, top, bottom);
        self.enter(top, fuel, function, arguments.map(|argument| argument.value([0; 5])));
        self.called_with = arguments;
        self.run_entered(program)
    }

    fn run_entered(&mut self, program: &Rc<Program>) -> Result<u64, Fault> {
        self.reset_regions();
        let restore = Restore(CURRENT.replace(Some(NonNull::from(&mut *self).cast())));
        // A panic is a bug of this vm, and an error of this run alone. What runs inside, a tail call's target for one,
        // has not ended then.
        let result = catch_unwind(AssertUnwindSafe(|| program.execute()));
        drop(restore);
        let result = result.unwrap_or_else(|panic| {
            self.running.truncate(1);
            self.failed_in = None;
            Err(Stopped { instruction: None, kind: FaultKind::Panic(message(&*panic)) })
        });
        let r0 = self.end(result);
        self.fault.take().map_or(Ok(r0), Err)
    }

    /// Before the same program runs once more over what it has left.
    pub(crate) fn again(&mut self) {
        self.run.reset();
        self.reserved.clear();
        self.made = None;
    }

    fn fuel_of(&self, program: &Program) -> i64 {
        let allowed = if program.may_loop() { FUEL_OF_LOOPS } else { FUEL };
        self.kernel.config.fuel.map_or(allowed, i64::from)
    }

    fn begin(&mut self, id: ProgramId, program: &Rc<Program>) {
        let level = self.running.len() + 1;
        let top = self.slots().stacks + level * STACK;
        let bottom = top - STACK;
        let fuel = self.fuel_of(program);
        self.start(Running { id, program: Rc::clone(program), top, bottom, fuel, function: 0 });
        self.run.chain.push(id);
        let (memory, len) = self.memory;
        let arguments = match program.kind() {
            ProgramKind::Memory if self.packet.is_none() => [memory, len, 0, 0, 0],
            _ => [self.kernel.arena.address(self.slots().context), 0, 0, 0, 0],
        };
        self.clear(program, 0, top, bottom);
        self.enter(top, fuel, 0, arguments);
    }

    /// As `push`, which makes its value somewhere else and copies it.
    #[inline(always)]
    fn start(&mut self, running: Running) {
        let len = self.running.len();
        if len == self.running.capacity() {
            self.running.reserve(STACKS);
        }
        let Running { id, program, top, bottom, fuel, function } = running;
        let place = self.running.spare_capacity_mut()[0].as_mut_ptr();
        // SAFETY: room for one more; all fields are written before it counts. One by one: a wide load of what was just
        // computed in parts would wait for it.
        unsafe {
            (&raw mut (*place).id).write(id);
            (&raw mut (*place).program).write(program);
            (&raw mut (*place).top).write_volatile(top);
            (&raw mut (*place).bottom).write_volatile(bottom);
            (&raw mut (*place).fuel).write_volatile(fuel);
            (&raw mut (*place).function).write_volatile(function);
            self.running.set_len(len + 1);
        }
    }

    /// A program may read stack that it never wrote; what a run before left there must not show.
    fn clear(&mut self, program: &Program, function: usize, mut top: usize, bottom: usize) {
        for used in program.stack() {
            if top <= bottom {
                break;
            }
            // Of a function that a helper calls it is not known at which depth it stands.
            let used = if function == 0 { usize::from(*used) } else { FRAME as usize };
            self.kernel.arena.slice_mut(top - used, used).fill(0);
            top -= (FRAME + SPILL) as usize;
        }
    }

    /// Writes what an engine needs below the first frame, as [`crate::legal`] expects it there.
    fn enter(&mut self, top: usize, fuel: i64, function: usize, arguments: [u64; 5]) {
        // One more than the function's first instruction, as 0 stands for the program.
        let entry = if function == 0 { 0 } else { function as u64 + 1 };
        let [a, b, c, d, e] = arguments;
        // From the last slot up, as they stand in memory.
        let slots = [entry, 0, fuel as u64, e, d, c, b, a];
        const { assert!(legal::TEMPORARY == 7 && legal::LOOPS == 6 && legal::FUEL == 5) };
        let at = top.wrapping_add_signed(isize::from(legal::spill(legal::TEMPORARY)));
        let place = self.kernel.arena.slice_mut(at, 8 * slots.len());
        for (place, value) in place.as_chunks_mut::<8>().0.iter_mut().zip(slots) {
            *place = value.to_le_bytes();
        }
    }

    /// Writes a slot of the spill area of the frame whose pointer this is.
    fn put(&mut self, frame: usize, slot: i16, value: u64) {
        let at = frame.wrapping_add_signed(isize::from(legal::spill(slot)));
        self.kernel.arena.slice_mut(at, 8).copy_from_slice(&value.to_le_bytes());
    }

    fn take(&self, frame: usize, slot: i16) -> u64 {
        let at = frame.wrapping_add_signed(isize::from(legal::spill(slot)));
        u64::from_le_bytes(self.kernel.arena.slice(at, 8).try_into().expect("eight bytes"))
    }

    fn end(&mut self, result: Result<u64, Stopped>) -> u64 {
        let Running { program, top, fuel, .. } = self.running.pop().expect("what ends has begun");
        let left = self.take(top, legal::FUEL) as i64;
        self.run.stats.instructions += (fuel - left).max(0) as u64;
        let stopped = match result {
            Ok(r0) if left >= 0 => return r0,
            Ok(_) => Stopped { instruction: None, kind: FaultKind::Fuel(fuel as u64) },
            Err(stopped) => stopped,
        };
        if self.failed_in == Some(self.running.len() + 1)
            && let Some(fault) = &mut self.fault
        {
            fault.instruction = stopped.instruction;
            self.failed_in = None;
        }
        self.fault.get_or_insert(Fault {
            program: program.name().to_owned(),
            instruction: stopped.instruction,
            kind: stopped.kind,
        });
        0
    }

    /// Ends the run at the next block, because of the program that runs now.
    pub(crate) fn fail(&mut self, kind: FaultKind) {
        let program = self.running.last().map(|r| r.program.name().to_owned()).unwrap_or_default();
        if self.fault.is_none() {
            self.failed_in = Some(self.running.len());
        }
        self.fault.get_or_insert(Fault { program, instruction: None, kind });
    }

    pub(crate) fn failed(&self) -> bool {
        self.fault.is_some()
    }

    /// The program that runs now, for a function of it that is to run later.
    pub(crate) fn holder(&self) -> (ProgramId, Rc<Program>) {
        let running = self.running.last().expect("a helper is called by a program");
        (running.id, Rc::clone(&running.program))
    }

    /// The program that runs now.
    pub(crate) fn program(&self) -> ProgramId {
        self.running.last().expect("a helper is called by a program").id
    }

    /// An argument of what is to be executed, counted from 0.
    pub(crate) fn argument(&self, n: usize) -> u64 {
        self.take(self.running.last().expect("an engine executes").top, n as i16)
    }

    /// The frame pointer of what is to be executed, or goes on.
    pub(crate) fn frame_pointer(&self) -> u64 {
        self.kernel.arena.address(self.running.last().expect("an engine executes").top)
    }

    /// Where a helper that calls back finds its caller's frame; legal code does so by itself.
    pub(crate) fn set_frame_cell(&mut self, frame: u64) {
        let at = self.slots().frame;
        self.kernel.arena.slice_mut(at, 8).copy_from_slice(&frame.to_le_bytes());
    }

    /// What is to be executed: which function, and how many instructions.
    pub(crate) fn entry(&self) -> (usize, i64) {
        let running = self.running.last().expect("an engine executes");
        (running.function, running.fuel)
    }

    /// What it is given, counted from 0.
    pub(crate) fn given(&self, n: usize) -> Argument {
        let running = self.running.last().expect("an engine executes");
        let (memory, len) = self.memory;
        match (running.function, n) {
            (0, 0) if running.program.kind() != ProgramKind::Memory => {
                Argument::Context(self.kernel.arena.address(self.slots().context))
            }
            (0, 0) if len == 0 => Argument::Number(0),
            (0, 0) => Argument::Memory(memory),
            (0, 1) => Argument::Number(len),
            (0, _) => Argument::Number(0),
            _ => self.called_with[n],
        }
    }

    /// Tells the scope how many instructions are left; legal code does so by itself.
    pub(crate) fn set_fuel(&mut self, frame: u64, left: i64) {
        if let Some(at) = self.kernel.arena.offset(frame - (FRAME + SPILL) as u64, 8) {
            self.put(at + (FRAME + SPILL) as usize, legal::FUEL, left as u64);
        }
    }

    /// How many instructions are left in a frame that has called a helper that calls back.
    pub(crate) fn fuel(&self, frame: u64) -> i64 {
        let at = self.kernel.arena.offset(frame - (FRAME + SPILL) as u64, 8);
        at.map_or(-1, |at| self.take(at + (FRAME + SPILL) as usize, legal::FUEL) as i64)
    }

    /// The function that a helper was told to call, with that helper's arguments.
    pub(crate) fn callback(&self, handle: u64, arguments: [u64; 5]) -> Option<Callback> {
        let running = self.running.last()?;
        let function = crate::helper::callback_of(handle)?;
        let cell = self.kernel.arena.slice(self.slots().frame, 8);
        let frame = self.kernel.arena.offset(u64::from_le_bytes(cell.try_into().ok()?), 0)?;
        let bottom = running.bottom;
        let lowest = bottom + 2 * (FRAME + SPILL) as usize;
        let tags = self.kernel.regions.as_ref().map_or([0; 5], |r| r.given());
        let given = std::array::from_fn(|i| (arguments[i], tags[i]));
        let (id, program) = (running.id, Rc::clone(&running.program));
        (frame >= lowest && frame <= running.top).then_some(Callback {
            id,
            program,
            function,
            frame,
            bottom,
            given,
        })
    }

    /// The program that a tail call reaches.
    fn tail_target(&mut self, map: MapId, index: u32) -> Option<(ProgramId, Rc<Program>)> {
        let kind = self.running.last().map(|r| r.program.kind());
        let allowed = self.run.chain.len() <= TAIL_CALLS_MAX;
        let target = self.kernel.maps.get(map).and_then(|m| m.program(index));
        let target = target.filter(|(_, p)| allowed && Some(p.kind()) == kind).cloned();
        let id = target.as_ref().map(|(id, _)| *id);
        self.run.tail_calls.push(TailCall { map, index, target: id });
        target
    }

    /// Before the entry program: all regions of the run before are gone.
    fn reset_regions(&mut self) {
        let packet = self.packet_bounds();
        let Some(regions) = &mut self.kernel.regions else { return };
        let context = self.kernel.arena.address(self.kernel.slots.context);
        let kind = self.running.last().map(|r| r.program.kind());
        let memory = if self.packet.is_none() { self.memory } else { (0, 0) };
        self.kernel.arena.drain_freed(|_, _| {});
        let context = kind.and_then(context::layout).map(|layout| (context, layout));
        regions.reset(context, memory, packet);
    }

    /// Where the packet's metadata starts, the packet, and its linear end.
    pub(crate) fn packet_bounds(&self) -> [u64; 3] {
        let Some(packet) = &self.packet else { return [0; 3] };
        let (start, end) = packet.visible();
        let (start, end) = (self.kernel.arena.address(start), self.kernel.arena.address(end));
        [self.kernel.arena.address(packet.meta()), start, end]
    }

    /// Writes what helpers change in the context.
    pub(crate) fn refresh(&mut self) {
        let at = self.slots().context;
        if let Some(packet) = &self.packet {
            context::refresh(at, packet, &mut self.kernel.arena);
        }
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .to_owned()
}

/// `bpf_tail_call`: 1 if the target has run and the caller has to exit with [`Scope::tail_result`].
pub(crate) fn tail_call(map: u64, index: u32) -> u64 {
    let target = with(|scope| {
        if scope.failed() {
            return None;
        }
        scope.run.stats.helper_calls += 1;
        let array = crate::helper::map_of(map)
            .filter(|id| scope.kernel.map_def(*id).is_some_and(|def| def.kind == map_kind::PROG_ARRAY));
        let Some(array) = array else {
            let what = "its second argument is no program array";
            scope.fail(FaultKind::Map { helper: crate::helper::TAIL_CALL, what });
            return None;
        };
        let (id, program) = scope.tail_target(array, index)?;
        scope.begin(id, &program);
        Some(program)
    });
    let Some(program) = target else { return 0 };
    let result = program.execute();
    with(|scope| {
        let r0 = scope.end(result);
        scope.tail_result = r0;
        // For legal code.
        let cell = scope.slots().frame + 8;
        scope.kernel.arena.slice_mut(cell, 8).copy_from_slice(&r0.to_le_bytes());
    });
    1
}

impl Callback {
    /// Calls the function and gives r0; `None` when the run has to end. Nobody may borrow the scope meanwhile.
    pub(crate) fn call(&self, arguments: [Argument; 5]) -> Option<u64> {
        with(|scope| {
            if scope.failed() {
                return None;
            }
            let top = self.frame - (FRAME + SPILL) as usize;
            let fuel = scope.take(self.frame, legal::FUEL) as i64;
            let (program, function) = (Rc::clone(&self.program), self.function);
            let (id, bottom) = (self.id, self.bottom);
            scope.clear(&program, function, top, bottom);
            let given = self.given.map(|(value, _)| value);
            let values = arguments.map(|argument| argument.value(given));
            scope.enter(top, fuel, function, values);
            scope.called_with = arguments;
            scope.running.push(Running { id, program, top, bottom, fuel, function });
            if let Some(regions) = &mut scope.kernel.regions {
                regions.give_tags(self.given.map(|(_, tag)| tag));
            }
            Some(())
        })?;
        let result = self.program.execute();
        with(|scope| {
            let instructions = scope.run.stats.instructions;
            let left = scope.take(self.frame - (FRAME + SPILL) as usize, legal::FUEL);
            let r0 = scope.end(result);
            // The caller's own count includes them.
            scope.run.stats.instructions = instructions;
            scope.put(self.frame, legal::FUEL, left);
            (!scope.failed()).then_some(r0)
        })
    }
}
