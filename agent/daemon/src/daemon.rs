//! The loop: files and namespaces in, events to the agent, actions to the node.

use crate::args::Args;
use crate::folder::Folder;
use crate::names::{self, NamespaceId};
use crate::tally::Tally;
use crate::{complain, say};
use skep_abi::Mac;
use skep_abi::program::Object;
use skep_agent::Pilot;
use skep_agent_core::{
    Change, Cluster, Config, EndpointRequest, Event, Given, Performed, Request, Step, Switches,
};
use skep_agent_linux::{LinuxNode, Netns, NodeLock, Signal, Signals, probe};
use skep_manifest::Options;
use skep_object::ObjectSet;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The name under which it stands what pods were given.
const GIVEN: &str = "cluster";

/// Runs until it is asked to end. Returns the exit status.
///
/// # Errors
///
/// What is wrong with the set-up, for people.
pub(crate) fn run(args: Args) -> Result<u8, String> {
    let signals = Signals::hold().map_err(|e| e.to_string())?;
    let (once, interval) = (args.once, args.interval);
    let mut daemon = Daemon::new(args)?;
    let begun = daemon.look(true);
    if once {
        return match begun {
            Ok(()) => Ok(u8::from(daemon.refused)),
            Err(why) => Err(why),
        };
    }
    daemon.complain(begun);
    loop {
        match signals.wait(None, daemon.pilot.rest(interval)).map_err(|e| e.to_string())?.signal {
            Some(Signal::End) => {
                say!("asked to end; the datapath stays");
                return Ok(0);
            }
            Some(Signal::Again) => {
                let looked = daemon.look(true);
                daemon.complain(looked);
            }
            None => {
                let looked = daemon.look(false);
                daemon.complain(looked);
            }
        }
    }
}

/// A pod that wants to be connected.
struct Waiting {
    request: EndpointRequest,
    /// The namespace that the agent was told of.
    told: Option<NamespaceId>,
}

struct Daemon {
    args: Args,
    name: String,
    objects: Arc<ObjectSet>,
    _lock: NodeLock,
    pilot: Pilot,
    folder: Folder,
    /// Of the files that were last right.
    cluster: Option<Cluster>,
    /// Whether files were read that could not be followed yet, for a reason outside of them.
    pending: bool,
    endpoints: BTreeMap<u16, Waiting>,
    tally: Tally,
    /// Whether the node has refused something since it last did all.
    refused: bool,
    complained: Option<String>,
}

impl Daemon {
    fn new(mut args: Args) -> Result<Self, String> {
        let wrong = |e: skep_agent_linux::Error| e.to_string();
        probe().map_err(wrong)?;
        let objects = Arc::new(ObjectSet::new(args.object.as_deref()).map_err(|e| e.to_string())?);
        let node = LinuxNode::new(Arc::clone(&objects), &args.bpffs).map_err(wrong)?;
        let lock = NodeLock::take(&args.bpffs).map_err(wrong)?;
        let options = Options { ignore_kinds: args.ignore_kind.iter().cloned().collect() };
        Ok(Self {
            name: args.node.take().unwrap_or_else(names::host),
            objects,
            _lock: lock,
            pilot: Pilot::new(node),
            folder: Folder::new(std::mem::take(&mut args.manifests), options),
            cluster: None,
            pending: false,
            endpoints: BTreeMap::new(),
            tally: Tally::default(),
            refused: false,
            complained: None,
            args,
        })
    }

    /// Follows what has changed, and lets the agent do what is due; `at_once` without waiting for files to settle.
    ///
    /// # Errors
    ///
    /// What is wrong with the files, or keeps them from being followed. What was followed before stays.
    fn look(&mut self, at_once: bool) -> Result<(), String> {
        let changed = self.folder.has_changed();
        let read = if changed || at_once || self.pending { self.follow() } else { Ok(false) };
        self.find_namespaces();
        let performed = self.pilot.tick();
        self.performed(&performed);
        self.report(matches!(read, Ok(true)));
        read.map(drop)
    }

    /// Reads the files and tells the agent what they say.
    fn follow(&mut self) -> Result<bool, String> {
        self.pending = false;
        let resources = self.folder.read().map_err(|e| e.to_string())?;
        let (cluster, steps) = match &self.cluster {
            Some(cluster) => {
                let mut cluster = cluster.clone();
                cluster.replace(&resources).map(|steps| (cluster, steps))
            }
            None => Cluster::resume(&self.given()?, &[], &resources),
        }
        .map_err(|e| e.to_string())?;
        // From here on it is not the files' fault, and may mend itself.
        self.pending = true;
        let config = self.config(&cluster)?;
        let given = serde_json::to_vec(&cluster.given()).map_err(|e| e.to_string())?;
        self.pilot.node.remember(GIVEN, &given).map_err(|e| e.to_string())?;
        self.pending = false;
        self.cluster = Some(cluster);
        if self.pilot.config() == Some(&config) {
            self.tell(steps);
        } else {
            self.begin(config);
        }
        Ok(true)
    }

