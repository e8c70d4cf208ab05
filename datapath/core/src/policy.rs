//! Which of two policy entries decides, and what it decides.
//!
//! Knows entries as values. Does not know the map: an entry here is what a longest-prefix match has already chosen
//! among those of its identity. What no single look-up sees, a broad deny over a narrow allow, is the agent's half.

use skep_abi::event::MatchType;
use skep_abi::map::{PolicyEntry, PolicyKey};
use skep_abi::{Be16, DropReason};

use crate::Direction;

/// What a look-up asks with.
#[inline(always)]
pub const fn key(sec_label: u32, dir: Direction, protocol: u8, dport: Be16) -> PolicyKey {
    PolicyKey {
        prefixlen: PolicyKey::FULL_PREFIX,
        sec_label,
        egress: matches!(dir, Direction::Egress) as u8,
        protocol,
        dport,
    }
}

/// Which look-up's entry decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decider {
    /// Neither found one: the default decides.
    Default,
    /// The one with the other end's identity.
    Identity,
    /// The one with the wildcard.
    Wildcard,
}

/// A decision, and what it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// `None` if the packet is allowed.
    pub refused: Option<DropReason>,
    /// Which look-up's entry decided.
    pub decider: Decider,
    /// The kind of key that matched.
    pub match_type: MatchType,
    /// How many bits of protocol and port the matched key counts.
    pub l4_prefix: u8,
}

impl Decision {
    /// As verdict events hold it: 0, or the reason's number negated.
    #[inline(always)]
    pub const fn code(&self) -> i32 {
        match self.refused {
            None => 0,
            Some(reason) => reason.code(),
        }
    }
}

/// The decision of two look-ups: with the other end's identity, and with the wildcard.
///
/// A deny of either decides. Else the entry with more bits of protocol and port does, and between equals the one
/// with the identity.
#[inline(always)]
pub const fn decide(identity: Option<PolicyEntry>, wildcard: Option<PolicyEntry>) -> Decision {
    match (identity, wildcard) {
        (None, None) => Decision {
            refused: Some(DropReason::POLICY_DENIED),
            decider: Decider::Default,
            match_type: MatchType::None,
            l4_prefix: 0,
        },
        (Some(i), None) => decided(i, Decider::Identity),
        (None, Some(w)) => decided(w, Decider::Wildcard),
        (Some(i), Some(w)) => {
            let identity_decides =
                if i.deny() == w.deny() { i.l4_prefix() >= w.l4_prefix() } else { i.deny() };
            if identity_decides { decided(i, Decider::Identity) } else { decided(w, Decider::Wildcard) }
        }
    }
}

#[inline(always)]
const fn decided(entry: PolicyEntry, decider: Decider) -> Decision {
    let refused = if entry.deny() {
        Some(DropReason::POLICY_DENY)
    } else if entry.proxy_port.bits() != 0 {
        // There is no proxy yet, and what a rule wants inspected must not pass uninspected.
        Some(DropReason::POLICY_DENIED)
    } else {
        None
    };
    Decision {
        refused,
        decider,
        match_type: match_type(decider, entry.l4_prefix()),
        l4_prefix: entry.l4_prefix(),
    }
}

