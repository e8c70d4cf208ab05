//! A node of the cluster: a thread in namespaces of its own, its agent's process in the same, and all that is recorded
//! there.
//!
//! Thread and process, and with them everything that the agent makes, end with this process, however it ends: the network
//! namespace and the mounts have no name, and what is pinned is pinned in a mount that nobody else has.

use super::mirror;
use super::process::Process;
use super::record::{Log, Record, What, whole};
use super::walk::ends_of;
use skep_abi::event::Event as DatapathEvent;
use skep_abi::map::{EVENTS, METRIC_INGRESS};
use skep_agent::control::{Answer, Begin, Order};
use skep_agent_core::desired::POD_DEVICE;
use skep_agent_core::{Agent, Event, Link};
use skep_agent_linux::{Error, LinuxNode, Map, Netns, PerfReader, Tap, mount_bpffs, private_mounts};
use skep_object::ObjectSet;
use skep_scenario::{Fact, FrameView, Tables};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where a BPF file system is mounted, on every Linux.
const BPFFS: &str = "/sys/fs/bpf";
/// The device that every namespace begins with (`LOOPBACK_IFINDEX`).
const LOOPBACK_INDEX: u32 = 1;
const LOOPBACK: &str = "lo";
/// Pages of a ring of events, a CPU: 4 MiB hold what a download leaves behind while its reader is not running.
const RING_PAGES: usize = 1024;
/// How long events wait in their rings at the most.
const TURN: Duration = Duration::from_millis(3);

/// What a node is made of.
pub(super) struct Plan {
    pub(super) index: usize,
    pub(super) netns: Netns,
    pub(super) objects: Arc<ObjectSet>,
    /// Where the agent reads the same objects; the built-in ones if nowhere.
    pub(super) folder: Option<PathBuf>,
    pub(super) begin: Begin,
    pub(super) log: Arc<Log>,
}

/// What the node's thread has.
pub(super) struct Site {
    /// Looked at only: the agent's process changes it.
    pub(super) node: LinuxNode,
    /// Thinks what the node's agent thinks.
    pub(super) agent: Agent,
    /// Endpoints whose pods may start.
    pub(super) ready: BTreeSet<u16>,
    process: Process,
    plan: Plan,
    namespaces: BTreeMap<String, Netns>,
    /// Rings stay in the map of events only as long as the descriptor through which they came there.
    perf: Option<(Map, PerfReader)>,
    taps: Vec<PodTap>,
    sequence: u64,
}

struct PodTap {
    pod: String,
    tap: Tap,
}

type Job = Box<dyn FnOnce(&mut Site) + Send>;

