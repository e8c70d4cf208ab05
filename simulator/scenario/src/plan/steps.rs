//! One step of the schema to one step of the plan. Does not run anything.

use super::{Action, PlannedStep, Planner};
use crate::error::Diagnostic;
use crate::packet;
use crate::schema::{self, ACTIONS, HttpStep, PacketSpec, SendStep, Step, UntilSpec};
use crate::suggest;
use crate::world::{Capability, Change, Fault, Labelled, Stimulus, Target, Until};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Port of `http` where none is written.
const HTTP_PORT: u16 = 80;
/// Bytes of a `udp` step that gives no size.
const UDP_BYTES: u16 = 32;

type Planned = Result<(String, Action), Diagnostic>;

impl Planner {
    pub(super) fn step(&mut self, i: usize, step: &Step) -> Result<PlannedStep, Diagnostic> {
        let at = format!("spec.steps[{i}]");
        let action = match step.actions().as_slice() {
            [one] => *one,
            [] => {
                let help = format!("write one of {}", ACTIONS.join(", "));
                return Err(self.at(&at, "the step does nothing").help(help));
            }
            many => {
                return Err(self
                    .at(&at, format!("the step does {} at once", many.join(" and ")))
                    .help("write a step for each"));
            }
        };
        let field = format!("{at}.{action}");
        let (title, action) = self.action(&field, step)?;
        let is_flow = matches!(action, Action::Start { .. } | Action::Await(_));
        if let Some(expect) = &step.expect {
            if !is_flow {
                return Err(self
                    .at(&format!("{at}.expect"), "only a step that sends packets has expectations")
                    .help("compare state with an assert step"));
            }
            self.check_expect(&format!("{at}.expect"), expect)?;
        }
        let needs = needs(&action, step);
        let line = self.source.at(&at).line;
        Ok(PlannedStep { number: i + 1, line, title, action, expect: step.expect.clone(), needs })
    }

    fn action(&mut self, field: &str, step: &Step) -> Planned {
        if let Some(http) = &step.http {
            return self.http(field, http);
        }
        if let Some(name) = &step.await_ {
            return self.await_(field, name);
        }
        if let Some(files) = &step.apply {
            return self.files(field, &files.0, true);
        }
        if let Some(files) = &step.delete {
            return self.files(field, &files.0, false);
        }
        if let Some(assert) = &step.assert {
            self.check_assert(field, assert)?;
            return Ok(("assert".into(), Action::Assert(assert.clone())));
        }
        if let Some(by) = step.advance {
            return Ok((format!("advance {}", humantime::format_duration(by)), Action::Advance(by)));
        }
        if step.probe.is_some() {
            return Err(self
                .at(field, "probe is not supported yet")
                .help("write a connect step for each pair that matters"));
        }
        match (&step.relabel, &step.restart_agent, &step.fault) {
            (Some(relabel), _, _) => self.relabel(field, relabel),
            (_, Some(node), _) => {
                self.known_node(field, node)?;
                let change = Change::RestartAgent { node: node.clone() };
                Ok((format!("restart-agent {node}"), Action::Change(change, vec![])))
            }
            (_, _, Some(fault)) => self.fault(field, fault),
            _ => self.packets(field, step),
        }
    }

    /// The steps that send and finish at once.
    fn packets(&mut self, field: &str, step: &Step) -> Planned {
        let stimulus = if let Some(connect) = &step.connect {
            self.known_pod(&format!("{field}.from"), &connect.from)?;
            self.valid_port(&format!("{field}.port"), connect.port)?;
            Stimulus::Connect {
                from: connect.from.clone(),
                to: self.target(&format!("{field}.to"), &connect.to)?,
                port: connect.port,
            }
        } else if let Some(udp) = &step.udp {
            self.known_pod(&format!("{field}.from"), &udp.from)?;
            self.valid_port(&format!("{field}.port"), udp.port)?;
            Stimulus::Udp {
                from: udp.from.clone(),
                to: self.target(&format!("{field}.to"), &udp.to)?,
                port: udp.port,
                len: udp.bytes.unwrap_or(UDP_BYTES),
            }
        } else if let Some(ping) = &step.ping {
            self.known_pod(&format!("{field}.from"), &ping.from)?;
            Stimulus::Ping {
                from: ping.from.clone(),
                to: self.target(&format!("{field}.to"), &ping.to)?,
                count: ping.count.unwrap_or(1),
            }
        } else if let Some(send) = &step.send {
            Stimulus::Send { from: send.from.clone(), packets: self.send(field, send)? }
        } else {
            // Planner::step has found exactly one action, and all others are dealt with.
            return Err(self.at(field, "the step does nothing"));
        };
        let title = title(&stimulus);
        Ok((title, Action::Start { name: None, stimulus, until: Until::Done }))
    }

