//! The connect translator on a cgroup of the running kernel: a child in the cgroup connects to services, and whom it
//! reaches, what its socket calls the peer, and what is in the maps is what the vm says.
//!
//! The cgroup is made for the test and removed behind it.

use super::kernel::{InKernel, World, hook, same_data};
use libtest_mimic::Failed;
use skep_vm::{
    EngineKind, Input, Kernel, KernelConfig, LoadSpec, Loaded, Object, SockAddr, Socket, UpdateMode,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

/// Where the child finds the cgroup that it is to enter.
const CGROUP: &str = "SKEP_TEST_CONNECT_FROM";
/// Services: address, and number of backends and the first of them.
const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const TCP: u16 = 6;

/// Where control groups of version 2 are mounted.
pub(super) fn mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    fields.find(|f| f.get(2) == Some(&"cgroup2")).map(|f| f[1].into())
}

/// What the child does: enters the cgroup, and answers each address on stdin with what a connection to it came to.
pub(super) fn child() -> Option<ExitCode> {
    let cgroup = std::env::var_os(CGROUP)?;
    let procs = Path::new(&cgroup).join("cgroup.procs");
    if std::fs::write(procs, std::process::id().to_string()).is_err() {
        return Some(ExitCode::FAILURE);
    }
    for line in std::io::stdin().lines() {
        let Some(to) = line.ok().and_then(|l| l.parse::<SocketAddr>().ok()) else { break };
        match TcpStream::connect(to).and_then(|s| s.peer_addr()) {
            Ok(peer) => println!("{peer}"),
            Err(e) => println!("error {}", e.raw_os_error().unwrap_or(0)),
        }
    }
    Some(ExitCode::SUCCESS)
}

/// The child, in its cgroup.
struct Member {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    cgroup: PathBuf,
}

impl Member {
    fn start() -> Result<Self, Failed> {
        let name = format!("skep-test-connect-{}", std::process::id());
        let cgroup = mount().ok_or("no cgroup2")?.join(name);
        std::fs::create_dir(&cgroup)?;
        let command = Command::new(std::env::current_exe()?)
            .env(CGROUP, &cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = command.inspect_err(|_| drop(std::fs::remove_dir(&cgroup)))?;
        let (to, from) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, to, from: BufReader::new(from), cgroup })
    }

    /// Connects, and gives the peer's address as the socket tells it, or the error number.
    fn connect(&mut self, to: SocketAddr) -> Result<Result<SocketAddr, i32>, Failed> {
        writeln!(self.to, "{to}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        match line.trim().strip_prefix("error ") {
            Some(number) => Ok(Err(number.parse()?)),
            None => Ok(Ok(line.trim().parse()?)),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A cgroup whose last process has just been reaped is empty.
        let _ = std::fs::remove_dir(&self.cgroup);
    }
}

/// An address as the object's maps hold it.
fn packed(address: SocketAddrV4) -> Vec<u8> {
    [&address.ip().octets()[..], &address.port().to_be_bytes(), &TCP.to_le_bytes()].concat()
}

/// What the maps hold at first: name, key, value. Service 80 has both backends, 81 the second, 82 none, 83 one that was
/// never filled in.
fn state(backends: &[SocketAddrV4]) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let service = |port: u16, count: u32, first: u32| {
        let value = [count.to_le_bytes(), first.to_le_bytes()].concat();
        ("services", packed(SocketAddrV4::new(SERVICE, port)), value)
    };
    let mut all = vec![service(80, 2, 0), service(81, 1, 1), service(82, 0, 0), service(83, 1, 9)];
    for (slot, backend) in (0u32..).zip(backends) {
        all.push(("backends", slot.to_le_bytes().to_vec(), packed(*backend)));
    }
    all
}

