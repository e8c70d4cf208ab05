//! `skep prog list`: what is in an object.

use super::args::{ListArgs, Output};
use super::{Done, print};
use serde_json::{Value, json};
use skep_vm::{MapDef, Object, map_kind_name};

pub(super) fn list(args: &ListArgs) -> Done {
    let object = args.object.parse()?;
    match args.output {
        Output::Text => print(&text(&object)),
        Output::Json => print(&format!("{:#}\n", json(&object))),
    }
    Ok(0)
}

fn kind(map: &MapDef) -> String {
    map_kind_name(map.kind).map_or_else(|| format!("kind {}", map.kind), str::to_owned)
}

fn program_kind(object: &Object, name: &str) -> String {
    object.kind(name).map_or("unknown".into(), |k| format!("{k:?}"))
}

fn text(object: &Object) -> String {
    let mut out = String::from("PROGRAMS\n");
    let width = object.programs().map(str::len).max().unwrap_or(0);
    for name in object.programs() {
        let (section, kind) = (object.section(name).unwrap_or("-"), program_kind(object, name));
        let count = object.instruction_count(name).unwrap_or(0);
        out += &format!("  {name:width$}  section {section}  {kind}  {count} instructions\n");
        if let Some(why) = object.listing(name).and_then(|l| l.illegal) {
            out += &format!("  {:width$}  cannot be run here: {why}\n", "");
        }
    }
    if !object.maps().is_empty() {
        out += "MAPS\n";
    }
    let width = object.maps().iter().map(|m| m.name.len()).max().unwrap_or(0);
    for map in object.maps() {
        let MapDef { name, key_size, value_size, max_entries, flags, .. } = map;
        out += &format!("  {name:width$}  {}  key {key_size}B  value {value_size}B", kind(map));
        out += &format!("  max_entries {max_entries}  flags {flags:#x}\n");
        if let Some(inner) = &map.inner {
            out += &format!(
                "  {:width$}  of {}  key {}B  value {}B  max_entries {}\n",
                "",
                kind(inner),
                inner.key_size,
                inner.value_size,
                inner.max_entries
            );
        }
    }
    if !object.globals().is_empty() {
        out += "GLOBALS\n";
    }
    let width = object.globals().iter().map(|g| g.name.len()).max().unwrap_or(0);
    for global in object.globals() {
        let value = object.global_value(&global.name).unwrap_or_default();
        out += &format!("  {:width$}  {}B  {}\n", global.name, global.size, shortened(value));
    }
    let values = object.initial_values();
    if !values.is_empty() {
        out += "FROM THE BEGINNING\n";
    }
    for value in values {
        out += &format!("  {}[{}] = {}\n", value.map, value.slot, value.target);
    }
    out
}

/// Bytes of a global, the first few of many.
fn shortened(value: &[u8]) -> String {
    let hex = super::state::hex(&value[..value.len().min(16)]);
    if value.len() > 16 { format!("{hex}...") } else { hex }
}

fn json(object: &Object) -> Value {
    let program = |name: &str| {
        json!({
            "name": name,
            "section": object.section(name),
            "kind": object.kind(name).map(|k| format!("{k:?}")),
            "instructions": object.instruction_count(name),
            "error": object.listing(name).and_then(|l| l.illegal).map(|e| e.to_string()),
        })
    };
    let global = |g: &skep_vm::Global| {
        let value = object.global_value(&g.name).map(super::state::hex);
        json!({"name": g.name, "size": g.size, "value": value})
    };
    let initial = |v: &skep_vm::InitialValue| json!({"map": v.map, "slot": v.slot, "target": v.target});
    json!({
        "programs": object.programs().map(program).collect::<Vec<_>>(),
        "maps": object.maps().iter().map(map).collect::<Vec<_>>(),
        "globals": object.globals().iter().map(global).collect::<Vec<_>>(),
        "initial_values": object.initial_values().iter().map(initial).collect::<Vec<_>>(),
    })
}

fn map(def: &MapDef) -> Value {
    json!({
        "name": def.name,
        "type": kind(def),
        "key_size": def.key_size,
        "value_size": def.value_size,
        "max_entries": def.max_entries,
        "flags": def.flags,
        "inner": def.inner.as_deref().map(map),
    })
}