    fn http(&mut self, field: &str, http: &HttpStep) -> Planned {
        self.known_pod(&format!("{field}.from"), &http.from)?;
        let (to, port, path) = match (&http.url, &http.to) {
            (Some(url), None) => {
                let url_field = format!("{field}.url");
                parse_url(url).map_err(|(message, help)| self.at(&url_field, message).help(help))?
            }
            (None, Some(to)) => (
                self.target(&format!("{field}.to"), to)?,
                http.port.unwrap_or(HTTP_PORT),
                http.path.clone().unwrap_or_else(|| "/".to_owned()),
            ),
            _ => {
                return Err(self
                    .at(field, "http needs a url, or else to, port and path")
                    .help("give one of both"));
            }
        };
        if http.url.is_some() && (http.port.is_some() || http.path.is_some()) {
            return Err(self.at(field, "port and path stand in the url").help("leave them out beside url"));
        }
        self.valid_port(&format!("{field}.port"), port)?;
        if !path.starts_with('/') {
            return Err(self.at(&format!("{field}.path"), "a path begins with /").help("write it like /get"));
        }
        let until = match &http.until {
            None => Until::Done,
            Some(UntilSpec::Established) => Until::Established,
            Some(UntilSpec::Bytes(n)) => Until::Bytes(*n),
            Some(UntilSpec::Time(d)) => Until::Time(*d),
            Some(UntilSpec::Quiet(d)) => Until::Quiet(*d),
        };
        match &http.name {
            None if http.until.is_some() => {
                return Err(self
                    .at(&format!("{field}.until"), "a flow that is left open needs a name")
                    .help("add `name: NAME`, and later a step `await: NAME`"));
            }
            Some(name) if self.open.insert(name.clone(), http.from.clone()).is_some() => {
                return Err(self
                    .at(&format!("{field}.name"), format!("a flow {name} is open already"))
                    .help("await it first, or choose another name"));
            }
            _ => {}
        }
        let stimulus = Stimulus::Http { from: http.from.clone(), to, port, path };
        Ok((title(&stimulus), Action::Start { name: http.name.clone(), stimulus, until }))
    }

    fn await_(&mut self, field: &str, name: &str) -> Planned {
        if self.open.remove(name).is_none() {
            let hint = suggest::hint(name, self.open.keys().map(String::as_str));
            return Err(self.at(field, format!("no flow {name} is open here")).help(hint));
        }
        Ok((format!("await {name}"), Action::Await(name.to_owned())))
    }

    fn files(&mut self, field: &str, files: &[String], apply: bool) -> Planned {
        let paths = self.paths(field, files);
        let loaded = self.load(&paths).resources;
        let verb = if apply {
            self.names.add(&loaded);
            "apply"
        } else {
            "delete"
        };
        let title = format!("{verb} {}", files.join(" "));
        let change = if apply { Change::Apply(paths) } else { Change::Delete(paths) };
        Ok((title, Action::Change(change, loaded)))
    }

    fn relabel(&mut self, field: &str, relabel: &schema::RelabelStep) -> Planned {
        let pod = match (&relabel.pod, &relabel.namespace) {
            (Some(pod), None) => pod,
            (None, Some(_)) => {
                return Err(self
                    .at(&format!("{field}.namespace"), "relabel of a namespace is not supported yet")
                    .help("apply the namespace's manifest with the new labels"));
            }
            _ => return Err(self.at(field, "relabel needs a pod").help("write `pod: NAMESPACE/NAME`")),
        };
        self.known_pod(&format!("{field}.pod"), pod)?;
        let labels = relabel.labels.iter().map(|(k, v)| match v {
            Some(v) => format!("{k}={v}"),
            None => format!("{k}-"),
        });
        let title = format!("relabel {pod} {}", labels.collect::<Vec<_>>().join(" "));
        let object = Labelled::Pod(pod.clone());
        Ok((title, Action::Change(Change::Relabel { object, labels: relabel.labels.clone() }, vec![])))
    }

