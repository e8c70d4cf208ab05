//! What skep has on a node, read back from its kernel.
//!
//! Knows what the agent's devices are called, for the kernel does not say who made one. Nothing here is remembered
//! from what was done: a new agent after a crash sees the same.

use super::super::device::FoundDevice;
use super::{HANDLE_POLICY, LinuxNode, pod_key};
use crate::Error;
use skep_abi::Mac;
use skep_abi::map::{CALL_POLICY, MAPS, MapSpec, POLICY};
use skep_agent_core::desired::{HOST_DEVICE, NET_DEVICE, POD_DEVICE, VXLAN_DEVICE, pod_device};
use skep_agent_core::model::{has_agent_entries, policy_map_name};
use skep_agent_core::{
    Attachment, Datapath, Device, DeviceKind, End, Link, LoadId, Map, Netns as Place, Route, RouteKey, Value,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Settings of a device that the agent may write.
const DEVICE_SETTINGS: [&str; 4] = ["forwarding", "rp_filter", "accept_local", "send_redirects"];
/// Settings of the node that the agent may write.
const NODE_SETTINGS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"];

/// Whether a device of the node's own namespace is one that an agent makes.
pub(super) fn is_ours(name: &str) -> bool {
    [HOST_DEVICE, NET_DEVICE, VXLAN_DEVICE].contains(&name) || is_pod_device(name)
}

/// `lxc` and twelve hexadecimal digits.
fn is_pod_device(name: &str) -> bool {
    name.strip_prefix("lxc")
        .is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

pub(super) fn take(node: &mut LinuxNode) -> Result<Datapath, Error> {
    let mut found = Datapath { links: node.links.clone(), ..Datapath::default() };
    devices(node, &mut found)?;
    for device in found.devices.keys().filter(|l| l.netns == Place::Root) {
        for setting in DEVICE_SETTINGS {
            sysctl(&mut found.sysctls, &format!("net/ipv4/conf/{}/{setting}", device.name));
        }
    }
    if found.devices.contains_key(&Link::root(HOST_DEVICE)) {
        sysctl(&mut found.sysctls, &format!("net/ipv4/conf/{NET_DEVICE}/forwarding"));
        for setting in DEVICE_SETTINGS {
            sysctl(&mut found.sysctls, &format!("net/ipv4/conf/{NET_DEVICE}/{setting}"));
        }
    }
    for setting in NODE_SETTINGS {
        sysctl(&mut found.sysctls, setting);
    }
    routes(node, &mut found)?;
    maps(node, &mut found)?;
    programs(node, &mut found)?;
    Ok(found)
}

fn sysctl(all: &mut BTreeMap<String, String>, name: &str) {
    if let Ok(value) = std::fs::read_to_string(Path::new("/proc/sys").join(name)) {
        all.insert(name.to_owned(), value.trim().to_owned());
    }
}

fn devices(node: &mut LinuxNode, found: &mut Datapath) -> Result<(), Error> {
    let root: BTreeMap<String, FoundDevice> =
        node.netlink.devices()?.into_iter().map(|d| (d.name.clone(), d)).collect();
    if let (Some(host), Some(net)) = (root.get(HOST_DEVICE), root.get(NET_DEVICE)) {
        let kind = DeviceKind::Veth { peer: Link::root(NET_DEVICE), peer_end: end(net) };
        found.devices.insert(Link::root(HOST_DEVICE), Device { end: end(host), kind });
    }
    // Without tunnel metadata it is not the agent's, and it is made anew.
    if let Some(vxlan) = root.get(VXLAN_DEVICE)
        && let Some((port, true)) = vxlan.vxlan
    {
        found
            .devices
            .insert(Link::root(VXLAN_DEVICE), Device { end: end(vxlan), kind: DeviceKind::Vxlan { port } });
    }
    let mut pairs = BTreeMap::new();
    for (pod, namespace) in &mut node.pods {
        let inside = namespace.netlink.devices()?.into_iter().find(|d| d.name == POD_DEVICE);
        if let (Some(key), Some(inside)) = (pod_key(pod), inside) {
            pairs.insert(pod_device(&key), (pod.clone(), inside));
        }
    }
    for (name, outside) in root.iter().filter(|(name, _)| is_pod_device(name)) {
        // A pod that nobody asked for (again) is listed as one without a name, so that its device can be deleted.
        let (peer, peer_end) = match pairs.get(name) {
            Some((pod, inside)) => (Link::pod(pod.as_str(), POD_DEVICE), end(inside)),
            None => {
                (Link::pod("?", POD_DEVICE), End { mac: mac(&[]), mtu: 0, arp: true, addresses: Vec::new() })
            }
        };
        let kind = DeviceKind::Veth { peer, peer_end };
        found.devices.insert(Link::root(name.as_str()), Device { end: end(outside), kind });
    }
    Ok(())
}

fn mac(bytes: &[u8]) -> Mac {
    Mac::from_octets(bytes.try_into().unwrap_or_default())
}

fn end(device: &FoundDevice) -> End {
    End { mac: mac(&device.mac), mtu: device.mtu, arp: device.arp, addresses: device.addresses.clone() }
}

fn routes(node: &mut LinuxNode, found: &mut Datapath) -> Result<(), Error> {
    let mut all = vec![(Place::Root, node.netlink.routes()?)];
    for (pod, namespace) in &mut node.pods {
        all.push((Place::Pod(pod.clone()), namespace.netlink.routes()?));
    }
    for (netns, routes) in all {
        for route in routes {
            let of_device = |(link, index): (&Link, &u32)| {
                (link.netns == netns && *index == route.ifindex).then(|| link.name.clone())
            };
            let Some(device) = found.links.iter().find_map(of_device) else { continue };
            let key = RouteKey { netns: netns.clone(), destination: route.destination };
            found.routes.insert(key, Route { via: route.via, device, src: route.src, mtu: route.mtu });
        }
    }
    Ok(())
}

/// The contract's map that stands under a name of the node.
fn spec_of(name: &str) -> Option<MapSpec> {
    let policy = name.strip_prefix(POLICY.name).is_some_and(|rest| rest.starts_with('_'));
    if policy { Some(POLICY) } else { MAPS.iter().find(|m| m.name == name).copied() }
}

fn maps(node: &mut LinuxNode, found: &mut Datapath) -> Result<(), Error> {
    for name in node.pins.maps()? {
        let Some(map) = node.pins.open_map(&name)? else { continue };
        let fits = spec_of(&name).filter(|spec| {
            let (have, want) = (map.shape(), super::super::map::MapShape::from(spec));
            let entries = want.max_entries == 0 || have.max_entries == want.max_entries;
            (have.kind, have.key_size, have.value_size, have.flags)
                == (want.kind, want.key_size, want.value_size, want.flags)
                && entries
        });
        let Some(spec) = fits else {
            // Of no use under this version's own path: nobody can read it as what its name says.
            node.pins.remove_map(&name)?;
            node.maps.remove(&name);
            continue;
        };
        let mut listed = Map::empty(spec);
        if has_agent_entries(&spec) {
            for (key, values) in map.entries()? {
                listed.entries.insert(key, Value::plain(values.concat()));
            }
        }
        found.maps.insert(name.clone(), listed);
        node.maps.entry(name).or_insert_with(|| map.into());
    }
    Ok(())
}

fn programs(node: &mut LinuxNode, found: &mut Datapath) -> Result<(), Error> {
    let mut ids: BTreeMap<u32, (LoadId, String)> = BTreeMap::new();
    for (id, load) in node.pins.loads()? {
        for program in skep_abi::program::of(load.object) {
            if let Some(there) = node.pins.open_program(&id, program.name)? {
                ids.insert(there.id()?, (id.clone(), program.name.to_owned()));
            }
        }
        found.loads.insert(id, load);
    }
    // Whatever is published has a policy map, which goes last: so no other slot can hold a program.
    if let Some(call_policy) = node.maps.get(CALL_POLICY.name) {
        for endpoint in (0..=u16::MAX).filter(|e| found.maps.contains_key(&policy_map_name(*e))) {
            if let Some(id) = call_policy.program_id(u32::from(endpoint))?
                && let Some((load, program)) = ids.get(&id)
                && program == HANDLE_POLICY
            {
                found.published.insert(endpoint, load.clone());
            }
        }
    }
    for pinned in node.pins.attached()? {
        if let Some(id) = node.pins.live(&pinned)?
            && let Some((load, program)) = ids.get(&id)
        {
            let attachment = Attachment { load: load.clone(), program: program.clone() };
            found.attachments.insert(pinned.point, attachment);
        }
    }
    Ok(())
}
