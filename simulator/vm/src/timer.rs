//! Timers of map values (`struct bpf_timer`): which are pending, and running their functions when whoever has a clock says
//! that it is time.
//!
//! Knows when and what. Time is an argument: nothing here passes it.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::Program;
use crate::helper::{element, map_handle};
use crate::scope::{Argument, Scope};
use crate::{Environment, Fault, Kernel, MapId, ProgramId, Run};

/// A timer that has a function.
pub(crate) struct Armed {
    pub(crate) map: MapId,
    pub(crate) id: ProgramId,
    pub(crate) program: Rc<Program>,
    /// Counted from the program's first instruction.
    pub(crate) function: usize,
    /// Nanoseconds on the monotonic clock; `None` while it is not started.
    pub(crate) due: Option<u64>,
}

/// All timers that have a function, by the place of their `struct bpf_timer` in the arena.
pub(crate) type Timers = BTreeMap<usize, Armed>;

impl Kernel {
    /// When the next timer is due, in nanoseconds of the monotonic clock ([`Environment::now_ns`]); `None` if none is
    /// started.
    pub fn next_timer(&self) -> Option<u64> {
        self.timers.values().filter_map(|t| t.due).min()
    }

    /// Runs the functions of all timers that are due, the earliest first, each of them once: what a function starts again
    /// is left to the next call. A timer whose element is gone does not run, as in the kernel. Timers have no packet.
    pub fn run_timers(&mut self, env: &mut dyn Environment) -> Vec<Result<Run, Fault>> {
        let now = env.now_ns();
        let due =
            self.timers.iter().filter_map(|(at, t)| t.due.filter(|due| *due <= now).map(|due| (due, *at)));
        let mut due: Vec<(u64, usize)> = due.collect();
        due.sort_unstable();
        due.into_iter().filter_map(|(due, at)| self.run_timer(due, at, env)).collect()
    }

    fn run_timer(&mut self, due: u64, at: usize, env: &mut dyn Environment) -> Option<Result<Run, Fault>> {
        // One that ran before may have cancelled it.
        let timer = self.timers.get_mut(&at).filter(|t| t.due == Some(due))?;
        timer.due = None;
        let (map, id, function, program) = (timer.map, timer.id, timer.function, Rc::clone(&timer.program));
        let mut scope = Scope::new(self, env, None, Run::default());
        let Some([key, value]) = holder(&mut scope, map, at) else {
            self.timers.remove(&at);
            return None;
        };
        let none = Argument::Number(0);
        let arguments = [Argument::Number(map_handle(map)), key, value, none, none];
        let result = scope.execute_function(id, &program, function, arguments);
        let run = scope.run;
        Some(result.map(|_| run))
    }
}

/// Key and value of the element that a place lies in.
fn holder(scope: &mut Scope<'_>, map: MapId, at: usize) -> Option<[Argument; 2]> {
    let size = scope.kernel.maps.get(map)?.value_size();
    let mut number = 0;
    while let Some((found, arguments)) = element(scope, map, number) {
        if let Argument::MapValue { address, .. } = arguments[1]
            && let Some(value) = scope.kernel.arena.offset(address, size)
            && (value..value + size).contains(&at)
            // An element that took the place of a deleted one has no timer yet.
            && scope.kernel.arena.slice(at, 1) != [0]
        {
            return Some(arguments);
        }
        number = found + 1;
    }
    None
}
