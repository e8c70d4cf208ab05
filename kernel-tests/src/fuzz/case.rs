//! A case as a file: what goes in, in words and hexadecimal, and what was wrong.
//!
//! Knows the format and that what it reads may be anything. Does not know how a case is run.

use crate::outcome::{Context, hex};
use crate::row::{Row, passed};
use crate::world::{Entry, Place, State};
use serde::{Deserialize, Serialize};
use skep_abi::{global, map, program};
use std::collections::BTreeMap;

/// A case's file: TOML.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// What was wrong, and where.
    pub about: String,
    /// The program that is run.
    pub program: String,
    /// The packet, in hexadecimal.
    pub frame: String,
    /// A slot of `skep_calls` that is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplugged: Option<u32>,
    /// An endpoint whose slot of `skep_call_policy` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<u16>,
    /// The context beside the packet.
    #[serde(default)]
    pub context: ContextFile,
    /// Globals that differ from the node's: hexadecimal by name.
    #[serde(default)]
    pub globals: BTreeMap<String, String>,
    /// What stands in the maps.
    #[serde(default)]
    pub entry: Vec<EntryFile>,
    /// Frames that go through real devices, in place of `frame` through `program`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<SentFile>,
}

/// A frame that goes through real devices.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentFile {
    /// Where it comes from.
    pub by: By,
    /// Of a frame in the tunnel the network identifier.
    #[serde(default)]
    pub vni: u32,
    /// Of a frame in the tunnel the outer source.
    #[serde(default)]
    pub source: [u8; 4],
    /// The frame, in a tunnel the inner one, in hexadecimal.
    pub frame: String,
}

/// Where a frame comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The network, as it is.
    #[default]
    Network,
    /// The network, in the tunnel.
    Tunnel,
    /// The pod.
    Pod,
}

/// What of the context is not zero.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextFile {
    /// `mark`.
    pub mark: u32,
    /// `priority`.
    pub priority: u32,
    /// `ingress_ifindex`.
    pub ingress_ifindex: u32,
    /// `ifindex`.
    pub ifindex: u32,
    /// `cb`.
    pub cb: [u32; 5],
}

/// An entry of a map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryFile {
    /// The map's name; a policy's with the endpoint's id behind it.
    pub map: String,
    /// The key, in hexadecimal.
    pub key: String,
    /// The value, in hexadecimal. Times of conntrack count from the start of the run; 0 is "never".
    pub value: String,
}

impl CaseFile {
    /// The file of a row.
    pub fn of(row: &Row, about: String) -> Self {
        let c = &row.context;
        let entry = |e: &Entry| EntryFile {
            map: match e.map {
                Place::Node(name) => name.to_owned(),
                Place::Policy(id) => crate::row::policy_name(id),
            },
            key: hex(&e.key),
            value: hex(&e.value),
        };
        Self {
            about,
            program: row.program.to_owned(),
            frame: hex(&row.frame),
            unplugged: row.unplugged,
            not_ready: row.not_ready,
            context: ContextFile {
                mark: c.mark,
                priority: c.priority,
                ingress_ifindex: c.ingress_ifindex,
                ifindex: c.ifindex,
                cb: c.cb,
            },
            globals: row.globals.iter().map(|(k, v)| ((*k).to_owned(), hex(v))).collect(),
            entry: row.state.0.iter().map(entry).collect(),
            sent: Vec::new(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is not right about it.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    /// The file's text.
    ///
    /// # Errors
    ///
    /// None of a file that [`CaseFile::of`] has made.
    pub fn text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| e.to_string())
    }

    /// The row.
    ///
    /// # Errors
    ///
    /// A name or size that the contract does not have.
    pub fn row(&self) -> Result<Row, String> {
        let program =
            program::by_name(&self.program).ok_or_else(|| format!("no program `{}`", self.program))?;
        let mut row = Row::new(program.name, "case", bytes(&self.frame)?, passed());
        let c = &self.context;
        row.context = Context {
            mark: c.mark,
            priority: c.priority,
            ingress_ifindex: c.ingress_ifindex,
            ifindex: c.ifindex,
            cb: c.cb,
        };
        (row.unplugged, row.not_ready) = (self.unplugged, self.not_ready);
        for (name, value) in &self.globals {
            let known =
                global::GLOBALS.iter().find(|g| g.name == *name && g.objects.contains(&program.object));
            let known = known.ok_or_else(|| format!("no global `{name}` in {}", program.object.name()))?;
            let value = bytes(value)?;
            if value.len() != usize::from(known.size) {
                return Err(format!("{name} has {} bytes, not {}", known.size, value.len()));
            }
            row.globals.insert(known.name, value);
        }
        row.state = State(self.entry.iter().map(EntryFile::entry).collect::<Result<_, _>>()?);
        Ok(row)
    }
}

impl EntryFile {
    fn entry(&self) -> Result<Entry, String> {
        let of_policy = self.map.strip_prefix(map::POLICY.name).and_then(|rest| rest.strip_prefix('_'));
        let (place, spec) = match of_policy {
            Some(id) => {
                let id = id.parse().map_err(|_| format!("`{}` names no endpoint", self.map))?;
                (Place::Policy(id), &map::POLICY)
            }
            None => {
                let spec = map::by_name(&self.map).ok_or_else(|| format!("no map `{}`", self.map))?;
                (Place::Node(spec.name), spec)
            }
        };
        let entry = Entry { map: place, key: bytes(&self.key)?, value: bytes(&self.value)? };
        let (key, value) = (entry.key.len() as u32, entry.value.len() as u32);
        if (key, value) != (spec.key_size, spec.value_size) {
            return Err(format!(
                "{}: {key} => {value} bytes, not {} => {}",
                self.map, spec.key_size, spec.value_size
            ));
        }
        Ok(entry)
    }
}

/// Bytes from hexadecimal.
pub(super) fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return Err(format!("`{hex}` is not hexadecimal"));
    }
    (0..hex.len() / 2)
        .map(|i| {
            u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| format!("`{hex}` is not hexadecimal"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_comes_back_from_its_file() {
        for row in crate::rows::all() {
            let file = CaseFile::of(&row, "what was wrong".to_owned());
            let again = CaseFile::parse(&file.text().unwrap()).unwrap();
            assert_eq!(again, file, "{}", row.title());
            let read = again.row().unwrap();
            assert_eq!(CaseFile::of(&read, file.about.clone()), file, "{}", row.title());
        }
    }

    #[test]
    fn what_is_no_case_says_why() {
        let good = CaseFile::of(&crate::rows::all()[0], String::new());
        type Alter = fn(&mut CaseFile);
        let alterations: [(Alter, &str); 6] = [
            (|f| f.program = "no_such".to_owned(), "no program"),
            (|f| f.frame = "0g".to_owned(), "hexadecimal"),
            (|f| f.frame = "ü0".to_owned(), "hexadecimal"),
            (|f| f.globals = [("no_such".to_owned(), String::new())].into(), "no global"),
            (|f| f.globals = [("endpoint_id".to_owned(), "00".to_owned())].into(), "2 bytes, not 1"),
            (|f| f.entry[0].key = "00".to_owned(), "bytes, not"),
        ];
        for (alter, says) in alterations {
            let mut wrong = good.clone();
            alter(&mut wrong);
            let why = wrong.row().map(drop).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        assert!(CaseFile::parse("about = 1").is_err());
    }
}
