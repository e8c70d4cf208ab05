//! The sockets of a namespace: TCP by smoltcp over Medium::Ip on the virtual clock, and what its applications do with
//! them. It sees IPv4 packets only; neighbours, routes and everything below are the namespace's.

use crate::flow::Flow;
use crate::{FlowId, Hold, Outcome, Random};
use skep_httpbin::Response;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

/// Ephemeral ports (net.ipv4.ip_local_port_range).
const FIRST_PORT: u16 = 32768;
const LAST_PORT: u16 = 60999;
const BUFFER: usize = 64 << 10;
/// When a kernel gives a peer up that is silent while it owes an acknowledgement, nanoseconds. smoltcp's own timeout
/// does not ask whether anything is owed, and would end connections that are only idle.
const PEER_TIMEOUT_NS: u64 = 300_000_000_000;

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TcpMatch {
    /// A connection, or a SYN for a listener.
    Socket,
    /// A listener, but no SYN.
    Listener,
    None,
}

/// What a TCP server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Service {
    Http,
    Echo,
}

struct Server {
    service: Service,
    listener: SocketHandle,
}

struct Accepted {
    handle: SocketHandle,
    heard_ns: u64,
    service: Service,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// A socket that no application has any more: it closes, or waits in TIME-WAIT.
struct Orphan {
    handle: SocketHandle,
    heard_ns: u64,
}

struct Client {
    flow: FlowId,
    handle: SocketHandle,
    /// None: only to connect.
    http: Option<Exchange>,
}

struct Exchange {
    request: Vec<u8>,
    written: usize,
    response: Response,
}

/// The sockets of a namespace.
pub(crate) struct Host {
    random: Random,
    queue: IpQueue,
    iface: Interface,
    sockets: SocketSet<'static>,
    servers: BTreeMap<u16, Server>,
    accepted: Vec<Accepted>,
    clients: Vec<Client>,
    orphans: Vec<Orphan>,
    pub(crate) udp_echo: BTreeSet<u16>,
    /// Flows that have not ended.
    pub(crate) active: Vec<FlowId>,
    next_port: u16,
    pub(crate) wake: Option<crate::queue::Due>,
}

/// Packets in and out: smoltcp's device.
struct IpQueue {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    mtu: usize,
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1_000).min(i64::MAX as u64) as i64)
}

fn endpoint((address, port): (Ipv4Addr, u16)) -> IpEndpoint {
    IpEndpoint::new(IpAddress::Ipv4(address), port)
}

impl Host {
    /// A host without sockets; its numbers are drawn from `random`.
    pub(crate) fn new(mut random: Random, now_ns: u64, mtu: usize) -> Self {
        let mut queue = IpQueue { received: VecDeque::new(), sent: Vec::new(), mtu };
        let iface = interface(&mut queue, &mut random, now_ns);
        let next_port = FIRST_PORT + random.below(u32::from(LAST_PORT - FIRST_PORT)) as u16;
        Self {
            random,
            queue,
            iface,
            sockets: SocketSet::new(Vec::new()),
            servers: BTreeMap::new(),
            accepted: Vec::new(),
            clients: Vec::new(),
            orphans: Vec::new(),
            udp_echo: BTreeSet::new(),
            active: Vec::new(),
            next_port,
            wake: None,
        }
    }

    /// The path's MTU, from which the maximum segment size follows.
    pub(crate) fn set_mtu(&mut self, now_ns: u64, mtu: usize) {
        if mtu != self.queue.mtu {
            self.queue.mtu = mtu;
            self.iface = interface(&mut self.queue, &mut self.random, now_ns);
        }
    }

