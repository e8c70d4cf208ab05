//! `checked`: an interpreter of the original bytecode that lets no access through that the program has no right to.
//!
//! It executes what the object says and not what the legaliser made of it, as RFC 9669 and Linux 6.18 define it.
//! [`decode`] prepares a program once, [`regions`] knows memory, [`run`] executes, [`access`] is its memory, and [`calls`] is what happens around
//! helpers. Stricter than the kernel's verifier in one thing: a map's value is gone when it is deleted, while the kernel
//! lets programs read it until the end of the RCU section.

mod access;
mod calls;
mod decode;
mod regions;
mod run;

use std::cell::Cell;
use std::sync::Arc;

pub(crate) use decode::Code;
pub(crate) use regions::Kept;

use super::{Engine, Site, Stopped};
use crate::legal::{Sound, Value};
use crate::scope;
use crate::{Error, FaultKind, Region, helper};

/// What is watched beside the access checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Observe {
    pub(crate) trace: bool,
    pub(crate) coverage: bool,
}

/// What a 16-byte load gives.
#[derive(Clone, Copy, Debug)]
struct Slot {
    value: u64,
    /// Of a place in a data section: the section's start and length.
    section: Option<(u64, u64, Region)>,
}

/// A program with everything that a load decides.
pub(crate) struct Checked {
    code: Arc<Code>,
    /// The code's, with what the load has filled in.
    ops: Vec<decode::Op>,
    slots: Vec<Slot>,
    /// A cell an operation: it has been executed while coverage was recorded.
    covered: Vec<Cell<bool>>,
}

impl Checked {
    pub(super) fn new(sound: &Sound, site: &Site<'_>) -> Result<Self, Error> {
        for (at, insn) in sound.insns.iter().enumerate() {
            let is_helper = insn.is_call() && insn.src == 0;
            if is_helper && !helper::exists(insn.imm) {
                let (program, helper) = (sound.name.clone(), insn.imm);
                return Err(Error::Helper { program, instruction: at, helper });
            }
        }
        let code = Arc::clone(sound.decoded());
        let slot = |value: &Value| {
            let section = match value {
                Value::Data { section, .. } => {
                    let bytes = (site.section)(*section);
                    let region = if (site.read_only)(*section) { Region::ReadOnlyData } else { Region::Data };
                    Some((bytes.start, bytes.end - bytes.start, region))
                }
                _ => None,
            };
            Slot { value: (site.value)(*value), section }
        };
        let slots: Vec<Slot> = code.slots.iter().map(slot).collect();
        let mut ops = code.ops.clone();
        for op in ops.iter_mut().filter(|op| op.what == decode::Do::Slot) {
            let Slot { value, section } = slots[op.imm as usize];
            if section.is_none() {
                (op.what, op.imm) = (decode::Do::Constant, value as i64);
            }
        }
        let covered = vec![Cell::new(false); code.ops.len()];
        Ok(Self { code, ops, slots, covered })
    }
}

impl Engine for Checked {
    fn execute(&self) -> Result<u64, Stopped> {
        let (regions, observe) =
            scope::with(|s| (s.kernel.regions.as_ref().map(regions::Regions::shared), s.kernel.observe));
        let Some(regions) = regions else {
            return Err(Stopped { instruction: None, kind: FaultKind::Engine });
        };
        if observe.trace || observe.coverage {
            run::run::<true>(self, regions)
        } else {
            run::run::<false>(self, regions)
        }
    }

    fn covered(&self) -> Option<Vec<usize>> {
        let executed = self.covered.iter().zip(&self.code.origin).filter(|(covered, _)| covered.get());
        let mut instructions: Vec<usize> = executed.map(|(_, origin)| *origin as usize).collect();
        instructions.sort_unstable();
        instructions.dedup();
        Some(instructions)
    }
}
