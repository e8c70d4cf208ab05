//! A node with two pods in namespaces of their own, and the agent's binary as a process in them.

use skep_agent_linux::{Netlink, Netns, NewEnd, mount_bpffs, private_mounts, probe};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const BPFFS: &str = "/sys/fs/bpf";
const SERVER: u16 = 8080;
/// Long enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a SYN that nobody drops; two retransmissions are in it.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// A pod of the node, by its place in [`Rig::pods`].
pub(crate) type Pod = usize;
pub(crate) const CURL: Pod = 0;
pub(crate) const WEB: Pod = 1;
const NAMES: [&str; 2] = ["curl", "web"];

/// Two nodes with a pod each, which name their addresses.
pub(crate) fn two_nodes() -> String {
    let node = |n: u8| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node-{n}}}, spec: {{podCIDR: 10.0.{n}.0/24}}, \
             status: {{addresses: [{{type: InternalIP, address: 192.168.0.{n}}}]}}}}\n---\n"
        )
    };
    let pod = |name: &str, n: u8| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{nodeName: \
             node-{n}, containers: [{{name: c, image: c}}]}}, status: {{podIP: 10.0.{n}.9}}}}\n---\n"
        )
    };
    node(1) + &node(2) + &pod(NAMES[CURL], 1) + &pod(NAMES[WEB], 2)
}

/// The node and these pods.
pub(crate) fn manifests(pods: &[&str]) -> String {
    let node = "{apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDR: 10.0.1.0/24}, \
                status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}\n";
    let pod = |name: &&str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, \
             spec: {{containers: [{{name: c, image: c}}]}}}}\n"
        )
    };
    node.to_owned() + &pods.iter().map(pod).collect::<String>()
}

/// The node of the calling thread.
pub(crate) struct Rig {
    name: String,
    place: tempfile::TempDir,
    pods: Vec<Netns>,
}

/// Runs `test` on a node of its own, takes away all that the agent made, and looks whether anything is left.
pub(crate) fn on_a_node(test: impl FnOnce(&Rig) + Send) {
    if let Some([node, _peer]) = nodes() {
        std::thread::scope(|scope| join(scope.spawn(|| on(&node, 1, test))));
    }
}

/// Runs each of both on a node of its own, at the same time: two nodes with a cable between them.
pub(crate) fn on_two_nodes(one: impl FnOnce(&Rig) + Send, two: impl FnOnce(&Rig) + Send) {
    let Some([left, right]) = nodes() else { return };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(|| on(&left, 1, one)), scope.spawn(|| on(&right, 2, two))];
        threads.into_iter().for_each(join);
    });
}

