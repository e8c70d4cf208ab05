//! From what is there to what is wanted, in an order in which no packet meets half a change.

use crate::action::Action;
use crate::model::Datapath;

/// The actions that lead from one datapath to another.
pub fn diff(have: &Datapath, want: &Datapath) -> Vec<Action> {
    let _ = (have, want);
    todo!()
}

/// What an action makes of a datapath; an action that cannot be performed on it is the error.
pub fn apply(datapath: &mut Datapath, action: &Action) -> Result<(), crate::Refused> {
    let _ = (datapath, action);
    todo!()
}
