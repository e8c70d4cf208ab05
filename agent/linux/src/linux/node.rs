//! A Linux node as its agent sees it: actions become devices and routes by rtnetlink, maps, programs and links by
//! bpf(2), and pins that outlive the agent.
//!
//! Decides nothing: whatever an action asks for is done, or refused with the kernel's reason. What an inventory lists
//! is read back from the kernel ([`inventory`]), so that a new agent finds what an old one left.
//!
//! All of it happens in the namespaces of the calling thread: who has several nodes gives each a thread.

mod inventory;
mod lock;
mod pins;
mod record;

use super::device::{FoundRoute, NewEnd};
use super::load::{Loaded, Program, Spec, load, shapes};
use super::map::Map;
use super::netlink::Netlink;
use super::netns::{Netns, check_bpffs};
use super::pin::{TcxHook, TcxLink};
use crate::Error;
pub use lock::NodeLock;
use pins::Pins;
use skep_abi::map::{CALL_POLICY, CALLS, MapSpec};
use skep_abi::program::{Hook, Object};
use skep_agent_core::{
    Action, Datapath, Device, DeviceKind, End, HookPoint, Link, Load, LoadId, Netns as Place, Node, Outcome,
    PodKey, Refused, RouteKey, Swept, Value, gc,
};
use skep_object::ObjectSet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The program that other programs reach through `skep_call_policy`.
const HANDLE_POLICY: &str = "handle_policy";

/// A pod's network namespace, and the way to its devices.
#[derive(Debug)]
struct PodNamespace {
    netns: Netns,
    netlink: Netlink,
}

/// A Linux node: the namespaces of the thread that made it.
#[derive(Debug)]
pub struct LinuxNode {
    objects: Arc<ObjectSet>,
    /// Symbols of maps, by object.
    declared: BTreeMap<Object, BTreeSet<String>>,
    netlink: Netlink,
    pods: BTreeMap<String, PodNamespace>,
    pins: Pins,
    /// Opened once: what stands under a name does not change while this is the node's only agent.
    maps: BTreeMap<String, Arc<Map>>,
    links: BTreeMap<Link, u32>,
    /// Endpoints whose pods may start.
    ready: BTreeSet<u16>,
}

impl LinuxNode {
    /// The node of the calling thread, with its pins below a directory of a bpffs that is mounted there.
    ///
    /// # Errors
    ///
    /// Without permission, where `bpffs` is none, and where the pins are of another layout of the maps.
    pub fn new(objects: Arc<ObjectSet>, bpffs: &Path) -> Result<Self, Error> {
        check_bpffs(bpffs)?;
        let mut declared = BTreeMap::new();
        for object in Object::ALL {
            let names = shapes(object.name(), objects.bytes(*object))?.into_iter().map(|s| s.name).collect();
            declared.insert(*object, names);
        }
        let mut node = Self {
            objects,
            declared,
            netlink: Netlink::open()?,
            pods: BTreeMap::new(),
            pins: Pins::below(bpffs)?,
            maps: BTreeMap::new(),
            links: BTreeMap::new(),
            ready: BTreeSet::new(),
        };
        node.find_links()?;
        Ok(node)
    }

    /// Makes a pod's network namespace known by the name that the kubelet's request has.
    ///
    /// # Errors
    ///
    /// If it cannot be entered.
    pub fn add_namespace(&mut self, name: &str, netns: Netns) -> Result<(), Error> {
        let netlink = netns.within(Netlink::open)??;
        self.pods.insert(name.to_owned(), PodNamespace { netns, netlink });
        Ok(())
    }

    /// The pod's namespace is gone with its pod.
    pub fn remove_namespace(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// Pins bytes beside the node's maps, in place of those of this name, at once or not at all: what an agent must find
    /// again after a crash and the datapath does not tell. They go with [`clean`] and with the bpffs, as the rest does.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; for no bytes, too.
    pub fn remember(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.pins.set_record(name, bytes)
    }

    /// The bytes that an agent has had remembered under this name.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn remembered(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.pins.record(name)
    }

    /// A map of the node, by its name.
    pub fn map(&self, name: &str) -> Option<Arc<Map>> {
        self.maps.get(name).cloned()
    }

