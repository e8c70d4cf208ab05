//! Random frames through real devices: what BPF_PROG_TEST_RUN cannot show, since it carries no tunnel metadata and
//! executes no redirect.
//!
//! A namespace without a name has the node's card with from_netdev, a VXLAN device with from_overlay and to_overlay, and a
//! pod's device with from_container. Frames are written to the other ends of the pairs; what programs say, what stands in
//! the maps, and what leaves by a pod's device, enters by skep_host or is sent into the tunnel must be what skep-vm says of
//! the same programs with the same metadata. Does not know what a program is for.

use super::campaign::Options;
use super::generate::Generator;
use super::packet;
use super::random::Random;
use super::report::{Found, Report};
use crate::frame::Route;
use crate::fuzz::case::{self, By, CaseFile, SentFile};
use crate::kernel::Machine;
use crate::outcome::{Outcome, differences, hex};
use crate::row::Row;
use crate::vm::{Simulator, Walk};
use crate::world::{HOST_IFINDEX, NEIGHBOUR, NODE, OTHER_NODE, POD, Place, TUNNEL_IFINDEX, WORLD};
use skep_abi::event::Event;
use skep_abi::map;
use skep_agent_linux::{
    Error, FoundRoute, FrameSender, Netlink, Netns, NewEnd, Tap, TappedFrame, TcxHook, TcxLink,
    set_offloads_off, stay_on_cpu,
};
use skep_object::ObjectSet;
use skep_packet::{SkBuff, Tunnel};
use skep_vm::EngineKind;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The node's card, and its other end.
const CARD: u32 = 6;
const CARD_PEER: u32 = 5;
const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 6, 6];
/// The pod's own end.
const POD_PEER: u32 = 10;
const PORT: u16 = 8472;
/// Frames a case; the last one only says that all others have been dealt with.
const FRAMES: u64 = 16;
/// The network identifier of the last one.
const LAST: u32 = 0x00ab_cdef;
/// How long a case may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So much of a frame is compared, and may be looked at by a tap.
const SEEN: usize = 192;
/// An inner frame's length at the most: what is sent into the tunnel must be seen whole.
const INNER: usize = 140;
const REDIRECT: i32 = 7;
const REDIRECT_INGRESS: u64 = 1;

/// A frame that is put into the namespace.
#[derive(Clone, Debug)]
enum Sent {
    /// From the network: not in a tunnel.
    Plain(Vec<u8>),
    /// From the network, in a tunnel: network identifier, outer source, inner frame.
    Tunnelled(u32, [u8; 4], Vec<u8>),
    /// From the pod.
    ByPod(Vec<u8>),
}

/// What was seen to leave: device, or into the tunnel with its network identifier and destination, and the frame.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Left {
    By(u32, Vec<u8>),
    ToHost(Vec<u8>),
    Tunnel(u32, [u8; 4], Vec<u8>),
}

impl Sent {
    fn file(&self) -> SentFile {
        match self {
            Self::Plain(frame) => SentFile { by: By::Network, frame: hex(frame), ..SentFile::default() },
            Self::ByPod(frame) => SentFile { by: By::Pod, frame: hex(frame), ..SentFile::default() },
            Self::Tunnelled(vni, source, inner) => {
                SentFile { by: By::Tunnel, vni: *vni, source: *source, frame: hex(inner) }
            }
        }
    }

    fn of(file: &SentFile) -> Result<Self, String> {
        let frame = case::bytes(&file.frame)?;
        if frame.len() <= 14 || frame.len() > INNER {
            return Err(format!("a frame of {} bytes is not sent here", frame.len()));
        }
        Ok(match file.by {
            By::Network => Self::Plain(frame),
            By::Pod => Self::ByPod(frame),
            By::Tunnel => Self::Tunnelled(file.vni & 0x00ff_ffff, file.source, frame),
        })
    }

    /// The device to write to, and the bytes.
    fn written(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Plain(frame) => (CARD_PEER, frame.clone()),
            Self::ByPod(frame) => (POD_PEER, frame.clone()),
            Self::Tunnelled(vni, source, inner) => {
                let mut payload = vec![8, 0, 0, 0];
                payload.extend_from_slice(&(vni << 8).to_be_bytes());
                payload.extend_from_slice(inner);
                let route = Route {
                    src_mac: [2, 0, 0, 0, 6, 5],
                    dst_mac: CARD_MAC,
                    src: *source,
                    dst: NODE,
                    ttl: 64,
                };
                (CARD_PEER, route.udp_with(40000, PORT, &payload))
            }
        }
    }
}

