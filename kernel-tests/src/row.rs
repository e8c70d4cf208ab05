//! A row of the tables: what goes in, and what the contract says must come out.
//!
//! Knows the contract's words. Does not know where a row is run.

use crate::frame::arp_answer;
use crate::outcome::{Context, Outcome, hex};
use crate::world::{Entry, Place, State, ct_map};
use skep_abi::DropReason;
use skep_abi::event::{Event, MatchType};
use skep_abi::map::{
    self, CtEntry, CtTuple4, METRIC_EGRESS, METRIC_INGRESS, MetricsKey, MetricsValue, PolicyEntry, PolicyKey,
};
use std::collections::{BTreeMap, BTreeSet};

/// Verdicts of tc (`TC_ACT_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Verdict {
    /// On to the network stack.
    Ok = 0,
    /// Dropped.
    Shot = 2,
    /// To the device that bpf_redirect was told.
    Redirect = 7,
}

/// What a program does to the packet's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// It is one router further on: Ethernet source and destination, time to live, header checksum.
    Forwarded {
        /// Ethernet source.
        src: [u8; 6],
        /// Ethernet destination.
        dst: [u8; 6],
    },
    /// Only Ethernet source and destination.
    Addressed {
        /// Ethernet source.
        src: [u8; 6],
        /// Ethernet destination.
        dst: [u8; 6],
    },
    /// It is the answer to the ARP request that it was: this is who has the address.
    ArpAnswer([u8; 6]),
}

/// A policy's decision, as its event says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The endpoint whose policy it is.
    pub endpoint: u16,
    /// METRIC_INGRESS or METRIC_EGRESS.
    pub dir: u8,
    /// 0, or the reason's number negated.
    pub verdict: i32,
    /// Which kind of key matched.
    pub matched: MatchType,
    /// How many bits of protocol and port the matched key counts.
    pub l4_prefix: u8,
}

/// What a conntrack entry must be.
type IsSo = fn(&CtEntry) -> bool;

/// What must come out.
#[derive(Clone, Debug)]
pub struct Expected {
    verdict: Verdict,
    redirect: Option<(u32, u64)>,
    dropped: Option<DropReason>,
    change: Change,
    mark: Option<u32>,
    metrics: BTreeSet<(u8, u8)>,
    decisions: Vec<Decision>,
    connections: BTreeSet<[u8; CtTuple4::SIZE]>,
    counted: Vec<(u16, [u8; PolicyKey::SIZE])>,
    chain: Vec<&'static str>,
    entries: Vec<(CtTuple4, IsSo)>,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The program that is run.
    pub program: &'static str,
    /// What the row is about.
    pub name: &'static str,
    /// The packet.
    pub frame: Vec<u8>,
    /// The context beside it.
    pub context: Context,
    /// Globals that differ from the node's, by name.
    pub globals: BTreeMap<&'static str, Vec<u8>>,
    /// What stands in the maps.
    pub state: State,
    /// A slot of `skep_calls` that stays empty.
    pub unplugged: Option<u32>,
    /// An endpoint whose slot of `skep_call_policy` stays empty.
    pub not_ready: Option<u16>,
    /// BPF_PROG_TEST_RUN of newer kernels does not take the packet: an IPv4 frame must hold a whole IPv4 header.
    pub kernel_may_refuse: bool,
    /// What must come out.
    pub expected: Expected,
}

impl Row {
    /// A row about the default node and context.
    pub fn new(program: &'static str, name: &'static str, frame: Vec<u8>, expected: Expected) -> Self {
        Self {
            program,
            name,
            frame,
            // What BPF_PROG_TEST_RUN has where nothing is asked for: the loopback device.
            context: Context { ifindex: 1, ..Context::default() },
            globals: BTreeMap::new(),
            state: State::default(),
            unplugged: None,
            not_ready: None,
            kernel_may_refuse: false,
            expected,
        }
    }

    /// With this in the maps.
    pub fn state(mut self, change: impl FnOnce(State) -> State) -> Self {
        self.state = change(self.state);
        self
    }

    /// With this mark.
    pub fn mark(mut self, mark: u32) -> Self {
        self.context.mark = mark;
        self
    }

