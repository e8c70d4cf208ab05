//! What a pod is made to do, with real sockets of its namespace: each flow on a thread of its own.
//!
//! Knows sockets and when a flow has come as far as was asked. Does not know what its packets went through.

use super::pod::abort_at_close;
use skep_agent_linux::{Error, Netns, hear_icmp_errors};
use skep_scenario::world::{CONNECT_TIMEOUT, HTTP_TIMEOUT, PING_INTERVAL, SEND_SETTLE};
use skep_scenario::{FiveTuple, FrameView, Outcome, Stimulus, Until};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The payload of an echo request, as ping(8) has it.
const PING_BYTES: u8 = 56;
/// How long a closed connection is waited for to be closed by the other end too.
const CLOSING: Duration = Duration::from_millis(500);
/// How much a client reads at a time: it stops soon after the byte that it was to stop at.
const CHUNK: usize = 4096;
/// Room for what a client has not read, bytes: a held client closes its window long before a download ends.
const RECEIVE_BUFFER: usize = 64 << 10;

/// Where a client stops and waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Established,
    Bytes(u64),
}

/// How far a flow is.
#[derive(Default)]
struct Progress {
    outcome: Outcome,
    held: bool,
    /// Whether a held client may go on, and will not be held again.
    released: bool,
}

#[derive(Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Stops here, if it was asked to and has not been released, and returns for how long.
    fn hold(&self) -> Duration {
        let since = Instant::now();
        let mut progress = self.lock();
        if progress.released {
            return Duration::ZERO;
        }
        progress.held = true;
        self.changed.notify_all();
        while !progress.released {
            progress = self.changed.wait(progress).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        since.elapsed()
    }
}

/// A flow that was started.
pub(super) struct Flow {
    /// Addresses of its first packet.
    pub(super) tuple: FiveTuple,
    /// Whether its packets are as they were given.
    pub(super) raw: bool,
    /// Whether it is a request for a page.
    pub(super) http: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn v4(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(ip, port))
}

/// A flow's sockets are its own namespace's; `source` is the pod's address.
pub(super) fn start(
    netns: &Netns,
    source: Ipv4Addr,
    stimulus: &Stimulus,
    to: Option<Ipv4Addr>,
    until: Until,
) -> Result<Flow, Error> {
    let hold = match until {
        Until::Established => Some(Hold::Established),
        Until::Bytes(bytes) => Some(Hold::Bytes(bytes)),
        Until::Done | Until::Time(_) | Until::Quiet(_) => None,
    };
    let failed = |e: io::Error| Error::Kernel { what: "a socket of the pod".to_owned(), source: e };
    let to = to.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let shared = Arc::new(Shared::default());
    let work = Arc::clone(&shared);
    let bound = |kind: Type, protocol: Option<Protocol>| -> Result<(Socket, u16), Error> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, kind, protocol)?;
            socket.bind(&v4(source, 0).into())?;
            let port = socket.local_addr()?.as_socket().map_or(0, |a| a.port());
            Ok((socket, port))
        };
        netns.within(open)?.map_err(failed)
    };
    let tuple = |protocol, sport, dport| FiveTuple {
        src: IpAddr::V4(source),
        dst: IpAddr::V4(to),
        protocol,
        sport,
        dport,
    };
    let (tuple, thread) = match stimulus {
        Stimulus::Http { port, path, .. } => {
            let (socket, sport) = bound(Type::STREAM, None)?;
            let host = if *port == 80 { to.to_string() } else { format!("{to}:{port}") };
            let (request, server) = (skep_httpbin::request(&host, path), v4(to, *port));
            (tuple(6, sport, *port), std::thread::spawn(move || get(&work, socket, server, &request, hold)))
        }
        Stimulus::Connect { port, .. } => {
            let ((socket, sport), server) = (bound(Type::STREAM, None)?, v4(to, *port));
            (tuple(6, sport, *port), std::thread::spawn(move || connect(&work, socket, server, hold)))
        }
        Stimulus::Udp { port, len, .. } => {
            let ((socket, sport), server) = (bound(Type::DGRAM, None)?, v4(to, *port));
            hear_icmp_errors(&socket)?;
            let payload = vec![0; usize::from(*len)];
            (tuple(17, sport, *port), std::thread::spawn(move || datagram(&work, &socket, server, &payload)))
        }
        Stimulus::Ping { count, .. } => {
            let (socket, id) = bound(Type::DGRAM, Some(Protocol::ICMPV4))?;
            hear_icmp_errors(&socket)?;
            let count = u32::from(*count);
            (tuple(1, id, 0), std::thread::spawn(move || ping(&work, &socket, v4(to, 0), count)))
        }
        Stimulus::Send { packets, .. } => {
            let open = || {
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
                socket.set_header_included_v4(true)?;
                socket.set_broadcast(true)?;
                Ok(socket)
            };
            let socket = netns.within(open)?.map_err(failed)?;
            let first = packets.first().and_then(|p| FrameView::ip(p).tuple).unwrap_or(tuple(0, 0, 0));
            let packets = packets.clone();
            (first, std::thread::spawn(move || send(&work, &socket, &packets)))
        }
    };
    let raw = matches!(stimulus, Stimulus::Send { .. });
    let http = matches!(stimulus, Stimulus::Http { .. });
    Ok(Flow { tuple, raw, http, shared, thread: Some(thread) })
}

impl Flow {
    /// Lets a held client go on.
    pub(super) fn release(&self) {
        self.shared.change(|p| (p.released, p.held) = (true, false));
    }