/// Runs so many frames through real devices and skep-vm.
///
/// # Errors
///
/// Where the kernel cannot be asked, or has no tcx (before 6.6).
pub fn run(options: &Options, frames: u64, progress: impl Fn(u64) + Sync) -> Result<Report, String> {
    if !TcxLink::is_offered() {
        return Err("this kernel has no tcx, to which the programs would be attached".to_owned());
    }
    let started = Instant::now();
    let netns = namespace().map_err(|e| e.to_string())?;
    let work = || -> Result<Report, String> {
        // One CPU handles a frame after the other, in the order in which they were written.
        stay_on_cpu(0).map_err(|e| e.to_string())?;
        let mut site = Site::new(&options.kernel, &options.vm, options.engine)?;
        let mut report = Report { seed: options.seed, ..Report::default() };
        for case in 0..frames.div_ceil(FRAMES) {
            site.case(options.seed, case, &mut report)?;
            progress(report.frames);
            if report.found.len() >= 5 {
                break;
            }
        }
        Ok(report)
    };
    let mut report = netns.within(work).map_err(|e| e.to_string())??;
    report.elapsed = started.elapsed();
    Ok(report)
}

/// The differences of cases whose frames go through real devices, in their order.
///
/// # Errors
///
/// As [`run`], and a case that is none.
pub fn replay(cases: &[CaseFile], objects: &ObjectSet) -> Result<Vec<Vec<String>>, String> {
    let netns = namespace().map_err(|e| e.to_string())?;
    let work = || -> Result<Vec<Vec<String>>, String> {
        stay_on_cpu(0).map_err(|e| e.to_string())?;
        let mut site = Site::new(objects, objects, EngineKind::default())?;
        let one = |case: &CaseFile| {
            let mut row = case.row()?;
            row.state = row.state.host_address(NODE);
            let mut frames = case.sent.iter().map(Sent::of).collect::<Result<Vec<_>, _>>()?;
            frames.push(last());
            Ok(site.compare(&row, &frames)?.0)
        };
        cases.iter().map(one).collect()
    };
    netns.within(work).map_err(|e| e.to_string())?
}

/// The namespace: devices with the numbers that the maps know.
fn namespace() -> Result<Netns, Error> {
    let netns = Netns::new()?;
    netns.within(|| {
        for (name, value) in [
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ] {
            // Where a kernel has no such setting, there is nothing to set.
            let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
        }
        let mut netlink = Netlink::open()?;
        let end = |name, mac| NewEnd { name, mac, mtu: 1500, netns: None };
        // The peer is the first of a pair to get its number.
        netlink.add_veth(&end("host", crate::world::HOST_MAC), &end("net", [2, 0, 0, 0, 7, 2]))?;
        netlink.add_vxlan(&end("vxlan", [2, 0, 0, 0, 6, 4]), PORT)?;
        netlink.add_veth(&end("card", CARD_MAC), &end("wire", [2, 0, 0, 0, 6, 5]))?;
        for unused in ["br7", "br8", "br9"] {
            netlink.add_bridge(unused)?;
        }
        netlink.add_veth(&end("pod", POD.node_mac), &end("podside", POD.mac))?;
        netlink.add_veth(&end("other", NEIGHBOUR.mac), &end("neighbour", NEIGHBOUR.node_mac))?;
        let numbers = [
            ("host", HOST_IFINDEX),
            ("vxlan", TUNNEL_IFINDEX),
            ("card", CARD),
            ("wire", CARD_PEER),
            ("pod", POD.ifindex),
            ("podside", POD_PEER),
            ("neighbour", NEIGHBOUR.ifindex),
        ];
        for (name, number) in numbers {
            let is = netlink.ifindex(name)?;
            if is != number {
                let why = std::io::Error::other(format!("{name} is device {is}, not {number}"));
                return Err(Error::Kernel { what: "a namespace for frames".into(), source: why });
            }
        }
        for device in netlink.devices()?.iter().filter(|d| !d.name.starts_with("br")) {
            netlink.set_up(device.ifindex, false)?;
            if device.name != "lo" {
                let _ = set_offloads_off(&device.name);
            }
        }
        let net = |text: &str| text.parse().expect("a network in the source");
        netlink.add_address(CARD, net("192.168.1.12/24"))?;
        netlink.set_route(&FoundRoute {
            destination: net("0.0.0.0/0"),
            via: None,
            ifindex: CARD,
            src: None,
            mtu: None,
        })?;
        Ok(())
    })??;
    Ok(netns)
}

