//! The policy compiler against an evaluator that shares nothing with it, and what packets meet during a change.
mod common;

use common::universe::{
    End, NODES, OUTSIDE, PROTOCOLS, Packet, Pod, Policy, Requirement, lets_through, maps_let_through,
    namespaces_text, packets, pod, pod_key, pod_text, policy, policy_text,
};
use common::{World, entry, event, objects};
use proptest::prelude::*;
use skep_agent_core::policy::{Direction, Origin};
use skep_agent_core::{Datapath, Step, drive};
use std::collections::BTreeMap;

fn text(pods: &[Pod], policies: &[Policy]) -> String {
    let mut out = namespaces_text();
    pods.iter().enumerate().for_each(|(i, p)| out += &pod_text(i, p));
    policies.iter().enumerate().for_each(|(i, p)| out += &policy_text(&format!("policy{i}"), p));
    out
}

fn world(pods: &[Pod], policies: &[Policy]) -> World {
    let nodes = NODES.map(|(name, address, cidr)| entry(name, address, cidr));
    World::new(&nodes, &text(pods, policies)).0
}

fn verdict(world: &World, pods: &[Pod], datapath: Option<&Datapath>, packet: Packet) -> bool {
    let node = NODES[pods[packet.subject].node].0;
    maps_let_through(datapath.unwrap_or_else(|| world.datapath(node)), &world.cluster, pods, packet)
}

fn agree(world: &World, pods: &[Pod], policies: &[Policy]) -> Result<(), TestCaseError> {
    for packet in packets(pods.len()) {
        let (maps, api) = (verdict(world, pods, None, packet), lets_through(pods, policies, packet));
        prop_assert_eq!(maps, api, "{:?}: the maps say {}\n{}", packet, maps, text(pods, policies));
        explained(world, pods, policies, packet, api)?;
    }
    Ok(())
}

/// The decision without maps is the same, and each rule that it names lets the packet through by itself.
fn explained(
    world: &World,
    pods: &[Pod],
    policies: &[Policy],
    packet: Packet,
    allowed: bool,
) -> Result<(), TestCaseError> {
    let agent = world.agent(NODES[pods[packet.subject].node].0);
    let info = |i: usize| &world.cluster.pods()[&pod_key(pods, i)];
    let ip = match packet.other {
        End::Pod(i) => info(i).ip,
        End::Outside(i) => OUTSIDE[i].parse().expect("an address"),
        End::Node(i) => NODES[i].1.parse().expect("an address"),
    };
    let direction = if packet.egress { Direction::Egress } else { Direction::Ingress };
    let map = &agent.desired().policies[&info(packet.subject).endpoint];
    let decision = map.decide(agent.identity_of(ip), direction, PROTOCOLS[packet.protocol].1, packet.port);
    prop_assert_eq!(decision.allowed, allowed);
    prop_assert_eq!(decision.entry.is_some(), allowed);
    for origin in decision.entry.into_iter().flat_map(|(_, origins)| origins) {
        let Origin::Rule(rule) = origin else { continue };
        let i = policies.iter().enumerate().position(|(i, _)| rule.policy.name == format!("policy{i}"));
        let mut alone = policies[i.expect("a policy that was written")].clone();
        let rules = if packet.egress { &mut alone.egress } else { &mut alone.ingress };
        let named = rules.as_ref().and_then(|r| r.get(rule.index)).expect("a rule that was written").clone();
        *rules = Some(vec![named]);
        prop_assert!(lets_through(pods, &[alone], packet), "{:?} by {}", packet, rule);
    }
    Ok(())
}

/// Tells the steps one by one, and holds every state between against the states before and after.
///
/// A packet that is denied before and after must be denied all the way; with `no_gap` one that is allowed before and
/// after must be allowed all the way.
fn transition(world: &mut World, pods: &[Pod], steps: &[Step], no_gap: bool) -> Result<(), TestCaseError> {
    let packets = packets(pods.len());
    for step in steps {
        for node in NODES.map(|n| n.0) {
            let Some(event) = event(step, node) else { continue };
            let before = world.datapath(node).clone();
            let now = world.now;
            let (agent, fake) = world.nodes.get_mut(node).expect("the node");
            fake.snapshots = Some(Vec::new());
            drive(agent, fake, now, event);
            let snapshots = fake.snapshots.take().unwrap_or_default();
            let Some(after) = snapshots.last() else { continue };
            for &packet in packets.iter().filter(|p| NODES[pods[p.subject].node].0 == node) {
                let at = |d: &Datapath| verdict(world, pods, Some(d), packet);
                let (a, b) = (at(&before), at(after));
                if a != b || (a && !no_gap) {
                    continue;
                }
                for (i, between) in snapshots.iter().enumerate() {
                    let log = &world.nodes[node].1.log;
                    let action = &log[log.len() - snapshots.len() + i];
                    prop_assert_eq!(
                        at(between),
                        a,
                        "{:?} on {} after {:?} of {:?}",
                        packet,
                        node,
                        action,
                        step
                    );
                }
            }
        }
    }
    Ok(())
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    prop::collection::vec(pod(), 1..=4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn maps_say_what_the_api_says(pods in pods(), policies in prop::collection::vec(policy(), 0..=3)) {
        agree(&world(&pods, &policies), &pods, &policies)?;
    }

    #[test]
    fn no_packet_meets_half_a_policy_change(
        pods in pods(),
        first in policy(),
        second in policy(),
        other in prop::option::of(policy()),
    ) {
        let others: Vec<Policy> = other.into_iter().collect();
        let with = |p: &Policy| -> Vec<Policy> { std::iter::once(p.clone()).chain(others.clone()).collect() };
        let mut world = world(&pods, &with(&first));
        let second = Policy { namespace: first.namespace, ..second };
        let steps = world.cluster.apply(&objects(&policy_text("policy0", &second))).expect("the policy is right");
        transition(&mut world, &pods, &steps, true)?;
        agree(&world, &pods, &with(&second))?;
        let steps = world.cluster.delete(&objects(&policy_text("policy0", &second))).expect("it is there");
        transition(&mut world, &pods, &steps, true)?;
        // In the place of the one that is gone, one that selects nothing.
        let subject = vec![Requirement::Exists("gone")];
        agree(&world, &pods, &with(&Policy { subject, ..second }))?;
    }

    #[test]
    fn no_packet_meets_half_a_relabel(
        mut pods in pods(),
        policies in prop::collection::vec(policy(), 0..=3),
        relabelled in pod(),
    ) {
        let mut world = world(&pods, &policies);
        let key = pod_key(&pods, 0);
        let labels: BTreeMap<String, Option<String>> = ["x", "y"]
            .map(|k| (k.to_owned(), relabelled.labels.get(k).map(|v| (*v).to_owned())))
            .into();
        pods[0].labels = relabelled.labels;
        let steps = world.cluster.relabel(&key, &labels).expect("the pod is there");
        transition(&mut world, &pods, &steps, true)?;
        agree(&world, &pods, &policies)?;
    }
}
