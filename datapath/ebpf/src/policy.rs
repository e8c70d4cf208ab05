//! The endpoint's policy map, asked twice, as `skep_core::policy` decides.

use skep_abi::DropReason;
use skep_abi::identity;
use skep_abi::map::{CtStatus, PolicyEntry};
use skep_core::policy::{self, Decider, Decision};

use crate::event::{self, Question};
use crate::maps::{self, POLICY};
use crate::skb::Skb;

/// Lets a packet through or not; a decision about a new connection and every denial are reported.
///
/// # Errors
/// POLICY_DENIED, POLICY_DENY.
#[inline(always)]
pub fn check(skb: Skb, asked: &Question, status: CtStatus) -> Result<(), DropReason> {
    let decision = decide(skb, asked);
    if decision.refused.is_some() || matches!(status, CtStatus::New) {
        event::policy_verdict(skb, asked, decision);
    }
    match decision.refused {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

#[inline(never)]
fn decide(skb: Skb, asked: &Question) -> Decision {
    let with_identity = POLICY.find(&policy::key(asked.remote, asked.dir, asked.proto, asked.dport));
    let with_wildcard = POLICY.find(&policy::key(identity::UNKNOWN, asked.dir, asked.proto, asked.dport));
    let decision = policy::decide(value(with_identity), value(with_wildcard));
    let decided = match decision.decider {
        Decider::Default => core::ptr::null_mut(),
        Decider::Identity => with_identity,
        Decider::Wildcard => with_wildcard,
    };
    if !decided.is_null() {
        // SAFETY: not null, so a whole value.
        unsafe {
            maps::add(&raw mut (*decided).packets, 1);
            maps::add(&raw mut (*decided).bytes, skb.len() as u64);
        }
    }
    decision
}

#[inline(always)]
fn value(p: *mut PolicyEntry) -> Option<PolicyEntry> {
    // SAFETY: not null, so a whole value, read once.
    if p.is_null() { None } else { Some(unsafe { p.read() }) }
}