    /// The next ephemeral port.
    pub(crate) fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port >= LAST_PORT { FIRST_PORT } else { port + 1 };
        port
    }

    /// Opens a listener; false if the port is taken.
    pub(crate) fn serve(&mut self, port: u16, service: Service) -> bool {
        if self.servers.contains_key(&port) {
            return false;
        }
        let Some(listener) = listen(&mut self.sockets, port) else { return false };
        self.servers.insert(port, Server { service, listener });
        true
    }

    /// Opens a connection; the SYN leaves at the next poll. False if smoltcp refuses the endpoints.
    pub(crate) fn connect(
        &mut self,
        flow: FlowId,
        local: (Ipv4Addr, u16),
        remote: (Ipv4Addr, u16),
        request: Option<Vec<u8>>,
    ) -> bool {
        // A socket in TIME-WAIT gives way, as with net.ipv4.tcp_tw_reuse.
        let same = |s: &Socket<'_>| {
            s.local_endpoint() == Some(endpoint(local)) && s.remote_endpoint() == Some(endpoint(remote))
        };
        if let Some(at) = self.orphans.iter().position(|o| same(self.sockets.get::<Socket<'_>>(o.handle))) {
            self.sockets.remove(self.orphans.remove(at).handle);
        }
        let mut socket = socket();
        if socket.connect(self.iface.context(), endpoint(remote), endpoint(local)).is_err() {
            return false;
        }
        let handle = self.sockets.add(socket);
        let http = request.map(|request| Exchange { request, written: 0, response: Response::default() });
        self.clients.push(Client { flow, handle, http });
        true
    }

    /// For which socket a segment is (`__inet_lookup_skb`).
    pub(crate) fn match_tcp(
        &self,
        remote: (Ipv4Addr, u16),
        local: (Ipv4Addr, u16),
        only_syn: bool,
    ) -> TcpMatch {
        let (remote, at) = (Some(endpoint(remote)), Some(endpoint(local)));
        let connected = self.sockets.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(s) => {
                s.state() != State::Closed && s.local_endpoint() == at && s.remote_endpoint() == remote
            }
            _ => false,
        });
        match (connected, self.servers.contains_key(&local.1)) {
            (true, _) => TcpMatch::Socket,
            (false, true) if only_syn => TcpMatch::Socket,
            (false, true) => TcpMatch::Listener,
            (false, false) => TcpMatch::None,
        }
    }

    /// A packet from `remote` to `local` for one of the sockets; taken at the next poll.
    pub(crate) fn receive(
        &mut self,
        now_ns: u64,
        remote: (Ipv4Addr, u16),
        local: (Ipv4Addr, u16),
        packet: Vec<u8>,
    ) {
        let (remote, local) = (Some(endpoint(remote)), Some(endpoint(local)));
        let heard = self.accepted.iter_mut().map(|a| (a.handle, &mut a.heard_ns));
        for (handle, heard_ns) in heard.chain(self.orphans.iter_mut().map(|o| (o.handle, &mut o.heard_ns))) {
            let socket = self.sockets.get::<Socket<'_>>(handle);
            if socket.remote_endpoint() == remote && socket.local_endpoint() == local {
                *heard_ns = now_ns;
            }
        }
        self.queue.received.push_back(packet);
    }

    /// The addresses of the namespace. smoltcp closes a connection whose address is gone; it holds eight.
    pub(crate) fn set_addresses(&mut self, own: &[Ipv4Addr]) {
        self.iface.update_ip_addrs(|addresses| {
            addresses.clear();
            for address in own {
                let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(*address), 32));
            }
        });
    }

    /// Lets sockets and applications do what there is to do now. The packets to be sent.
    pub(crate) fn poll(&mut self, now_ns: u64, flows: &mut [Flow]) -> Vec<Vec<u8>> {
        let now = instant(now_ns);
        self.give_up(now_ns);
        loop {
            self.iface.poll(now, &mut self.queue, &mut self.sockets);
            self.accept(now_ns);
            let mut progress = false;
            for accepted in &mut self.accepted {
                progress |= accepted.drive(self.sockets.get_mut(accepted.handle));
            }
            progress |= self.drive_clients(now_ns, flows);
            if !progress && self.queue.received.is_empty() {
                break;
            }
        }
        self.bury();
        std::mem::take(&mut self.queue.sent)
    }

    /// When TCP has something to do by itself, nanoseconds.
    pub(crate) fn poll_at(&mut self, now_ns: u64) -> Option<u64> {
        let at = self.iface.poll_at(instant(now_ns), &self.sockets)?;
        Some((at.total_micros().max(0) as u64).saturating_mul(1_000))
    }

    /// A listener that took a SYN becomes a connection, and another one listens.
    fn accept(&mut self, now_ns: u64) {
        for (port, server) in &mut self.servers {
            if self.sockets.get::<Socket<'_>>(server.listener).state() == State::Listen {
                continue;
            }
            let Some(next) = listen(&mut self.sockets, *port) else { continue };
            let handle = std::mem::replace(&mut server.listener, next);
            self.accepted.push(Accepted {
                handle,
                heard_ns: now_ns,
                service: server.service,
                input: Vec::new(),
                output: Vec::new(),
                written: 0,
            });
        }
    }

    fn drive_clients(&mut self, now_ns: u64, flows: &mut [Flow]) -> bool {
        let mut progress = false;
        let mut at = 0;
        while at < self.clients.len() {
            let client = &mut self.clients[at];
            let flow = &mut flows[client.flow.0 as usize];
            let handle = client.handle;
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            progress |= client.drive(now_ns, flow, socket);
            let Some(outcome) = flow.state.outcome else {
                at += 1;
                continue;
            };
            progress = true;
            let silent = socket.state() == State::SynSent;
            match outcome {
                Outcome::Completed => socket.close(),
                _ if silent => {}
                _ => socket.abort(),
            }
            self.clients.remove(at);
            if silent {
                // A socket that never got an answer is closed without a word.
                self.sockets.remove(handle);
            } else {
                self.orphans.push(Orphan { handle, heard_ns: now_ns });
            }
        }
        progress
    }

    /// Resets connections whose peer owes an acknowledgement and is silent for too long. What is owed is
    /// retransmitted once a minute at least, so that this is asked often enough.
    fn give_up(&mut self, now_ns: u64) {
        let heard = self.accepted.iter().map(|a| (a.handle, a.heard_ns));
        for (handle, heard_ns) in heard.chain(self.orphans.iter().map(|o| (o.handle, o.heard_ns))) {
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            let closing = matches!(
                socket.state(),
                State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
            );
            if (closing || socket.send_queue() > 0) && now_ns >= heard_ns.saturating_add(PEER_TIMEOUT_NS) {
                socket.abort();
            }
        }
    }

    /// Removes sockets that are closed.
    fn bury(&mut self) {
        let sockets = &mut self.sockets;
        self.orphans.retain(|orphan| {
            let closed = sockets.get::<Socket<'_>>(orphan.handle).state() == State::Closed;
            if closed {
                sockets.remove(orphan.handle);
            }
            !closed
        });
        self.accepted.retain(|accepted| {
            // A reset of a half-open connection makes it a listener again; there is one already.
            let state = sockets.get::<Socket<'_>>(accepted.handle).state();
            let gone = matches!(state, State::Closed | State::Listen);
            if gone {
                sockets.remove(accepted.handle);
            }
            !gone
        });
    }
}

