//! rbpf's interpreter, given what it needs to run legal programs.
#![expect(unsafe_code, reason = "a program owns its code and the engine that borrows it")]

use std::any::Any;
use std::sync::Arc;

use super::{Engine, Site, Stopped, filled, refused};
use crate::insn::Insn;
use crate::legal::{Legal, Sound};
use crate::{Error, FaultKind, helper, scope};

/// It computes a taken jump's target in 16 bits.
const LENGTH_MAX: usize = i16::MAX as usize;

pub(super) struct Interpreter {
    /// Declared first, so that it is dropped before the code that it borrows.
    vm: rbpf::EbpfVmMbuff<'static>,
    _code: Box<[u8]>,
    legal: Arc<Legal>,
}

impl Interpreter {
    pub(super) fn new(sound: &Sound, site: &Site<'_>) -> Result<Self, Error> {
        let legal = Arc::clone(sound.legal()?);
        if legal.code.len() > LENGTH_MAX {
            let what = format!(
                "{} instructions when made legal; rbpf's interpreter runs {LENGTH_MAX}, rbpf-jit and checked run it",
                legal.code.len()
            );
            return Err(refused(sound, what));
        }
        let insns = filled(&legal, site);
        let code: Box<[u8]> = insns.iter().flat_map(|i| i.encode()).collect();
        // SAFETY: the bytes stay where they are and unchanged as long as the box beside the engine lives, and the
        // engine is dropped before it.
        let borrowed: &'static [u8] = unsafe { &*std::ptr::from_ref(&*code) };
        let mut vm = machine(borrowed).map_err(|e| refused(sound, format!("{e:?}")))?;
        for (number, function) in called(&insns) {
            vm.register_helper(number, function).map_err(|e| refused(sound, format!("{e:?}")))?;
        }
        vm.register_allowed_memory(site.memory.clone());
        Ok(Self { vm, _code: code, legal })
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

impl Engine for Interpreter {
    fn execute(&self) -> Result<u64, Stopped> {
        let frame = scope::with(|s| s.frame_pointer()).to_ne_bytes();
        self.vm.execute_program(&[], &frame).map_err(|e| self.stopped(&format!("{e:?}")))
    }
}

/// An rbpf with a program and no helper.
pub(super) fn machine(code: &'static [u8]) -> Result<rbpf::EbpfVmMbuff<'static>, rbpf::lib::Error> {
    let mut vm = rbpf::EbpfVmMbuff::new(None)?;
    // The legaliser has checked more than rbpf's own verifier does, which refuses a frame pointer that moves.
    vm.set_verifier(|_| Ok(()))?;
    // Legal code moves the frame pointer itself.
    vm.set_stack_usage_calculator(|_, _, _: &mut dyn Any| 0, Box::new(()))?;
    vm.set_program(code)?;
    Ok(vm)
}

/// The helpers that code calls: registering all would cost more than most programs do.
pub(super) fn called(insns: &[Insn]) -> impl Iterator<Item = (u32, helper::Function)> + '_ {
    let numbers: std::collections::BTreeSet<i32> =
        insns.iter().filter(|i| i.is_call() && i.src == 0).map(|i| i.imm).collect();
    numbers.into_iter().filter_map(|number| Some((number as u32, helper::function(number)?)))
}
