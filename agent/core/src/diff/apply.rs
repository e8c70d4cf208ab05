//! What an action makes of a datapath: the node's part of the contract, for agents that keep track and for nodes that
//! are not real.

use crate::action::{Action, Refused};
use crate::model::{Datapath, DeviceKind, Link, LoadId, Map, has_agent_entries};
use skep_abi::program;

/// Performs an action on a datapath. One that rests on something that is not there is refused, and changes nothing.
///
/// Devices get no index here: that is the node's to give.
pub fn apply(datapath: &mut Datapath, action: &Action) -> Result<(), Refused> {
    match action {
        Action::SetSysctl { name, value } => {
            datapath.sysctls.insert(name.clone(), value.clone());
        }
        Action::CreateDevice { link, device } => {
            refuse_if(datapath.devices.contains_key(link), || format!("device {link} is there already"))?;
            datapath.devices.insert(link.clone(), device.clone());
        }
        Action::DeleteDevice { link } => delete_device(datapath, link),
        Action::SetRoute { key, route } => {
            datapath.routes.insert(key.clone(), route.clone());
        }
        Action::DeleteRoute { key } => {
            datapath.routes.remove(key);
        }
        Action::CreateMap { name, spec } => {
            refuse_if(datapath.maps.contains_key(name), || format!("map {name} is there already"))?;
            datapath.maps.insert(name.clone(), Map::empty(*spec));
        }
        Action::DeleteMap { name } => {
            let bound = datapath.loads.iter().find(|(_, l)| l.maps.values().any(|m| m == name));
            if let Some((id, _)) = bound {
                return Err(Refused::new(format!("map {name} is used by load {id}")));
            }
            datapath.maps.remove(name);
        }
        Action::MapUpdate { map, key, value } => {
            let there = datapath.maps.get_mut(map).ok_or_else(|| no_map(map))?;
            if has_agent_entries(&there.spec) {
                there.entries.insert(key.clone(), value.clone());
            }
        }
        Action::MapDelete { map, key } => {
            datapath.maps.get_mut(map).ok_or_else(|| no_map(map))?.entries.remove(key);
        }
        Action::Load { id, load } => {
            refuse_if(datapath.loads.contains_key(id), || format!("load {id} is there already"))?;
            let missing = load.maps.values().find(|m| !datapath.maps.contains_key(*m));
            if let Some(map) = missing {
                return Err(no_map(map));
            }
            datapath.loads.insert(id.clone(), load.clone());
        }
        Action::Unload { id } => {
            let published = datapath.published.values().any(|l| l == id);
            let attached = datapath.attachments.values().any(|a| a.load == *id);
            refuse_if(published || attached, || format!("load {id} is published or attached"))?;
            datapath.loads.remove(id);
        }
        Action::Publish { endpoint, load } => {
            refuse_if(!datapath.loads.contains_key(load), || no_load(load))?;
            datapath.published.insert(*endpoint, load.clone());
        }
        Action::Unpublish { endpoint } => {
            datapath.published.remove(endpoint);
        }
        Action::Attach { point, attachment } => {
            let load = datapath.loads.get(&attachment.load);
            let object = load.ok_or_else(|| Refused::new(no_load(&attachment.load)))?.object;
            let program = program::by_name(&attachment.program).filter(|p| p.object == object);
            refuse_if(program.is_none(), || {
                format!("object {} has no program {}", object.name(), attachment.program)
            })?;
            datapath.attachments.insert(point.clone(), attachment.clone());
        }
        Action::Detach { point } => {
            datapath.attachments.remove(point);
        }
        Action::EndpointReady { .. } | Action::CollectConntrack { .. } => {}
    }
    Ok(())
}

fn delete_device(datapath: &mut Datapath, link: &Link) {
    let Some(device) = datapath.devices.remove(link) else { return };
    let mut ends = vec![link.clone()];
    if let DeviceKind::Veth { peer, .. } = device.kind {
        ends.push(peer);
    }
    for end in ends {
        datapath.links.remove(&end);
        datapath.attachments.retain(|point, _| point.link != end);
        datapath.routes.retain(|key, route| key.netns != end.netns || route.device != end.name);
        let settings = format!("net/ipv4/conf/{}/", end.name);
        datapath.sysctls.retain(|name, _| !name.starts_with(&settings));
        // What names the index of a device that is gone is stale, even if a device of that name comes back.
        let stale = |v: &mut crate::Value| v.ifindexes.retain(|_, l| *l != end);
        datapath.maps.values_mut().flat_map(|m| m.entries.values_mut()).for_each(stale);
        datapath.loads.values_mut().flat_map(|l| l.globals.values_mut()).for_each(stale);
    }
}

fn refuse_if(refused: bool, why: impl FnOnce() -> String) -> Result<(), Refused> {
    if refused { Err(Refused::new(why())) } else { Ok(()) }
}

fn no_map(name: &str) -> Refused {
    Refused::new(format!("there is no map {name}"))
}

fn no_load(id: &LoadId) -> String {
    format!("there is no load {id}")
}
