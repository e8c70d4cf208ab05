//! A node of the cluster: a thread in namespaces of its own, its agent, and all that is recorded there.
//!
//! The thread, and with it everything that the agent makes, ends with this process, however it ends: its network
//! namespace and its mounts have no name, and what is pinned is pinned in a mount that nobody else has.

use super::record::{Log, Record, What, whole};
use super::walk::ends_of;
use skep_abi::event::Event as DatapathEvent;
use skep_abi::map::{EVENTS, METRIC_INGRESS};
use skep_agent_core::desired::POD_DEVICE;
use skep_agent_core::{Agent, Config, Event, Link, Performed, Time, drive, start};
use skep_agent_linux::{Error, LinuxNode, Netns, PerfReader, Tap, monotonic_ns, mount_bpffs, private_mounts};
use skep_object::ObjectSet;
use skep_scenario::{Fact, FrameView, Tables};
use std::collections::BTreeMap;
use std::path::Path;
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
    pub(super) config: Config,
    pub(super) log: Arc<Log>,
}

/// What the node's thread has.
pub(super) struct Site {
    pub(super) node: LinuxNode,
    pub(super) agent: Agent,
    plan: Plan,
    namespaces: BTreeMap<String, Netns>,
    perf: Option<PerfReader>,
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
        let name = plan.config.node.clone();
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
        Ok(Self {
            node: LinuxNode::new(Arc::clone(&plan.objects), Path::new(BPFFS))?,
            agent: Agent::new(plan.config.clone()),
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

    fn now() -> Time {
        Time::from_nanos(monotonic_ns())
    }

    /// Lets the agent begin: it takes the node's inventory.
    pub(super) fn begin(&mut self) -> Vec<Performed> {
        let performed = start(&mut self.agent, &mut self.node, Self::now());
        self.listen();
        performed
    }

    /// Lets the agent handle an event.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Performed> {
        let performed = drive(&mut self.agent, &mut self.node, Self::now(), event);
        self.listen();
        performed
    }

    /// Lets the agent do what is due by itself.
    pub(super) fn tick(&mut self) -> Vec<Performed> {
        let due = self.agent.next_timer().is_some_and(|at| at <= Self::now());
        if due { self.handle(Event::Tick) } else { Vec::new() }
    }

    /// A new agent in place of the old one, that knows only what it finds in the kernel; the datapath stays.
    pub(super) fn restart(&mut self) -> Result<Vec<Performed>, Error> {
        // Rings stay in the map of events only as long as the descriptor through which they came there.
        self.drain();
        self.perf = None;
        self.node = LinuxNode::new(Arc::clone(&self.plan.objects), Path::new(BPFFS))?;
        for (name, netns) in &self.namespaces {
            self.node.add_namespace(name, netns.try_clone()?)?;
        }
        self.agent = Agent::new(self.plan.config.clone());
        Ok(self.begin())
    }

    /// A pod's namespace, made by who stands in for the container runtime.
    pub(super) fn add_namespace(&mut self, name: &str, netns: Netns) -> Result<(), Error> {
        let tap = netns.within(Tap::open)??;
        self.taps.push(PodTap { pod: name.to_owned(), tap });
        self.namespaces.insert(name.to_owned(), netns.try_clone()?);
        self.node.add_namespace(name, netns)
    }

    /// The pod's namespace goes.
    pub(super) fn remove_namespace(&mut self, name: &str) {
        self.drain();
        self.taps.retain(|t| t.pod != name);
        self.namespaces.remove(name);
        self.node.remove_namespace(name);
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
            && let Some(map) = self.node.map(EVENTS.name)
        {
            match PerfReader::with_pages(&map, RING_PAGES) {
                Ok(reader) => self.perf = Some(reader),
                Err(e) => self.plan.log.complain(format!("{}: {e}", self.plan.config.node)),
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
        if let Some(perf) = &mut self.perf {
            let found = perf.drain();
            if found.lost > 0 {
                self.plan.log.complain(format!("{}: {} events were lost", self.plan.config.node, found.lost));
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
            self.plan.log.complain(format!("{}: an event of an unknown layout", self.plan.config.node));
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
