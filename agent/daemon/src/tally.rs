//! What became of actions, counted and put into words.

use skep_agent_core::{Action, Outcome, Performed};
use std::fmt;

/// What an agent did since it was last asked.
#[derive(Default)]
pub(crate) struct Tally {
    /// Changes of the datapath.
    pub(crate) changes: usize,
    /// Endpoints whose pods may start.
    pub(crate) ready: Vec<u16>,
    /// Conntrack entries that had expired.
    pub(crate) collected: u64,
    /// The first refusal of each batch.
    pub(crate) refused: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, performed: &[Performed]) {
        let mut refused = false;
        for done in performed {
            match (&done.action, &done.result) {
                (action, Err(why)) => {
                    if !refused {
                        self.refused.push(format!("{action:?}: {why}"));
                    }
                    refused = true;
                }
                (Action::EndpointReady { endpoint }, Ok(_)) => self.ready.push(*endpoint),
                (_, Ok(Outcome::Collected(swept))) => {
                    self.collected += swept.iter().map(|s| s.deleted).sum::<u64>();
                }
                (_, Ok(_)) => self.changes += 1,
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changes {
            0 => f.write_str("no change"),
            1 => f.write_str("1 change"),
            n => write!(f, "{n} changes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_agent_core::{ActionId, Refused};

    #[test]
    fn what_rests_on_a_refusal_is_not_another_one() {
        let action = |slot: u16, result| Performed {
            id: ActionId(slot.into()),
            action: Action::Unpublish { endpoint: slot },
            result,
        };
        let mut tally = Tally::default();
        let not_tried = || Err(Refused::new("not tried"));
        tally.add(&[
            action(1, Ok(Outcome::Done)),
            action(2, Err(Refused::new("full"))),
            action(3, not_tried()),
        ]);
        assert_eq!((tally.changes, tally.refused.len()), (1, 1));
        assert!(tally.refused[0].ends_with("full"), "{:?}", tally.refused);
        assert_eq!(tally.to_string(), "1 change");
    }
}
