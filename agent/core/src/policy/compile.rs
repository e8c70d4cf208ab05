//! The policy compiler: what the policies that select a pod allow, as the entries of its policy map.
//!
//! Pure: policies, identities and the identities of networks in, entries out. Each entry remembers which rules, or
//! which default, made it.

use super::{Direction, Peer, Policy, PolicyKey, Ports, Rule, RuleRef, WhichPorts, ports};
use crate::change::IdentityLabels;
use ipnet::Ipv4Net;
use skep_abi::{Be16, identity, map};
use skep_core::policy::Decider;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// The key of a policy entry, in host byte order. Bits of protocol and port beyond `l4_prefix` are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryKey {
    /// The other end's identity; 0 is the wildcard.
    pub identity: u32,
    /// The direction.
    pub direction: Direction,
    /// The protocol.
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
    /// How many bits of protocol and port count: 0, 8, or 9 to 24.
    pub l4_prefix: u8,
}

impl EntryKey {
    /// The key of everything from or to an identity.
    pub const fn all(identity: u32, direction: Direction) -> Self {
        Self { identity, direction, protocol: 0, port: 0, l4_prefix: 0 }
    }

    /// The key that counts the first `l4_prefix` bits of this protocol and port.
    pub fn masked(identity: u32, direction: Direction, protocol: u8, port: u16, l4_prefix: u8) -> Self {
        let l4_prefix = l4_prefix.min(24);
        let port_bits = l4_prefix.saturating_sub(8);
        let mask = (0xffff_0000_u32 >> port_bits) as u16;
        let protocol = if l4_prefix < 8 { 0 } else { protocol };
        Self { identity, direction, protocol, port: port & mask, l4_prefix }
    }

    /// The key as the map holds it.
    pub fn to_abi(self) -> map::PolicyKey {
        map::PolicyKey {
            prefixlen: map::PolicyKey::STATIC_PREFIX + u32::from(self.l4_prefix),
            sec_label: self.identity,
            egress: u8::from(self.direction == Direction::Egress),
            protocol: self.protocol,
            dport: Be16::from_host(self.port),
        }
    }

    /// Reads the key as a map holds it.
    pub fn from_abi(key: &map::PolicyKey) -> Option<Self> {
        let l4_prefix = key.prefixlen.checked_sub(map::PolicyKey::STATIC_PREFIX)?;
        let l4_prefix = u8::try_from(l4_prefix).ok().filter(|p| *p <= 24)?;
        let direction = if key.egress != 0 { Direction::Egress } else { Direction::Ingress };
        Some(Self::masked(key.sec_label, direction, key.protocol, key.dport.to_host(), l4_prefix))
    }

    /// What both keys match: itself a key, as identities are equal, wildcard or apart, and prefixes nested or apart.
    pub fn meet(self, other: Self) -> Option<Self> {
        let identity = match (self.identity, other.identity) {
            (a, b) if a == b => a,
            (0, b) => b,
            (a, 0) => a,
            _ => return None,
        };
        let (wide, narrow) = if self.l4_prefix <= other.l4_prefix { (self, other) } else { (other, self) };
        let nested =
            Self::masked(wide.identity, wide.direction, narrow.protocol, narrow.port, wide.l4_prefix);
        (nested == wide && wide.direction == narrow.direction).then_some(Self { identity, ..narrow })
    }
}

/// What made an entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// A policy's rule.
    Rule(RuleRef),
    /// No policy selects the pod in this direction: everything is allowed.
    NothingSelects(Direction),
    /// A node may always reach its own pods.
    Host,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::NothingSelects(d) => write!(f, "no policy selects the pod for {}", d.name()),
            Self::Host => f.write_str("a node may always reach its own pods"),
        }
    }
}

/// The policy map of a subject. Every entry allows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PolicyMap {
    /// The entries, with what made them.
    pub entries: BTreeMap<EntryKey, BTreeSet<Origin>>,
    /// The policies that select the subject, by direction; none: that direction is not isolated.
    pub selecting: BTreeMap<Direction, Vec<PolicyKey>>,
}

/// What a policy map decides about a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the packet is allowed.
    pub allowed: bool,
    /// The entry that decided, and what made it; `None`: no entry matched, and the packet is denied by default.
    pub entry: Option<(EntryKey, BTreeSet<Origin>)>,
}

/// What a compilation reads beside the subject.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// All policies.
    pub policies: &'a BTreeMap<PolicyKey, Arc<Policy>>,
    /// The identities of pods.
    pub identities: &'a BTreeMap<u32, Arc<IdentityLabels>>,
    /// The identities of all networks that policies name, 0.0.0.0/0 among them: every address outside the cluster
    /// has the identity of the longest that contains it.
    pub networks: &'a BTreeMap<Ipv4Net, u32>,
}