    /// A map of the node as it is pinned now, for who watches a node that another process changes: no descriptor is kept,
    /// since another map may stand under the name tomorrow.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn pinned_map(&self, name: &str) -> Result<Option<Map>, Error> {
        self.pins.open_map(name)
    }

    /// Endpoints whose pods may start.
    pub fn ready(&self) -> &BTreeSet<u16> {
        &self.ready
    }

    /// The indexes of the node's devices and of those of its pods.
    pub fn links(&self) -> &BTreeMap<Link, u32> {
        &self.links
    }

    /// Takes note of the devices that are there: the agent needs the indexes of those that it did not make, too.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn find_links(&mut self) -> Result<(), Error> {
        self.links.clear();
        for device in self.netlink.devices()? {
            self.links.insert(Link::root(device.name), device.ifindex);
        }
        for (pod, namespace) in &mut self.pods {
            for device in namespace.netlink.devices()? {
                self.links.insert(Link::pod(pod.as_str(), device.name), device.ifindex);
            }
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> Result<Outcome, Refused> {
        match action {
            Action::SetSysctl { name, value } => set_sysctl(name, value)?,
            Action::CreateDevice { link, device } => return self.create_device(link, device),
            Action::DeleteDevice { link } => self.delete_device(link)?,
            Action::SetRoute { key, route } => {
                let ifindex = self.ifindex(&Link { netns: key.netns.clone(), name: route.device.clone() })?;
                let destination = key.destination;
                let route =
                    FoundRoute { destination, via: route.via, ifindex, src: route.src, mtu: route.mtu };
                self.netlink_of(&key.netns)?.set_route(&route).map_err(refused)?;
            }
            Action::DeleteRoute { key } => self.delete_route(key)?,
            Action::CreateMap { name, spec } => self.create_map(name, spec)?,
            Action::DeleteMap { name } => {
                self.maps.remove(name);
                self.pins.remove_map(name).map_err(refused)?;
            }
            Action::MapUpdate { map, key, value } => {
                let bytes = self.resolve(value)?;
                self.open_map(map)?.update(key, &bytes).map_err(refused)?;
            }
            Action::MapDelete { map, key } => {
                self.open_map(map)?.delete(key).map_err(refused)?;
            }
            Action::Load { id, load } => self.load(id, load)?,
            Action::Unload { id } => self.pins.remove_load(id).map_err(refused)?,
            Action::Publish { endpoint, load } => {
                let program = self.program(load, HANDLE_POLICY)?;
                let map = self.open_map(CALL_POLICY.name)?;
                map.set_program(u32::from(*endpoint), &program).map_err(refused)?;
            }
            Action::Unpublish { endpoint } => {
                let slot = u32::from(*endpoint).to_ne_bytes();
                self.open_map(CALL_POLICY.name)?.delete(&slot).map_err(refused)?;
            }
            Action::Attach { point, attachment } => {
                let program = self.program(&attachment.load, &attachment.program)?;
                self.attach(point, &program)?;
            }
            Action::Detach { point } => self.detach(point)?,
            Action::EndpointReady { endpoint } => {
                self.ready.insert(*endpoint);
            }
            Action::CollectConntrack { maps, now_s } => return self.collect(maps, *now_s),
        }
        Ok(Outcome::Done)
    }

    fn create_device(&mut self, link: &Link, device: &Device) -> Result<Outcome, Refused> {
        // Doing it again does no harm: what stands there of an attempt that was cut short is made anew.
        self.delete_device(link)?;
        let made = self.make_device(link, device);
        if made.is_err() {
            // Whole or not at all. That it cannot be taken back either is what the first error is about.
            let _ = self.delete_device(link);
        }
        let created = made?;
        self.links.extend(created.clone());
        Ok(Outcome::Created(created))
    }

    fn make_device(&mut self, link: &Link, device: &Device) -> Result<BTreeMap<Link, u32>, Refused> {
        let mut ends = vec![(link, &device.end)];
        match &device.kind {
            DeviceKind::Veth { peer, peer_end } => {
                let netns = match &peer.netns {
                    Place::Root => None,
                    Place::Pod(pod) => Some(&self.pods.get(pod).ok_or_else(|| no_namespace(pod))?.netns),
                };
                let other = NewEnd { netns, ..new_end(&peer.name, peer_end) };
                self.netlink.add_veth(&new_end(&link.name, &device.end), &other).map_err(refused)?;
                ends.push((peer, peer_end));
            }
            DeviceKind::Vxlan { port } => {
                self.netlink.add_vxlan(&new_end(&link.name, &device.end), *port).map_err(refused)?;
            }
        }
        let mut created = BTreeMap::new();
        for (link, end) in ends {
            let netlink = self.netlink_of(&link.netns)?;
            let ifindex = netlink.ifindex(&link.name).map_err(refused)?;
            for address in &end.addresses {
                netlink.add_address(ifindex, *address).map_err(refused)?;
            }
            netlink.set_up(ifindex, end.arp).map_err(refused)?;
            created.insert(link.clone(), ifindex);
        }
        Ok(created)
    }

    fn delete_device(&mut self, link: &Link) -> Result<(), Refused> {
        for hook in [TcxHook::Ingress, TcxHook::Egress] {
            self.pins.remove_link(&link.name, hook).map_err(refused)?;
        }
        self.netlink_of(&link.netns)?.delete_link(&link.name).map_err(refused)?;
        self.find_links().map_err(refused)
    }

    fn delete_route(&mut self, key: &RouteKey) -> Result<(), Refused> {
        // A route of a namespace that is gone is gone.
        match &key.netns {
            Place::Pod(pod) if !self.pods.contains_key(pod) => Ok(()),
            netns => self.netlink_of(netns)?.delete_route(key.destination).map_err(refused),
        }
    }

    fn create_map(&mut self, name: &str, spec: &MapSpec) -> Result<(), Refused> {
        if self.pins.open_map(name).map_err(refused)?.is_some() {
            return Err(Refused::new(format!("map {name} is there already")));
        }
        let map = Map::create(spec.into()).map_err(refused)?;
        map.pin(&self.pins.map(name)).map_err(refused)?;
        self.maps.insert(name.to_owned(), Arc::new(map));
        Ok(())
    }

    /// Loads an object: node-wide and endpoint maps are those of the node, the rest are this load's own and empty.
    ///
    /// The record is pinned last: a load without one was cut short, and is cleared away.
    fn load(&mut self, id: &LoadId, load_of: &Load) -> Result<(), Refused> {
        let object = load_of.object;
        let have = self.objects.sha256(object);
        if have != load_of.sha256 {
            return Err(Refused::new(format!("object {} is {have}, not {}", object.name(), load_of.sha256)));
        }
        let mut spec = Spec::default();
        let mut globals = BTreeMap::new();
        for (name, value) in &load_of.globals {
            let bytes = self.resolve(value)?;
            globals.insert(name.clone(), Value::plain(bytes.clone()));
            spec.globals.insert(name.clone(), bytes);
        }
        for (symbol, on_node) in &load_of.maps {
            let map = self.open_map(on_node)?;
            if self.declared[&object].contains(symbol) {
                spec.maps.insert(symbol.clone(), map);
            }
        }
        let loaded = load(object.name(), self.objects.bytes(object), &spec).map_err(refused)?;
        fill_calls(&loaded, load_of)?;
        let record = record::encode(&Load { globals, ..load_of.clone() });
        self.pins.add_load(id, &loaded, &record).map_err(|e| {
            let _ = self.pins.remove_load(id);
            refused(e)
        })
    }

    fn attach(&mut self, point: &HookPoint, program: &Program) -> Result<(), Refused> {
        let (ifindex, hook) = (self.ifindex(&point.link)?, tcx(point.hook)?);
        if !TcxLink::is_offered() {
            return self.netlink.set_filter(ifindex, hook, program).map_err(refused);
        }
        let path = self.pins.link(&point.link.name, hook).map_err(refused)?;
        if let Some(link) = TcxLink::open(&path).map_err(refused)? {
            if link.info().map_err(refused)?.ifindex == ifindex {
                return link.replace(program).map_err(refused);
            }
            // Of a device that is gone.
            self.pins.remove_link(&point.link.name, hook).map_err(refused)?;
        }
        let link = TcxLink::attach(program, ifindex, hook).map_err(refused)?;
        link.pin(&path).map_err(refused)
    }

    fn detach(&mut self, point: &HookPoint) -> Result<(), Refused> {
        let hook = tcx(point.hook)?;
        if !TcxLink::is_offered() {
            // The filter of a device that is gone is gone.
            let Ok(ifindex) = self.ifindex(&point.link) else { return Ok(()) };
            return self.netlink.delete_filter(ifindex, hook).map_err(refused);
        }
        let path = self.pins.link(&point.link.name, hook).map_err(refused)?;
        if let Some(link) = TcxLink::open(&path).map_err(refused)? {
            link.detach().map_err(refused)?;
        }
        self.pins.remove_link(&point.link.name, hook).map_err(refused)
    }

    fn collect(&mut self, maps: &[String], now_s: u64) -> Result<Outcome, Refused> {
        let mut swept = Vec::new();
        for name in maps {
            let map = self.open_map(name)?;
            let (mut alive, mut deleted) = (0, 0);
            for (key, values) in map.entries().map_err(refused)? {
                if values.first().is_none_or(|value| gc::expired(value, now_s)) {
                    map.delete(&key).map_err(refused)?;
                    deleted += 1;
                } else {
                    alive += 1;
                }
            }
            swept.push(Swept { map: name.clone(), alive, deleted });
        }
        Ok(Outcome::Collected(swept))
    }

    fn open_map(&mut self, name: &str) -> Result<Arc<Map>, Refused> {
        if let Some(map) = self.maps.get(name) {
            return Ok(Arc::clone(map));
        }
        let map = self.pins.open_map(name).map_err(refused)?;
        let map = Arc::new(map.ok_or_else(|| Refused::new(format!("map {name} is not there")))?);
        self.maps.insert(name.to_owned(), Arc::clone(&map));
        Ok(map)
    }

    fn program(&self, load: &LoadId, name: &str) -> Result<Program, Refused> {
        let program = self.pins.open_program(load, name).map_err(refused)?;
        program.ok_or_else(|| Refused::new(format!("load {load} with a program {name} is not there")))
    }

    fn resolve(&self, value: &Value) -> Result<Vec<u8>, Refused> {
        value.resolve(&self.links).map_err(|link| Refused::new(format!("device {link} is not there")))
    }

    fn ifindex(&mut self, link: &Link) -> Result<u32, Refused> {
        if !self.links.contains_key(link) {
            self.find_links().map_err(refused)?;
        }
        self.links.get(link).copied().ok_or_else(|| Refused::new(format!("device {link} is not there")))
    }

    fn netlink_of(&mut self, netns: &Place) -> Result<&mut Netlink, Refused> {
        match netns {
            Place::Root => Ok(&mut self.netlink),
            Place::Pod(pod) => {
                self.pods.get_mut(pod).map(|p| &mut p.netlink).ok_or_else(|| no_namespace(pod))
            }
        }
    }
}

