//! Each kind of expectation once as it holds, and once as a canary that must fail.

use super::*;
use crate::fake;

fn expect(text: &str) -> Expect {
    serde_json::from_str(text).unwrap()
}

fn judged(allowed: bool, text: &str) -> Vec<String> {
    let evidence = fake::evidence(allowed);
    let denied =
        Metric { reason: "POLICY_DENIED".into(), direction: PolicyDirection::Ingress, packets: 1, bytes: 74 };
    let counters = BTreeMap::from([("ubuntu-dev3".to_owned(), if allowed { vec![] } else { vec![denied] })]);
    let conntrack = BTreeMap::from([("ubuntu-dev2".to_owned(), vec![fake::conntrack_entry()])]);
    let observed = Observed { evidence: &evidence, counters: &counters, conntrack: &conntrack };
    judge(&expect(text), observed).into_iter().map(|m| m.field).collect()
}

const HOOKS: &str = r#"["from_container@ubuntu-dev2", "to_overlay@ubuntu-dev2", "to_netdev@ubuntu-dev2",
    "from_netdev@ubuntu-dev3", "from_overlay@ubuntu-dev3", "handle_policy@ubuntu-dev3"]"#;

#[test]
fn what_holds_holds() {
    let hooks = format!(r#"{{"verdict": "allowed", "status": 200, "hooks": {HOOKS}, "bytes": ">=1"}}"#);
    assert!(judged(true, &hooks).is_empty());
    let known = r#"{"identities": [{"at": "from_container@ubuntu-dev2", "source": 256, "destination": 257},
                                   {"at": "from_overlay@ubuntu-dev3", "source": 256}]}"#;
    assert!(judged(true, known).is_empty());
    let denied = r#"{
        "verdict": "dropped", "reason": "POLICY_DENIED", "at": "handle_policy@ubuntu-dev3",
        "rule": "default/deny-all", "packets": {"sent": 1, "delivered": 0},
        "counters": [{"node": "ubuntu-dev3", "reason": "POLICY_DENIED", "direction": "ingress", "packets": 1}],
        "conntrack": [{"node": "ubuntu-dev2", "entry": "TCP OUT 10.42.1.80:* -> 10.42.0.51:80",
                       "flags": ["SeenNonSyn"], "without": ["RxClosing"], "expires": "<=60s", "identity": 256}]
    }"#;
    assert!(judged(false, denied).is_empty());
}