struct Site {
    machine: Machine,
    vm: Simulator,
    tap: Tap,
    sender: FrameSender,
    links: BTreeMap<&'static str, TcxLink>,
}

/// Which program runs where.
const HOOKS: [(&str, u32, TcxHook); 4] = [
    ("from_netdev", CARD, TcxHook::Ingress),
    ("from_overlay", TUNNEL_IFINDEX, TcxHook::Ingress),
    ("to_overlay", TUNNEL_IFINDEX, TcxHook::Egress),
    ("from_container", POD.ifindex, TcxHook::Ingress),
];

impl Site {
    fn new(objects: &ObjectSet, vm: &ObjectSet, engine: EngineKind) -> Result<Self, String> {
        Ok(Self {
            machine: Machine::new(objects.clone()).map_err(|e| e.to_string())?,
            vm: Simulator::new(vm)?.with_engine(engine),
            tap: Tap::open().map_err(|e| e.to_string())?,
            sender: FrameSender::open().map_err(|e| e.to_string())?,
            links: BTreeMap::new(),
        })
    }

    /// A case: its maps, and frames one after the other.
    fn case(&mut self, seed: u64, index: u64, report: &mut Report) -> Result<(), String> {
        let (row, frames) = made(seed, index);
        let mut wrong = self.compare(&row, &frames)?;
        // Frames that met a busy CPU may have overtaken each other: that does not happen twice.
        for _ in 0..2 {
            if wrong.0.is_empty() {
                break;
            }
            wrong = self.compare(&row, &frames)?;
        }
        let (found, simulated) = wrong;
        report.frames += frames.len() as u64;
        for sent in &frames {
            let name = match sent {
                Sent::Plain(_) => "from_netdev, as it is",
                Sent::Tunnelled(..) => "from_netdev, in a tunnel",
                Sent::ByPod(_) => "from_container",
            };
            *report.programs.entry(name.to_owned()).or_default() += 1;
        }
        report.count_events(&simulated);
        if !found.is_empty() {
            let (row, frames, differences) = self.smaller(row, frames, found)?;
            let sent = frames[..frames.len() - 1].iter().map(Sent::file).collect();
            let case = CaseFile { sent, ..CaseFile::of(&row, differences.join("\n")) };
            report.found.push(Found { index, differences, case });
        }
        Ok(())
    }

    /// Fewer frames and entries that still differ.
    fn smaller(
        &mut self,
        mut row: Row,
        mut frames: Vec<Sent>,
        mut found: Vec<String>,
    ) -> Result<(Row, Vec<Sent>, Vec<String>), String> {
        let mut at = 0;
        // The last frame stays: it says when all have been dealt with.
        while at + 1 < frames.len() {
            let mut fewer = frames.clone();
            fewer.remove(at);
            match self.compare(&row, &fewer)?.0 {
                none if none.is_empty() => at += 1,
                still => (frames, found) = (fewer, still),
            }
        }
        let mut at = 0;
        while at < row.state.0.len() {
            let mut fewer = row.clone();
            fewer.state.0.remove(at);
            match self.compare(&fewer, &frames)?.0 {
                none if none.is_empty() => at += 1,
                still => (row, found) = (fewer, still),
            }
        }
        Ok((row, frames, found))
    }

    fn compare(&mut self, row: &Row, frames: &[Sent]) -> Result<(Vec<String>, Outcome), String> {
        let (real, real_left) = self.real(row, frames)?;
        let mut left = Vec::new();
        let mut each = |walk: &mut Walk<'_>| frames.iter().try_for_each(|f| simulate(walk, f, &mut left));
        let simulated = self.vm.walk(row, real.start_s, &mut each)?;
        let mut found = differences(&real, &simulated);
        let mut devices = BTreeMap::<String, (Vec<&Left>, Vec<&Left>)>::new();
        real_left.iter().for_each(|l| devices.entry(where_to(l)).or_default().0.push(l));
        left.iter().for_each(|l| devices.entry(where_to(l)).or_default().1.push(l));
        for (place, (a, b)) in devices {
            if a != b {
                found.push(format!("{place}: {a:02x?} and {b:02x?}"));
            }
        }
        Ok((found, simulated))
    }