impl Node for LinuxNode {
    fn perform(&mut self, action: &Action) -> Result<Outcome, Refused> {
        self.act(action)
    }

    fn inventory(&mut self) -> Result<Datapath, Refused> {
        self.find_links().map_err(refused)?;
        inventory::take(self).map_err(refused)
    }
}

/// Removes all that skep has in the calling thread's namespaces, of any version: programs first, then devices (with
/// them their routes), then pins. Returns what was removed, in words.
///
/// # Errors
///
/// [`Error::Busy`] while an agent is at work; what the kernel refuses; the rest is then still there, and calling again
/// goes on.
pub fn clean(bpffs: &Path) -> Result<Vec<String>, Error> {
    let _lock = NodeLock::take(bpffs)?;
    let mut removed = Vec::new();
    for (name, path) in pins::links(bpffs)? {
        if let Some(link) = TcxLink::open(&path)? {
            link.detach()?;
            removed.push(format!("program at {name}"));
        }
    }
    let mut netlink = Netlink::open()?;
    for device in netlink.devices()? {
        for hook in [TcxHook::Ingress, TcxHook::Egress] {
            if netlink.filter(device.ifindex, hook)?.is_some() {
                netlink.delete_filter(device.ifindex, hook)?;
                removed.push(format!("program at {}", device.name));
            }
        }
        // skep_net goes with skep_host.
        if inventory::is_ours(&device.name) && netlink.ifindex(&device.name).is_ok() {
            netlink.delete_link(&device.name)?;
            removed.push(format!("device {}", device.name));
        }
    }
    removed.extend(pins::remove_all(bpffs)?.map(|path| format!("pins below {}", path.display())));
    Ok(removed)
}