    fn fault(&mut self, field: &str, fault: &schema::FaultStep) -> Planned {
        let mut title = "fault".to_owned();
        let loss_ppm = match &fault.loss {
            None => None,
            Some(text) => {
                title += &format!(" loss {text}");
                Some(parse_share(text).ok_or_else(|| {
                    let message = format!("{text:?} is no share of the frames");
                    self.at(&format!("{field}.loss"), message)
                        .help("write it like 10% or 0.5%, from 0% to 100%")
                })?)
            }
        };
        if let Some(latency) = fault.latency {
            title += &format!(" latency {}", humantime::format_duration(latency));
        }
        let fault = Fault { loss_ppm, latency: fault.latency };
        if fault == Fault::default() {
            return Err(self.at(field, "the fault changes nothing").help("give loss or latency"));
        }
        Ok((title, Action::Change(Change::Fault(fault), vec![])))
    }

    fn send(&mut self, field: &str, send: &SendStep) -> Result<Vec<Vec<u8>>, Diagnostic> {
        self.known_pod(&format!("{field}.from"), &send.from)?;
        match (&send.packet, &send.pcap) {
            (Some(packet), None) => {
                let at = format!("{field}.packet");
                let (src, dst) = self.ends(&at, &send.from, packet)?;
                let built = packet::build(packet, src, dst);
                Ok(vec![built.map_err(|e| self.at(&at, e.message).help("see docs/scenario.md"))?])
            }
            (None, Some(file)) => {
                let path = self.folder.join(file);
                packet::read_capture(&path).map_err(|e| {
                    let message = format!("{} {}", path.display(), e.message);
                    self.at(&format!("{field}.pcap"), message).help(e.help.unwrap_or_default())
                })
            }
            _ => Err(self.at(field, "send needs a packet or a pcap").help("give one of both")),
        }
    }

    /// Source and destination of a packet that is sent as it stands.
    fn ends(&self, field: &str, from: &str, packet: &PacketSpec) -> Result<(Ipv4Addr, Ipv4Addr), Diagnostic> {
        let src = match (packet.src, self.names.pods.get(from).copied().flatten()) {
            (Some(src), _) | (None, Some(IpAddr::V4(src))) => src,
            _ => {
                return Err(self
                    .at(field, format!("the manifest of {from} gives no address to send from"))
                    .help("give src, or status.podIP in the pod's manifest"));
            }
        };
        match self.target(&format!("{field}.dst"), &packet.dst)? {
            Target::Address(IpAddr::V4(dst)) => Ok((src, dst)),
            _ => Err(self
                .at(&format!("{field}.dst"), format!("the manifest of {} gives no IPv4 address", packet.dst))
                .help("give an IPv4 address, or status.podIP in the pod's manifest")),
        }
    }

    /// An address, or a pod: by its address if its manifest gives one.
    fn target(&self, field: &str, to: &str) -> Result<Target, Diagnostic> {
        if let Ok(address) = to.parse::<IpAddr>() {
            return Ok(Target::Address(address));
        }
        if !to.contains('/') {
            return Err(self
                .at(field, format!("{to:?} is neither an address nor a pod"))
                .help("write an address, or a pod as NAMESPACE/NAME"));
        }
        self.known_pod(field, to)?;
        Ok(match self.names.pods.get(to).copied().flatten() {
            Some(address) => Target::Address(address),
            None => Target::Pod(to.to_owned()),
        })
    }

    fn valid_port(&self, field: &str, port: u16) -> Result<(), Diagnostic> {
        if port == 0 {
            return Err(self.at(field, "0 is no port").help("give a port from 1 to 65535"));
        }
        Ok(())
    }
}

