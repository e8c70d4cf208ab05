//! A simulated node as its agent sees it: actions become devices and routes of the net, maps and programs of the vm.
//!
//! The one place that writes maps from outside. Decides nothing: whatever an action asks for is done or refused, and
//! what an inventory lists is read back from the net and the vm.

use skep_abi::map::{CALL_POLICY, MapSpec};
use skep_abi::program::{Hook, Object};
use skep_agent_core::model::{self, DeviceKind, Link, Load, LoadId, Netns, RouteKey, Value};
use skep_agent_core::{Action, Datapath, Node, Outcome, Refused, Swept, diff, gc};
use skep_net::{Direction, HookId, IfIndex, Net, NodeId, NsId, Scope as RouteScope, VethEnd};
use skep_vm::{Kernel, KernelConfig, LoadSpec, Loaded, MapDef, MapId, ProgramId, UpdateMode};
use std::collections::{BTreeMap, BTreeSet};

/// The node's network card.
pub(crate) const UPLINK: &str = "eth0";

/// The objects, parsed once for all nodes.
pub(crate) type Objects = BTreeMap<Object, Parsed>;

/// An object, and whether a kernel is known to have verified it.
#[derive(Clone)]
pub(crate) struct Parsed {
    pub object: skep_vm::Object,
    pub verified: bool,
}

/// A node's kernel: its maps and programs, and where they are in the net.
pub(crate) struct Host {
    pub id: NodeId,
    pub name: String,
    pub kernel: Kernel,
    /// What the agent made here. Entries of maps are not kept: they are read from the maps.
    have: Datapath,
    maps: BTreeMap<String, MapId>,
    loads: BTreeMap<LoadId, Loaded>,
    /// What each hook number of the net stands for.
    hooks: BTreeMap<HookId, ProgramId>,
    namespaces: BTreeMap<String, NsId>,
    /// Names of devices by number, with the pod of those in pods.
    devices: BTreeMap<IfIndex, String>,
    /// Endpoints whose pods may start.
    pub ready: BTreeSet<u16>,
}

impl Host {
    pub(crate) fn new(net: &Net, id: NodeId, name: &str, engine: skep_vm::EngineKind) -> Self {
        let mut host = Self {
            id,
            name: name.to_owned(),
            kernel: Kernel::new(&KernelConfig { engine, ..KernelConfig::default() }),
            have: Datapath::default(),
            maps: BTreeMap::new(),
            loads: BTreeMap::new(),
            hooks: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            devices: BTreeMap::new(),
            ready: BTreeSet::new(),
        };
        host.kernel.record_accesses(true);
        for device in net.devices(id) {
            host.note_device(Link::root(device.name), device.ifindex);
        }
        host
    }

    fn note_device(&mut self, link: Link, ifindex: IfIndex) {
        let name = match &link.netns {
            Netns::Root => link.name.clone(),
            Netns::Pod(pod) => format!("{pod}:{}", link.name),
        };
        self.devices.insert(ifindex, name);
        self.have.links.insert(link, ifindex);
    }

    /// The name of a device, with the pod in front if it is a pod's.
    pub(crate) fn device_name(&self, ifindex: IfIndex) -> String {
        self.devices.get(&ifindex).cloned().unwrap_or_else(|| format!("if{ifindex}"))
    }

    /// The program of a hook.
    pub(crate) fn program(&self, hook: HookId) -> Option<ProgramId> {
        self.hooks.get(&hook).copied()
    }

    /// A map that outlives its loads, by its name on the node.
    pub(crate) fn map(&self, name: &str) -> Option<MapId> {
        self.maps.get(name).copied()
    }

    /// The name on the node of a map.
    pub(crate) fn map_name(&self, id: MapId) -> Option<&str> {
        self.maps.iter().find(|(_, m)| **m == id).map(|(name, _)| name.as_str())
    }