/// What the vm says of a connection: where it goes and how its socket then calls the peer; `None` if it is refused.
fn vm(
    kernel: &mut Kernel,
    loaded: &Loaded,
    to: SocketAddr,
) -> Result<Option<(SocketAddr, SocketAddr)>, Failed> {
    let socket = Some(kernel.add_socket(Socket::default()).ok_or("no memory")?);
    let protocol = u32::from(TCP);
    let mut call = SockAddr { socket, user: to, kind: 1, protocol, source: None };
    let connect = kernel.run_on(loaded.programs["connect4"], Input::SockAddr(&mut call), &mut World)?;
    if connect.return_value == 0 {
        return Ok(None);
    }
    let reached = call.user;
    kernel.run_on(loaded.programs["getpeername4"], Input::SockAddr(&mut call), &mut World)?;
    Ok(Some((reached, call.user)))
}

/// Which listener has a connection; one that is `sure` to come may still be on its way.
fn accepted(listeners: &[TcpListener], sure: bool) -> Option<usize> {
    let tries = if sure { 400 } else { 1 };
    (0..tries).find_map(|n| {
        if n > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        listeners.iter().position(|l| l.accept().is_ok())
    })
}

pub(super) fn compare() -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simulator/vm/tests/objects/connect.o");
    let object = Object::parse(&std::fs::read(path)?)?;
    let real = InKernel::load(&object)?;
    let mut kernel = Kernel::new(&KernelConfig { engine: EngineKind::Checked, ..KernelConfig::default() });
    let loaded = kernel.load(&object, &LoadSpec::default())?;
    let listeners: Vec<_> =
        (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut backends = Vec::new();
    for listener in &listeners {
        listener.set_nonblocking(true)?;
        let SocketAddr::V4(address) = listener.local_addr()? else { return Err("an IPv6 address".into()) };
        backends.push(address);
    }
    for (map, key, value) in state(&backends) {
        real.maps[map].update(&key, &value, 0).map_err(|e| format!("{map}: {e:?}"))?;
        kernel.map_update(loaded.maps[map], &key, &value, UpdateMode::Any)?;
    }
    let mut member = Member::start()?;
    let cgroup = std::fs::File::open(&member.cgroup)?;
    let attach = |name: &str| {
        let link = real.programs[name].attach(cgroup.as_fd(), hook(&object, name));
        link.map_err(|e| Failed::from(format!("{name}: error {e}")))
    };
    let _links = [attach("connect4")?, attach("getpeername4")?];
    let service = |port| SocketAddr::from((SERVICE, port));
    let direct = SocketAddr::V4(backends[1]);
    let wanted =
        [service(80), service(80), service(81), service(82), direct, service(83), service(80), service(81)];
    for (n, to) in wanted.into_iter().enumerate() {
        let ours = vm(&mut kernel, &loaded, to)?;
        let theirs = member.connect(to)?;
        let accepted = accepted(&listeners, theirs.is_ok()).map(|at| SocketAddr::V4(backends[at]));
        let theirs = match (theirs, accepted) {
            (Ok(peer), Some(reached)) => Some((reached, peer)),
            // EPERM
            (Err(1), None) => None,
            other => return Err(format!("connection {n} to {to}: {other:?}").into()),
        };
        if ours != theirs {
            return Err(format!("connection {n} to {to}: vm {ours:?}, kernel {theirs:?}").into());
        }
    }
    same_data(&real, &kernel, &loaded, &object)?;
    same_services(&real, &kernel, &loaded)
}

/// The services of all connections. Their order is nobody's: each CPU of the kernel gives cookies of its own.
fn same_services(real: &InKernel, kernel: &Kernel, loaded: &Loaded) -> Result<(), Failed> {
    let mut ours: Vec<_> =
        kernel.entries(loaded.maps["by_cookie"]).into_iter().map(|(_, service)| service).collect();
    let (map, mut key, mut next, mut theirs) = (&real.maps["by_cookie"], None, [0; 8], Vec::new());
    while map.next_key(key.as_ref().map(<[u8; 8]>::as_slice), &mut next).is_ok() {
        let mut value = [0; 8];
        map.lookup(&next, 0, &mut value).map_err(|e| format!("by_cookie: {e:?}"))?;
        theirs.push(value.to_vec());
        key = Some(next);
    }
    ours.sort();
    theirs.sort();
    if ours != theirs || ours.len() != 5 {
        return Err(format!("by_cookie: {ours:x?}, kernel {theirs:x?}").into());
    }
    Ok(())
}