/// Puts a load's programs into its own calls map.
fn fill_calls(loaded: &Loaded, load: &Load) -> Result<(), Refused> {
    let Some(calls) = loaded.maps.get(CALLS.name) else { return Ok(()) };
    for (slot, name) in &load.calls {
        let program = loaded.programs.get(name);
        let program = program.ok_or_else(|| Refused::new(format!("the object has no program {name}")))?;
        calls.set_program(*slot, program).map_err(refused)?;
    }
    Ok(())
}

/// Settings of a namespace are those of the thread that writes them.
fn set_sysctl(name: &str, value: &str) -> Result<(), Refused> {
    let path = Path::new("/proc/sys").join(name);
    std::fs::write(&path, value).map_err(|e| Refused::new(format!("{}: {e}", path.display())))
}

fn new_end<'a>(name: &'a str, end: &End) -> NewEnd<'a> {
    NewEnd { name, mac: end.mac.octets(), mtu: end.mtu, netns: None }
}

fn tcx(hook: Hook) -> Result<TcxHook, Refused> {
    match hook {
        Hook::TcIngress => Ok(TcxHook::Ingress),
        Hook::TcEgress => Ok(TcxHook::Egress),
        Hook::CallPolicy | Hook::Calls(_) => Err(Refused::new("this program is reached by tail calls only")),
    }
}

fn refused(e: Error) -> Refused {
    Refused::new(e.to_string())
}

fn no_namespace(pod: &str) -> Refused {
    Refused::new(format!("the network namespace of {pod} is not there"))
}

/// The pod that a name of a namespace stands for.
fn pod_key(name: &str) -> Option<PodKey> {
    PodKey::parse(name)
}
