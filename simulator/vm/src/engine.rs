//! rbpf's interpreter, given what it needs to run legal programs.
//!
//! Knows rbpf. Knows nothing of what a program does: helpers find their world by themselves (see [`crate::scope`]).
#![expect(unsafe_code, reason = "a program owns its code and the engine that borrows it")]

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use crate::insn::Insn;
use crate::legal::{Legal, Value, load64};
use crate::{Error, FaultKind, ProgramKind, helper};

/// A loaded program.
pub(crate) struct Program {
    /// Declared first, so that it is dropped before the code that it borrows.
    vm: rbpf::EbpfVmMbuff<'static>,
    _code: Arc<[u8]>,
    legal: Arc<Legal>,
}

/// How an execution ended before `exit`.
pub(crate) struct Stopped {
    /// Of the object, if it is known.
    pub(crate) instruction: Option<usize>,
    pub(crate) kind: FaultKind,
}

impl Program {
    /// Fills `values` in for maps and data sections. `memory` is all that the program may touch.
    pub(crate) fn new(
        legal: &Arc<Legal>,
        value: &dyn Fn(Value) -> u64,
        memory: Range<u64>,
    ) -> Result<Self, Error> {
        let mut insns = legal.code.clone();
        for (at, fixup) in &legal.fixups {
            let filled = load64(insns[*at].dst, value(*fixup));
            insns[*at..*at + 2].copy_from_slice(&filled);
        }
        let code: Arc<[u8]> = insns.into_iter().flat_map(Insn::encode).collect();
        // SAFETY: the bytes stay where they are and unchanged as long as the Arc beside the engine lives, and the
        // engine is dropped before it.
        let borrowed: &'static [u8] = unsafe { &*Arc::as_ptr(&code) };
        let vm = engine(borrowed, memory).map_err(|e| Error::Program {
            program: legal.name.clone(),
            what: format!("the engine refuses it: {e:?}"),
        })?;
        Ok(Self { vm, _code: code, legal: Arc::clone(legal) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.legal.name
    }

    pub(crate) fn kind(&self) -> ProgramKind {
        self.legal.kind
    }

    /// Runs it and gives r0. Arguments and stack come from the scope.
    pub(crate) fn execute(&self) -> Result<u64, Stopped> {
        self.vm.execute_program(&[], &[]).map_err(|e| self.stopped(&format!("{e:?}")))
    }

    /// rbpf's message names the instruction, and addresses that must not get out.
    fn stopped(&self, message: &str) -> Stopped {
        let kind = if message.contains("out of bounds") { FaultKind::Memory } else { FaultKind::Engine };
        let number = message.split_once("insn #").and_then(|(_, rest)| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().ok()
        });
        // It counts from 1 where it reports a memory access.
        let at = number.and_then(|n| n.checked_sub(1)).and_then(|n| self.legal.origin.get(n));
        Stopped { instruction: at.map(|at| *at as usize), kind }
    }
}

fn engine(code: &'static [u8], memory: Range<u64>) -> Result<rbpf::EbpfVmMbuff<'static>, rbpf::lib::Error> {
    let mut vm = rbpf::EbpfVmMbuff::new(None)?;
    // The legaliser has checked more than rbpf's own verifier does, which refuses a frame pointer that moves.
    vm.set_verifier(|_| Ok(()))?;
    // Legal code moves the frame pointer itself.
    vm.set_stack_usage_calculator(|_, _, _: &mut dyn Any| 0, Box::new(()))?;
    vm.set_program(code)?;
    for (number, function) in helper::all() {
        vm.register_helper(number as u32, function)?;
    }
    vm.register_allowed_memory(memory);
    Ok(vm)
}
