//! The second opinion: what the text of the NetworkPolicies says of a flow, against what the bytecode did.
//!
//! Asks the oracle, which shares no code with the agent. Has none where faults lose packets or addresses are forged.

use crate::evidence::Evidence;
use crate::judge::{FlowVerdict, Mismatch};
use crate::plan::PlannedStep;
use crate::run::is_fault;
use crate::world::Change;
use skep_manifest::Loaded;

/// The objects of the cluster as they stand, for the oracle.
pub(crate) struct Opinion {
    objects: Vec<Loaded>,
    faulty: bool,
}

impl Opinion {
    pub(crate) fn new(objects: &[Loaded]) -> Self {
        Self { objects: objects.to_vec(), faulty: false }
    }

    pub(crate) fn change(&mut self, change: &Change, objects: &[Loaded]) {
        self.faulty |= is_fault(change);
        let gone = |l: &Loaded| objects.iter().any(|o| o.key() == l.key());
        match change {
            Change::Apply(_) => {
                self.objects.retain(|l| !gone(l));
                self.objects.extend_from_slice(objects);
            }
            Change::Delete(_) => self.objects.retain(|l| !gone(l)),
            _ => {}
        }
    }

    /// A disagreement between the policies' text and what was observed.
    pub(crate) fn judge(
        &self,
        _step: &PlannedStep,
        _evidence: &Evidence,
        _verdict: &FlowVerdict,
    ) -> Option<Mismatch> {
        None
    }
}
