//! The watch for what stacks drop: a thread of its own, since one probe sees the namespaces of all nodes and pods.

use super::record::{Log, Record, What};
use skep_agent_linux::{DropMonitor, Error, Netns, Watched};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long drops wait in their rings at the most.
const TURN: Duration = Duration::from_millis(5);

/// Whose namespace a number is: a node's, or that of a pod of it.
type Owners = Arc<Mutex<BTreeMap<u32, (usize, Option<String>)>>>;

/// The watch.
pub(super) struct DropWatch {
    watched: Watched,
    owners: Owners,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DropWatch {
    pub(super) fn start(log: Arc<Log>) -> Result<Self, Error> {
        let owners = Owners::default();
        let (stop, stopped) = channel();
        let (tell, told) = channel();
        let known = Arc::clone(&owners);
        let thread = std::thread::spawn(move || match DropMonitor::open() {
            Ok(monitor) => {
                let _ = tell.send(Ok(monitor.watched()));
                serve(monitor, &known, &log, &stopped);
            }
            Err(e) => {
                let _ = tell.send(Err(e));
            }
        });
        let watched = told.recv().unwrap_or_else(|_| {
            Err(Error::Kernel {
                what: "the watch for drops".into(),
                source: std::io::Error::other("it panicked"),
            })
        })?;
        Ok(Self { watched, owners, stop: Some(stop), thread: Some(thread) })
    }

    /// Watches a node's namespace, or that of a pod of it.
    pub(super) fn watch(&self, netns: &Netns, node: usize, pod: Option<String>) -> Result<(), Error> {
        let number = self.watched.watch(netns)?;
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (node, pod));
        Ok(())
    }
}

impl Drop for DropWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut monitor: DropMonitor, owners: &Owners, log: &Log, stopped: &Receiver<()>) {
    let mut sequence = 0;
    while stopped.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
        let (drops, lost) = monitor.drain();
        if lost > 0 {
            log.complain(format!("{lost} drops were lost"));
        }
        for drop in drops {
            let owner = owners.lock().unwrap_or_else(PoisonError::into_inner).get(&drop.namespace).cloned();
            let Some((node, pod)) = owner else { continue };
            // Its socket was closed with the packet in a queue: it had been delivered.
            if drop.reason == "SKB_DROP_REASON_QUEUE_PURGE" {
                continue;
            }
            sequence += 1;
            let len = drop.bytes.get(2..4).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
            let what =
                What::Dropped { pod, ifindex: drop.ifindex, reason: drop.reason, bytes: drop.bytes, len };
            log.add(Record { time_ns: drop.time_ns, node, sequence, what });
        }
    }
}