fn join(thread: std::thread::ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Two namespaces with an `eth0` each, connected; says so if the kernel cannot be asked.
fn nodes() -> Option<[Netns; 2]> {
    if let Err(e) = probe() {
        let capability = e.missing_capability().unwrap_or("bpf");
        writeln!(std::io::stdout(), "\nSKIP agent-process: {capability}").expect("stdout is open");
        return None;
    }
    let nodes = [Netns::new().expect("a namespace"), Netns::new().expect("a namespace")];
    let end = |last, netns| NewEnd { name: "eth0", mac: [0x52, 0x54, 0, 0, 0, last], mtu: 1500, netns };
    let plug = || Netlink::open().and_then(|mut n| n.add_veth(&end(1, None), &end(2, Some(&nodes[1]))));
    nodes[0].within(plug).expect("a namespace").expect("a cable");
    Some(nodes)
}

/// Runs `test` on the calling thread, as node-NUMBER with the address 192.168.0.NUMBER.
fn on(netns: &Netns, number: u8, test: impl FnOnce(&Rig)) {
    private_mounts().expect("mounts of its own");
    netns.enter().expect("it can be entered");
    mount_bpffs(Path::new(BPFFS)).expect("a bpffs");
    let mut netlink = Netlink::open().expect("rtnetlink");
    let card = netlink.ifindex("eth0").expect("it was made");
    let address = format!("192.168.0.{number}/24").parse().expect("a network");
    netlink.add_address(card, address).expect("an address");
    netlink.set_up(card, true).expect("it can be set up");
    let rig = Rig::new(format!("node-{number}"));
    test(&rig);
    let (status, text) = rig.run(&["--clean"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!((rig.devices("lxc"), rig.devices("skep_")), (0, 0), "devices are left");
    assert!(!Path::new(BPFFS).join("skep").exists(), "pins are left");
}

impl Rig {
    fn new(name: String) -> Self {
        let place = tempfile::tempdir().expect("a folder");
        for folder in ["manifests", "netns"] {
            std::fs::create_dir(place.path().join(folder)).expect("a folder");
        }
        let rig =
            Self { name, place, pods: NAMES.iter().map(|_| Netns::new().expect("a namespace")).collect() };
        for pod in [CURL, WEB] {
            rig.show(pod);
        }
        rig.serve();
        rig
    }

    /// A server in the pod web that says everything back.
    fn serve(&self) {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, SERVER)).expect("a free port");
        let listener = self.pods[WEB].within(listen).expect("a namespace");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut bytes = [0; 256];
                    while let Ok(len @ 1..) = stream.read(&mut bytes) {
                        let _ = stream.write_all(&bytes[..len]);
                    }
                });
            }
        });
    }

    fn link(&self, pod: Pod) -> PathBuf {
        self.place.path().join("netns").join(format!("default_{}", NAMES[pod]))
    }

    /// Lets the pod's namespace stand where the agent looks.
    pub(crate) fn show(&self, pod: Pod) {
        let fd = self.pods[pod].as_fd().as_raw_fd();
        let target = format!("/proc/{}/fd/{fd}", std::process::id());
        std::os::unix::fs::symlink(target, self.link(pod)).expect("a link");
    }

    pub(crate) fn hide(&self, pod: Pod) {
        std::fs::remove_file(self.link(pod)).expect("it is there");
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.place.path().join("manifests").join(name), text).expect("it can be written");
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.place.path().join("manifests").join(name)).expect("it is there");
    }

    /// How many devices of the node are called so.
    pub(crate) fn devices(&self, prefix: &str) -> usize {
        let devices = Netlink::open().and_then(|mut n| n.devices()).expect("rtnetlink");
        devices.iter().filter(|d| d.name.starts_with(prefix)).count()
    }

    /// The address that the agent has given to a pod.
    pub(crate) fn address(&self, pod: Pod) -> Option<Ipv4Addr> {
        let devices = self.pods[pod].within(|| Netlink::open().and_then(|mut n| n.devices()));
        let devices = devices.expect("a namespace").expect("rtnetlink");
        devices.iter().find(|d| d.name == "eth0")?.addresses.first().map(|net| net.addr())
    }

    /// A connection from one pod to the other's server.
    pub(crate) fn connect(&self, from: Pod, to: Pod) -> std::io::Result<Flow> {
        let Some(ip) = self.address(to) else { return Err(std::io::Error::other("it has no address")) };
        self.connect_to(from, ip)
    }

    /// A connection from a pod of this node to the server at an address.
    pub(crate) fn connect_to(&self, from: Pod, ip: Ipv4Addr) -> std::io::Result<Flow> {
        let connect = || TcpStream::connect_timeout(&SocketAddr::from((ip, SERVER)), HANDSHAKE);
        let stream = self.pods[from].within(connect).expect("a namespace")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Flow { stream })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skep-agent"));
        command.current_dir(self.place.path());
        command
    }

    /// Runs the agent to its end: its status and all that it said.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command().args(arguments).output().expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The agent, looking often.
    pub(crate) fn agent(&self) -> Agent {
        let mut child = self
            .command()
            .args(["--node", &self.name, "--netns", "netns", "--interval", "50", "manifests"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = lines(child.stdout.take().expect("it was piped"));
        let warned = lines(child.stderr.take().expect("it was piped"));
        Agent { child, said, warned }
    }
}

/// Lines as they come.
fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    told
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Flow {
    stream: TcpStream,
}

impl Flow {
    /// What the server says back.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.stream.write_all(bytes).expect("it is open");
        let mut back = vec![0; bytes.len()];
        self.stream.read_exact(&mut back).expect("an answer");
        back
    }
}

/// The agent's process.
pub(crate) struct Agent {
    child: Child,
    said: Receiver<String>,
    warned: Receiver<String>,
}

impl Agent {
    /// Waits for a line of its output with these words.
    pub(crate) fn until(&self, words: &str) -> String {
        self.wait(&self.said, words)
    }

    /// Waits for a line of its errors with these words.
    pub(crate) fn until_warned(&self, words: &str) -> String {
        self.wait(&self.warned, words)
    }

    fn wait(&self, from: &Receiver<String>, words: &str) -> String {
        let begun = Instant::now();
        let mut all = Vec::new();
        while let Ok(line) = from.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            if line.contains(words) {
                return line;
            }
            all.push(line);
        }
        all.extend(self.said.try_iter().chain(self.warned.try_iter()));
        panic!("no line with `{words}` in:\n{}", all.join("\n"));
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ended");
    }

    /// SIGTERM; its exit status.
    pub(crate) fn end(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().expect("kill(1) is there");
        assert!(status.success());
        self.child.wait().expect("it ended").code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