#[inline(always)]
const fn match_type(decider: Decider, l4_prefix: u8) -> MatchType {
    let identity = matches!(decider, Decider::Identity);
    if l4_prefix == 0 {
        if identity { MatchType::L3Only } else { MatchType::All }
    } else if l4_prefix as u32 <= PolicyKey::PROTOCOL_PREFIX {
        if identity { MatchType::L3Proto } else { MatchType::ProtoOnly }
    } else if identity {
        MatchType::L3L4
    } else {
        MatchType::L4Only
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOW: bool = false;
    const DENY: bool = true;

    /// Entries as (deny, bits of protocol and port); what decides, how, and the reason's number or 0.
    type Row = (Option<(bool, u8)>, Option<(bool, u8)>, Decider, MatchType, i32);

    #[test]
    fn the_table_of_precedence() {
        use Decider::{Identity, Wildcard};
        let rows: &[Row] = &[
            (None, None, Decider::Default, MatchType::None, -133),
            (Some((ALLOW, 0)), None, Identity, MatchType::L3Only, 0),
            (Some((ALLOW, 8)), None, Identity, MatchType::L3Proto, 0),
            (Some((ALLOW, 9)), None, Identity, MatchType::L3L4, 0),
            (Some((ALLOW, 24)), None, Identity, MatchType::L3L4, 0),
            (None, Some((ALLOW, 0)), Wildcard, MatchType::All, 0),
            (None, Some((ALLOW, 8)), Wildcard, MatchType::ProtoOnly, 0),
            (None, Some((ALLOW, 24)), Wildcard, MatchType::L4Only, 0),
            // More bits of protocol and port.
            (Some((ALLOW, 0)), Some((ALLOW, 24)), Wildcard, MatchType::L4Only, 0),
            (Some((ALLOW, 24)), Some((ALLOW, 0)), Identity, MatchType::L3L4, 0),
            (Some((ALLOW, 8)), Some((ALLOW, 9)), Wildcard, MatchType::L4Only, 0),
            // Between equals the identity.
            (Some((ALLOW, 0)), Some((ALLOW, 0)), Identity, MatchType::L3Only, 0),
            (Some((ALLOW, 24)), Some((ALLOW, 24)), Identity, MatchType::L3L4, 0),
            // A deny of either, however broad.
            (Some((DENY, 0)), Some((ALLOW, 24)), Identity, MatchType::L3Only, -181),
            (Some((ALLOW, 24)), Some((DENY, 0)), Wildcard, MatchType::All, -181),
            (Some((DENY, 24)), None, Identity, MatchType::L3L4, -181),
            (None, Some((DENY, 8)), Wildcard, MatchType::ProtoOnly, -181),
            // Of two denies the closer one is named.
            (Some((DENY, 0)), Some((DENY, 24)), Wildcard, MatchType::L4Only, -181),
            (Some((DENY, 24)), Some((DENY, 24)), Identity, MatchType::L3L4, -181),
        ];
        for (identity, wildcard, decider, match_type, code) in rows {
            let entry = |e: &Option<(bool, u8)>| e.map(|(deny, l4)| PolicyEntry::new(deny, l4));
            let d = decide(entry(identity), entry(wildcard));
            assert_eq!(
                (d.decider, d.match_type, d.code()),
                (*decider, *match_type, *code),
                "{identity:?} {wildcard:?}"
            );
        }
    }

    #[test]
    fn what_a_proxy_should_see_does_not_pass() {
        let mut entry = PolicyEntry::new(false, 24);
        entry.proxy_port = Be16::from_host(10001);
        let d = decide(Some(entry), Some(PolicyEntry::new(false, 0)));
        assert_eq!((d.code(), d.match_type, d.l4_prefix), (-133, MatchType::L3L4, 24));
    }

    #[test]
    fn a_look_up_asks_for_everything() {
        let k = key(300, Direction::Egress, 6, Be16::from_host(80));
        assert_eq!(k.to_bytes(), [64, 0, 0, 0, 0x2c, 1, 0, 0, 1, 6, 0, 80]);
        assert_eq!(key(0, Direction::Ingress, 17, Be16::from_host(53)).egress, 0);
    }

    fn entries() -> impl Strategy<Value = Option<PolicyEntry>> {
        let l4 = prop_oneof![Just(0u8), Just(8), 9u8..=24];
        proptest::option::of((any::<bool>(), l4).prop_map(|(deny, l4)| PolicyEntry::new(deny, l4)))
    }

    proptest! {
        #[test]
        fn allowed_means_something_allows_and_nothing_denies(i in entries(), w in entries()) {
            let d = decide(i, w);
            let found: std::vec::Vec<_> = [i, w].into_iter().flatten().collect();
            let denied = found.iter().any(|e| e.deny());
            prop_assert_eq!(d.refused.is_none(), !found.is_empty() && !denied);
            prop_assert_eq!(d.refused == Some(DropReason::POLICY_DENY), denied);
            prop_assert_eq!(d.decider == Decider::Default, found.is_empty());
            prop_assert_eq!(d.match_type.has_identity(), d.decider == Decider::Identity);
        }

        #[test]
        fn the_decider_is_the_entry_it_names(i in entries(), w in entries()) {
            let d = decide(i, w);
            let named = match d.decider { Decider::Default => None, Decider::Identity => i, Decider::Wildcard => w };
            prop_assert_eq!(d.l4_prefix, named.map_or(0, |e| e.l4_prefix()));
            // No entry of the same verdict is closer than the one that decided.
            for other in [i, w].into_iter().flatten().filter(|e| e.deny() == named.is_some_and(|n| n.deny())) {
                prop_assert!(other.l4_prefix() <= d.l4_prefix);
            }
        }
    }
}