    /// A pod's namespace: made by the container runtime, not by the agent.
    pub(crate) fn add_namespace(&mut self, net: &mut Net, name: &str) -> Result<NsId, skep_net::NetError> {
        if let Some(ns) = self.namespaces.get(name) {
            return Ok(*ns);
        }
        let ns = net.add_namespace(self.id, name)?;
        self.namespaces.insert(name.to_owned(), ns);
        Ok(ns)
    }

    /// The pod's namespace is gone with its pod.
    pub(crate) fn remove_namespace(&mut self, net: &mut Net, name: &str) {
        if let Some(ns) = self.namespaces.remove(name) {
            // A namespace of a Host exists in its net; with it go its devices.
            let _ = net.delete_namespace(ns);
        }
    }

    /// A pod's namespace.
    pub(crate) fn namespace(&self, name: &str) -> Option<NsId> {
        self.namespaces.get(name).copied()
    }
}

/// An agent's hands on a node.
pub(crate) struct Hands<'a> {
    pub net: &'a mut Net,
    pub host: &'a mut Host,
    pub objects: &'a Objects,
}

fn refused(why: impl std::fmt::Display) -> Refused {
    Refused::new(why.to_string())
}

impl Node for Hands<'_> {
    fn perform(&mut self, action: &Action) -> Result<Outcome, Refused> {
        let outcome = self.act(action)?;
        diff::apply(&mut self.host.have, action)?;
        if let Outcome::Created(links) = &outcome {
            for (link, ifindex) in links {
                self.host.note_device(link.clone(), *ifindex);
            }
        }
        Ok(outcome)
    }

    fn inventory(&mut self) -> Result<Datapath, Refused> {
        let mut found = self.host.have.clone();
        for (name, map) in &mut found.maps {
            if model::has_agent_entries(&map.spec)
                && let Some(id) = self.host.map(name)
            {
                let entries = self.host.kernel.entries(id);
                map.entries = entries.into_iter().map(|(k, v)| (k, Value::plain(v))).collect();
            }
        }
        Ok(found)
    }
}

