//! The agent's conversation with its node: restarts, refusals, order, timers, explanations.
mod common;

use common::{CURL_AND_HTTPBIN, FakeNode, World, config, event, objects, two_nodes};
use skep_abi::event::{MatchType, PolicyVerdictNotify};
use skep_abi::{Be16, DropReason};
use skep_agent_core::{
    Action, Agent, Change, Datapath, Event, Outcome, Performed, PodKey, Refused, Step, Swept, Time, diff,
    drive, gc, start,
};
use std::collections::BTreeMap;
use std::time::Duration;

const NODE: &str = "ubuntu-dev3";

const ALLOW_CURL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: httpbin}
spec:
  podSelector: {matchLabels: {app: httpbin}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: curl}}
        - ipBlock: {cidr: 10.0.0.0/8}
      ports:
        - {port: http}
";

const DENY_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec:
  podSelector: {}
  policyTypes: [Ingress]
";

fn walk() -> World {
    World::new(&two_nodes(), CURL_AND_HTTPBIN).0
}

/// A new agent of a node, told everything.
fn restart(world: &mut World, name: &str) -> Vec<Performed> {
    let steps = world.cluster.replay(name);
    let now = world.now;
    let (agent, node) = world.nodes.get_mut(name).expect("the node");
    *agent = Agent::new(config(name));
    let mut done = start(agent, node, now);
    for step in &steps {
        done.extend(drive(agent, node, now, event(step, name).expect("the replay is for this node")));
    }
    done
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = walk();
    world.apply(ALLOW_CURL);
    let before = world.datapath(NODE).clone();
    let done = restart(&mut world, NODE);
    let actions: Vec<&Action> = done.iter().map(|p| &p.action).collect();
    assert_eq!(actions, [&Action::EndpointReady { endpoint: 1 }]);
    assert_eq!(world.datapath(NODE), &before);
    assert_eq!(
        world.agent(NODE).identity_of([10, 99, 0, 1].into()),
        (1 << 24) + 1,
        "networks keep their identities"
    );
}

#[test]
fn an_agent_asks_for_nothing_before_it_was_told_everything() {
    let mut world = walk();
    let steps = world.cluster.replay(NODE);
    let (agent, node) = world.nodes.get_mut(NODE).expect("the node");
    *agent = Agent::new(config(NODE));
    assert!(agent.wants_inventory(Time::ZERO));
    let mut performed = start(agent, node, Time::ZERO);
    for step in &steps[..steps.len() - 1] {
        performed.extend(drive(agent, node, Time::ZERO, event(step, NODE).expect("it is right")));
    }
    assert!(performed.is_empty());
    assert_eq!(steps.last(), Some(&Step::Broadcast(Change::Synced)));
}

/// Kills the agent after every number of actions of a change, and lets a new one go on.
fn cut_everywhere(mut world: World, change: impl Fn(&mut World) -> Vec<Step>) {
    let steps = change(&mut world);
    for budget in 0.. {
        let mut cut = World { now: world.now, cluster: world.cluster.clone(), nodes: world.nodes.clone() };
        for (_, node) in cut.nodes.values_mut() {
            node.budget = Some(budget);
        }
        let done = cut.tell(&steps);
        let finished = done.values().flatten().all(|p| p.result.is_ok());
        for name in ["ubuntu-dev2", NODE] {
            cut.nodes.get_mut(name).expect("the node").1.budget = None;
            restart(&mut cut, name);
            cut.assert_converged(name);
        }
        if finished {
            assert!(budget > 0);
            return;
        }
    }
}