#[test]
fn every_canary_fails_in_its_own_field() {
    let canaries = [
        (true, r#"{"verdict": "dropped"}"#, "verdict"),
        (false, r#"{"verdict": "allowed"}"#, "verdict"),
        (true, r#"{"verdict": "refused"}"#, "verdict"),
        (true, r#"{"status": 404}"#, "status"),
        (false, r#"{"status": 200}"#, "status"),
        (true, r#"{"reason": "POLICY_DENIED"}"#, "reason"),
        (false, r#"{"reason": "POLICY_DENY"}"#, "reason"),
        (false, r#"{"at": "handle_policy@ubuntu-dev2"}"#, "at"),
        (false, r#"{"at": "from_overlay@ubuntu-dev3"}"#, "at"),
        (false, r#"{"rule": "default/allow-curl"}"#, "rule"),
        (true, r#"{"hooks": []}"#, "hooks"),
        (true, r#"{"hooks": ["from_container@ubuntu-dev2"]}"#, "hooks"),
        (true, r#"{"hooks": ["...", "to_container@ubuntu-dev3"]}"#, "hooks"),
        (true, r#"{"reply_hooks": ["from_container@ubuntu-dev3", "..."]}"#, "reply_hooks"),
        (
            false,
            r#"{"counters": [{"node": "ubuntu-dev3", "reason": "POLICY_DENIED", "direction": "egress", "packets": 1}]}"#,
            "counters[0]",
        ),
        (
            false,
            r#"{"counters": [{"node": "ubuntu-dev2", "reason": "POLICY_DENIED", "direction": "ingress", "packets": 1}]}"#,
            "counters[0]",
        ),
        (
            false,
            r#"{"counters": [{"node": "ubuntu-dev3", "reason": "POLICY_DENIED", "direction": "ingress", "packets": ">1"}]}"#,
            "counters[0]",
        ),
        (true, r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "TCP IN *:* -> *:*"}]}"#, "conntrack[0]"),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* *  *:* -> *:*", "count": 0}]}"#,
            "conntrack[0]",
        ),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* * *:* -> *:*", "flags": ["RxClosing"]}]}"#,
            "conntrack[0].flags",
        ),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* * *:* -> *:*", "without": ["SeenNonSyn"]}]}"#,
            "conntrack[0].without",
        ),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* * *:* -> *:*", "expires": ">1h"}]}"#,
            "conntrack[0].expires",
        ),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* * *:* -> *:*", "packets": 2}]}"#,
            "conntrack[0].packets",
        ),
        (
            true,
            r#"{"conntrack": [{"node": "ubuntu-dev2", "entry": "* * *:* -> *:*", "identity": 257}]}"#,
            "conntrack[0].identity",
        ),
        (true, r#"{"arp": "from_container@ubuntu-dev2"}"#, "arp"),
        (true, r#"{"identities": [{"at": "from_container@ubuntu-dev2", "source": 257}]}"#, "identities[0]"),
        (
            true,
            r#"{"identities": [{"at": "from_container@ubuntu-dev2", "destination": 256}]}"#,
            "identities[0]",
        ),
        (true, r#"{"identities": [{"at": "to_overlay@ubuntu-dev2", "source": 256}]}"#, "identities[0]"),
        (true, r#"{"identities": [{"at": "to_container@ubuntu-dev3"}]}"#, "identities[0]"),
        (false, r#"{"packets": {"delivered": 1}}"#, "packets.delivered"),
        (true, r#"{"bytes": 1000000}"#, "bytes"),
    ];
    for (allowed, text, field) in canaries {
        assert_eq!(judged(allowed, text), [field], "{text}");
    }
}

#[test]
fn dots_stand_for_any_number_of_hooks_and_nothing_else_does() {
    let hooks: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
    let fits =
        |pattern: &[&str]| sequence(&pattern.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), &hooks);
    for good in [
        &["a", "b", "c"][..],
        &["..."],
        &["a", "..."],
        &["...", "c"],
        &["a", "...", "c"],
        &["...", "b", "..."],
    ] {
        assert!(fits(good), "{good:?}");
    }
    for bad in [&["a", "b"][..], &["b", "..."], &["...", "b"], &["a", "...", "b"], &["c", "...", "a"], &[]] {
        assert!(!fits(bad), "{bad:?}");
    }
}

#[test]
fn a_flow_is_allowed_dropped_refused_or_unanswered() {
    let verdict = |change: fn(&mut Evidence)| {
        let mut evidence = fake::evidence(false);
        change(&mut evidence);
        FlowVerdict::of(&evidence).verdict
    };
    assert_eq!(verdict(|_| {}), ExpectedVerdict::Dropped);
    assert_eq!(verdict(|e| e.outcome.completed = true), ExpectedVerdict::Allowed);
    assert_eq!(verdict(|e| e.outcome.refused = true), ExpectedVerdict::Refused);
    assert_eq!(verdict(|e| e.walks.clear()), ExpectedVerdict::Unanswered);
    let open = |e: &mut Evidence| (e.outcome.ended, e.outcome.established) = (false, true);
    assert_eq!(verdict(open), ExpectedVerdict::Allowed);
}

#[test]
fn state_is_compared_by_value() {
    let state = State {
        ipcache: BTreeMap::from([(
            "ubuntu-dev2".to_owned(),
            vec![IpcacheRow {
                cidr: "10.42.0.51/32".into(),
                identity: Identity { number: 257, text: String::new() },
                tunnel_endpoint: Some(fake::ip("192.168.1.13")),
            }],
        )]),
        maps: BTreeMap::from([(("ubuntu-dev2".to_owned(), "skep_lxc".to_owned()), 3)]),
        ..State::default()
    };
    let fields = |text: &str| -> Vec<String> {
        let assert: AssertStep = serde_json::from_str(text).unwrap();
        judge_state(&assert, &state).into_iter().map(|m| m.field).collect()
    };
    let row = |identity: u32, tunnel: &str| {
        format!(
            r#"{{"ipcache": [{{"node": "ubuntu-dev2", "cidr": "10.42.0.51", "identity": {identity},
                "tunnelEndpoint": "{tunnel}"}}]}}"#
        )
    };
    assert!(fields(&row(257, "192.168.1.13")).is_empty());
    assert_eq!(fields(&row(256, "192.168.1.13")), ["ipcache[0]"]);
    assert_eq!(fields(&row(257, "0.0.0.0")), ["ipcache[0]"]);
    assert!(fields(r#"{"maps": [{"node": "ubuntu-dev2", "name": "skep_lxc", "entries": 3}]}"#).is_empty());
    assert_eq!(
        fields(r#"{"maps": [{"node": "ubuntu-dev2", "name": "skep_lxc", "entries": 4}]}"#),
        ["maps[0]"]
    );
    assert_eq!(
        fields(r#"{"policy": [{"pod": "default/curl", "direction": "ingress", "deny": true}]}"#),
        ["policy[0]"]
    );
}
