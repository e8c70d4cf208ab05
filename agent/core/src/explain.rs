//! Numbers of the datapath back into what people wrote: a verdict into rules, an identity into labels.

use crate::agent::Agent;
use crate::policy::{Direction, EntryKey, Origin, PolicyKey, PolicyMap, RuleRef};
use skep_abi::event::{MatchType, PolicyVerdictNotify};
use skep_abi::{identity, map};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Why a policy decided as it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whether the packet was allowed.
    pub allowed: bool,
    /// The rules that made the matched entry.
    pub rules: Vec<RuleRef>,
    /// The default that decided, where no rule did.
    pub default: Option<String>,
    /// The policies that select the endpoint in this direction.
    pub policies: Vec<PolicyKey>,
    /// The revision of the node's policies that made the matched entry what it is; 0 if none was matched.
    pub revision: u64,
}

/// What made the entries of the endpoints' policy maps, and since when.
///
/// An event may be read after the entry that it names is gone, so an endpoint's past entries are remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    revision: u64,
    endpoints: BTreeMap<u16, Past>,
}

#[derive(Clone, Debug, Default)]
struct Past {
    now: PolicyMap,
    entries: BTreeMap<EntryKey, (u64, BTreeSet<Origin>)>,
}

impl History {
    /// Takes the newest policy maps; the revision rises if any of them is another than before.
    pub(crate) fn learn(&mut self, policies: &BTreeMap<u16, PolicyMap>) {
        self.endpoints.retain(|endpoint, _| policies.contains_key(endpoint));
        let changed = policies.iter().any(|(e, map)| self.endpoints.get(e).is_none_or(|p| p.now != *map));
        self.revision += u64::from(changed);
        for (&endpoint, map) in policies {
            let past = self.endpoints.entry(endpoint).or_default();
            for (&key, origins) in &map.entries {
                if past.now.entries.get(&key) != Some(origins) {
                    past.entries.insert(key, (self.revision, origins.clone()));
                }
            }
            past.now = map.clone();
        }
    }
}

impl Agent {
    /// The revision of the node's policies: it rises whenever a policy map of any of its endpoints changes.
    pub fn policy_revision(&self) -> u64 {
        self.history.revision
    }

    /// A verdict in words: the rules that decided, else the default that did.
    pub fn verdict_text(&self, verdict: &PolicyVerdictNotify) -> String {
        match self.explain_verdict(verdict) {
            Some(why) if !why.rules.is_empty() => {
                let rules = why
                    .rules
                    .iter()
                    .map(|r| format!("NetworkPolicy {} {}[{}]", r.policy, r.direction.name(), r.index));
                rules.collect::<Vec<_>>().join(", ")
            }
            Some(why) => why.default.unwrap_or_default(),
            None => format!("endpoint {} is not known to the agent", verdict.source),
        }
    }

    /// An identity in words: the pod that has the address, if that is its identity, else the reserved name, else labels.
    pub fn identity_name(&self, id: u32, ip: Option<Ipv4Addr>) -> String {
        let pod = ip.filter(|ip| self.identity_of(*ip) == id).and_then(|ip| self.pod_at(ip));
        match (pod, identity::reserved_name(id)) {
            (Some(pod), _) => pod.to_string(),
            (None, Some(name)) => format!("reserved:{name}"),
            (None, None) => self.identity_text(id).join(","),
        }
    }

    /// Why a policy decided as it did; `None` if the endpoint is not known or the event is malformed.
    pub fn explain_verdict(&self, verdict: &PolicyVerdictNotify) -> Option<Explanation> {
        let direction = match verdict.dir() {
            map::METRIC_INGRESS => Direction::Ingress,
            map::METRIC_EGRESS => Direction::Egress,
            _ => return None,
        };
        let past = self.history.endpoints.get(&verdict.source)?;
        let pod = self.pod_of(verdict.source)?;
        let policies = past.now.selecting.get(&direction).cloned().unwrap_or_default();
        let allowed = verdict.verdict >= 0;
        let mut explanation =
            Explanation { allowed, rules: Vec::new(), default: None, policies, revision: 0 };

        let match_type = verdict.match_type()?;
        if match_type == MatchType::None {
            let names: Vec<String> = explanation.policies.iter().map(ToString::to_string).collect();
            let (way, names) = (direction.name(), names.join(", "));
            explanation.default = Some(match explanation.policies.len() {
                0 => format!("the {way} policy of {pod} has no entry for it"),
                1 => format!("no rule of {names}, which selects {pod} for {way}, allows it"),
                _ => format!("no rule of {names}, which select {pod} for {way}, allows it"),
            });
            return Some(explanation);
        }
        let id = if match_type.has_identity() { verdict.remote_label } else { identity::UNKNOWN };
        let (protocol, port) = (verdict.proto, verdict.dst_port.to_host());
        let key = EntryKey::masked(id, direction, protocol, port, verdict.l4_prefix);
        let Some((revision, origins)) = past.entries.get(&key) else {
            explanation.default = Some("an entry that this agent did not write".to_owned());
            return Some(explanation);
        };
        explanation.revision = *revision;
        for origin in origins {
            match origin {
                Origin::Rule(rule) => explanation.rules.push(rule.clone()),
                default => explanation.default = Some(default.to_string()),
            }
        }
        Some(explanation)
    }

    /// The labels of an identity, such as `k8s:app=curl`, `reserved:host`, or `cidr:10.0.0.0/8` and `reserved:world`;
    /// none if the identity is not known.
    pub fn identity_text(&self, id: u32) -> Vec<String> {
        if let Some(name) = identity::reserved_name(id) {
            return vec![format!("reserved:{name}")];
        }
        if let Some((network, _)) = self.networks.iter().find(|(_, i)| **i == id) {
            return vec![format!("cidr:{network}"), "reserved:world".to_owned()];
        }
        self.inputs.identities.get(&id).map(|labels| labels.text()).unwrap_or_default()
    }
}