/// A node, seen from outside of its thread.
pub(super) struct Member {
    pub(super) name: String,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// Makes the node's thread; its agent has not begun.
    pub(super) fn start(plan: Plan) -> Result<Self, Error> {
        let name = plan.begin.node.clone();
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || match Site::new(plan) {
            Ok(mut site) => {
                let _ = tell.send(Ok(()));
                site.serve(&work);
            }
            Err(e) => {
                let _ = tell.send(Err(e));
            }
        });
        let ready = told.recv().unwrap_or_else(|_| {
            Err(Error::Kernel {
                what: "a node's thread".into(),
                source: std::io::Error::other("it panicked"),
            })
        });
        ready.map(|()| Self { name, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Runs `work` on the node's thread.
    pub(super) fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Site) -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job: Job = Box::new(move |site| {
            let _ = tell.send(work(site));
        });
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        assert!(sent, "a node's thread runs until its member is dropped");
        told.recv().expect("a node's thread answers every job")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Site {
    fn new(plan: Plan) -> Result<Self, Error> {
        private_mounts()?;
        plan.netns.enter()?;
        mount_bpffs(Path::new(BPFFS))?;
        let mut node = LinuxNode::new(Arc::clone(&plan.objects), Path::new(BPFFS))?;
        Ok(Self {
            agent: mirror::begin(plan.begin.config(&plan.objects), &mut node),
            node,
            ready: BTreeSet::new(),
            process: agent_of(&plan)?,
            plan,
            namespaces: BTreeMap::new(),
            perf: None,
            taps: Vec::new(),
            sequence: 0,
        })
    }

    /// Works off jobs, and in between what was recorded, until the member is dropped.
    fn serve(&mut self, work: &Receiver<Job>) {
        loop {
            match work.recv_timeout(TURN) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.drain();
        }
    }

    /// Lets the agent begin: it takes the node's inventory.
    pub(super) fn begin(&mut self) -> Result<Answer, Error> {
        let answer = self.process.order(&Order::Begin(self.plan.begin.clone()))?;
        self.agent = mirror::begin(self.plan.begin.config(&self.plan.objects), &mut self.node);
        self.done(answer)
    }

    /// Lets the agent handle an event.
    pub(super) fn handle(&mut self, event: Event) -> Result<Answer, Error> {
        let order = match &event {
            Event::Resource(change) => Order::Change(change.clone()),
            Event::Endpoint(request) => Order::Endpoint(request.clone()),
            // The agent hears of these from its own node.
            Event::Found(_) | Event::Done(..) | Event::Tick => return Ok(Answer::default()),
        };
        let answer = self.process.order(&order)?;
        self.node.find_links()?;
        mirror::hear(&mut self.agent, &mut self.node, event);
        self.done(answer)
    }

    fn done(&mut self, answer: Answer) -> Result<Answer, Error> {
        self.ready.extend(&answer.ready);
        self.listen();
        Ok(answer)
    }

    /// Kills the agent in the middle of whatever it does. The next one knows only what it finds in the kernel.
    pub(super) fn restart(&mut self) -> Result<Answer, Error> {
        self.drain();
        self.ready.clear();
        // The old one is gone before the new one takes the node.
        self.process.kill();
        self.process = agent_of(&self.plan)?;
        for (name, netns) in &self.namespaces {
            refuse(self.process.order(&known(name, netns))?)?;
        }
        self.begin()
    }

    /// A pod's namespace, made by who stands in for the container runtime.
    pub(super) fn add_namespace(&mut self, name: &str, netns: Netns) -> Result<(), Error> {
        let tap = netns.within(Tap::open)??;
        self.taps.push(PodTap { pod: name.to_owned(), tap });
        refuse(self.process.order(&known(name, &netns))?)?;
        self.node.add_namespace(name, netns.try_clone()?)?;
        self.namespaces.insert(name.to_owned(), netns);
        Ok(())
    }

    /// The pod's namespace goes.
    pub(super) fn remove_namespace(&mut self, name: &str) -> Result<(), Error> {
        self.drain();
        self.taps.retain(|t| t.pod != name);
        self.namespaces.remove(name);
        self.node.remove_namespace(name);
        self.process.order(&Order::RemoveNamespace { name: name.to_owned() }).map(drop)
    }

    /// The names of devices by index, with the pod in front of a pod's.
    pub(super) fn device_names(&self) -> BTreeMap<u32, String> {
        let of_root = |(link, index): (&Link, &u32)| {
            (link.netns == skep_agent_core::Netns::Root).then(|| (*index, link.name.clone()))
        };
        self.node.links().iter().filter_map(of_root).collect()
    }

    /// Opens the rings of the datapath's events, once there is a map for them.
    fn listen(&mut self) {
        if self.perf.is_none()
            && let Ok(Some(map)) = self.node.pinned_map(EVENTS.name)
        {
            match PerfReader::with_pages(&map, RING_PAGES) {
                Ok(reader) => self.perf = Some((map, reader)),
                Err(e) => self.plan.log.complain(format!("{}: {e}", self.plan.begin.node)),
            }
        }
    }

    fn record(&mut self, time_ns: u64, what: What) {
        self.sequence += 1;
        let (node, sequence) = (self.plan.index, self.sequence);
        self.plan.log.add(Record { time_ns, node, sequence, what });
    }

    /// Takes all that was recorded since.
    pub(super) fn drain(&mut self) {
        if let Some((_, perf)) = &mut self.perf {
            let found = perf.drain();
            if found.lost > 0 {
                self.plan.log.complain(format!("{}: {} events were lost", self.plan.begin.node, found.lost));
            }
            for ((time_ns, cpu), bytes) in found.stamps.into_iter().zip(found.events) {
                self.event(time_ns, cpu, &bytes);
            }
        }
        let mut frames = Vec::new();
        for tapped in &mut self.taps {
            match tapped.tap.drain() {
                Ok(all) => frames.extend(all.into_iter().map(|f| (tapped.pod.clone(), f))),
                Err(e) => self.plan.log.complain(format!("{}: {e}", tapped.pod)),
            }
        }
        for (pod, frame) in frames {
            let at =
                |name: &str| self.node.links().get(&Link::pod(pod.as_str(), name)) == Some(&frame.ifindex);
            // What a pod sends to itself never leaves its loopback device, which is there before all others.
            let device = if at(POD_DEVICE) {
                POD_DEVICE
            } else if frame.ifindex == LOOPBACK_INDEX {
                LOOPBACK
            } else {
                continue;
            };
            let (outgoing, bytes, len) = (frame.outgoing, frame.bytes, frame.len);
            self.record(frame.time_ns, What::Frame { pod, device, outgoing, bytes, len });
        }
    }

    fn event(&mut self, time_ns: u64, cpu: u32, bytes: &[u8]) {
        let Some(event) = DatapathEvent::from_bytes(bytes) else {
            self.plan.log.complain(format!("{}: an event of an unknown layout", self.plan.begin.node));
            return;
        };
        let (header, captured, len) = match &event {
            DatapathEvent::Drop(d) => (size_of_val(d), d.len_cap, d.len_orig),
            DatapathEvent::Trace(t) => (size_of_val(t), t.len_cap, t.len_orig),
            DatapathEvent::PolicyVerdict(v) => (size_of_val(v), v.len_cap, v.len_orig),
        };
        let frame = bytes.get(header..).unwrap_or_default();
        let frame = frame[..frame.len().min(usize::from(captured))].to_vec();
        // Asked now: rules may be others by the time that somebody wants to know.
        let policy = match &event {
            DatapathEvent::PolicyVerdict(v) => {
                let view = FrameView::ethernet(&whole(&frame, len as usize), 0);
                let (source, destination) = ends_of(&view);
                let remote = if v.dir() == METRIC_INGRESS { source } else { destination };
                Some(Fact::policy(v, self.identity(v.remote_label, remote), self.agent.verdict_text(v)))
            }
            _ => None,
        };
        self.record(time_ns, What::Event { cpu, event, policy, bytes: frame, len: len as usize });
    }
}

/// An agent's process in the namespaces of the calling thread, which has taken the node.
fn agent_of(plan: &Plan) -> Result<Process, Error> {
    let mut process = Process::start()?;
    let open = Order::Open { bpffs: BPFFS.into(), objects: plan.folder.clone() };
    refuse(process.order(&open)?)?;
    Ok(process)
}

/// Tells of a pod's namespace by a descriptor of this process.
fn known(name: &str, netns: &Netns) -> Order {
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
    Order::AddNamespace { name: name.to_owned(), path: path.into() }
}

/// A refusal as an error.
fn refuse(answer: Answer) -> Result<(), Error> {
    match answer.refused.into_iter().next() {
        Some(why) => {
            Err(Error::Kernel { what: "a node's agent".to_owned(), source: std::io::Error::other(why) })
        }
        None => Ok(()),
    }
}