    /// The frames through the kernel.
    fn real(&mut self, row: &Row, frames: &[Sent]) -> Result<(Outcome, Vec<Left>), String> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            let ran = self.real_once(row, frames)?;
            if ran.0.start_s == crate::kernel::now_s() {
                return Ok(ran);
            }
        }
        self.real_once(row, frames)
    }

    fn real_once(&mut self, row: &Row, frames: &[Sent]) -> Result<(Outcome, Vec<Left>), String> {
        let say = |e: &dyn std::fmt::Display| e.to_string();
        self.machine.ready(row).map_err(|e| say(&e))?;
        for (name, ifindex, hook) in HOOKS {
            let program = self.machine.program_of(row, name)?;
            match self.links.get(name) {
                Some(link) => link.replace(program).map_err(|e| say(&e))?,
                None => {
                    let link = TcxLink::attach(program, ifindex, hook).map_err(|e| say(&e))?;
                    self.links.insert(name, link);
                }
            }
        }
        self.tap.drain().map_err(|e| say(&e))?;
        self.machine.events();
        for sent in frames {
            let (ifindex, bytes) = sent.written();
            self.sender.send(ifindex, &bytes).map_err(|e| say(&e))?;
        }
        let (until, mut events) = (Instant::now() + PATIENCE, Vec::<Vec<u8>>::new());
        while !events.iter().any(|e| is_last(e)) {
            if Instant::now() > until {
                return Err("the last frame of a case was never seen".to_owned());
            }
            events.extend(self.machine.events());
        }
        // The last frame's own drop follows its trace event.
        events.extend(self.machine.events());
        let outcome = self.machine.outcome(events).map_err(|e| say(&e))?;
        let left = self.tap.drain().map_err(|e| say(&e))?.into_iter().filter_map(left).collect();
        Ok((outcome, left))
    }
}

/// The case of an index: what stands in the maps, and the frames.
fn made(seed: u64, index: u64) -> (Row, Vec<Sent>) {
    let mut random = Random::of_case(seed ^ 0x7475_6e6e_656c, index);
    // A set-up stays for some cases: which program's is what matters in it.
    let names = ["from_overlay", "from_netdev", "from_container"];
    let name = names[(index / 8) as usize % names.len()];
    let generator = Generator::new(seed, skep_abi::program::by_name(name));
    let mut row = generator.case(index * super::generate::BLOCK / 8);
    for entry in row.state.0.iter_mut().filter(|e| e.map == Place::Node(map::IPCACHE.name)) {
        // A tunnel leads to where a route leads.
        if entry.value[4..8] != [0; 4] {
            entry.value[4..8].copy_from_slice(&random.pick(&[OTHER_NODE, WORLD, [192, 168, 1, 77]]));
        }
    }
    // Else the outer packet is no longer this node's.
    row.state = row.state.host_address(NODE);
    let mut frames: Vec<Sent> = (1..FRAMES).map(|_| sent(&mut random)).collect();
    frames.push(last());
    (row, frames)
}

/// The frame by which a case ends: no map knows where it goes.
fn last() -> Sent {
    let route = Route { src_mac: POD.mac, dst_mac: POD.mac, src: WORLD, dst: [198, 51, 100, 1], ttl: 9 };
    Sent::Tunnelled(LAST, OTHER_NODE, route.udp(1, 2, 3))
}

fn sent(random: &mut Random) -> Sent {
    let which = random.below(10);
    let frame = loop {
        let (frame, _) = packet::frame(random, which < 3);
        // A device takes a VLAN's tag out before a program sees the frame.
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        if frame.len() > 14 && frame.len() <= INNER && !tagged {
            break frame;
        }
    };
    let vni = match random.below(8) {
        0..4 => random.pick(&[300, 301, 400, 777]),
        4..7 => random.pick(&[0, 1, 2, 6, 7, 65535, 0x00ff_ffff]),
        _ => random.u32() & 0x00ff_ffff,
    };
    match which {
        0..3 => Sent::ByPod(frame),
        3..5 => Sent::Plain(frame),
        _ => Sent::Tunnelled(vni, random.pick(&[OTHER_NODE, [192, 168, 1, 77], WORLD]), frame),
    }
}

fn is_last(event: &[u8]) -> bool {
    matches!(Event::from_bytes(event), Some(Event::Drop(e)) if e.src_label == LAST)
}