/// Compiles the policies for the pods of an identity.
pub fn compile(subject: &IdentityLabels, context: Context<'_>) -> PolicyMap {
    let mut map = PolicyMap::default();
    map.add(EntryKey::all(identity::HOST, Direction::Ingress), Origin::Host);
    for policy in context.policies.values().filter(|p| p.selects(subject)) {
        for &direction in &policy.directions {
            map.selecting.entry(direction).or_default().push(policy.key.clone());
        }
        for rule in &policy.rules {
            map.add_rule(subject, rule, context);
        }
    }
    for direction in Direction::ALL {
        if !map.selecting.contains_key(&direction) {
            map.add(EntryKey::all(identity::UNKNOWN, direction), Origin::NothingSelects(direction));
        }
    }
    map
}

impl PolicyMap {
    /// What a program would decide over this map about a packet of an endpoint that the map is for; `identity` is the
    /// other end's, `port` the destination's in host byte order (0 in ICMP).
    pub fn decide(&self, identity: u32, direction: Direction, protocol: u8, port: u16) -> Decision {
        let lookup = |identity| {
            let key = |l4| EntryKey::masked(identity, direction, protocol, port, l4);
            (8..=24).rev().chain([0]).map(key).find(|k| self.entries.contains_key(k))
        };
        let (own, wildcard) = (lookup(identity), lookup(identity::UNKNOWN));
        let entry = |key: EntryKey| map::PolicyEntry::new(false, key.l4_prefix);
        let decision = skep_core::policy::decide(own.map(entry), wildcard.map(entry));
        let key = match decision.decider {
            Decider::Default => None,
            Decider::Identity => own,
            Decider::Wildcard => wildcard,
        };
        let entry = key.and_then(|k| Some((k, self.entries.get(&k)?.clone())));
        Decision { allowed: decision.refused.is_none(), entry }
    }

    fn add(&mut self, key: EntryKey, origin: Origin) {
        self.entries.entry(key).or_default().insert(origin);
    }

    fn add_rule(&mut self, subject: &IdentityLabels, rule: &Rule, context: Context<'_>) {
        let direction = rule.origin.direction;
        let peers = rule.peers.as_ref().map(|peers| identities(&rule.origin.policy, peers, context));
        let everything = [Ports { protocol: crate::Protocol::Tcp, which: WhichPorts::All }];
        for ports in rule.ports.as_deref().unwrap_or(&everything) {
            let protocol = if rule.ports.is_some() { ports.protocol as u8 } else { 0 };
            let l4: Vec<(u16, u8)> = match &ports.which {
                WhichPorts::All if rule.ports.is_none() => vec![(0, 0)],
                WhichPorts::All => vec![(0, 8)],
                WhichPorts::Range(a, b) => {
                    ports::prefixes(*a, *b).into_iter().map(|(port, bits)| (port, 8 + bits)).collect()
                }
                WhichPorts::Named(name) => {
                    let name = (name.clone(), ports.protocol);
                    if direction == Direction::Egress {
                        // The destination is the peer: each identity has a number of its own for the name.
                        let all = || context.identities.keys().copied().collect();
                        for id in peers.clone().unwrap_or_else(all) {
                            let named = context.identities.get(&id).and_then(|l| l.named_ports.get(&name));
                            if let Some(&port) = named {
                                let key = EntryKey::masked(id, direction, protocol, port, 24);
                                self.add(key, Origin::Rule(rule.origin.clone()));
                            }
                        }
                        continue;
                    }
                    subject.named_ports.get(&name).map(|&port| (port, 24)).into_iter().collect()
                }
            };
            let wildcard = || BTreeSet::from([identity::UNKNOWN]);
            for id in peers.clone().unwrap_or_else(wildcard) {
                for &(port, l4_prefix) in &l4 {
                    let key = EntryKey::masked(id, direction, protocol, port, l4_prefix);
                    self.add(key, Origin::Rule(rule.origin.clone()));
                }
            }
        }
    }
}

/// The identities that a list of peers means.
fn identities(policy: &PolicyKey, peers: &[Peer], context: Context<'_>) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    for peer in peers {
        match peer {
            Peer::Pods { namespaces, pods } => ids.extend(
                context
                    .identities
                    .iter()
                    .filter(|(_, l)| match namespaces {
                        Some(selector) => selector.matches(&l.namespace_labels),
                        None => l.namespace == policy.namespace,
                    })
                    .filter(|(_, l)| pods.matches(&l.labels))
                    .map(|(id, _)| *id),
            ),
            // A network lies in the block or apart from it, as both it and the block are listed.
            Peer::Cidr { cidr, except } => ids.extend(
                context
                    .networks
                    .iter()
                    .filter(|(n, _)| cidr.contains(*n) && !except.iter().any(|e| e.contains(*n)))
                    .map(|(_, id)| *id),
            ),
        }
    }
    ids
}

/// The networks that policies name.
pub(crate) fn networks_of<'a>(policies: impl Iterator<Item = &'a Policy>) -> BTreeSet<Ipv4Net> {
    let peers = policies.flat_map(|p| &p.rules).flat_map(|r| r.peers.iter().flatten());
    peers
        .filter_map(|p| match p {
            Peer::Cidr { cidr, except } => Some(std::iter::once(*cidr).chain(except.iter().copied())),
            Peer::Pods { .. } => None,
        })
        .flatten()
        .collect()
}
