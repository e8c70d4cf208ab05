//! Flows: how they are started, what wakes them, and how packets and errors reach them. What TCP does with them is in
//! `host`.

use crate::flow::{Flow, Kind};
use crate::frame::Outgoing;
use crate::host::{Host, Service};
use crate::queue::Event;
use crate::record::Origin;
use crate::wire::{self, ICMP, IPV4_LEN, Ipv4, TCP, UDP, UDP_LEN};
use crate::{
    FiveTuple, FlowId, FlowOptions, FlowState, Hooks, HttpRequest, Net, NetError, NsId, Outcome, Random,
    Route, Scope,
};
use std::net::Ipv4Addr;

const HTTP_TIMEOUT_NS: u64 = 3_000_000_000;
const CONNECT_TIMEOUT_NS: u64 = 900_000_000;
const ANSWER_TIMEOUT_NS: u64 = 1_000_000_000;
const PING_INTERVAL_NS: u64 = 1_000_000_000;
/// The payload of an echo request, as ping(8) has it.
const PING_BYTES: u8 = 56;

/// What a flow is to do.
enum Task {
    Http(Vec<u8>),
    Connect,
    Udp(Vec<u8>),
    Ping(u32),
}

impl Net {
    /// Gives a namespace sockets. `hostname` seeds its sequence numbers and ports. Its addresses and routes are those
    /// of the namespace: add them as for any other.
    pub fn attach_stack(&mut self, ns: NsId, hostname: &str) -> Result<(), NetError> {
        let (random, now) = (Random::named(self.seed, hostname), self.now);
        let namespace = self.namespaces.get_mut(&ns).ok_or(NetError::NoSuchNamespace(ns))?;
        if namespace.host.is_some() {
            return Err(NetError::Invalid(format!("{ns} has a stack already")));
        }
        namespace.host = Some(Box::new(Host::new(random, now, 1500)));
        Ok(())
    }

