//! Maps and globals as JSON: for --map-load and --map-dump.
//!
//! Knows the file's form, which also reads what bpftool prints. Everything in it must be there and of the right size.

use serde_json::{Map as Object_, Value, json};
use skep_vm::{Kernel, Loaded, MapId, Object, UpdateMode, map_kind, map_kind_name};
use std::collections::BTreeMap;

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of hexadecimal digits, white space between bytes allowed.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|d| (d[0] << 4 | d[1]) as u8).collect())
}

/// A file of maps and globals.
#[derive(Default, Debug)]
pub(super) struct State {
    maps: BTreeMap<String, Vec<Entry>>,
    pub(super) globals: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
struct Entry {
    key: Vec<u8>,
    value: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    Cpus(Vec<Vec<u8>>),
    Program(String),
}

impl State {
    /// Reads a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let all: Value = serde_json::from_str(text).map_err(|e| format!("line {}: {e}", e.line()))?;
        let all = all.as_object().ok_or("it is no object with `maps` and `globals`")?;
        let mut state = Self::default();
        for (name, part) in all {
            let fields = part.as_object().ok_or_else(|| format!("{name}: it is no object"))?;
            match name.as_str() {
                "maps" => {
                    for (map, entries) in fields {
                        let entries =
                            entries.as_array().ok_or_else(|| format!("maps.{map}: it is no list"))?;
                        let read = |(n, e)| entry(e).map_err(|what| format!("maps.{map}[{n}]: {what}"));
                        let entries = entries.iter().enumerate().map(read).collect::<Result<_, _>>()?;
                        state.maps.insert(map.clone(), entries);
                    }
                }
                "globals" => {
                    for (global, value) in fields {
                        let value = bytes(value).ok_or_else(|| format!("globals.{global}: {HEX}"))?;
                        state.globals.insert(global.clone(), value);
                    }
                }
                other => return Err(format!("unknown field {other}; there are `maps` and `globals`")),
            }
        }
        Ok(state)
    }

    /// Writes the entries into a loaded object's maps.
    pub(super) fn fill(&self, kernel: &mut Kernel, loaded: &Loaded) -> Result<(), String> {
        for (name, entries) in &self.maps {
            let have = || loaded.maps.keys().cloned().collect::<Vec<_>>().join(", ");
            let id =
                *loaded.maps.get(name).ok_or_else(|| format!("maps.{name}: the object has {}", have()))?;
            for (number, entry) in entries.iter().enumerate() {
                entry.write(kernel, loaded, id).map_err(|what| format!("maps.{name}[{number}]: {what}"))?;
            }
        }
        Ok(())
    }
}

const HEX: &str = "bytes are hexadecimal, such as \"0a000001\", or a list, such as [\"0x0a\", \"0x00\"]";

/// Hexadecimal, or bpftool's list of bytes.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(text) = value.as_str() {
        return from_hex(text);
    }
    let byte = |value: &Value| match value {
        Value::String(text) => u8::from_str_radix(text.trim_start_matches("0x"), 16).ok(),
        other => u8::try_from(other.as_u64()?).ok(),
    };
    value.as_array()?.iter().map(byte).collect()
}

fn entry(value: &Value) -> Result<Entry, String> {
    let fields = value.as_object().ok_or("an entry is an object with `key` and `value`")?;
    let field = |name: &str| bytes(&fields[name]).ok_or_else(|| format!("{name}: {HEX}"));
    let known = ["key", "value", "values", "program", "formatted"];
    if let Some(other) = fields.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(format!("unknown field {other}; there are key, value, values and program"));
    }
    if !fields.contains_key("key") {
        return Err("it has no key".into());
    }
    let content = match (fields.get("value"), fields.get("values"), fields.get("program")) {
        (Some(_), None, None) => Content::Bytes(field("value")?),
        (None, Some(values), None) => Content::Cpus(cpus(values)?),
        (None, None, Some(Value::String(name))) => Content::Program(name.clone()),
        _ => return Err("it has one of value, values (one a CPU) and program (a name)".into()),
    };
    Ok(Entry { key: field("key")?, value: content })
}

/// Values of each CPU: a list of bytes, or bpftool's list of {cpu, value}.
fn cpus(values: &Value) -> Result<Vec<Vec<u8>>, String> {
    let list = values.as_array().ok_or("values: it is no list")?;
    let one =
        |value: &Value| bytes(value.get("value").unwrap_or(value)).ok_or_else(|| format!("values: {HEX}"));
    list.iter().map(one).collect()
}

impl Entry {
    fn write(&self, kernel: &mut Kernel, loaded: &Loaded, map: MapId) -> Result<(), String> {
        let Some(def) = kernel.map_def(map).cloned() else { return Err("the map is gone".into()) };
        let size = |what: &str, have: usize, want: u32| match have == want as usize {
            true => Ok(()),
            false => Err(format!("the {what} has {have} bytes and must have {want}")),
        };
        size("key", self.key.len(), def.key_size)?;
        let refused = |e: skep_vm::Errno| format!("the map refuses it: {e}");
        let (key, any) = (&self.key, UpdateMode::Any);
        match &self.value {
            Content::Bytes(value) => {
                size("value", value.len(), def.value_size)?;
                kernel.map_update(map, key, value, any).map_err(refused)
            }
            Content::Cpus(values) => {
                values.iter().try_for_each(|v| size("value of a CPU", v.len(), def.value_size))?;
                if values.len() != kernel.cpus() as usize {
                    return Err(format!("{} values for {} CPUs; see --cpus", values.len(), kernel.cpus()));
                }
                kernel.map_update(map, key, &values.concat(), any).map_err(refused)
            }
            Content::Program(name) => {
                let slot = <[u8; 4]>::try_from(&key[..]).map(u32::from_le_bytes);
                let slot = slot.map_err(|_| format!("a {:?} holds no programs", map_kind_name(def.kind)))?;
                let have = || loaded.programs.keys().cloned().collect::<Vec<_>>().join(", ");
                let id = loaded
                    .programs
                    .get(name)
                    .ok_or_else(|| format!("no program {name}; there are {}", have()))?;
                kernel.prog_array_set(map, slot, Some(*id)).map_err(refused)
            }
        }
    }
}

/// All maps and globals of a loaded object.
pub(super) fn dump(kernel: &Kernel, loaded: &Loaded, object: &Object) -> Value {
    let mut maps = Object_::new();
    for (name, id) in &loaded.maps {
        let kind = kernel.map_def(*id).map_or(0, |def| def.kind);
        let entries: Vec<Value> = if kind == map_kind::PROG_ARRAY {
            let slot = |(slot, program): (u32, _)| json!({"key": hex(&slot.to_le_bytes()), "program": kernel.program_name(program)});
            kernel.prog_array(*id).into_iter().map(slot).collect()
        } else {
            kernel.entries_cpus(*id).into_iter().map(|(key, values)| dumped(&key, &values)).collect()
        };
        maps.insert(name.clone(), entries.into());
    }
    let mut globals = Object_::new();
    for global in object.globals() {
        if let Some(value) = kernel.global(loaded, object, &global.name) {
            globals.insert(global.name.clone(), hex(&value).into());
        }
    }
    json!({"maps": maps, "globals": globals})
}

fn dumped(key: &[u8], values: &[Vec<u8>]) -> Value {
    match values {
        [value] => json!({"key": hex(key), "value": hex(value)}),
        values => json!({"key": hex(key), "values": values.iter().map(|v| hex(v)).collect::<Vec<_>>()}),
    }
}