fn socket() -> Socket<'static> {
    Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]))
}

fn listen(sockets: &mut SocketSet<'static>, port: u16) -> Option<SocketHandle> {
    let mut socket = socket();
    socket.listen(port).ok()?;
    Some(sockets.add(socket))
}

fn interface(queue: &mut IpQueue, random: &mut Random, now_ns: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = random.next_u64();
    let mut iface = Interface::new(config, queue, instant(now_ns));
    // Everything goes out: the namespace routes. The table holds two, and this is its first.
    let _ = iface.routes_mut().add_default_ipv4_route(Ipv4Addr::new(192, 0, 2, 1));
    iface
}

impl Accepted {
    /// Reads, answers and writes as far as possible. Whether anything happened.
    fn drive(&mut self, socket: &mut Socket<'static>) -> bool {
        let mut progress = false;
        let client = match socket.remote_endpoint().map(|e| e.addr) {
            Some(IpAddress::Ipv4(address)) => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        // Nobody reads while there is much to write, so that an echo does not grow without bound.
        while self.output.len() - self.written < BUFFER && socket.can_recv() {
            let Ok(read) = socket.recv(|bytes| (bytes.len(), bytes.to_vec())) else { break };
            progress = true;
            match self.service {
                Service::Echo => self.output.extend_from_slice(&read),
                Service::Http => self.input.extend_from_slice(&read),
            }
            if self.service == Service::Http
                && let Some(reply) = skep_httpbin::serve(&mut self.input, client)
            {
                self.output.extend_from_slice(&reply);
            }
        }
        progress |= write(socket, &self.output, &mut self.written);
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            if socket.state() == State::CloseWait && !socket.can_recv() {
                socket.close();
                progress = true;
            }
        }
        progress
    }
}