impl Hands<'_> {
    fn act(&mut self, action: &Action) -> Result<Outcome, Refused> {
        match action {
            Action::SetSysctl { name, value } => {
                let root = self.net.root(self.host.id).map_err(refused)?;
                self.net.set_sysctl(root, name, value).map_err(refused)?;
            }
            Action::CreateDevice { link, device } => return self.create_device(link, device),
            Action::DeleteDevice { link } => {
                // One that is gone already, with its pod's namespace, is what was asked for.
                if let Ok(ifindex) = self.ifindex(link)
                    && self.net.device(self.host.id, ifindex).is_some()
                {
                    self.net.delete_device(self.host.id, ifindex).map_err(refused)?;
                }
            }
            Action::SetRoute { key, route } => self.set_route(key, route)?,
            Action::DeleteRoute { key } => {
                let ns = self.netns(&key.netns)?;
                let (network, prefix) = (key.destination.network(), key.destination.prefix_len());
                self.net.delete_route(ns, network, prefix).map_err(refused)?;
            }
            Action::CreateMap { name, spec } => {
                let id = self.host.kernel.create_map(definition(spec)).map_err(refused)?;
                self.host.maps.insert(name.clone(), id);
            }
            Action::DeleteMap { name } => {
                let id = self.host.maps.remove(name).ok_or_else(|| no_map(name))?;
                self.host.kernel.delete_map(id);
            }
            Action::MapUpdate { map, key, value } => {
                let bytes = value
                    .resolve(&self.host.have.links)
                    .map_err(|link| refused(format_args!("device {link} is not there")))?;
                let id = self.map(map)?;
                self.host
                    .kernel
                    .map_update(id, key, &bytes, UpdateMode::Any)
                    .map_err(|e| refused(format_args!("{map}: {e}")))?;
            }
            Action::MapDelete { map, key } => {
                let id = self.map(map)?;
                // That there is none is no error.
                let _ = self.host.kernel.map_delete(id, key);
            }
            Action::Load { id, load } => self.load(id, load)?,
            Action::Unload { id } => {
                if let Some(loaded) = self.host.loads.remove(id) {
                    self.host.kernel.unload(&loaded);
                }
            }
            Action::Publish { endpoint, load } => {
                let program = self.program_of(load, "handle_policy")?;
                self.publish(*endpoint, Some(program))?;
            }
            Action::Unpublish { endpoint } => self.publish(*endpoint, None)?,
            Action::Attach { point, attachment } => {
                let program = self.program_of(&attachment.load, &attachment.program)?;
                let hook = HookId(self.host.hooks.last_key_value().map_or(0, |(h, _)| h.0 + 1));
                let ifindex = self.ifindex(&point.link)?;
                self.net.attach(self.host.id, ifindex, direction(point.hook)?, hook).map_err(refused)?;
                self.host.hooks.insert(hook, program);
            }
            Action::Detach { point } => {
                let ifindex = self.ifindex(&point.link)?;
                self.net.detach(self.host.id, ifindex, direction(point.hook)?).map_err(refused)?;
            }
            Action::EndpointReady { endpoint } => {
                self.host.ready.insert(*endpoint);
            }
            Action::CollectConntrack { maps, now_s } => return self.collect(maps, *now_s),
        }
        Ok(Outcome::Done)
    }

    fn create_device(&mut self, link: &Link, device: &model::Device) -> Result<Outcome, Refused> {
        let id = self.host.id;
        let mut created = BTreeMap::new();
        match &device.kind {
            DeviceKind::Veth { peer, peer_end } => {
                let end = |hands: &Self, link: &Link, end: &model::End| -> Result<VethEnd, Refused> {
                    let ns = hands.netns(&link.netns)?;
                    Ok(VethEnd { ns, name: link.name.clone(), mac: end.mac.octets(), mtu: end.mtu })
                };
                let (first, second) = (end(self, link, &device.end)?, end(self, peer, peer_end)?);
                let (a, b) = self.net.add_veth_pair(id, first, second).map_err(refused)?;
                self.set_addresses(a, &device.end)?;
                self.set_addresses(b, peer_end)?;
                created.insert(link.clone(), a);
                created.insert(peer.clone(), b);
            }
            DeviceKind::Vxlan { port } => {
                let end = &device.end;
                let ifindex =
                    self.net.add_vxlan(id, &link.name, end.mac.octets(), *port, end.mtu).map_err(refused)?;
                self.set_addresses(ifindex, end)?;
                created.insert(link.clone(), ifindex);
            }
        }
        Ok(Outcome::Created(created))
    }

    fn set_addresses(&mut self, ifindex: IfIndex, end: &model::End) -> Result<(), Refused> {
        self.net.set_noarp(self.host.id, ifindex, !end.arp).map_err(refused)?;
        for address in &end.addresses {
            self.net
                .add_address(self.host.id, ifindex, address.addr(), address.prefix_len())
                .map_err(refused)?;
        }
        Ok(())
    }

    fn set_route(&mut self, key: &RouteKey, route: &model::Route) -> Result<(), Refused> {
        let ns = self.netns(&key.netns)?;
        let ifindex = self
            .net
            .device_by_name(ns, &route.device)
            .ok_or_else(|| refused(format_args!("device {} is not there", route.device)))?;
        let route = skep_net::Route {
            destination: key.destination.network(),
            prefix: key.destination.prefix_len(),
            ifindex,
            via: route.via,
            source: route.src,
            mtu: route.mtu,
            scope: if route.via.is_some() { RouteScope::Global } else { RouteScope::Link },
        };
        self.net.set_route(ns, route).map_err(refused)
    }

    /// Loads an object: node-wide and endpoint maps are those of the node, the rest are this load's own and empty.
    fn load(&mut self, id: &LoadId, load: &Load) -> Result<(), Refused> {
        let Parsed { object, verified } = self
            .objects
            .get(&load.object)
            .ok_or_else(|| refused(format_args!("object {} was not given", load.object.name())))?;
        let mut spec = LoadSpec { verified: *verified, ..LoadSpec::default() };
        for (name, value) in &load.globals {
            if !object.globals().iter().any(|g| g.name == *name) {
                continue;
            }
            let bytes = value
                .resolve(&self.host.have.links)
                .map_err(|link| refused(format_args!("device {link} is not there")))?;
            spec.globals.insert(name.clone(), bytes);
        }
        for (name, on_node) in &load.maps {
            if object.maps().iter().any(|m| m.name == *name) {
                spec.maps.insert(name.clone(), self.map(on_node)?);
            }
        }
        let loaded = self.host.kernel.load(object, &spec).map_err(refused)?;
        if let Some(calls) = loaded.maps.get(skep_abi::map::CALLS.name) {
            for (slot, program) in &load.calls {
                let program = loaded.programs.get(program).ok_or_else(|| no_program(program))?;
                self.host.kernel.prog_array_set(*calls, *slot, Some(*program)).map_err(refused)?;
            }
        }
        if let Some(old) = self.host.loads.insert(id.clone(), loaded) {
            self.host.kernel.unload(&old);
        }
        Ok(())
    }

    fn publish(&mut self, endpoint: u16, program: Option<ProgramId>) -> Result<(), Refused> {
        let map = self.map(CALL_POLICY.name)?;
        self.host.kernel.prog_array_set(map, u32::from(endpoint), program).map_err(refused)
    }

    fn collect(&mut self, maps: &[String], now_s: u64) -> Result<Outcome, Refused> {
        let mut swept = Vec::new();
        for name in maps {
            let id = self.map(name)?;
            let (mut alive, mut deleted) = (0, 0);
            for (key, value) in self.host.kernel.entries(id) {
                if gc::expired(&value, now_s) {
                    self.host
                        .kernel
                        .map_delete(id, &key)
                        .map_err(|e| refused(format_args!("{name}: {e}")))?;
                    deleted += 1;
                } else {
                    alive += 1;
                }
            }
            swept.push(Swept { map: name.clone(), alive, deleted });
        }
        Ok(Outcome::Collected(swept))
    }

    fn map(&self, name: &str) -> Result<MapId, Refused> {
        self.host.map(name).ok_or_else(|| no_map(name))
    }

    fn program_of(&self, load: &LoadId, program: &str) -> Result<ProgramId, Refused> {
        let loaded =
            self.host.loads.get(load).ok_or_else(|| refused(format_args!("load {load} is not there")))?;
        loaded.programs.get(program).copied().ok_or_else(|| no_program(program))
    }

    fn netns(&self, netns: &Netns) -> Result<NsId, Refused> {
        match netns {
            Netns::Root => self.net.root(self.host.id).map_err(refused),
            Netns::Pod(name) => self
                .host
                .namespace(name)
                .ok_or_else(|| refused(format_args!("the namespace of {name} is not there"))),
        }
    }

    fn ifindex(&self, link: &Link) -> Result<IfIndex, Refused> {
        self.host
            .have
            .links
            .get(link)
            .copied()
            .ok_or_else(|| refused(format_args!("device {link} is not there")))
    }
}

fn no_map(name: &str) -> Refused {
    refused(format_args!("map {name} is not there"))
}

fn no_program(name: &str) -> Refused {
    refused(format_args!("the object has no program {name}"))
}

fn direction(hook: Hook) -> Result<Direction, Refused> {
    match hook {
        Hook::TcIngress => Ok(Direction::Ingress),
        Hook::TcEgress => Ok(Direction::Egress),
        Hook::CallPolicy | Hook::Calls(_) => Err(Refused::new("this program is reached by tail calls only")),
    }
}

/// A map for the vm, from the contract's list.
fn definition(spec: &MapSpec) -> MapDef {
    MapDef {
        name: spec.name.to_owned(),
        kind: spec.kind as u32,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        flags: spec.flags,
        ..MapDef::default()
    }
}