    /// Waits until the flow has come as far as `until` says, or has ended; times are for the caller.
    pub(super) fn wait(&self, until: Until) {
        if matches!(until, Until::Time(_) | Until::Quiet(_)) {
            return;
        }
        let mut progress = self.shared.lock();
        while !progress.outcome.ended && !progress.held {
            progress = self.shared.changed.wait(progress).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// What the application saw.
    pub(super) fn outcome(&self) -> Outcome {
        self.shared.lock().outcome.clone()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.release();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn end(shared: &Shared, result: io::Result<()>) {
    shared.change(|p| {
        p.outcome.ended = true;
        match result {
            Ok(()) => p.outcome.completed = true,
            Err(e) => match e.kind() {
                io::ErrorKind::ConnectionRefused => p.outcome.refused = true,
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => p.outcome.timed_out = true,
                _ => {}
            },
        }
    });
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn open_stream(
    shared: &Shared,
    socket: Socket,
    server: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    abort_at_close(&socket)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect_timeout(&server.into(), timeout)?;
    shared.change(|p| p.outcome.established = true);
    Ok(socket.into())
}

/// Closes and waits for the other end to close; what the end of a connection looks like is evidence, too.
fn close(mut stream: TcpStream) {
    let deadline = Instant::now() + CLOSING;
    let mut rest = [0; CHUNK];
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(CLOSING));
    while matches!(stream.read(&mut rest), Ok(1..)) && Instant::now() < deadline {}
}

/// How long a `connect` waits here. The kernel sends a second SYN after one second (RFC 6298 section 2), and a busy machine
/// closes the socket late; no network here takes this long for an answer.
const ONE_SYN: Duration = CONNECT_TIMEOUT.checked_div(2).expect("two is not zero");

fn connect(shared: &Shared, socket: Socket, server: SocketAddr, hold: Option<Hold>) {
    match open_stream(shared, socket, server, ONE_SYN) {
        Ok(stream) => {
            if hold == Some(Hold::Established) {
                shared.hold();
            }
            close(stream);
            end(shared, Ok(()));
        }
        Err(e) => end(shared, Err(e)),
    }
}

fn get(shared: &Shared, socket: Socket, server: SocketAddr, request: &[u8], hold: Option<Hold>) {
    let exchange = || -> io::Result<TcpStream> {
        let mut deadline = Instant::now() + HTTP_TIMEOUT;
        let mut stream = open_stream(shared, socket, server, HTTP_TIMEOUT)?;
        let mut hold = hold;
        if hold == Some(Hold::Established) {
            deadline += shared.hold();
            hold = None;
        }
        stream.write_all(request)?;
        let (mut response, mut chunk) = (skep_httpbin::Response::default(), [0; CHUNK]);
        while !response.complete() {
            if let Some(Hold::Bytes(bytes)) = hold
                && response.status.is_some()
                && response.bytes >= bytes
            {
                deadline += shared.hold();
                hold = None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let len = stream.read(&mut chunk)?;
            if len == 0 || response.read(&chunk[..len]).is_err() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            shared.change(|p| {
                p.outcome.status = response.status;
                p.outcome.bytes = response.bytes;
            });
            if Instant::now() >= deadline && !response.complete() {
                return Err(timed_out());
            }
        }
        Ok(stream)
    };
    match exchange() {
        Ok(stream) => {
            close(stream);
            end(shared, Ok(()));
        }
        Err(e) => end(shared, Err(e)),
    }
}

fn datagram(shared: &Shared, socket: &Socket, server: SocketAddr, payload: &[u8]) {
    let exchange = || -> io::Result<()> {
        socket.connect(&server.into())?;
        socket.send(payload)?;
        socket.set_read_timeout(Some(SEND_SETTLE))?;
        let mut answer = vec![0; 1 << 16];
        let len = (&*socket).read(&mut answer)?;
        shared.change(|p| p.outcome.bytes = len as u64);
        Ok(())
    };
    end(shared, exchange());
}

fn ping(shared: &Shared, socket: &Socket, to: SocketAddr, count: u32) {
    let exchange = || -> io::Result<()> {
        let (start, mut received) = (Instant::now(), 0);
        for sequence in 1..=count {
            std::thread::sleep(
                (start + PING_INTERVAL * (sequence - 1)).saturating_duration_since(Instant::now()),
            );
            let [a, b] = (sequence as u16).to_be_bytes();
            // The kernel puts the identifier and the checksum in.
            let mut message = vec![8, 0, 0, 0, 0, 0, a, b];
            message.extend(0..PING_BYTES);
            socket.send_to(&message, &SockAddr::from(to))?;
            let deadline = Instant::now() + PING_INTERVAL;
            while received < sequence && Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
                match (&*socket).read(&mut [0; 2048]) {
                    Ok(_) => received += 1,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        break;
                    }
                    Err(e) if count == 1 => return Err(e),
                    Err(_) => {}
                }
            }
        }
        if received == count { Ok(()) } else { Err(timed_out()) }
    };
    end(shared, exchange());
}

/// Sends packets as they are; whether they were delivered is for others to say.
fn send(shared: &Shared, socket: &Socket, packets: &[Vec<u8>]) {
    for packet in packets {
        let address: Option<[u8; 4]> = packet.get(16..20).and_then(|b| b.try_into().ok());
        let to = v4(address.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from), 0);
        // What the kernel does not take was not sent: the packets' count tells.
        let _ = socket.send_to(packet, &SockAddr::from(to));
    }
    std::thread::sleep(SEND_SETTLE);
    shared.change(|p| p.outcome.ended = true);
}
