//! An agent that is told what it should know through a socket: the process of a node whose cluster another process has.
//!
//! An [`Order`] a line, answered by an [`Answer`] a line once all is done that it asks for; both JSON, for processes of one
//! build. The agent ends with its socket, and leaves the datapath.

use crate::Pilot;
use serde::{Deserialize, Serialize};
use skep_abi::Mac;
use skep_abi::program::Object;
use skep_agent_core::desired::Config;
use skep_agent_core::{Action, Change, Event, Netns as Place, Performed, Request, Switches};
use skep_agent_linux::{Error, LinuxNode, Netns, NodeLock, Signal, Signals};
use skep_object::ObjectSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What the agent is asked.
#[derive(Serialize, Deserialize, Debug)]
pub enum Order {
    /// First of all: to take the node.
    Open {
        /// Its BPF file system.
        bpffs: PathBuf,
        /// Objects to load instead of the built-in ones.
        objects: Option<PathBuf>,
    },
    /// To begin: it finds what is there.
    Begin(Begin),
    /// A pod's network namespace.
    AddNamespace {
        /// Its name in requests.
        name: String,
        /// A file that stands for it.
        path: PathBuf,
    },
    /// A pod's network namespace goes.
    RemoveNamespace {
        /// Its name in requests.
        name: String,
    },
    /// The cluster changed.
    Change(Change),
    /// The kubelet asks for something.
    Endpoint(Request),
}

/// What an agent is told when it begins.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Begin {
    /// The name of its node.
    pub node: String,
    /// The node's device that bears its address.
    pub uplink: String,
    /// That device's Ethernet address.
    pub uplink_mac: [u8; 6],
    /// The UDP port of the tunnel.
    pub tunnel_port: u16,
    /// The MTU of devices.
    pub mtu: u32,
    /// Whether every local pod has a route of its own.
    pub endpoint_routes: bool,
}

impl Begin {
    /// The agent's configuration, with these objects.
    pub fn config(&self, objects: &ObjectSet) -> Config {
        Config {
            node: self.node.clone(),
            uplink: self.uplink.clone(),
            uplink_mac: Mac::from_octets(self.uplink_mac),
            objects: Object::ALL.iter().map(|o| (*o, objects.sha256(*o))).collect(),
            switches: Switches {
                tunnel_port: self.tunnel_port,
                mtu: self.mtu,
                endpoint_routes: self.endpoint_routes,
            },
        }
    }
}

/// What became of an order, and of what was due by itself since the last one.
#[derive(Default, Serialize, Deserialize, Debug)]
pub struct Answer {
    /// What was refused, in words.
    pub refused: Vec<String>,
    /// Endpoints whose pods may start.
    pub ready: Vec<u16>,
    /// Devices of the node's own namespace that were made.
    pub made: Vec<String>,
}

impl Answer {
    fn add(&mut self, performed: Vec<Performed>) {
        for done in performed {
            match (done.action, done.result) {
                (action, Err(why)) => self.refused.push(format!("{action:?}: {why}")),
                (Action::EndpointReady { endpoint }, Ok(_)) => self.ready.push(endpoint),
                (Action::CreateDevice { link, .. }, Ok(_)) if link.netns == Place::Root => {
                    self.made.push(link.name);
                }
                _ => {}
            }
        }
    }
}

/// Follows orders until the socket is closed, or SIGTERM or SIGINT come.
///
/// # Errors
///
/// What goes wrong with the socket, and where orders come out of order.
pub fn serve(socket: UnixStream) -> Result<(), Error> {
    let failed = |e| Error::Kernel { what: "the agent's socket".to_owned(), source: e };
    let signals = Signals::hold()?;
    let mut answers = socket.try_clone().map_err(failed)?;
    let mut orders = BufReader::new(socket);
    let (mut served, mut answer, mut line) = (None, Answer::default(), String::new());
    loop {
        let rest = served.as_ref().map_or(Duration::MAX, |s: &Served| s.pilot.rest(Duration::MAX));
        let woken = signals.wait(Some(orders.get_ref().as_fd()), rest)?;
        if woken.signal == Some(Signal::End) {
            return Ok(());
        }
        if let Some(served) = &mut served {
            answer.add(served.pilot.tick());
        }
        if !woken.other {
            continue;
        }
        line.clear();
        // One order is under way at a time, so nothing waits in the buffer once its line was taken.
        if orders.read_line(&mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        let order = serde_json::from_str(&line).map_err(|e| failed(e.into()))?;
        if let Err(e) = follow(&mut served, order, &mut answer) {
            answer.refused.push(e.to_string());
        }
        let mut text = serde_json::to_string(&answer).map_err(|e| failed(e.into()))?;
        text.push('\n');
        answers.write_all(text.as_bytes()).map_err(failed)?;
        answer = Answer::default();
    }
}

/// The node that was opened.
struct Served {
    objects: Arc<ObjectSet>,
    _lock: NodeLock,
    pilot: Pilot,
}

fn follow(served: &mut Option<Served>, order: Order, answer: &mut Answer) -> Result<(), Error> {
    let wrong = |why: String| Error::Kernel { what: "an order".to_owned(), source: io::Error::other(why) };
    if let Order::Open { bpffs, objects } = order {
        let objects = Arc::new(ObjectSet::new(objects.as_deref()).map_err(|e| wrong(e.to_string()))?);
        let pilot = Pilot::new(LinuxNode::new(Arc::clone(&objects), &bpffs)?);
        *served = Some(Served { objects, _lock: NodeLock::take(&bpffs)?, pilot });
        return Ok(());
    }
    let Some(Served { objects, pilot, .. }) = served else {
        return Err(wrong(format!("{order:?} before the node was opened")));
    };
    match order {
        Order::Open { .. } => {}
        Order::Begin(begin) => answer.add(pilot.begin(begin.config(objects))),
        Order::AddNamespace { name, path } => pilot.node.add_namespace(&name, Netns::open(&path)?)?,
        Order::RemoveNamespace { name } => pilot.node.remove_namespace(&name),
        Order::Change(change) => answer.add(pilot.tell(Event::Resource(change))),
        Order::Endpoint(request) => answer.add(pilot.tell(Event::Endpoint(request))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_out_of_order_is_refused_and_a_closed_socket_is_the_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let agent = std::thread::spawn(|| serve(theirs));
        let mut answers = BufReader::new(ours);
        for order in [Order::Change(Change::Synced), Order::RemoveNamespace { name: "shop/web".to_owned() }] {
            let text = serde_json::to_string(&order).unwrap() + "\n";
            answers.get_mut().write_all(text.as_bytes()).unwrap();
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            let answer: Answer = serde_json::from_str(&line).unwrap();
            assert!(answer.refused[0].contains("before the node was opened"), "{answer:?}");
        }
        drop(answers);
        agent.join().unwrap().unwrap();
    }

    #[test]
    fn what_is_no_order_ends_it_with_an_error() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"{}\n").unwrap();
        serve(theirs).unwrap_err();
    }
}