    /// The usual pod: `eth0` (made before by [`Net::add_veth_pair`]) gets `address`/32, a link route to `gateway` and
    /// the default route through it, with `mtu` as the path's; and a stack.
    pub fn configure_pod(
        &mut self,
        ns: NsId,
        hostname: &str,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
        mtu: u32,
    ) -> Result<(), NetError> {
        let node = self.node_of(ns).ok_or(NetError::NoSuchNamespace(ns))?;
        let eth0 = self.device_by_name(ns, "eth0").ok_or_else(|| NetError::NotFound("eth0".to_owned()))?;
        self.add_address(node, eth0, address, 32)?;
        let link = Route {
            destination: gateway,
            prefix: 32,
            ifindex: eth0,
            via: None,
            source: None,
            mtu: None,
            scope: Scope::Link,
        };
        self.set_route(ns, link.clone())?;
        let default = Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            via: Some(gateway),
            mtu: Some(mtu),
            scope: Scope::Global,
            ..link
        };
        self.set_route(ns, default)?;
        self.attach_stack(ns, hostname)
    }

    /// An HTTP server in the manner of httpbin: `/`, `/get` (JSON), `/bytes/N` (N bytes, the same each time),
    /// `/status/N`; else 404.
    pub fn serve_http(&mut self, ns: NsId, port: u16) -> Result<(), NetError> {
        self.serve_tcp(ns, port, Service::Http)
    }

    /// A TCP server that sends back what it gets.
    pub fn serve_tcp_echo(&mut self, ns: NsId, port: u16) -> Result<(), NetError> {
        self.serve_tcp(ns, port, Service::Echo)
    }

    fn serve_tcp(&mut self, ns: NsId, port: u16, service: Service) -> Result<(), NetError> {
        if port == 0 {
            return Err(NetError::Invalid("port 0 cannot be served".to_owned()));
        }
        let served = self.host(ns)?.serve(port, service);
        served.then_some(()).ok_or(NetError::PortTaken(port))
    }

    /// A UDP server that sends back what it gets, but not to a port where another such server listens.
    pub fn serve_udp_echo(&mut self, ns: NsId, port: u16) -> Result<(), NetError> {
        let fresh = self.host(ns)?.udp_echo.insert(port);
        fresh.then_some(()).ok_or(NetError::PortTaken(port))
    }

    fn host(&mut self, ns: NsId) -> Result<&mut Host, NetError> {
        let namespace = self.namespaces.get_mut(&ns).ok_or(NetError::NoSuchNamespace(ns))?;
        namespace.host.as_deref_mut().ok_or(NetError::NoStack(ns))
    }

    /// Starts an HTTP GET, now.
    pub fn start_http(
        &mut self,
        ns: NsId,
        request: HttpRequest,
        options: FlowOptions,
    ) -> Result<FlowId, NetError> {
        let task = Task::Http(skep_httpbin::request(&request.host, &request.path));
        self.start(ns, (request.address, request.port), task, options)
    }

    /// Starts a TCP connect, now; it is completed by the handshake and closed at once.
    pub fn start_connect(
        &mut self,
        ns: NsId,
        destination: Ipv4Addr,
        port: u16,
        options: FlowOptions,
    ) -> Result<FlowId, NetError> {
        self.start(ns, (destination, port), Task::Connect, options)
    }

    /// Sends one datagram, now; completed by an answer.
    pub fn start_udp(
        &mut self,
        ns: NsId,
        destination: Ipv4Addr,
        port: u16,
        payload: &[u8],
        options: FlowOptions,
    ) -> Result<FlowId, NetError> {
        if payload.len() > usize::from(u16::MAX) - IPV4_LEN - UDP_LEN {
            return Err(NetError::Invalid("a datagram has at most 65507 bytes".to_owned()));
        }
        self.start(ns, (destination, port), Task::Udp(payload.to_vec()), options)
    }

    /// Sends `count` echo requests, the first one now; completed by as many replies.
    pub fn start_ping(
        &mut self,
        ns: NsId,
        destination: Ipv4Addr,
        count: u32,
        options: FlowOptions,
    ) -> Result<FlowId, NetError> {
        if count == 0 {
            return Err(NetError::Invalid("a ping has at least one request".to_owned()));
        }
        self.start(ns, (destination, 0), Task::Ping(count), options)
    }

    fn start(
        &mut self,
        ns: NsId,
        remote: (Ipv4Addr, u16),
        task: Task,
        options: FlowOptions,
    ) -> Result<FlowId, NetError> {
        if remote.1 == 0 && !matches!(task, Task::Ping(_)) {
            return Err(NetError::Invalid("port 0 cannot be reached".to_owned()));
        }
        let source = self.source_towards(ns, remote.0);
        let mtu = self.route(ns, remote.0).map_or(1500, |r| self.route_mtu(ns, &r));
        let (now, id) = (self.now, FlowId(self.flows.len() as u32));
        let host = self.host(ns)?;
        let port = options.source_port.unwrap_or_else(|| host.port());
        let (protocol, timeout_ns, kind) = plan(&task, now, &options);
        let tuple = FiveTuple {
            protocol,
            source: source.unwrap_or(Ipv4Addr::UNSPECIFIED),
            source_port: port,
            destination: remote.0,
            destination_port: remote.1,
        };
        let mut outcome = source.is_none().then_some(Outcome::NoRoute);
        if outcome.is_none() {
            let request = match task {
                Task::Http(request) => Some(Some(request)),
                Task::Connect => Some(None),
                _ => None,
            };
            host.set_mtu(now, mtu);
            if let Some(request) = request
                && !host.connect(id, (tuple.source, port), remote, request)
            {
                outcome = Some(Outcome::NoRoute);
            }
            host.active.push(id);
        }
        self.flows.push(Flow {
            ns,
            state: FlowState {
                tuple,
                established: false,
                held: false,
                bytes: 0,
                sent: 0,
                received: 0,
                status: None,
                body: Vec::new(),
                outcome,
            },
            hold: options.hold,
            held_since_ns: 0,
            deadline_ns: now.saturating_add(timeout_ns),
            kind,
            error: None,
        });
        self.wake_host(ns, now);
        Ok(id)
    }

    /// How far a flow is.
    pub fn flow(&self, flow: FlowId) -> Option<&FlowState> {
        self.flows.get(flow.0 as usize).map(|f| &f.state)
    }

    /// Lets a held flow go on, to its end. One that has not been held yet will not be.
    pub fn release(&mut self, flow: FlowId) {
        let now = self.now;
        let Some(flow) = self.flows.get_mut(flow.0 as usize) else { return };
        flow.hold = None;
        if std::mem::take(&mut flow.state.held) {
            flow.deadline_ns = flow.deadline_ns.saturating_add(now - flow.held_since_ns);
        }
        let ns = flow.ns;
        self.wake_host(ns, now);
    }

    /// Sees to it that a namespace's sockets are looked after at this time or before.
    fn wake_host(&mut self, ns: NsId, at_ns: u64) {
        let at_ns = at_ns.max(self.now);
        let Some(host) = self.namespaces.get_mut(&ns).and_then(|n| n.host.as_deref_mut()) else { return };
        if let Some(due) = host.wake {
            if due.0 <= at_ns {
                return;
            }
            self.queue.cancel(due);
        }
        host.wake = Some(self.queue.push(at_ns, Event::Host { ns }));
    }

    /// The time has come that [`Net::wake_host`] set.
    pub(crate) fn host_event(&mut self, h: &mut dyn Hooks, ns: NsId) {
        if let Ok(host) = self.host(ns) {
            host.wake = None;
        }
        self.poll_host(h, ns);
    }

    /// A packet for a TCP socket.
    pub(crate) fn host_input(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        remote: (Ipv4Addr, u16),
        local: (Ipv4Addr, u16),
        packet: Vec<u8>,
    ) {
        let now = self.now;
        // A server's segments too are cut for the way back (tcp_advertise_mss()).
        let mtu = self.route(ns, remote.0).map(|r| self.route_mtu(ns, &r));
        if let Ok(host) = self.host(ns) {
            if let Some(mtu) = mtu {
                host.set_mtu(now, mtu);
            }
            host.receive(now, remote, local, packet);
        }
        self.poll_host(h, ns);
    }

    /// Lets the sockets of a namespace do what there is to do now.
    fn poll_host(&mut self, h: &mut dyn Hooks, ns: NsId) {
        let now = self.now;
        let Some(mut host) = self.namespaces.get_mut(&ns).and_then(|n| n.host.take()) else { return };
        let own: Vec<Ipv4Addr> =
            self.devices_in(ns).flat_map(|(_, d)| d.addresses.iter().map(|a| a.0)).collect();
        host.set_addresses(&own);
        let packets = host.poll(now, &mut self.flows);
        let due: Vec<FlowId> = host.active.clone();
        if let Some(namespace) = self.namespaces.get_mut(&ns) {
            namespace.host = Some(host);
        }
        for mut packet in packets {
            let partial = wire::start_checksum(&mut packet);
            self.send(h, ns, Outgoing { packet, partial, origin: Origin::Tcp });
        }
        for flow in due {
            self.drive_datagrams(h, ns, flow);
        }
        let flows = &self.flows;
        let Some(host) = self.namespaces.get_mut(&ns).and_then(|n| n.host.as_deref_mut()) else { return };
        host.active.retain(|id| flows[id.0 as usize].state.outcome.is_none());
        let own = host.active.iter().filter_map(|id| flows[id.0 as usize].next_ns()).min();
        // Not now again: what could be done now is done.
        let tcp = host.poll_at(now).map(|at| at.max(now + 1_000));
        let next = tcp.into_iter().chain(own).min();
        if let Some(due) = host.wake.take() {
            self.queue.cancel(due);
        }
        if let Some(at) = next {
            self.wake_host(ns, at);
        }
    }

    /// What UDP and ping flows have to do.
    fn drive_datagrams(&mut self, h: &mut dyn Hooks, ns: NsId, id: FlowId) {
        let now = self.now;
        let flow = &mut self.flows[id.0 as usize];
        let tuple = flow.state.tuple;
        if flow.state.outcome.is_some() {
            return;
        }
        match &mut flow.kind {
            Kind::Tcp => return,
            Kind::Udp { payload } => {
                if let Some(payload) = payload.take() {
                    flow.state.sent = 1;
                    let (from, to) =
                        ((tuple.source, tuple.source_port), (tuple.destination, tuple.destination_port));
                    return self.send_udp(h, ns, from, to, &payload);
                }
            }
            Kind::Ping { count, next_ns, interval_ns, timeout_ns } => {
                if flow.state.sent < *count && now >= *next_ns {
                    flow.state.sent += 1;
                    *next_ns = now + *interval_ns;
                    flow.deadline_ns = now.saturating_add(*timeout_ns);
                    let sequence = flow.state.sent as u16;
                    return self.send_echo_request(h, ns, &tuple, sequence);
                }
            }
        }
        let waits = matches!(&flow.kind, Kind::Ping { count, .. } if flow.state.sent < *count);
        if !waits && now >= flow.deadline_ns {
            flow.finish(flow.error.unwrap_or(Outcome::TimedOut));
        }
    }

    fn send_echo_request(&mut self, h: &mut dyn Hooks, ns: NsId, tuple: &FiveTuple, sequence: u16) {
        let [a, b] = tuple.source_port.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        let payload: Vec<u8> = (0..PING_BYTES).collect();
        let message = wire::icmp(8, 0, [a, b, c, d], &payload);
        let id = self.namespaces.get_mut(&ns).map_or(0, |n| n.ip_id());
        let header = Ipv4 { dont_fragment: true, ..Ipv4::fresh(tuple.source, tuple.destination, ICMP, id) };
        self.send(h, ns, Outgoing { packet: header.emit(&message), partial: None, origin: Origin::Ping });
    }

    /// Sends a datagram from a socket; DF if it fits the path's MTU (IP_PMTUDISC_WANT).
    pub(crate) fn send_udp(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        payload: &[u8],
    ) {
        let mtu = self.route(ns, to.0).map_or(usize::from(u16::MAX), |r| self.route_mtu(ns, &r));
        let datagram = wire::udp(from.1, to.1, payload);
        let id = self.namespaces.get_mut(&ns).map_or(0, |n| n.ip_id());
        let dont_fragment = IPV4_LEN + datagram.len() <= mtu;
        let header = Ipv4 { dont_fragment, ..Ipv4::fresh(from.0, to.0, UDP, id) };
        let mut packet = header.emit(&datagram);
        let partial = wire::start_checksum(&mut packet);
        self.send(h, ns, Outgoing { packet, partial, origin: Origin::Udp });
    }

    /// Whether a UDP server echoes at this port.
    pub(crate) fn echoes_udp(&self, ns: NsId, port: u16) -> bool {
        let host = self.namespaces.get(&ns).and_then(|n| n.host.as_deref());
        host.is_some_and(|host| host.udp_echo.contains(&port))
    }

    /// Whether any server echoes at this port. An echo does not answer an echo, or a forged datagram would go to and
    /// fro for ever; inetd refuses reserved ports for that reason.
    pub(crate) fn anyone_echoes_udp(&self, port: u16) -> bool {
        self.namespaces.keys().any(|ns| self.echoes_udp(*ns, port))
    }

    fn active_flow(&mut self, ns: NsId, is: impl Fn(&FiveTuple) -> bool) -> Option<&mut Flow> {
        let host = self.namespaces.get(&ns)?.host.as_deref()?;
        let running = |f: &Flow| f.state.outcome.is_none() && is(&f.state.tuple);
        let id = host.active.iter().find(|id| running(&self.flows[id.0 as usize]))?;
        self.flows.get_mut(id.0 as usize)
    }

    /// A datagram for a UDP flow; false if it is for none.
    pub(crate) fn udp_flow_input(
        &mut self,
        ns: NsId,
        remote: (Ipv4Addr, u16),
        local: (Ipv4Addr, u16),
        payload: &[u8],
    ) -> bool {
        let tuple = FiveTuple {
            protocol: UDP,
            source: local.0,
            source_port: local.1,
            destination: remote.0,
            destination_port: remote.1,
        };
        let Some(flow) = self.active_flow(ns, |t| *t == tuple) else { return false };
        flow.state.received += 1;
        flow.state.bytes += payload.len() as u64;
        flow.state.body = payload[..payload.len().min(skep_httpbin::KEPT_BODY)].to_vec();
        flow.finish(Outcome::Completed);
        self.wake_host(ns, self.now);
        true
    }

    /// An echo reply; false if no ping waits for it.
    pub(crate) fn ping_reply(&mut self, ns: NsId, from: Ipv4Addr, identifier: u16) -> bool {
        let is = |t: &FiveTuple| t.protocol == ICMP && t.source_port == identifier && t.destination == from;
        let Some(flow) = self.active_flow(ns, is) else { return false };
        flow.state.received += 1;
        if matches!(&flow.kind, Kind::Ping { count, .. } if flow.state.received >= *count) {
            flow.finish(Outcome::Completed);
            self.wake_host(ns, self.now);
        }
        true
    }

    /// An ICMP error about a packet of a flow (`tcp_v4_err`, `udp_err`, `ping_err`): it ends a connect and a datagram;
    /// an established connection and a ping go on. That a packet is too big ends nothing.
    pub(crate) fn flow_error(&mut self, ns: NsId, tuple: &FiveTuple, outcome: Outcome) {
        let Some(flow) = self.active_flow(ns, |t| t == tuple) else { return };
        let ends = match &flow.kind {
            _ if matches!(outcome, Outcome::Unreachable { kind: 3, code: 4 }) => false,
            Kind::Tcp => !flow.state.established,
            Kind::Udp { .. } => true,
            Kind::Ping { count, .. } => *count == 1,
        };
        flow.error = Some(outcome);
        if ends {
            flow.finish(outcome);
            self.wake_host(ns, self.now);
        }
    }
}

/// Protocol, timeout and what is left to do.
fn plan(task: &Task, now: u64, options: &FlowOptions) -> (u8, u64, Kind) {
    let timeout = |default: u64| options.timeout_ns.unwrap_or(default);
    match task {
        Task::Http(_) => (TCP, timeout(HTTP_TIMEOUT_NS), Kind::Tcp),
        Task::Connect => (TCP, timeout(CONNECT_TIMEOUT_NS), Kind::Tcp),
        Task::Udp(payload) => (UDP, timeout(ANSWER_TIMEOUT_NS), Kind::Udp { payload: Some(payload.clone()) }),
        Task::Ping(count) => {
            let timeout_ns = timeout(ANSWER_TIMEOUT_NS);
            let interval_ns = options.interval_ns.unwrap_or(PING_INTERVAL_NS);
            (ICMP, timeout_ns, Kind::Ping { count: *count, next_ns: now, interval_ns, timeout_ns })
        }
    }
}
