//! The scope of a run: where helpers, which rbpf calls without context, find the kernel, the packet and the record.
//!
//! One pointer a thread, set while an engine executes. A helper borrows the scope through [`with`] and gives it back
//! before anything else runs; a tail call executes its target between two such borrows.
#![expect(
    unsafe_code,
    reason = "rbpf's helpers are plain functions: their world reaches them through a thread-local"
)]

use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

use crate::engine::{Program, Stopped};
use crate::kernel::Slots;
use crate::legal::STACK;
use crate::packet::Packet;
use crate::{Environment, Fault, FaultKind, Kernel, MapId, ProgramId, Run, TailCall, context, map_kind};

/// What the kernel's verifier lets a program execute (`BPF_COMPLEXITY_LIMIT_INSNS`).
const FUEL: i64 = 1_000_000;
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
    running: Vec<(ProgramId, Rc<Program>)>,
    fuel: i64,
    fault: Option<Fault>,
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
    ) -> Self {
        let cpu = env.cpu().min(kernel.cpus - 1);
        let run = Run {
            return_value: 0,
            redirect: None,
            chain: Vec::new(),
            tail_calls: Vec::new(),
            accesses: Vec::new(),
            stats: Default::default(),
        };
        let (running, fuel, fault) = (Vec::new(), 0, None);
        Self { kernel, env, packet, cpu, memory: (0, 0), run, tail_result: 0, reserved: Vec::new(), running, fuel, fault }
    }

    pub(crate) fn slots(&self) -> Slots {
        self.kernel.slots
    }

    /// Executes the entry program and gives r0.
    pub(crate) fn execute(&mut self, id: ProgramId, program: &Rc<Program>) -> Result<u64, Fault> {
        self.begin(id, Rc::clone(program));
        let restore = Restore(CURRENT.replace(Some(NonNull::from(&mut *self).cast())));
        let result = program.execute();
        drop(restore);
        let r0 = self.end(result);
        self.fault.take().map_or(Ok(r0), Err)
    }

    fn begin(&mut self, id: ProgramId, program: Rc<Program>) {
        // A program may read stack that it never wrote; what a run before left there must not show.
        let level = self.running.len();
        let at = self.slots().stacks + level * STACK;
        self.kernel.arena.slice_mut(at, STACK).fill(0);
        self.run.chain.push(id);
        self.running.push((id, program));
        self.fuel = FUEL;
    }

    fn end(&mut self, result: Result<u64, Stopped>) -> u64 {
        let (_, program) = self.running.pop().expect("what ends has begun");
        result.unwrap_or_else(|stopped| {
            self.fault.get_or_insert(Fault {
                program: program.name().to_owned(),
                instruction: stopped.instruction,
                kind: stopped.kind,
            });
            0
        })
    }

    /// Ends the run at the next block, because of the program that runs now.
    pub(crate) fn fail(&mut self, kind: FaultKind) {
        let program = self.running.last().map(|(_, p)| p.name().to_owned()).unwrap_or_default();
        self.fault.get_or_insert(Fault { program, instruction: None, kind });
    }

    pub(crate) fn failed(&self) -> bool {
        self.fault.is_some()
    }

    /// The program that runs now.
    pub(crate) fn program(&self) -> ProgramId {
        self.running.last().expect("a helper is called by a program").0
    }

    /// Counts instructions; false if the run has to end.
    pub(crate) fn count(&mut self, instructions: u64) -> bool {
        self.run.stats.instructions += instructions;
        self.fuel -= instructions as i64;
        if self.fuel < 0 {
            self.fail(FaultKind::Fuel(FUEL as u64));
        }
        !self.failed()
    }

    /// Where the stack of the program that runs now begins; it grows down from here.
    pub(crate) fn stack_top(&self) -> u64 {
        self.kernel.arena.address(self.slots().stacks + self.running.len() * STACK)
    }

    /// The first argument of the program that runs now.
    pub(crate) fn argument(&self) -> u64 {
        match &self.packet {
            Some(_) => self.kernel.arena.address(self.slots().context),
            None => self.memory.0,
        }
    }

    /// The program that a tail call reaches.
    fn tail_target(&mut self, map: MapId, index: u32) -> Option<(ProgramId, Rc<Program>)> {
        let kind = self.running.last().map(|(_, p)| p.kind());
        let target = self.kernel.maps.get(map).and_then(|m| m.program(index));
        let target = target.filter(|(_, p)| self.run.chain.len() <= TAIL_CALLS_MAX && Some(p.kind()) == kind);
        let id = target.as_ref().map(|(id, _)| *id);
        self.run.tail_calls.push(TailCall { map, index, target: id });
        target
    }

    /// Writes what helpers change in the context.
    pub(crate) fn refresh(&mut self) {
        let at = self.slots().context;
        if let Some(packet) = &self.packet {
            context::refresh(at, packet, &mut self.kernel.arena);
        }
    }
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
        scope.begin(id, Rc::clone(&program));
        Some(program)
    });
    let Some(program) = target else { return 0 };
    let result = program.execute();
    with(|scope| scope.tail_result = scope.end(result));
    1
}
