//! What a load was made of, as bytes that stand beside its programs: the kernel does not tell an object's hash, nor
//! under which names a program's maps were bound.
//!
//! JSON, so that `bpftool map dump` shows it to people.

use serde_json::{Map, Value as Json, json};
use skep_abi::program::Object;
use skep_agent_core::{Load, Value};
use std::collections::BTreeMap;

/// The record of a load; devices' indexes must be filled in.
pub(super) fn encode(load: &Load) -> Vec<u8> {
    let globals: Map<String, Json> =
        load.globals.iter().map(|(name, value)| (name.clone(), json!(value.bytes))).collect();
    let calls: Map<String, Json> =
        load.calls.iter().map(|(slot, program)| (slot.to_string(), json!(program))).collect();
    json!({
        "object": load.object.name(),
        "sha256": load.sha256,
        "globals": globals,
        "maps": load.maps,
        "calls": calls,
    })
    .to_string()
    .into_bytes()
}

/// The load of a record; none if it is not one.
pub(super) fn decode(bytes: &[u8]) -> Option<Load> {
    let json: Json = serde_json::from_slice(bytes).ok()?;
    let name = json["object"].as_str()?;
    let mut globals = BTreeMap::new();
    for (name, value) in json["globals"].as_object()? {
        let bytes: Option<Vec<u8>> =
            value.as_array()?.iter().map(|b| b.as_u64().and_then(|b| u8::try_from(b).ok())).collect();
        globals.insert(name.clone(), Value::plain(bytes?));
    }
    let mut maps = BTreeMap::new();
    for (symbol, name) in json["maps"].as_object()? {
        maps.insert(symbol.clone(), name.as_str()?.to_owned());
    }
    let mut calls = BTreeMap::new();
    for (slot, program) in json["calls"].as_object()? {
        calls.insert(slot.parse().ok()?, program.as_str()?.to_owned());
    }
    Some(Load {
        object: *Object::ALL.iter().find(|o| o.name() == name)?,
        sha256: json["sha256"].as_str()?.to_owned(),
        globals,
        maps,
        calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_comes_back() {
        let load = Load {
            object: Object::Lxc,
            sha256: "ab".into(),
            globals: BTreeMap::from([("endpoint_id".into(), Value::plain([7, 255]))]),
            maps: BTreeMap::from([("skep_policy_v2".into(), "skep_policy_v2_00007".into())]),
            calls: BTreeMap::from([(7, "tail_handle_ipv4".into())]),
        };
        assert_eq!(decode(&encode(&load)), Some(load));
        assert_eq!(decode(b"{}"), None);
        assert_eq!(decode(&[0; 64]), None);
    }
}