/// What devices do with a frame, as `docs/datapath.md` has it, with the programs in skep-vm.
fn simulate(walk: &mut Walk<'_>, sent: &Sent, left: &mut Vec<Left>) -> Result<(), String> {
    let arrived = |frame: &[u8], ifindex| {
        let mut skb = SkBuff::from_frame(frame);
        (skb.ifindex, skb.ingress_ifindex) = (ifindex, ifindex);
        skb
    };
    match sent {
        Sent::ByPod(frame) => {
            let mut skb = arrived(frame, POD.ifindex);
            let verdict = walk.run("from_container", &mut skb)?;
            go_on(walk, verdict, skb, left)
        }
        Sent::Plain(frame) => {
            let mut skb = arrived(frame, CARD);
            let verdict = walk.run("from_netdev", &mut skb)?;
            go_on(walk, verdict, skb, left)
        }
        Sent::Tunnelled(vni, source, inner) => {
            let mut outer = arrived(&sent.written().1, CARD);
            let verdict = walk.run("from_netdev", &mut outer)?;
            if verdict.0 != 0 {
                return go_on(walk, verdict, outer, left);
            }
            if !is_taken_out(inner) {
                return Ok(());
            }
            let mut skb = arrived(inner, TUNNEL_IFINDEX);
            skb.tunnel = Some(Tunnel {
                id: *vni,
                local: NODE,
                remote: *source,
                ttl: 64,
                flags: 4,
                ..Tunnel::default()
            });
            let verdict = walk.run("from_overlay", &mut skb)?;
            go_on(walk, verdict, skb, left)
        }
    }
}

/// Whether the VXLAN device hands over what it has taken out: the IP header must be whole (`pskb_inet_may_pull`).
fn is_taken_out(inner: &[u8]) -> bool {
    inner.len()
        >= match inner.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 14,
        }
}

type Verdict = (i32, Option<(u32, u64)>);

fn go_on(walk: &mut Walk<'_>, verdict: Verdict, mut skb: SkBuff, left: &mut Vec<Left>) -> Result<(), String> {
    let frame = |skb: &SkBuff| skb.bytes().iter().copied().take(SEEN).collect::<Vec<u8>>();
    match verdict {
        (REDIRECT, Some((TUNNEL_IFINDEX, 0))) => {
            skb.ifindex = TUNNEL_IFINDEX;
            walk.run("to_overlay", &mut skb)?;
            if let Some(key) = skb.tunnel.filter(|t| t.transmit) {
                left.push(Left::Tunnel(key.id & 0x00ff_ffff, key.remote, skb.bytes().to_vec()));
            }
        }
        (REDIRECT, Some((to, 0))) if to == POD.ifindex || to == NEIGHBOUR.ifindex => {
            left.push(Left::By(to, frame(&skb)));
        }
        (REDIRECT, Some((HOST_IFINDEX, REDIRECT_INGRESS))) => left.push(Left::ToHost(frame(&skb))),
        _ => {}
    }
    Ok(())
}

/// What a tap saw, where it is one of the places that are compared.
fn left(frame: TappedFrame) -> Option<Left> {
    match (frame.ifindex, frame.outgoing) {
        (to, true) if to == POD.ifindex || to == NEIGHBOUR.ifindex => Some(Left::By(to, frame.bytes)),
        (HOST_IFINDEX, false) => Some(Left::ToHost(frame.bytes)),
        (CARD, true) => {
            const HEADERS: usize = 14 + 20 + 8;
            let udp_to = |port: u16| frame.bytes.get(36..38) == Some(&port.to_be_bytes());
            if frame.bytes.get(23) != Some(&17) || !udp_to(PORT) || frame.bytes.get(26..30) != Some(&NODE) {
                return None;
            }
            let vxlan = frame.bytes.get(HEADERS..HEADERS + 8)?;
            let vni = u32::from_be_bytes([0, vxlan[4], vxlan[5], vxlan[6]]);
            let remote = frame.bytes.get(30..34)?.try_into().ok()?;
            Some(Left::Tunnel(vni, remote, frame.bytes[HEADERS + 8..].to_vec()))
        }
        _ => None,
    }
}

fn where_to(left: &Left) -> String {
    match left {
        Left::By(ifindex, _) => format!("sent by device {ifindex}"),
        Left::ToHost(_) => "come in by skep_host".to_owned(),
        Left::Tunnel(..) => "sent into the tunnel".to_owned(),
    }
}
