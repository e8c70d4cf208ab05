//! Identities and policy verdicts in words, as the simulator has them. The agent is asked for words only.

use skep_abi::event::PolicyVerdictNotify;
use skep_abi::map::METRIC_INGRESS;
use skep_agent_core::Agent;
use skep_scenario::evidence::PolicyDirection;
use skep_scenario::{Fact, Identity};
use std::net::Ipv4Addr;

/// An identity in words: the pod that has the address, if that is its identity, else a reserved name, else labels.
pub(super) fn identity_name(agent: &Agent, number: u32, ip: Option<Ipv4Addr>) -> Identity {
    let pod = ip.filter(|ip| agent.identity_of(*ip) == number).and_then(|ip| agent.pod_at(ip));
    let text = match (pod, skep_abi::identity::reserved_name(number)) {
        (Some(pod), _) => pod.to_string(),
        (None, Some(name)) => format!("reserved:{name}"),
        (None, None) => agent.identity_text(number).join(","),
    };
    Identity { number, text }
}

/// A policy's verdict about a packet between these addresses.
pub(super) fn policy_fact(
    agent: &Agent,
    verdict: &PolicyVerdictNotify,
    source: Option<Ipv4Addr>,
    destination: Option<Ipv4Addr>,
) -> Fact {
    let ingress = verdict.dir() == METRIC_INGRESS;
    let rule = match agent.explain_verdict(verdict) {
        Some(why) if !why.rules.is_empty() => {
            let rules: Vec<String> = why
                .rules
                .iter()
                .map(|r| format!("NetworkPolicy {} {}[{}]", r.policy, r.direction.name(), r.index))
                .collect();
            rules.join(", ")
        }
        Some(why) => why.default.unwrap_or_default(),
        None => format!("endpoint {} is not known to the agent", verdict.source),
    };
    Fact::Policy {
        direction: if ingress { PolicyDirection::Ingress } else { PolicyDirection::Egress },
        remote: identity_name(agent, verdict.remote_label, if ingress { source } else { destination }),
        protocol: verdict.proto,
        port: verdict.dst_port.to_host(),
        allowed: verdict.verdict >= 0,
        match_type: verdict.match_type().map_or("?", |m| m.name()).to_owned(),
        rule,
    }
}
