//! Where a node's maps, loads, links and records are pinned: `skep/vLAYOUT/{maps,loads,links,records}` of a bpffs.
//!
//! Knows names and paths. The version of the maps' layout stands in the path, so that an agent of another version finds
//! out before it reads a byte.

use super::super::load::{Loaded, Program};
use super::super::map::{Map, MapShape};
use super::super::pin::{TcxHook, TcxLink, unpin};
use super::record;
use crate::Error;
use skep_abi::LAYOUT_VERSION;
use skep_abi::program::Hook;
use skep_agent_core::{HookPoint, Link, Load, LoadId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The pin of a load's record: no program has this name.
const RECORD: &str = "record";

/// The directories of a node's pins.
#[derive(Debug)]
pub(super) struct Pins {
    /// `skep/v1`.
    root: PathBuf,
}

/// A link that is pinned.
pub(super) struct PinnedLink {
    pub path: PathBuf,
    pub point: HookPoint,
}

impl Pins {
    pub(super) fn below(bpffs: &Path) -> Result<Self, Error> {
        let top = top(bpffs);
        let own = format!("v{LAYOUT_VERSION}");
        let other = names(&top)?.into_iter().find(|name| *name != own);
        if let Some(other) = other {
            return Err(Error::Layout { path: top.join(other), version: LAYOUT_VERSION });
        }
        let root = top.join(own);
        for directory in ["maps", "loads", "links", "records"] {
            make(&root.join(directory))?;
        }
        Ok(Self { root })
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    pub(super) fn maps(&self) -> Result<Vec<String>, Error> {
        names(&self.root.join("maps"))
    }

    pub(super) fn open_map(&self, name: &str) -> Result<Option<Map>, Error> {
        Map::open(&self.map(name), name)
    }

    pub(super) fn remove_map(&self, name: &str) -> Result<(), Error> {
        unpin(&self.map(name))
    }

    fn load(&self, id: &LoadId) -> PathBuf {
        self.root.join("loads").join(format!("{}#{}", escape(&id.owner), id.generation))
    }

    /// Pins a load's programs and its own maps, and its record last.
    pub(super) fn add_load(&self, id: &LoadId, loaded: &Loaded, record: &[u8]) -> Result<(), Error> {
        self.remove_load(id)?;
        let directory = self.load(id);
        make(&directory)?;
        for (name, program) in &loaded.programs {
            program.pin(&directory.join(name))?;
        }
        // An array of programs forgets them once nobody but programs holds it.
        if let Some(calls) = loaded.maps.get(skep_abi::map::CALLS.name) {
            calls.pin(&directory.join(skep_abi::map::CALLS.name))?;
        }
        record_map(record)?.pin(&directory.join(RECORD))
    }

    /// Pins bytes under a name, in place of those that were there: a reader sees the old ones or the new ones.
    pub(super) fn set_record(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (new, path) = (self.root.join("records").join("new"), self.root.join("records").join(name));
        unpin(&new)?;
        record_map(bytes)?.pin(&new)?;
        fs::rename(&new, &path).map_err(|e| failed(&path, e))
    }

    pub(super) fn record(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let map = Map::open(&self.root.join("records").join(name), RECORD)?;
        map.map(|map| map.lookup(&0_u32.to_ne_bytes())).transpose().map(Option::flatten)
    }

    pub(super) fn remove_load(&self, id: &LoadId) -> Result<(), Error> {
        let directory = self.load(id);
        // The record first: without it the rest is no load.
        unpin(&directory.join(RECORD))?;
        remove_directory(&directory)
    }

    /// The loads that are whole; what is left of others is removed.
    pub(super) fn loads(&self) -> Result<Vec<(LoadId, Load)>, Error> {
        let mut found = Vec::new();
        for name in names(&self.root.join("loads"))? {
            let id = name.rsplit_once('#').and_then(|(owner, generation)| {
                Some(LoadId { owner: unescape(owner), generation: generation.parse().ok()? })
            });
            let record = Map::open(&self.root.join("loads").join(&name).join(RECORD), RECORD)?;
            let record = record.map(|map| map.lookup(&0_u32.to_ne_bytes())).transpose()?.flatten();
            match (id, record.as_deref().and_then(record::decode)) {
                (Some(id), Some(load)) => found.push((id, load)),
                _ => remove_directory(&self.root.join("loads").join(&name))?,
            }
        }
        Ok(found)
    }

    pub(super) fn open_program(&self, id: &LoadId, name: &str) -> Result<Option<Program>, Error> {
        Program::open(&self.load(id).join(name), name)
    }

    pub(super) fn link(&self, device: &str, hook: TcxHook) -> Result<PathBuf, Error> {
        let way = match hook {
            TcxHook::Ingress => "ingress",
            TcxHook::Egress => "egress",
        };
        Ok(self.root.join("links").join(format!("{}#{way}", escape(device))))
    }

    pub(super) fn remove_link(&self, device: &str, hook: TcxHook) -> Result<(), Error> {
        unpin(&self.link(device, hook)?)
    }

    pub(super) fn attached(&self) -> Result<Vec<PinnedLink>, Error> {
        let directory = self.root.join("links");
        let point = |name: &str| {
            let (device, way) = name.rsplit_once('#')?;
            let hook = if way == "ingress" { Hook::TcIngress } else { Hook::TcEgress };
            Some(HookPoint { link: Link::root(unescape(device)), hook })
        };
        Ok(names(&directory)?
            .into_iter()
            .filter_map(|name| Some(PinnedLink { point: point(&name)?, path: directory.join(&name) }))
            .collect())
    }

    /// What is attached there; `None` once its device is gone, and then the pin goes too.
    pub(super) fn live(&self, pinned: &PinnedLink) -> Result<Option<u32>, Error> {
        let Some(link) = TcxLink::open(&pinned.path)? else { return Ok(None) };
        let info = link.info()?;
        if info.ifindex == 0 {
            unpin(&pinned.path)?;
            return Ok(None);
        }
        Ok(Some(info.program))
    }
}

/// The directory of the pins of all versions.
pub(super) fn top(bpffs: &Path) -> PathBuf {
    bpffs.join("skep")
}

/// An array whose one value is these bytes.
fn record_map(bytes: &[u8]) -> Result<Map, Error> {
    const ARRAY: u32 = 2;
    let shape = MapShape {
        name: RECORD.to_owned(),
        kind: ARRAY,
        key_size: 4,
        value_size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        max_entries: 1,
        flags: 0,
    };
    let map = Map::create(shape)?;
    map.update(&0_u32.to_ne_bytes(), bytes)?;
    Ok(map)
}

/// The links that are pinned below a bpffs, by any version, with their names.
pub(super) fn links(bpffs: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let top = top(bpffs);
    let mut all = Vec::new();
    for version in names(&top)? {
        let directory = top.join(version).join("links");
        all.extend(names(&directory)?.into_iter().map(|name| (unescape(&name), directory.join(&name))));
    }
    Ok(all)
}

/// Removes all pins of all versions; where they were, if there were any.
pub(super) fn remove_all(bpffs: &Path) -> Result<Option<PathBuf>, Error> {
    let top = top(bpffs);
    let there = top.exists();
    remove_directory(&top)?;
    Ok(there.then_some(top))
}

/// A bpffs takes no dot in a name, and devices may have one.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

fn failed(path: &Path, e: io::Error) -> Error {
    Error::kernel(path.display().to_string(), e)
}

fn make(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| failed(path, e))
}

/// The names in a directory, in order; none if it is not there.
fn names(path: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(path, e)),
    };
    let mut all = Vec::new();
    for entry in entries {
        all.push(entry.map_err(|e| failed(path, e))?.file_name().to_string_lossy().into_owned());
    }
    all.sort();
    Ok(all)
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_dots_comes_back() {
        for name in ["eth0", "eth0.100", "a%2eb", "%25."] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
