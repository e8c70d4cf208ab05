//! Program arrays: who is tail called, by slot.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Kind, Map};
use crate::engine::Program;
use crate::{Errno, ProgramId};

/// Slots below this are found at once; arrays may have four billions of them.
const NEAR: u32 = 4096;

/// What stands in a slot.
type Target = (ProgramId, Rc<Program>);

/// The filled slots.
#[derive(Default)]
pub(super) struct Slots {
    near: Vec<Option<Target>>,
    far: BTreeMap<u32, Target>,
}

impl Slots {
    pub(super) fn get(&self, index: u32) -> Option<&Target> {
        if index < NEAR { self.near.get(index as usize)?.as_ref() } else { self.far.get(&index) }
    }

    /// Fills or clears a slot, and gives what was there.
    pub(super) fn set(&mut self, index: u32, target: Option<Target>) -> Option<Target> {
        if index >= NEAR {
            return match target {
                Some(target) => self.far.insert(index, target),
                None => self.far.remove(&index),
            };
        }
        let at = index as usize;
        if at >= self.near.len() {
            target.as_ref()?;
            self.near.resize(at + 1, None);
        }
        std::mem::replace(&mut self.near[at], target)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, ProgramId)> {
        let near = (0..).zip(&self.near).filter_map(|(index, slot)| Some((index, slot.as_ref()?.0)));
        near.chain(self.far.iter().map(|(index, (id, _))| (*index, *id)))
    }
}

impl Map {
    /// Fills or clears a slot of a program array.
    pub(crate) fn set_program(
        &mut self,
        index: u32,
        target: Option<(ProgramId, Rc<Program>)>,
    ) -> Result<(), Errno> {
        let Kind::Programs(slots) = &mut self.kind else { return Err(Errno::EINVAL) };
        if index >= self.def.max_entries {
            return Err(Errno::E2BIG);
        }
        slots.set(index, target);
        Ok(())
    }

    /// What stands in a slot.
    pub(crate) fn program(&self, index: u32) -> Option<&(ProgramId, Rc<Program>)> {
        let Kind::Programs(slots) = &self.kind else { return None };
        slots.get(index)
    }

    /// The filled slots, in order.
    pub(crate) fn program_slots(&self) -> Vec<(u32, ProgramId)> {
        let Kind::Programs(slots) = &self.kind else { return Vec::new() };
        slots.all().collect()
    }
}
