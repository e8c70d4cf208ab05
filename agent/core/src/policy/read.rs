//! Reads a NetworkPolicy object. Every default of the API is resolved here, and nowhere else in the agent.

use super::{Direction, Peer, Policy, PolicyKey, Ports, Rule, RuleRef, Selector, WhichPorts};
use crate::change::Protocol;
use ipnet::Ipv4Net;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_manifest::{Error, Errors, Source};

/// Reads a policy of a namespace.
///
/// Defaults are the API's: without `policyTypes` it isolates ingress, and egress if it has an egress section; a rule
/// without peers is about all of them, one without ports about all of all protocols; a port without protocol is TCP.
pub fn read(namespace: &str, object: &NetworkPolicy, source: &Source) -> Result<Policy, Errors> {
    let key =
        PolicyKey { namespace: namespace.to_owned(), name: object.metadata.name.clone().unwrap_or_default() };
    let mut reader = Reader { source, errors: Errors::default() };
    let spec = object.spec.clone().unwrap_or_default();
    let subject = reader.selector("spec.podSelector", spec.pod_selector.as_ref());

    let mut directions = Vec::new();
    match &spec.policy_types {
        Some(types) if !types.is_empty() => {
            for (i, t) in types.iter().enumerate() {
                match t.as_str() {
                    "Ingress" => directions.push(Direction::Ingress),
                    "Egress" => directions.push(Direction::Egress),
                    other => reader.error(
                        &format!("spec.policyTypes[{i}]"),
                        format!("\"{other}\" is no policy type"),
                        "write Ingress or Egress",
                    ),
                }
            }
        }
        _ => {
            directions.push(Direction::Ingress);
            if spec.egress.is_some() {
                directions.push(Direction::Egress);
            }
        }
    }
    directions.sort();
    directions.dedup();

    let mut rules = Vec::new();
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let (peers, ports) = (rule.from.as_deref(), rule.ports.as_deref());
        rules.push(reader.rule(&key, Direction::Ingress, index, "from", peers, ports));
    }
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let (peers, ports) = (rule.to.as_deref(), rule.ports.as_deref());
        rules.push(reader.rule(&key, Direction::Egress, index, "to", peers, ports));
    }
    // The API: a section whose direction policyTypes does not name has no effect.
    rules.retain(|r| directions.contains(&r.origin.direction));
    reader.errors.or(Policy { key, subject, directions, rules })
}

struct Reader<'a> {
    source: &'a Source,
    errors: Errors,
}

impl Reader<'_> {
    fn error(&mut self, path: &str, message: String, help: &str) {
        let error: Error = self.source.error(path, message).help(help);
        self.errors.0.push(error);
    }

    fn selector(&mut self, path: &str, api: Option<&LabelSelector>) -> Selector {
        let Some(api) = api else { return Selector::default() };
        Selector::read(api).unwrap_or_else(|(i, operator)| {
            self.error(
                &format!("{path}.matchExpressions[{i}].operator"),
                format!("\"{operator}\" is no operator"),
                "write In, NotIn, Exists or DoesNotExist",
            );
            Selector::default()
        })
    }

    fn rule(
        &mut self,
        policy: &PolicyKey,
        direction: Direction,
        index: usize,
        peers_field: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> Rule {
        let path = format!("spec.{}[{index}]", direction.name());
        let at = self.source.at(&path);
        let origin = RuleRef { policy: policy.clone(), direction, index, file: at.file, line: at.line };
        // The API: an empty list is as good as none.
        let peers = peers.filter(|p| !p.is_empty()).map(|peers| {
            let path = |i| format!("{path}.{peers_field}[{i}]");
            peers.iter().enumerate().filter_map(|(i, p)| self.peer(&path(i), p)).collect()
        });
        let ports = ports.filter(|p| !p.is_empty()).map(|ports| {
            let path = |i| format!("{path}.ports[{i}]");
            ports.iter().enumerate().filter_map(|(i, p)| self.ports(&path(i), p)).collect()
        });
        Rule { origin, peers, ports }
    }

    fn peer(&mut self, path: &str, api: &NetworkPolicyPeer) -> Option<Peer> {
        let selects_pods = api.pod_selector.is_some() || api.namespace_selector.is_some();
        match &api.ip_block {
            Some(_) if selects_pods => {
                let help = "write two peers, one with ipBlock and one with the selectors";
                self.error(path, "ipBlock stands beside a selector".to_owned(), help);
                None
            }
            Some(block) => {
                let cidr = self.cidr(&format!("{path}.ipBlock.cidr"), &block.cidr)?;
                let mut except = Vec::new();
                for (i, text) in block.except.iter().flatten().enumerate() {
                    let path = format!("{path}.ipBlock.except[{i}]");
                    let Some(inner) = self.cidr(&path, text) else { continue };
                    if !cidr.contains(&inner) || inner == cidr {
                        let message = format!("{inner} is not a part of {cidr}");
                        self.error(&path, message, "an exception must lie strictly within the block");
                    }
                    except.push(inner);
                }
                Some(Peer::Cidr { cidr, except })
            }
            None if selects_pods => {
                let namespaces = api
                    .namespace_selector
                    .as_ref()
                    .map(|s| self.selector(&format!("{path}.namespaceSelector"), Some(s)));
                let pods = self.selector(&format!("{path}.podSelector"), api.pod_selector.as_ref());
                Some(Peer::Pods { namespaces, pods })
            }
            None => {
                let help = "write podSelector, namespaceSelector or ipBlock; {} as a selector means all";
                self.error(path, "the peer says nothing".to_owned(), help);
                None
            }
        }
    }

    fn cidr(&mut self, path: &str, text: &str) -> Option<Ipv4Net> {
        match text.parse::<Ipv4Net>() {
            Ok(net) => Some(net.trunc()),
            Err(_) if text.parse::<ipnet::Ipv6Net>().is_ok() => {
                self.error(path, format!("{text} is IPv6"), "skep forwards IPv4 only, so far");
                None
            }
            Err(_) => {
                self.error(path, format!("\"{text}\" is no network"), "write it as 10.0.0.0/8");
                None
            }
        }
    }

    fn ports(&mut self, path: &str, api: &NetworkPolicyPort) -> Option<Ports> {
        let Some(protocol) = Protocol::from_api(api.protocol.as_deref()) else {
            let path = format!("{path}.protocol");
            let name = api.protocol.as_deref().unwrap_or_default();
            self.error(&path, format!("\"{name}\" is no protocol"), "write TCP, UDP or SCTP");
            return None;
        };
        let which = match (&api.port, api.end_port) {
            (None, None) => WhichPorts::All,
            (None | Some(IntOrString::String(_)), Some(_)) => {
                let help = "give the range's first port as a number in port";
                self.error(&format!("{path}.endPort"), "endPort without a numeric port".to_owned(), help);
                return None;
            }
            (Some(IntOrString::String(name)), None) => WhichPorts::Named(name.clone()),
            (Some(IntOrString::Int(first)), last) => {
                let last = last.unwrap_or(*first);
                let port = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
                let (Some(a), Some(b)) = (port(*first), port(last)) else {
                    let field = if port(*first).is_none() { "port" } else { "endPort" };
                    let n = if field == "port" { *first } else { last };
                    let message = format!("{n} is no port");
                    self.error(&format!("{path}.{field}"), message, "ports are 1 to 65535");
                    return None;
                };
                if b < a {
                    let message = format!("endPort {b} is below port {a}");
                    self.error(&format!("{path}.endPort"), message, "write a range from low to high");
                    return None;
                }
                WhichPorts::Range(a, b)
            }
        };
        Some(Ports { protocol, which })
    }
}
