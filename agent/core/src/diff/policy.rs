//! How a policy map gets from one set of entries to another while packets are judged by it.
//!
//! Entries about an identity that nobody has yet can come early, and entries about one that nobody has any more can go
//! late: no packet meets them. All else first shrinks to what old and new allow in common, and grows after identities
//! have moved.

use crate::action::Action;
use crate::model::{Datapath, Value};
use crate::policy::EntryKey;
use skep_abi::map::{self, IpcacheKey, PolicyEntry, RemoteEndpointInfo};
use skep_abi::{Be32, identity};
use std::collections::{BTreeMap, BTreeSet};

/// The parts of a rewrite.
#[derive(Default)]
pub(super) struct Rewrite {
    /// Before identities move: early entries and the shrinking; of a map that no packet meets yet, everything.
    pub(super) before: Vec<Action>,
    /// After addresses have got their new identities.
    pub(super) grow: Vec<Action>,
    /// After addresses have lost the identities that they no longer have: what is covered by now, or about nobody.
    pub(super) late: Vec<Action>,
}

type Entries = BTreeMap<Vec<u8>, Value>;

/// The identities that an ipcache gives to addresses.
pub(super) fn identities_in_use(datapath: &Datapath) -> BTreeSet<u32> {
    let entries = datapath.maps.get(map::IPCACHE.name).into_iter().flat_map(|m| m.entries.values());
    let mut ids: BTreeSet<u32> =
        entries.filter_map(|v| Some(RemoteEndpointInfo::from_bytes(&v.bytes)?.sec_identity)).collect();
    // Whoever is in no ipcache is the world, and the wildcard is everybody.
    ids.extend([identity::UNKNOWN, identity::WORLD]);
    ids
}

/// A network that is to get an identity of its own.
pub(super) struct NewNetwork {
    /// Its key in the ipcache.
    pub(super) key: Vec<u8>,
    id: u32,
    /// The identity that its addresses have now.
    from: u32,
}

/// The networks that are to get an identity that nobody has yet.
pub(super) fn new_networks(have: &Datapath, want: &Datapath) -> Vec<NewNetwork> {
    let had = identities_in_use(have);
    let (Some(have), Some(want)) = (have.maps.get(map::IPCACHE.name), want.maps.get(map::IPCACHE.name))
    else {
        return Vec::new();
    };
    let sec_identity = |v: &Value| RemoteEndpointInfo::from_bytes(&v.bytes).map(|i| i.sec_identity);
    want.entries
        .iter()
        .filter_map(|(key, value)| {
            let id = sec_identity(value)?;
            let new = id & identity::SCOPE_CIDR != 0 && !had.contains(&id) && !have.entries.contains_key(key);
            let from = || covering(key).find_map(|k| sec_identity(have.entries.get(&k)?));
            new.then(|| NewNetwork { key: key.clone(), id, from: from().unwrap_or(identity::WORLD) })
        })
        .collect()
}

/// The keys of the networks that contain one, from the longest prefix to the shortest.
fn covering(key: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let key = IpcacheKey::from_bytes(key).unwrap_or_default();
    let bits = key.prefixlen.saturating_sub(IpcacheKey::STATIC_PREFIX).min(32);
    (0..bits).rev().map(move |bits| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        IpcacheKey::ipv4(Be32::from_host(key.ip4.to_host() & mask), bits).to_bytes().to_vec()
    })
}

/// Entries that let a policy map treat new networks as it treats what they are taken out of.
pub(super) fn copies(name: &str, have: &Entries, new: &[NewNetwork]) -> Vec<Action> {
    let mut out = Vec::new();
    for network in new {
        for (key, value) in have {
            let Some(old) = key_of(key).filter(|k| k.identity == network.from && k.identity != 0) else {
                continue;
            };
            let key = EntryKey { identity: network.id, ..old }.to_abi().to_bytes().to_vec();
            out.push(Action::MapUpdate { map: name.to_owned(), key, value: value.clone() });
        }
    }
    out
}

/// Plans a rewrite of the map `name`. `used`: packets may meet it. `had` and `wanted`: the identities in use before
/// and after.
pub(super) fn rewrite(
    name: &str,
    have: &Entries,
    want: &Entries,
    used: bool,
    had: &BTreeSet<u32>,
    wanted: &BTreeSet<u32>,
) -> Rewrite {
    let update = |key: &[u8], value: &Value| Action::MapUpdate {
        map: name.to_owned(),
        key: key.to_owned(),
        value: value.clone(),
    };
    let delete = |key: &[u8]| Action::MapDelete { map: name.to_owned(), key: key.to_owned() };
    let owned = |v: &Value| crate::model::owned_part(&map::POLICY, &v.bytes).to_vec();
    let there = |key: &[u8], value: &Value| have.get(key).is_some_and(|h| owned(h) == owned(value));
    let mut steps = Rewrite::default();

    let missing: Entries =
        want.iter().filter(|(k, v)| !there(k, v)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let surplus: Entries =
        have.iter().filter(|(k, _)| !want.contains_key(*k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if !used {
        steps.before.extend(missing.iter().map(|(k, v)| update(k, v)));
        steps.before.extend(surplus.keys().map(|k| delete(k)));
        return steps;
    }

    let common = common(have, &surplus, &missing);
    let (early, late): (Entries, Entries) = missing.into_iter().partition(|(k, v)| {
        denies(v) || common.contains_key(k) || identity_of(k).is_some_and(|id| !had.contains(&id))
    });
    steps.before.extend(early.iter().map(|(k, v)| update(k, v)));
    let only_common = common.iter().filter(|(k, _)| !have.contains_key(*k) && !want.contains_key(*k));
    steps.before.extend(only_common.clone().map(|(k, v)| update(k, v)));
    for (key, value) in &surplus {
        let nobody = identity_of(key).is_some_and(|id| !wanted.contains(&id));
        let part = if denies(value) {
            &mut steps.grow
        } else if nobody || common.contains_key(key) {
            &mut steps.late
        } else {
            &mut steps.before
        };
        part.push(delete(key));
    }
    steps.grow.extend(late.iter().map(|(k, v)| update(k, v)));
    steps.late.extend(only_common.map(|(k, _)| delete(k)));
    steps
}

/// What an entry that goes and one that comes allow both, as entries.
///
/// With a deny anywhere there is none: an entry for the common part would be more specific than the deny and win, and
/// what is lost for a moment is better than what is let through.
fn common(have: &Entries, surplus: &Entries, missing: &Entries) -> Entries {
    if have.values().chain(missing.values()).any(denies) {
        return Entries::new();
    }
    let keys = |entries: &Entries| -> Vec<EntryKey> { entries.keys().filter_map(|k| key_of(k)).collect() };
    let missing = keys(missing);
    let meets = keys(surplus).into_iter().flat_map(|s| missing.iter().filter_map(move |m| s.meet(*m)));
    meets
        .map(|k| {
            let value = PolicyEntry::new(false, k.l4_prefix).to_bytes();
            (k.to_abi().to_bytes().to_vec(), Value::plain(value))
        })
        .collect()
}

fn key_of(bytes: &[u8]) -> Option<EntryKey> {
    EntryKey::from_abi(&map::PolicyKey::from_bytes(bytes)?)
}

fn identity_of(key: &[u8]) -> Option<u32> {
    key_of(key).map(|k| k.identity)
}

fn denies(value: &Value) -> bool {
    PolicyEntry::from_bytes(&value.bytes).is_some_and(PolicyEntry::deny)
}