    /// With these words in `cb`.
    pub fn cb(mut self, cb: [u32; 5]) -> Self {
        self.context.cb = cb;
        self
    }

    /// As it came in by this device.
    pub fn came_by(mut self, ifindex: u32) -> Self {
        self.context.ingress_ifindex = ifindex;
        self
    }

    /// With this global.
    pub fn global(mut self, global: skep_abi::global::Global, value: &[u8]) -> Self {
        assert_eq!(value.len(), usize::from(global.size), "{}: its size", global.name);
        self.globals.insert(global.name, value.to_vec());
        self
    }

    /// With this slot of `skep_calls` empty.
    pub fn unplugged(mut self, slot: u32) -> Self {
        self.unplugged = Some(slot);
        self
    }

    /// With this endpoint's slot of `skep_call_policy` empty.
    pub fn not_ready(mut self, endpoint: u16) -> Self {
        self.not_ready = Some(endpoint);
        self
    }

    /// Not a packet that every kernel's BPF_PROG_TEST_RUN takes: where it does not, the row only holds skep-vm
    /// against the contract.
    pub fn kernel_may_refuse(mut self) -> Self {
        self.kernel_may_refuse = true;
        self
    }

    /// `PROGRAM/NAME`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.program, self.name)
    }
}

/// Dropped by this reason, counted in this direction, and nothing else changed.
pub fn dropped(reason: DropReason, dir: u8) -> Expected {
    Expected { dropped: Some(reason), metrics: [(reason.number(), dir)].into(), ..expected(Verdict::Shot) }
}

/// Left to the network stack.
pub fn passed() -> Expected {
    expected(Verdict::Ok)
}

/// Redirected; the kernel's test runs do not say where to.
pub fn redirected(ifindex: u32, flags: u64) -> Expected {
    Expected { redirect: Some((ifindex, flags)), ..expected(Verdict::Redirect) }
}

fn expected(verdict: Verdict) -> Expected {
    Expected {
        verdict,
        redirect: None,
        dropped: None,
        change: Change::None,
        mark: None,
        metrics: BTreeSet::new(),
        decisions: Vec::new(),
        connections: BTreeSet::new(),
        counted: Vec::new(),
        chain: Vec::new(),
        entries: Vec::new(),
    }
}

impl Expected {
    /// The packet's bytes change so.
    pub fn change(mut self, change: Change) -> Self {
        self.change = change;
        self
    }

    /// The mark becomes this; without it the mark stays.
    pub fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The packet is counted under this reason in this direction.
    pub fn counts(mut self, reason: u8, dir: u8) -> Self {
        self.metrics.insert((reason, dir));
        self
    }

    /// Counted as forwarded on egress.
    pub fn sent(self) -> Self {
        self.counts(skep_abi::reason::METRIC_FORWARDED, METRIC_EGRESS)
    }

    /// Counted as forwarded on ingress.
    pub fn received(self) -> Self {
        self.counts(skep_abi::reason::METRIC_FORWARDED, METRIC_INGRESS)
    }

    /// Counted as come in from the network, the tunnel or the host.
    pub fn came_in(self) -> Self {
        self.counts(skep_abi::reason::METRIC_PLAINTEXT, METRIC_INGRESS)
    }

    /// A policy decides and says so.
    pub fn decides(
        mut self,
        endpoint: u16,
        dir: u8,
        verdict: i32,
        matched: MatchType,
        l4_prefix: u8,
    ) -> Self {
        self.decisions.push(Decision { endpoint, dir, verdict, matched, l4_prefix });
        self
    }

    /// This entry of an endpoint's policy has counted the packet, and no other has.
    pub fn counted_by(mut self, endpoint: u16, key: PolicyKey) -> Self {
        self.counted.push((endpoint, key.to_bytes()));
        self
    }

    /// These entries of conntrack are new, with those for error messages about them.
    pub fn connects(mut self, key: CtTuple4) -> Self {
        let errors = CtTuple4 {
            dport: skep_abi::Be16::from_bits(0),
            sport: skep_abi::Be16::from_bits(0),
            nexthdr: 1,
            flags: key.flags | map::tuple_flag::RELATED,
            ..key
        };
        self.connections.extend([key.to_bytes(), errors.to_bytes()]);
        self
    }