/// Writes what the socket takes.
fn write(socket: &mut Socket<'static>, bytes: &[u8], written: &mut usize) -> bool {
    let before = *written;
    while *written < bytes.len() && socket.can_send() {
        match socket.send_slice(&bytes[*written..]) {
            Ok(0) | Err(_) => break,
            Ok(count) => *written += count,
        }
    }
    *written != before
}

impl Client {
    /// Does what the application can do now and notes how far it is. Whether anything happened.
    fn drive(&mut self, now_ns: u64, flow: &mut Flow, socket: &mut Socket<'static>) -> bool {
        if flow.state.outcome.is_some() || flow.state.held {
            return false;
        }
        let state = socket.state();
        if !flow.state.established && socket.may_send() {
            flow.state.established = true;
            if flow.hold == Some(Hold::Established) {
                flow.state.held = true;
                flow.held_since_ns = now_ns;
                return true;
            }
        }
        if state == State::Closed {
            flow.finish(if flow.state.established { Outcome::Reset } else { Outcome::Refused });
            return true;
        }
        if now_ns >= flow.deadline_ns {
            flow.finish(Outcome::TimedOut);
            return true;
        }
        if !flow.state.established {
            return false;
        }
        match &mut self.http {
            Some(exchange) => exchange.drive(now_ns, flow, socket),
            None => {
                flow.finish(Outcome::Completed);
                true
            }
        }
    }
}

impl Exchange {
    fn drive(&mut self, now_ns: u64, flow: &mut Flow, socket: &mut Socket<'static>) -> bool {
        let mut progress = write(socket, &self.request, &mut self.written);
        while socket.can_recv() {
            let limit = match flow.hold {
                // The header block is read as a whole; it is far shorter than a segment.
                Some(Hold::Bytes(_)) if self.response.status.is_none() => 512,
                Some(Hold::Bytes(bytes)) => bytes.saturating_sub(self.response.bytes) as usize,
                _ => usize::MAX,
            };
            let taken = socket.recv(|bytes| {
                let count = bytes.len().min(limit);
                (count, bytes[..count].to_vec())
            });
            let Ok(bytes) = taken else { break };
            progress |= !bytes.is_empty();
            if self.response.read(&bytes).is_err() {
                flow.finish(Outcome::Reset);
                return true;
            }
            flow.state.status = self.response.status;
            flow.state.bytes = self.response.bytes;
            let known = flow.state.body.len();
            flow.state.body.extend_from_slice(&self.response.body[known..]);
            if let Some(Hold::Bytes(bytes)) = flow.hold
                && self.response.status.is_some()
                && self.response.bytes >= bytes
            {
                flow.state.held = true;
                flow.held_since_ns = now_ns;
                return true;
            }
        }
        if self.response.complete() {
            flow.finish(Outcome::Completed);
            return true;
        }
        if !socket.may_recv() {
            flow.finish(Outcome::Reset);
            return true;
        }
        progress
    }
}

impl Device for IpQueue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Received(packet), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // The namespace verifies what comes and leaves what goes to the device, as Linux does.
        capabilities.checksum.tcp = Checksum::None;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities
    }
}

/// A packet for smoltcp.
struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// A place for a packet of smoltcp's.
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}
