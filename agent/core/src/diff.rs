//! From what is there to what is wanted, in an order in which no packet meets half a change.
//!
//! The order of a change:
//!
//! 1. settings, devices, routes, maps; policy maps that no published endpoint uses yet are filled;
//! 2. networks that get an identity of their own get it, and policy maps in use treat it as what it was taken out of;
//!    these maps get their entries about identities that nobody has yet, and shrink to what old and new allow in common;
//! 3. loads: first all are loaded, then each is published in `skep_call_policy`, entered in `skep_lxc`, attached;
//!    endpoints that go are cleared from `skep_call_policy` first, then detached;
//! 4. identities move: the ipcache's entries are written, longer prefixes first;
//! 5. policy maps grow to what the new allows;
//! 6. the ipcache loses entries, shorter prefixes first, and then policy maps lose those about identities that nobody
//!    has any more;
//! 7. what is left over goes: loads, maps, routes, devices.
//!
//! So a packet that old and new deny is denied all the way, and one that both allow is allowed, unless policies change
//! together with the identity of an address and that identity was in use before: then it may be denied for a moment.

mod apply;
mod policy;

pub use apply::apply;

use crate::action::Action;
use crate::model::{Datapath, HookPoint, Link, Load, LoadId, owned_part};
use skep_abi::map;
use std::collections::{BTreeMap, BTreeSet};

/// The actions that lead from one datapath to another.
///
/// `want` names loads with generation 0 and devices without indexes. Settings are only ever written, and of the
/// values of policy entries only what the agent decides is compared.
pub fn diff(have: &Datapath, want: &Datapath) -> Vec<Action> {
    let mut plan = Plan { now: have.clone(), want, out: Vec::new(), loads: BTreeMap::new() };
    plan.devices();
    plan.routes();
    plan.maps();
    plan.new_networks();
    let policies = plan.policy_maps();
    for p in &policies {
        plan.run(p.before.clone());
    }
    plan.loads();
    plan.endpoints_that_go();
    plan.endpoints();
    plan.attachments();
    plan.ipcache_writes();
    for p in &policies {
        plan.run(p.grow.clone());
    }
    plan.ipcache_deletions();
    for p in &policies {
        plan.run(p.late.clone());
    }
    plan.leftovers();
    plan.out
}

/// Datapaths in one form, so that those that do the same on a node whose devices have these indexes are equal: indexes
/// filled in, each owner's only load with generation 0, no counters, and without settings and the indexes themselves.
pub fn canonical(datapath: &Datapath, links: &BTreeMap<Link, u32>) -> Datapath {
    let mut out = datapath.clone();
    out.links.clear();
    let fill = |v: &mut crate::Value| {
        if let Ok(bytes) = v.resolve(links) {
            *v = crate::Value::plain(bytes);
        }
    };
    for map in out.maps.values_mut() {
        let spec = map.spec;
        for value in map.entries.values_mut() {
            fill(value);
            let owned = owned_part(&spec, &value.bytes).len();
            value.bytes.truncate(owned);
        }
    }
    let mut count = BTreeMap::<String, usize>::new();
    for id in out.loads.keys() {
        *count.entry(id.owner.clone()).or_default() += 1;
    }
    let rename = |id: &LoadId| {
        let only = count.get(&id.owner) == Some(&1);
        LoadId { owner: id.owner.clone(), generation: if only { 0 } else { id.generation } }
    };
    out.loads = std::mem::take(&mut out.loads)
        .into_iter()
        .map(|(id, mut load)| {
            load.globals.values_mut().for_each(fill);
            (rename(&id), load)
        })
        .collect();
    out.published.values_mut().for_each(|id| *id = rename(id));
    out.attachments.values_mut().for_each(|a| a.load = rename(&a.load));
    out.sysctls.clear();
    out
}

/// A plan under way: every action is applied to `now` as it is decided, so that later ones see it.
struct Plan<'a> {
    now: Datapath,
    want: &'a Datapath,
    out: Vec<Action>,
    /// The loads that are kept or made, by owner.
    loads: BTreeMap<String, LoadId>,
}

