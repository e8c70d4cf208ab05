//! Everything that happened to every frame, as it was observed, in order.
//!
//! Knows what a record is and which flow was being carried on when it was made. Does not know what a flow's evidence
//! looks like: that is [`crate::evidence`].

use crate::facts::ProgramRun;
use skep_net::{FrameId, Record};
use skep_scenario::FrameView;

/// One thing that happened to one frame, and the frame as it stood then.
pub(crate) struct Entry {
    pub record: Record,
    pub view: FrameView,
    /// Of a hook: the programs that ran and the frame before they did.
    pub hook: Option<HookRun>,
    /// The flow that was carried on at that time, by its number.
    pub flow: Option<u32>,
}

/// What ran at a hook.
pub(crate) struct HookRun {
    /// The frame before the entry program.
    pub before: FrameView,
    /// The entry program, and handle_policy if the chain of tail calls went through it.
    pub programs: Vec<ProgramRun>,
}

/// The entries of a run.
#[derive(Default)]
pub(crate) struct Recorder {
    entries: Vec<Entry>,
    /// The flow that is carried on now.
    pub flow: Option<u32>,
}

impl Recorder {
    pub(crate) fn add(&mut self, record: Record, view: FrameView, hook: Option<HookRun>) {
        self.entries.push(Entry { record, view, hook, flow: self.flow });
    }

    /// How many entries there are: a mark for [`Recorder::since`].
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entries from a mark on, by frame: frames in the order in which each was first seen.
    pub(crate) fn frames_since(&self, mark: usize) -> Vec<(FrameId, Vec<&Entry>)> {
        let mut order: Vec<(FrameId, Vec<&Entry>)> = Vec::new();
        let mut index = std::collections::BTreeMap::new();
        for entry in &self.entries[mark.min(self.entries.len())..] {
            let at = *index.entry(entry.record.frame).or_insert_with(|| {
                order.push((entry.record.frame, Vec::new()));
                order.len() - 1
            });
            order[at].1.push(entry);
        }
        order
    }
}