/// What a flow is called in reports.
fn title(stimulus: &Stimulus) -> String {
    match stimulus {
        Stimulus::Http { from, to, port, path } => format!("http {from} -> http://{to}:{port}{path}"),
        Stimulus::Connect { from, to, port } => format!("connect {from} -> {to}:{port}/TCP"),
        Stimulus::Udp { from, to, port, .. } => format!("udp {from} -> {to}:{port}/UDP"),
        Stimulus::Ping { from, to, count } => format!("ping {from} -> {to} x{count}"),
        Stimulus::Send { from, packets } => format!("send {from}, {} packet(s)", packets.len()),
    }
}

fn needs(action: &Action, step: &Step) -> BTreeSet<Capability> {
    let mut needs = BTreeSet::new();
    match action {
        Action::Start { stimulus, name, .. } => {
            if name.is_some() {
                needs.insert(Capability::OpenFlows);
            }
            match stimulus {
                Stimulus::Send { .. } => needs.insert(Capability::RawPackets),
                Stimulus::Ping { .. } => needs.insert(Capability::Ping),
                Stimulus::Udp { .. } => needs.insert(Capability::Udp),
                Stimulus::Http { .. } | Stimulus::Connect { .. } => false,
            };
        }
        Action::Await(_) => {
            needs.insert(Capability::OpenFlows);
        }
        Action::Change(Change::Fault(fault), _) => {
            if fault.loss_ppm.is_some() {
                needs.insert(Capability::Loss);
            }
            if fault.latency.is_some() {
                needs.insert(Capability::Latency);
            }
        }
        Action::Change(Change::RestartAgent { .. }, _) => {
            needs.insert(Capability::RestartAgent);
        }
        Action::Change(..) => {}
        Action::Advance(_) => {
            needs.insert(Capability::TimeTravel);
        }
        Action::Assert(_) => {
            needs.insert(Capability::Inspect);
        }
    }
    if step.expect.as_ref().is_some_and(|e| !e.counters.is_empty() || !e.conntrack.is_empty()) {
        needs.insert(Capability::Inspect);
    }
    needs
}

/// `http://10.42.0.51:80/get` to its parts; an error with what to do.
fn parse_url(url: &str) -> Result<(Target, u16, String), (String, &'static str)> {
    const HELP: &str = "write it like http://10.42.0.51:80/get, or use to, port and path with a pod's name";
    let Some(rest) = url.strip_prefix("http://") else {
        return Err((format!("{url:?} is no http URL"), HELP));
    };
    let (authority, path) = match rest.find('/') {
        Some(i) => (&rest[..i], &rest[i..]),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (host, port),
            _ => return Err((format!("{port:?} is no port"), "give a port from 1 to 65535")),
        },
        None => (authority, HTTP_PORT),
    };
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok((Target::Address(IpAddr::V4(address)), port, path.to_owned())),
        Err(_) => Err((format!("{host:?} is no IPv4 address; there is no DNS here"), HELP)),
    }
}

/// `10%` to parts of a million.
fn parse_share(text: &str) -> Option<u32> {
    const PPM_PER_PERCENT: f64 = 10_000.0;
    let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    // Between 0 and a million, so the conversion is exact enough and in range.
    (0.0..=100.0).contains(&percent).then(|| (percent * PPM_PER_PERCENT).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_a_port_and_a_path() {
        let address = Target::Address("10.42.0.51".parse().unwrap());
        assert_eq!(
            parse_url("http://10.42.0.51:8080/get?a=b"),
            Ok((address.clone(), 8080, "/get?a=b".into()))
        );
        assert_eq!(parse_url("http://10.42.0.51"), Ok((address, 80, "/".into())));
        for bad in
            ["10.42.0.51/get", "https://10.42.0.51/", "http://httpbin/", "http://10.42.0.51:0/", "http://:x"]
        {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_from_none_to_all() {
        assert_eq!(parse_share("10%"), Some(100_000));
        assert_eq!(parse_share("0.5 %"), Some(5_000));
        assert_eq!(parse_share("100%"), Some(1_000_000));
        for bad in ["10", "-1%", "101%", "NaN%", "much%"] {
            assert_eq!(parse_share(bad), None, "{bad}");
        }
    }
}
