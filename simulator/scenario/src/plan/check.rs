//! Names in expectations: programs, reasons, nodes, maps. A misspelt one would compare nothing.

use super::Planner;
use crate::error::Diagnostic;
use crate::judge::ANY;
use crate::schema::{AssertStep, ConntrackExpect, CounterExpect, Expect};
use crate::snapshot::CONNTRACK_FLAGS;
use crate::suggest;
use skep_abi::DropReason;
use skep_abi::map::MAPS;
use skep_abi::program::{Hook, PROGRAMS};

/// Reasons of the stack and of the fabric begin with these.
const OUTER_REASONS: [&str; 2] = ["SKB_DROP_REASON_", "FABRIC_"];

impl Planner {
    pub(super) fn check_expect(&self, field: &str, expect: &Expect) -> Result<(), Diagnostic> {
        if let Some(reason) = &expect.reason {
            self.known_reason(&format!("{field}.reason"), reason)?;
        }
        if let Some(at) = &expect.at {
            self.known_place(&format!("{field}.at"), at)?;
        }
        for (name, hooks) in [("hooks", &expect.hooks), ("reply_hooks", &expect.reply_hooks)] {
            for (i, hook) in hooks.iter().flatten().enumerate() {
                if hook != ANY {
                    self.known_hook(&format!("{field}.{name}[{i}]"), hook)?;
                }
            }
        }
        if let Some(arp) = &expect.arp {
            self.known_hook(&format!("{field}.arp"), arp)?;
        }
        for (i, row) in expect.identities.iter().enumerate() {
            self.known_hook(&format!("{field}.identities[{i}].at"), &row.at)?;
        }
        self.check_counters(&format!("{field}.counters"), &expect.counters)?;
        self.check_conntrack(&format!("{field}.conntrack"), &expect.conntrack)
    }

    pub(super) fn check_assert(&self, field: &str, assert: &AssertStep) -> Result<(), Diagnostic> {
        if *assert == AssertStep::default() {
            return Err(self
                .at(field, "the assert compares nothing")
                .help("give metrics, conntrack, ipcache, policy or maps"));
        }
        self.check_counters(&format!("{field}.metrics"), &assert.metrics)?;
        self.check_conntrack(&format!("{field}.conntrack"), &assert.conntrack)?;
        for (i, row) in assert.ipcache.iter().enumerate() {
            self.known_node(&format!("{field}.ipcache[{i}].node"), &row.node)?;
        }
        for (i, row) in assert.policy.iter().enumerate() {
            self.known_pod(&format!("{field}.policy[{i}].pod"), &row.pod)?;
        }
        for (i, row) in assert.maps.iter().enumerate() {
            self.known_node(&format!("{field}.maps[{i}].node"), &row.node)?;
            if !MAPS.iter().any(|m| m.name == row.name) {
                let hint = suggest::hint(&row.name, MAPS.iter().map(|m| m.name));
                return Err(self
                    .at(&format!("{field}.maps[{i}].name"), format!("no map {}", row.name))
                    .help(hint));
            }
        }
        Ok(())
    }

    fn check_counters(&self, field: &str, counters: &[CounterExpect]) -> Result<(), Diagnostic> {
        for (i, counter) in counters.iter().enumerate() {
            self.known_node(&format!("{field}[{i}].node"), &counter.node)?;
            if !matches!(counter.reason.as_str(), "FORWARDED" | "PLAINTEXT") {
                self.known_drop_reason(&format!("{field}[{i}].reason"), &counter.reason)?;
            }
        }
        Ok(())
    }

    fn check_conntrack(&self, field: &str, entries: &[ConntrackExpect]) -> Result<(), Diagnostic> {
        for (i, entry) in entries.iter().enumerate() {
            self.known_node(&format!("{field}[{i}].node"), &entry.node)?;
            for (name, flags) in [("flags", &entry.flags), ("without", &entry.without)] {
                for (j, flag) in flags.iter().enumerate() {
                    if !CONNTRACK_FLAGS.iter().any(|(_, f)| f == flag) {
                        let hint = suggest::hint(flag, CONNTRACK_FLAGS.iter().map(|(_, f)| *f));
                        let at = format!("{field}[{i}].{name}[{j}]");
                        return Err(self.at(&at, format!("no conntrack flag {flag}")).help(hint));
                    }
                }
            }
        }
        Ok(())
    }

    fn known_reason(&self, field: &str, reason: &str) -> Result<(), Diagnostic> {
        match OUTER_REASONS.iter().any(|prefix| reason.starts_with(prefix)) {
            true if crate::reasons::find(reason).is_some() => Ok(()),
            true => {
                let hint = suggest::hint(reason, crate::reasons::OUTER.iter().map(|r| r.name));
                Err(self.at(field, format!("no reason {reason}")).help(hint))
            }
            false => self.known_drop_reason(field, reason),
        }
    }

    fn known_drop_reason(&self, field: &str, reason: &str) -> Result<(), Diagnostic> {
        if DropReason::from_name(reason).is_some() {
            return Ok(());
        }
        let names = DropReason::ALL.iter().map(|r| r.name());
        let help = match suggest::nearest(reason, names) {
            Some(name) => format!("did you mean {name}?"),
            None => "`skep explain` lists all reasons".to_owned(),
        };
        Err(self.at(field, format!("no reason {reason}")).help(help))
    }

    /// `PROGRAM@NODE` of an entry program or handle_policy.
    fn known_hook(&self, field: &str, hook: &str) -> Result<(), Diagnostic> {
        let node = self.known_at(field, hook)?;
        let program = &hook[..hook.len() - node.len() - 1];
        let names = || PROGRAMS.iter().filter(|p| !matches!(p.hook, Hook::Calls(_))).map(|p| p.name);
        if names().any(|n| n == program) {
            return Ok(());
        }
        let help = match PROGRAMS.iter().any(|p| p.name == program) {
            true => "a tail call counts as its entry program or handle_policy; name that".to_owned(),
            false => suggest::hint(program, names().collect::<Vec<_>>()),
        };
        Err(self.at(field, format!("no hook {program}")).help(help))
    }

    /// `PROGRAM@NODE`, or a device or the fabric outside of programs.
    fn known_place(&self, field: &str, place: &str) -> Result<(), Diagnostic> {
        let node = self.known_at(field, place)?;
        let what = &place[..place.len() - node.len() - 1];
        // What is spelt like a program is one; devices have names of the World's own choice.
        let close = suggest::nearest(what, PROGRAMS.iter().map(|p| p.name));
        if close.is_some() { self.known_hook(field, place) } else { Ok(()) }
    }

    /// The node in `WHAT@NODE`.
    fn known_at<'a>(&self, field: &str, place: &'a str) -> Result<&'a str, Diagnostic> {
        let Some((_, node)) = place.rsplit_once('@') else {
            return Err(self
                .at(field, format!("{place:?} names no node"))
                .help("write it like from_container@NODE"));
        };
        self.known_node(field, node)?;
        Ok(node)
    }
}
