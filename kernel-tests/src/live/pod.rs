//! What a pod is on a kernel: a network namespace of its own, and servers on the ports that its containers declare.
//!
//! Knows sockets. Does not know policies, nor which node a pod is on.

use skep_agent_core::{ContainerPort, Protocol};
use skep_agent_linux::{Error, Netns};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a blocked server waits before it looks whether it should end.
const TICK: Duration = Duration::from_millis(100);
/// How long a closed connection's socket stays for the last acknowledgement.
const LAST_ACK: Duration = Duration::from_millis(50);
/// Queue of a listener.
const BACKLOG: i32 = 64;

/// A pod's namespace and what runs in it.
pub(super) struct Pod {
    pub(super) netns: Netns,
    stop: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    threads: Vec<JoinHandle<()>>,
    started: bool,
}

impl Pod {
    pub(super) fn new(netns: Netns) -> Self {
        let connections = Arc::new(Mutex::new(Vec::new()));
        Self {
            netns,
            stop: Arc::new(AtomicBool::new(false)),
            connections,
            threads: Vec::new(),
            started: false,
        }
    }

    /// Whether its ports were opened.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Opens the ports. Two containers may declare the same one; it is opened once.
    pub(super) fn serve(&mut self, ports: &[ContainerPort]) -> Result<(), Error> {
        self.started = true;
        let mut opened: Vec<(Protocol, u16)> = Vec::new();
        for port in ports {
            let key = (port.protocol, port.port);
            if opened.contains(&key) || port.protocol == Protocol::Sctp {
                continue;
            }
            opened.push(key);
            let failed = |e| Error::Kernel { what: format!("listening at port {}", port.port), source: e };
            let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.port);
            if port.protocol == Protocol::Tcp {
                let listener = self.netns.within(|| listen(any))?.map_err(failed)?;
                self.serve_http(listener);
            } else {
                let socket = self.netns.within(|| UdpSocket::bind(any))?.map_err(failed)?;
                socket.set_read_timeout(Some(TICK)).map_err(failed)?;
                self.serve_echo(socket);
            }
        }
        Ok(())
    }

    fn serve_http(&mut self, listener: TcpListener) {
        let (stop, connections) = (Arc::clone(&self.stop), Arc::clone(&self.connections));
        self.threads.push(std::thread::spawn(move || {
            let mut workers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        if let (Ok(copy), Ok(mut all)) = (stream.try_clone(), connections.lock()) {
                            all.push(copy);
                        }
                        workers.push(std::thread::spawn(move || connection(stream, peer)));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(TICK / 50),
                    Err(_) => break,
                }
            }
            for worker in workers {
                let _ = worker.join();
            }
        }));
    }

    fn serve_echo(&mut self, socket: UdpSocket) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || {
            let mut datagram = vec![0; 1 << 16];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut datagram) {
                    let _ = socket.send_to(&datagram[..len], from);
                }
            }
        }));
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Ok(all) = self.connections.lock() {
            for connection in all.iter() {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    abort_at_close(&socket)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket that is closed without having been shut down sends RST and is gone. Else what is cut in the middle would
/// go on retransmitting, and keep its namespace alive, for minutes after the last process has ended.
pub(super) fn abort_at_close(socket: &Socket) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

/// Answers requests until the client closes, and then closes.
fn connection(mut stream: TcpStream, peer: SocketAddr) {
    let client = match peer {
        SocketAddr::V4(v4) => *SocketAddrV4::ip(&v4),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    while let Ok(len) = stream.read(&mut chunk) {
        if len == 0 {
            // What was sent has been acknowledged soon, and then the socket may go.
            let _ = stream.shutdown(Shutdown::Write);
            std::thread::sleep(LAST_ACK);
            return;
        }
        input.extend_from_slice(&chunk[..len]);
        while let Some(reply) = skep_httpbin::serve(&mut input, client) {
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    }
}