    /// What was given to pods by the agent before this one.
    fn given(&self) -> Result<Given, String> {
        let Some(bytes) = self.pilot.node.remembered(GIVEN).map_err(|e| e.to_string())? else {
            return Ok(Given::default());
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|e| {
            complain!("what pods were given before cannot be read, and is given anew: {e}");
            Given::default()
        }))
    }

    fn config(&self, cluster: &Cluster) -> Result<Config, String> {
        let node = cluster.nodes().get(&self.name).ok_or_else(|| {
            let known: Vec<&str> = cluster.nodes().keys().map(String::as_str).collect();
            let known = known.join(", ");
            format!(
                "there is no Node {} in the files\n  help: --node says which of {known} this is",
                self.name
            )
        })?;
        let uplink = names::uplink(node)?;
        Ok(Config {
            node: self.name.clone(),
            uplink_mac: Mac::from_octets(uplink.mac.as_slice().try_into().unwrap_or_default()),
            uplink: uplink.name,
            objects: Object::ALL.iter().map(|o| (*o, self.objects.sha256(*o))).collect(),
            switches: Switches {
                tunnel_port: self.args.tunnel_port,
                mtu: self.args.mtu.into(),
                endpoint_routes: self.args.endpoint_routes,
            },
        })
    }

    /// A new agent: it finds what is there, and is told everything.
    fn begin(&mut self, config: Config) {
        say!("node {}, uplink {} {}", self.name, config.uplink, config.uplink_mac);
        for waiting in std::mem::take(&mut self.endpoints).into_values() {
            self.pilot.node.remove_namespace(&waiting.request.netns);
        }
        let steps = self.cluster.as_ref().map(|c| c.replay(&self.name)).unwrap_or_default();
        // An inventory looks into pods' namespaces, too: the devices of one that it does not know belong to nobody.
        for step in &steps {
            if let Step::Kubelet { request: Request::Add(request), .. } = step {
                let path = names::namespace(&self.args.netns, &request.pod);
                if names::namespace_id(&path).is_some() {
                    self.add_namespace(&path, request);
                }
            }
        }
        let performed = self.pilot.begin(config);
        self.performed(&performed);
        self.tell(steps);
    }

    fn tell(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                // All that there was in the beginning includes the pods whose namespaces are there.
                Step::Broadcast(change @ Change::Synced) => {
                    self.find_namespaces();
                    self.event(Event::Resource(change));
                }
                Step::Broadcast(change) => self.event(Event::Resource(change)),
                Step::Kubelet { node, .. } if node != self.name => {}
                Step::Kubelet { request: Request::Add(request), .. } => {
                    self.endpoints.insert(request.endpoint, Waiting { request, told: None });
                }
                Step::Kubelet { request: Request::Delete { endpoint }, .. } => {
                    if let Some(waiting) = self.endpoints.remove(&endpoint) {
                        self.disconnect(&waiting);
                    }
                }
            }
        }
    }

    fn disconnect(&mut self, waiting: &Waiting) {
        if waiting.told.is_some() {
            self.event(Event::Endpoint(Request::Delete { endpoint: waiting.request.endpoint }));
            self.pilot.node.remove_namespace(&waiting.request.netns);
        }
    }

    /// Connects pods whose namespaces have come, and disconnects those whose namespaces have gone.
    fn find_namespaces(&mut self) {
        for (endpoint, mut waiting) in std::mem::take(&mut self.endpoints) {
            let path = names::namespace(&self.args.netns, &waiting.request.pod);
            let found = names::namespace_id(&path);
            if waiting.told != found {
                self.disconnect(&waiting);
                waiting.told = found.filter(|_| self.connect(&path, &waiting.request));
            }
            self.endpoints.insert(endpoint, waiting);
        }
    }

    fn connect(&mut self, path: &Path, request: &EndpointRequest) -> bool {
        let added = self.add_namespace(path, request);
        if added {
            self.event(Event::Endpoint(Request::Add(request.clone())));
        }
        added
    }

    fn add_namespace(&mut self, path: &Path, request: &EndpointRequest) -> bool {
        let added = Netns::open(path).and_then(|netns| self.pilot.node.add_namespace(&request.netns, netns));
        // It went at this very moment, or is not whole yet: next time.
        if let Err(e) = &added {
            complain!("pod {}: {e}", request.pod);
        }
        added.is_ok()
    }

    fn event(&mut self, event: Event) {
        let performed = self.pilot.tell(event);
        self.performed(&performed);
    }

    fn performed(&mut self, performed: &[Performed]) {
        if self.args.verbose {
            for done in performed {
                match &done.result {
                    Ok(_) => say!("{:?}", done.action),
                    Err(why) => say!("{:?}: {why}", done.action),
                }
            }
        }
        self.tally.add(performed);
    }

    /// Says what was done since the last time.
    fn report(&mut self, read: bool) {
        let tally = std::mem::take(&mut self.tally);
        for why in &tally.refused {
            complain!("refused, and tried again later: {why}");
        }
        for endpoint in &tally.ready {
            if let Some(waiting) = self.endpoints.get(endpoint) {
                say!("pod {} is connected, endpoint {endpoint}", waiting.request.pod);
            }
        }
        if tally.collected > 0 {
            say!("{} expired connections collected", tally.collected);
        }
        if !tally.refused.is_empty() {
            self.refused = true;
            return;
        }
        if read || tally.changes > 0 || self.refused && self.pilot.is_on_course() {
            self.refused = false;
            let waiting = self.endpoints.values().filter(|w| w.told.is_none()).count();
            let rest =
                if waiting > 0 { format!("; {waiting} pods wait for a namespace") } else { String::new() };
            say!("in sync, {tally}{rest}");
        }
    }

    /// Says what is wrong, once.
    fn complain(&mut self, looked: Result<(), String>) {
        let why = looked.err();
        if let Some(why) = why.as_ref().filter(|why| self.complained.as_ref() != Some(why)) {
            complain!("{why}\nnothing was changed; what was right before still holds");
        }
        if why.is_some() || !self.pending {
            self.complained = why;
        }
    }
}