#[test]
fn whatever_was_done_a_new_agent_goes_on_from_there() {
    let (cluster, steps) =
        skep_agent_core::Cluster::build(&two_nodes(), &objects(CURL_AND_HTTPBIN)).expect("it is right");
    let mut empty = walk();
    for (name, (agent, node)) in &mut empty.nodes {
        (*agent, *node) = (Agent::new(config(name)), FakeNode::default());
        start(agent, node, empty.now);
    }
    empty.cluster = cluster;
    cut_everywhere(empty, move |_| steps.clone());
    cut_everywhere(walk(), |w| w.cluster.apply(&objects(ALLOW_CURL)).expect("it is right"));
    cut_everywhere(walk(), |w| w.cluster.delete(&objects(CURL_AND_HTTPBIN)).expect("it is right"));
    cut_everywhere(walk(), |w| {
        let labels = BTreeMap::from([("app".to_owned(), Some("other".to_owned()))]);
        w.cluster.relabel(&PodKey::new("default", "httpbin"), &labels).expect("it is right")
    });
}

#[test]
fn an_endpoint_that_goes_leaves_call_policy_first_and_leaves_nothing() {
    let mut world = walk();
    let before = world.datapath(NODE).clone();
    let pod = objects(CURL_AND_HTTPBIN).remove(1);
    let steps = world.cluster.delete(std::slice::from_ref(&pod)).expect("it is right");
    let done = world.tell(&steps);
    let actions: Vec<&Action> = done[NODE].iter().map(|p| &p.action).collect();
    assert_eq!(actions[0], &Action::Unpublish { endpoint: 1 });
    assert!(matches!(actions[1], Action::Detach { .. }), "{actions:?}");
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(|a| wanted(a)).expect("it is there");
    assert!(at(|a| matches!(a, Action::Unload { .. })) < at(|a| matches!(a, Action::DeleteMap { .. })));
    assert!(at(|a| matches!(a, Action::DeleteMap { .. })) < at(|a| matches!(a, Action::DeleteDevice { .. })));
    world.assert_converged(NODE);
    assert!(world.datapath(NODE).published.is_empty());
    assert_eq!(world.datapath(NODE).maps.len(), before.maps.len() - 1);

    let steps = world.cluster.apply(&[pod]).expect("it is right");
    world.tell(&steps);
    let links = &before.links;
    let again = world.datapath(NODE);
    assert_eq!(diff::canonical(again, &again.links).maps.len(), diff::canonical(&before, links).maps.len());
}