impl Plan<'_> {
    fn emit(&mut self, action: Action) {
        // A refusal here is the node's to make again, with its reason; the plan goes on as if it were done.
        let _ = apply(&mut self.now, &action);
        self.out.push(action);
    }

    fn run(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.emit(action);
        }
    }

    fn devices(&mut self) {
        let want = self.want;
        for (link, device) in &want.devices {
            match self.now.devices.get(link) {
                Some(there) if there == device => continue,
                Some(_) => self.emit(Action::DeleteDevice { link: link.clone() }),
                None => {}
            }
            self.emit(Action::CreateDevice { link: link.clone(), device: device.clone() });
        }
        for (name, value) in &want.sysctls {
            if self.now.sysctls.get(name) != Some(value) {
                self.emit(Action::SetSysctl { name: name.clone(), value: value.clone() });
            }
        }
    }

    fn routes(&mut self) {
        let want = self.want;
        // A gateway must be on the link before a route can lead through it.
        let mut routes: Vec<_> = want.routes.iter().collect();
        routes.sort_by_key(|(key, route)| (route.via.is_some(), *key));
        for (key, route) in routes {
            if self.now.routes.get(key) != Some(route) {
                self.emit(Action::SetRoute { key: key.clone(), route: route.clone() });
            }
        }
    }

    fn maps(&mut self) {
        let want = self.want;
        for (name, map) in &want.maps {
            match self.now.maps.get(name) {
                Some(there) if there.spec == map.spec => continue,
                Some(_) => self.emit(Action::DeleteMap { name: name.clone() }),
                None => {}
            }
            self.emit(Action::CreateMap { name: name.clone(), spec: map.spec });
        }
    }

    /// The names of the policy maps that packets may meet.
    fn policy_maps_in_use(&self) -> BTreeSet<String> {
        let attached = self.now.attachments.values().map(|a| &a.load);
        let loads = self.now.published.values().chain(attached);
        loads.filter_map(|id| self.now.loads.get(id)?.maps.get(map::POLICY.name)).cloned().collect()
    }

    fn new_networks(&mut self) {
        let new = policy::new_networks(&self.now, self.want);
        if new.is_empty() {
            return;
        }
        for name in self.policy_maps_in_use() {
            let Some(map) = self.now.maps.get(&name) else { continue };
            self.run(policy::copies(&name, &map.entries, &new));
        }
        let want = self.want;
        let Some(ipcache) = want.maps.get(map::IPCACHE.name) else { return };
        let mut keys: Vec<&Vec<u8>> = new.iter().map(|n| &n.key).collect();
        keys.sort_by_key(|k| std::cmp::Reverse(prefix(k)));
        for key in keys {
            let (map, value) = (map::IPCACHE.name.to_owned(), ipcache.entries[key].clone());
            self.emit(Action::MapUpdate { map, key: key.clone(), value });
        }
    }

    fn policy_maps(&self) -> Vec<policy::Rewrite> {
        let used = self.policy_maps_in_use();
        let had = policy::identities_in_use(&self.now);
        let wanted = policy::identities_in_use(self.want);
        let maps = self.want.maps.iter().filter(|(_, m)| m.spec.name == map::POLICY.name);
        maps.map(|(name, want)| {
            let have = &self.now.maps.get(name).expect("maps are created before they are filled").entries;
            policy::rewrite(name, have, &want.entries, used.contains(name), &had, &wanted)
        })
        .collect()
    }

    /// Whether the load that is there is what is wanted, on devices with the indexes that they have now.
    fn same_load(&self, there: &Load, want: &Load) -> bool {
        let links = &self.now.links;
        (there.object, &there.sha256, &there.maps, &there.calls)
            == (want.object, &want.sha256, &want.maps, &want.calls)
            && there.globals.len() == want.globals.len()
            && want.globals.iter().all(|(n, v)| there.globals.get(n).is_some_and(|t| t.same(v, links)))
    }

    fn loads(&mut self) {
        let want = self.want;
        for (id, load) in &want.loads {
            let of_owner = |l: &&LoadId| l.owner == id.owner;
            let kept = self
                .now
                .loads
                .keys()
                .rev()
                .filter(of_owner)
                .find(|l| self.same_load(&self.now.loads[l], load))
                .cloned();
            let kept = kept.unwrap_or_else(|| {
                let newest = self.now.loads.keys().rev().find(of_owner).map_or(0, |l| l.generation);
                let id = LoadId { owner: id.owner.clone(), generation: newest + 1 };
                self.emit(Action::Load { id: id.clone(), load: load.clone() });
                id
            });
            self.loads.insert(id.owner.clone(), kept);
        }
    }

    /// The load that stands for one that is wanted.
    fn load_of(&self, wanted: &LoadId) -> LoadId {
        self.loads.get(&wanted.owner).expect("whatever is wanted to run is of a load that is wanted").clone()
    }

    fn endpoints_that_go(&mut self) {
        let want = self.want;
        let gone: Vec<u16> =
            self.now.published.keys().filter(|e| !want.published.contains_key(e)).copied().collect();
        for endpoint in gone {
            self.emit(Action::Unpublish { endpoint });
        }
        let gone: Vec<HookPoint> =
            self.now.attachments.keys().filter(|p| !want.attachments.contains_key(p)).cloned().collect();
        for point in gone {
            self.emit(Action::Detach { point });
        }
        self.delete_entries(map::LXC.name, |key| key.to_vec());
    }

    fn endpoints(&mut self) {
        let want = self.want;
        for (&endpoint, load) in &want.published {
            let load = self.load_of(load);
            if self.now.published.get(&endpoint) != Some(&load) {
                self.emit(Action::Publish { endpoint, load });
            }
        }
        self.write_entries(map::LXC.name, |key| key.to_vec());
    }

    fn attachments(&mut self) {
        let want = self.want;
        for (point, attachment) in &want.attachments {
            let mut attachment = attachment.clone();
            attachment.load = self.load_of(&attachment.load);
            if self.now.attachments.get(point) != Some(&attachment) {
                self.emit(Action::Attach { point: point.clone(), attachment });
            }
        }
    }

    fn ipcache_writes(&mut self) {
        self.write_entries(map::IPCACHE.name, |key| std::cmp::Reverse(prefix(key)));
    }

    fn ipcache_deletions(&mut self) {
        self.delete_entries(map::IPCACHE.name, prefix);
    }

    /// Writes the entries of a map that are missing or differ, in the order that `order` gives.
    fn write_entries<K: Ord>(&mut self, name: &str, order: impl Fn(&[u8]) -> K) {
        let want = self.want;
        let (Some(want), Some(now)) = (want.maps.get(name), self.now.maps.get(name)) else { return };
        let mut missing: Vec<_> = want
            .entries
            .iter()
            .filter(|(k, v)| now.entries.get(*k).is_none_or(|n| !n.same(v, &self.now.links)))
            .collect();
        missing.sort_by_key(|(k, _)| order(k));
        for (key, value) in missing {
            self.emit(Action::MapUpdate { map: name.to_owned(), key: key.clone(), value: value.clone() });
        }
    }

    /// Deletes the entries of a map that are not wanted, in the order that `order` gives.
    fn delete_entries<K: Ord>(&mut self, name: &str, order: impl Fn(&[u8]) -> K) {
        let (Some(want), Some(now)) = (self.want.maps.get(name), self.now.maps.get(name)) else { return };
        let mut surplus: Vec<_> =
            now.entries.keys().filter(|k| !want.entries.contains_key(*k)).cloned().collect();
        surplus.sort_by_key(|k| order(k));
        for key in surplus {
            self.emit(Action::MapDelete { map: name.to_owned(), key });
        }
    }

    fn leftovers(&mut self) {
        let want = self.want;
        let kept: BTreeSet<&LoadId> = self.loads.values().collect();
        let gone: Vec<_> = self.now.loads.keys().filter(|id| !kept.contains(id)).cloned().collect();
        for id in gone {
            self.emit(Action::Unload { id });
        }
        let gone: Vec<_> = self.now.maps.keys().filter(|n| !want.maps.contains_key(*n)).cloned().collect();
        for name in gone {
            self.emit(Action::DeleteMap { name });
        }
        let gone: Vec<_> =
            self.now.routes.keys().filter(|k| !want.routes.contains_key(*k)).cloned().collect();
        for key in gone {
            self.emit(Action::DeleteRoute { key });
        }
        let gone: Vec<_> =
            self.now.devices.keys().filter(|l| !want.devices.contains_key(*l)).cloned().collect();
        for link in gone {
            self.emit(Action::DeleteDevice { link });
        }
    }
}

/// The prefix length of a longest-prefix match's key: its first 32 bits, little endian.
fn prefix(key: &[u8]) -> u32 {
    key.first_chunk::<4>().map_or(0, |p| u32::from_le_bytes(*p))
}