    /// The entry of conntrack is afterwards so. Times in it count from the start of the run.
    pub fn entry(mut self, key: CtTuple4, is_so: fn(&CtEntry) -> bool) -> Self {
        self.entries.push((key, is_so));
        self
    }

    /// These programs run after the first.
    pub fn goes_on_in(mut self, programs: &[&'static str]) -> Self {
        self.chain = programs.to_vec();
        self
    }

    /// The reason for which the packet is dropped, if it is.
    pub fn reason(&self) -> Option<DropReason> {
        self.dropped
    }

    /// All that is not as it must be.
    pub fn violations(&self, row: &Row, got: &Outcome) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut expect = |what: &str, is: String, must: String| {
            if is != must {
                wrong.push(format!("{what}: {is}, not {must}"));
            }
        };
        expect("verdict", got.return_value.to_string(), (self.verdict as i32).to_string());
        if let (Some(redirect), Verdict::Redirect) = (got.redirect, self.verdict) {
            expect("redirect", format!("{redirect:?}"), format!("{:?}", self.redirect));
        }
        if let Some(chain) = &got.chain {
            let must: Vec<&str> = std::iter::once(row.program).chain(self.chain.iter().copied()).collect();
            expect("programs", chain.join(" "), must.join(" "));
        }
        let mark = self.mark.unwrap_or(row.context.mark);
        expect("mark", format!("{:#x}", got.context.mark), format!("{mark:#x}"));
        expect("metrics", format!("{:?}", metrics(got)), format!("{:?}", self.expected_metrics(row)));
        let (drops, decisions) = events(got);
        let reasons = self.dropped.map(DropReason::name).into_iter().collect::<Vec<_>>();
        expect("drop events", format!("{drops:?}"), format!("{reasons:?}"));
        expect("verdict events", format!("{decisions:?}"), format!("{:?}", self.decisions));
        expect("new connections", connections(row, got), keys(&self.connections));
        expect(
            "entries that counted",
            format!("{:?}", counters(row, got)),
            format!("{:?}", self.expected_counters(row)),
        );
        wrong.extend(packet_violation(&self.change, row, got));
        wrong.extend(self.entries.iter().filter_map(|(key, is_so)| entry_violation(key, *is_so, got)));
        wrong
    }

    /// Each packet is counted once under a reason and direction, with its length as it came.
    fn expected_metrics(&self, row: &Row) -> BTreeMap<(u8, u8), (u64, u64)> {
        self.metrics.iter().map(|m| (*m, (1, row.frame.len() as u64))).collect()
    }

    fn expected_counters(&self, row: &Row) -> Vec<(u16, String, u64, u64)> {
        let mut all: Vec<_> =
            self.counted.iter().map(|(id, key)| (*id, hex(key), 1, row.frame.len() as u64)).collect();
        all.sort();
        all
    }
}

fn metrics(got: &Outcome) -> BTreeMap<(u8, u8), (u64, u64)> {
    let entries = got.maps.get(map::METRICS.name).into_iter().flatten();
    entries
        .filter_map(|(k, v)| {
            let (k, v) = (MetricsKey::from_bytes(k)?, MetricsValue::from_bytes(v)?);
            Some(((k.reason, k.dir), (v.count, v.bytes)))
        })
        .collect()
}

fn events(got: &Outcome) -> (Vec<&'static str>, Vec<Decision>) {
    let (mut drops, mut decisions) = (Vec::new(), Vec::new());
    for event in got.events.iter().map(|e| Event::from_bytes(e)) {
        match event {
            Some(Event::Drop(e)) => {
                drops.push(e.reason().map_or("a number without a name", DropReason::name))
            }
            Some(Event::PolicyVerdict(e)) => decisions.push(Decision {
                endpoint: e.source,
                dir: e.dir(),
                verdict: e.verdict,
                matched: e.match_type().unwrap_or(MatchType::None),
                l4_prefix: e.l4_prefix,
            }),
            Some(Event::Trace(_)) => {}
            None => drops.push("an event of no known kind"),
        }
    }
    (drops, decisions)
}