#[test]
fn a_relabelled_pod_gets_a_new_load_before_the_old_one_goes() {
    let mut world = walk();
    let labels = BTreeMap::from([("tier".to_owned(), Some("back".to_owned()))]);
    let steps = world.cluster.relabel(&PodKey::new("default", "httpbin"), &labels).expect("it is right");
    let told: Vec<&str> = steps
        .iter()
        .map(|s| match s {
            Step::Broadcast(Change::Identity(i)) if i.id == 258 => "identity",
            Step::Broadcast(Change::Pod(p)) if p.identity == 258 => "pod",
            Step::Broadcast(Change::IdentityGone(257)) => "gone",
            _ => "?",
        })
        .collect();
    assert_eq!(told, ["identity", "pod", "gone"]);
    let done = world.tell(&steps);
    let order: Vec<&str> = done[NODE]
        .iter()
        .map(|p| match &p.action {
            Action::Load { id, .. } if id.generation == 2 => "load",
            Action::Publish { load, .. } if load.generation == 2 => "publish",
            Action::MapUpdate { map, .. } => map,
            Action::Attach { attachment, .. } if attachment.load.generation == 2 => "attach",
            Action::Unload { id } if id.generation == 1 => "unload",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, ["load", "publish", "skep_lxc", "attach", "skep_ipcache", "unload"]);
    let remote: Vec<&Action> = done["ubuntu-dev2"].iter().map(|p| &p.action).collect();
    assert!(matches!(remote[..], [Action::MapUpdate { map, .. }] if map == "skep_ipcache"), "{remote:?}");
}

/// The order of maps when a policy and everything that it is about come together.
#[test]
fn identities_come_before_policy_maps_and_these_before_the_ipcache() {
    let mut world = walk();
    world.apply(ALLOW_CURL);
    let more = "
apiVersion: v1
kind: Pod
metadata: {name: second, labels: {app: curl, v: two}}
spec: {nodeName: ubuntu-dev2, containers: [{name: c, image: c}]}
";
    let done = world.apply(more);
    let maps: Vec<&str> = done[NODE]
        .iter()
        .filter_map(|p| match &p.action {
            Action::MapUpdate { map, .. } | Action::MapDelete { map, .. } => Some(map.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(maps, ["skep_policy_v2_00001", "skep_ipcache"]);
}

#[test]
fn a_refused_action_is_tried_again_from_a_new_inventory() {
    let mut world = walk();
    let (agent, node) = world.nodes.get_mut(NODE).expect("the node");
    node.budget = Some(0);
    let steps = world.cluster.apply(&objects(DENY_ALL)).expect("it is right");
    let done = drive(agent, node, world.now, event(&steps[0], NODE).expect("it is right"));
    let results: Vec<bool> = done.iter().map(|p| p.result.is_ok()).collect();
    assert!(results.contains(&false), "{done:?}");
    let due = agent.next_timer().expect("it tries again");
    assert_eq!(due, world.now.after(Duration::from_secs(1)));
    assert!(!agent.wants_inventory(world.now) && agent.wants_inventory(due));

    // The inventory is refused too: later and later.
    node.budget = Some(0);
    assert!(drive(agent, node, due, Event::Tick).is_empty());
    let due = agent.next_timer().expect("it tries again");
    assert_eq!(due, world.now.after(Duration::from_secs(3)));
    node.budget = None;
    let done = drive(agent, node, due, Event::Tick);
    assert!(!done.is_empty() && done.iter().all(|p| p.result.is_ok()), "{done:?}");
    world.assert_converged(NODE);
}

#[test]
fn conntrack_is_collected_after_five_minutes_and_then_by_what_was_found() {
    let mut world = walk();
    let start = world.now;
    let (agent, node) = world.nodes.get_mut(NODE).expect("the node");
    let first = start.after(Duration::from_secs(300));
    assert_eq!(agent.next_timer(), Some(first));
    assert!(drive(agent, node, start.after(Duration::from_secs(299)), Event::Tick).is_empty());
    node.swept = vec![Swept { map: "skep_ct4_global".to_owned(), alive: 5, deleted: 3 }];
    let done = drive(agent, node, first, Event::Tick);
    let maps = gc::MAPS.iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].action, Action::CollectConntrack { maps, now_s: 301 });
    assert!(matches!(done[0].result, Ok(Outcome::Collected(_))));
    assert_eq!(agent.next_timer(), Some(first.after(Duration::from_secs(450))));
}

#[test]
fn answers_that_come_late_are_waited_for() {
    let world = walk();
    let mut agent = Agent::new(config(NODE));
    let mut out = Vec::new();
    agent.handle(Time::ZERO, Event::Found(FakeNode::default().datapath), &mut out);
    for step in world.cluster.replay(NODE) {
        agent.handle(Time::ZERO, event(&step, NODE).expect("it is right"), &mut out);
    }
    let first = std::mem::take(&mut out);
    assert!(first.len() > 20);
    // A change while actions are under way waits for all of their answers.
    let mut cluster = world.cluster.clone();
    for step in cluster.apply(&objects(DENY_ALL)).expect("it is right") {
        agent.handle(Time::ZERO, event(&step, NODE).expect("it is right"), &mut out);
    }
    assert!(out.is_empty());
    let mut node = FakeNode::default();
    for (id, action) in first {
        assert!(out.is_empty());
        let result = skep_agent_core::Node::perform(&mut node, &action);
        agent.handle(Time::ZERO, Event::Done(id, result), &mut out);
    }
    assert!(matches!(out[..], [(_, Action::MapDelete { .. })]), "{out:?}");
    agent.handle(Time::ZERO, Event::Done(out[0].0, Err(Refused::new("no"))), &mut Vec::new());
    assert!(agent.datapath().is_none());
}

fn verdict(
    source: u16,
    remote_label: u32,
    match_type: MatchType,
    l4_prefix: u8,
    verdict: i32,
) -> PolicyVerdictNotify {
    PolicyVerdictNotify {
        source,
        remote_label,
        verdict,
        dst_port: Be16::from_host(80),
        proto: 6,
        bits: PolicyVerdictNotify::pack_bits(1, match_type),
        l4_prefix,
        ..Default::default()
    }
}

#[test]
fn verdicts_are_explained() {
    let mut world = walk();
    let all = world.agent(NODE).explain_verdict(&verdict(1, 256, MatchType::All, 0, 0)).expect("it is right");
    assert_eq!((all.allowed, all.rules.len()), (true, 0));
    assert_eq!(all.default.as_deref(), Some("no policy selects the pod for ingress"));

    world.apply(ALLOW_CURL);
    let agent = world.agent(NODE);
    let e = agent.explain_verdict(&verdict(1, 256, MatchType::L3L4, 24, 0)).expect("it is right");
    assert!(e.allowed && e.default.is_none());
    assert_eq!(e.rules[0].to_string(), "default/httpbin ingress[0] (objects.yaml:8)");
    assert_eq!(e.revision, 2);
    let denied = -i32::from(DropReason::POLICY_DENIED.number());
    let e = agent.explain_verdict(&verdict(1, 6, MatchType::None, 0, denied)).expect("it is right");
    assert!(!e.allowed && e.rules.is_empty());
    let text = "no rule of default/httpbin, which selects default/httpbin for ingress, allows it";
    assert_eq!(e.default.as_deref(), Some(text));
    let e = agent.explain_verdict(&verdict(1, 1, MatchType::L3Only, 0, 0)).expect("it is right");
    assert_eq!(e.default.as_deref(), Some("a node may always reach its own pods"));
    assert!(agent.explain_verdict(&verdict(9, 1, MatchType::All, 0, 0)).is_none());
    assert_eq!(agent.identity_text((1 << 24) + 1), ["cidr:10.0.0.0/8", "reserved:world"]);

    // An entry that is gone is still known by what made it.
    world.apply(DENY_ALL);
    let e = world.agent(NODE).explain_verdict(&verdict(1, 256, MatchType::All, 0, 0)).expect("it is right");
    assert_eq!(e.default.as_deref(), Some("no policy selects the pod for ingress"));
    assert_eq!(e.policies.len(), 2);
}

/// `apply(diff(a, b), a) == b`, for all pairs of a series of states of both nodes.
#[test]
fn a_difference_leads_where_it_should() {
    let mut world = walk();
    let mut states: Vec<Datapath> = vec![FakeNode::default().datapath];
    let mut wanted: Vec<Datapath> = vec![Datapath::default()];
    let relabel = BTreeMap::from([("app".to_owned(), None)]);
    let keep = |world: &World, states: &mut Vec<Datapath>, wanted: &mut Vec<Datapath>| {
        for name in ["ubuntu-dev2", NODE] {
            states.push(world.datapath(name).clone());
            wanted.push(world.agent(name).desired().datapath.clone());
        }
    };
    keep(&world, &mut states, &mut wanted);
    world.apply(ALLOW_CURL);
    keep(&world, &mut states, &mut wanted);
    world.apply(DENY_ALL);
    let steps = world.cluster.relabel(&PodKey::new("default", "curl"), &relabel).expect("it is right");
    world.tell(&steps);
    keep(&world, &mut states, &mut wanted);
    for have in &states {
        for want in &wanted {
            let mut node = FakeNode { datapath: have.clone(), next_ifindex: 100, ..FakeNode::default() };
            for action in diff::diff(have, want) {
                skep_agent_core::Node::perform(&mut node, &action).expect("it can be performed");
            }
            let links = &node.datapath.links;
            assert!(diff::canonical(&node.datapath, links) == diff::canonical(want, links));
            assert_eq!(diff::diff(&node.datapath, want), []);
        }
    }
}