/// The conntrack keys that were not there before, in hexadecimal.
fn connections(row: &Row, got: &Outcome) -> String {
    let names = [map::CT4_GLOBAL.name, map::CT_ANY4_GLOBAL.name];
    let before = |key: &Vec<u8>| {
        row.state.0.iter().any(|e| e.key == *key && matches!(e.map, Place::Node(n) if names.contains(&n)))
    };
    let new: BTreeSet<&Vec<u8>> =
        names.iter().filter_map(|n| got.maps.get(*n)).flat_map(|m| m.keys()).filter(|k| !before(k)).collect();
    keys(&new)
}

fn keys<K: AsRef<[u8]>>(keys: &BTreeSet<K>) -> String {
    keys.iter().map(|k| hex(k.as_ref())).collect::<Vec<_>>().join(" ")
}

/// The policy entries whose counters moved: endpoint, key, packets, bytes.
fn counters(row: &Row, got: &Outcome) -> Vec<(u16, String, u64, u64)> {
    let ids: BTreeSet<u16> = row
        .state
        .0
        .iter()
        .filter_map(|Entry { map, .. }| if let Place::Policy(id) = map { Some(*id) } else { None })
        .collect();
    let mut all = Vec::new();
    for id in ids {
        for (key, value) in got.maps.get(&policy_name(id)).into_iter().flatten() {
            if let Some(e) = PolicyEntry::from_bytes(value).filter(|e| e.packets != 0 || e.bytes != 0) {
                all.push((id, hex(key), e.packets, e.bytes));
            }
        }
    }
    all.sort();
    all
}

/// The name of an endpoint's policy map in an outcome.
pub fn policy_name(id: u16) -> String {
    format!("{}_{id:05}", map::POLICY.name)
}

fn entry_violation(key: &CtTuple4, is_so: IsSo, got: &Outcome) -> Option<String> {
    let value = got.maps.get(ct_map(key.nexthdr).name).and_then(|m| m.get(key.to_bytes().as_slice()));
    let Some(mut entry) = value.and_then(|v| CtEntry::from_bytes(v)) else {
        return Some(format!("no conntrack entry {}", hex(&key.to_bytes())));
    };
    for time in [&mut entry.lifetime, &mut entry.last_tx_report, &mut entry.last_rx_report] {
        // A second may have turned since the start.
        *time = if *time == 0 { 0 } else { time.wrapping_sub(got.start_s) };
    }
    let a_second_later = CtEntry { lifetime: entry.lifetime.wrapping_sub(1), ..entry };
    (!is_so(&entry) && !is_so(&a_second_later)).then(|| format!("conntrack entry: {entry:?}"))
}

fn packet_violation(change: &Change, row: &Row, got: &Outcome) -> Option<String> {
    let mut must = row.frame.clone();
    match change {
        Change::None => {}
        Change::Addressed { src, dst } => address(&mut must, src, dst),
        Change::Forwarded { src, dst } => {
            address(&mut must, src, dst);
            must[22] -= 1;
            let header = 14..14 + usize::from(must[14] & 15) * 4;
            must[24..26].fill(0);
            let sum = !skep_packet::fold(skep_packet::ones_complement_sum(0, &must[header]));
            must[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Change::ArpAnswer(mac) => return arp_violation(*mac, row, got),
    }
    (must != got.packet).then(|| format!("packet: {}, not {}", hex(&got.packet), hex(&must)))
}

fn address(frame: &mut [u8], src: &[u8; 6], dst: &[u8; 6]) {
    frame[..6].copy_from_slice(dst);
    frame[6..12].copy_from_slice(src);
}

fn arp_violation(mac: [u8; 6], row: &Row, got: &Outcome) -> Option<String> {
    let asked = etherparse::ArpPacketSlice::from_slice(row.frame.get(14..)?).ok()?.to_packet();
    let asked = etherparse::ArpEthIpv4Packet::try_from(asked).ok()?;
    let Some((src, dst, answer)) = arp_answer(&got.packet) else {
        return Some(format!("no ARP answer: {}", hex(&got.packet)));
    };
    let right = src == mac
        && dst == asked.sender_mac
        && answer.sender_mac == mac
        && answer.sender_ipv4 == asked.target_ipv4
        && answer.target_mac == asked.sender_mac
        && answer.target_ipv4 == asked.sender_ipv4;
    (!right).then(|| format!("ARP answer: {answer:?}"))
}
