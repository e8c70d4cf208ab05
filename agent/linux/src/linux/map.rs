//! Maps of the running kernel, by bytes.
//!
//! Knows sizes and per-CPU layout. Does not know what keys and values mean.

use super::sys::{Attr, Command, bpf, bpf_fd, possible_cpus};
use crate::Error;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// What a map is: what BPF_MAP_CREATE needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapShape {
    /// The name.
    pub name: String,
    /// The kernel's number of its type (`enum bpf_map_type`).
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many entries it holds; 0 means one a possible CPU.
    pub max_entries: u32,
    /// `BPF_F_*` flags.
    pub flags: u32,
}

impl From<&skep_abi::map::MapSpec> for MapShape {
    fn from(spec: &skep_abi::map::MapSpec) -> Self {
        Self {
            name: spec.name.to_owned(),
            kind: spec.kind as u32,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            flags: spec.flags,
        }
    }
}

/// A key, and its value; in a per-CPU map its values, one a CPU.
pub type Entry = (Vec<u8>, Vec<Vec<u8>>);

/// A map of the running kernel. It lives as long as this or a program that uses it.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    shape: MapShape,
    /// How many values the kernel hands over for a key.
    values: usize,
}

const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const LRU_PERCPU_HASH: u32 = 10;

impl Map {
    /// Makes a map.
    ///
    /// # Errors
    ///
    /// What the kernel refuses: a type it does not have, sizes it does not take, no permission.
    pub fn create(shape: MapShape) -> Result<Self, Error> {
        let cpus = possible_cpus()?;
        let entries = if shape.max_entries == 0 { cpus } else { shape.max_entries };
        let mut attr = Attr::new()
            .u32(0, shape.kind)
            .u32(4, shape.key_size)
            .u32(8, shape.value_size)
            .u32(12, entries)
            .u32(16, shape.flags)
            .name(28, &shape.name);
        let fd = bpf_fd(Command::MapCreate, &mut attr)
            .map_err(|e| Error::kernel(format!("making the map {}", shape.name), e))?;
        Self::from_fd(fd, shape)
    }

    /// A map that is there.
    pub(super) fn from_fd(fd: OwnedFd, shape: MapShape) -> Result<Self, Error> {
        let cpus = possible_cpus()?;
        let per_cpu = matches!(shape.kind, PERCPU_HASH | PERCPU_ARRAY | LRU_PERCPU_HASH);
        Ok(Self { fd, shape, values: if per_cpu { cpus as usize } else { 1 } })
    }

    /// What the map is.
    pub fn shape(&self) -> &MapShape {
        &self.shape
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Bytes of one CPU's value in what the kernel hands over: a multiple of eight where there is one a CPU.
    fn stride(&self) -> usize {
        let size = self.shape.value_size as usize;
        if self.values == 1 { size } else { size.next_multiple_of(8) }
    }

    fn check(&self, what: &str, have: usize, want: usize) -> Result<(), Error> {
        if have == want {
            return Ok(());
        }
        let why = format!("a {what} of {have} bytes where the map has {want}");
        Err(Error::kernel(self.shape.name.clone(), io::Error::new(io::ErrorKind::InvalidInput, why)))
    }

    fn attr<'a>(&self, key: &'a [u8]) -> Attr<'a> {
        Attr::new().u32(0, self.fd.as_raw_fd() as u32).bytes(8, key)
    }

    /// The value of a key, or `None`. In a per-CPU map the values of all CPUs, one after another.
    ///
    /// # Errors
    ///
    /// A key of another size, or what the kernel says but "no such entry".
    pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.check("key", key.len(), self.shape.key_size as usize)?;
        let mut value = vec![0; self.stride() * self.values];
        match bpf(Command::MapLookup, &mut self.attr(key).bytes_mut(16, &mut value)) {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(Error::kernel(format!("reading {}", self.shape.name), e)),
        }
    }

    /// The values of a key, one a CPU; one value where the map has one for all.
    ///
    /// # Errors
    ///
    /// As [`Map::lookup`].
    pub fn lookup_cpus(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let size = self.shape.value_size as usize;
        let split = |all: Vec<u8>| all.chunks_exact(self.stride()).map(|v| v[..size].to_vec()).collect();
        Ok(self.lookup(key)?.map(split))
    }

    /// Writes an entry; in a per-CPU map the value goes to the first CPU and the others get zeros.
    ///
    /// # Errors
    ///
    /// A key or value of another size, a full map.
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.check("key", key.len(), self.shape.key_size as usize)?;
        self.check("value", value.len(), self.shape.value_size as usize)?;
        let mut all = vec![0; self.stride() * self.values];
        all[..value.len()].copy_from_slice(value);
        self.write(key, &all)
    }

    /// Puts a descriptor into an array of programs or of perf events.
    pub(super) fn set_fd(&self, index: u32, fd: &OwnedFd) -> Result<(), Error> {
        self.update(&index.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes())
    }

    fn write(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        bpf(Command::MapUpdate, &mut self.attr(key).bytes(16, value))
            .map(drop)
            .map_err(|e| Error::kernel(format!("writing to {}", self.shape.name), e))
    }

    /// Deletes an entry; whether there was one.
    ///
    /// # Errors
    ///
    /// A key of another size, a map of a type that deletes nothing.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.check("key", key.len(), self.shape.key_size as usize)?;
        match bpf(Command::MapDelete, &mut self.attr(key)) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(Error::kernel(format!("deleting from {}", self.shape.name), e)),
        }
    }

    /// All keys, in the bytes' order. What changes meanwhile may be missed or met twice.
    ///
    /// # Errors
    ///
    /// What the kernel says but "no further entry".
    pub fn keys(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        let mut next = vec![0; self.shape.key_size as usize];
        loop {
            let attr = Attr::new().u32(0, self.fd.as_raw_fd() as u32);
            let attr = match keys.last() {
                Some(k) => attr.bytes(8, k),
                None => attr,
            };
            match bpf(Command::MapNextKey, &mut attr.bytes_mut(16, &mut next)) {
                Ok(_) => keys.push(next.clone()),
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
                Err(e) => return Err(Error::kernel(format!("listing {}", self.shape.name), e)),
            }
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// All entries, by key; in a per-CPU map with the values of all CPUs.
    ///
    /// # Errors
    ///
    /// As [`Map::keys`] and [`Map::lookup`].
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut out = Vec::new();
        for key in self.keys()? {
            if let Some(values) = self.lookup_cpus(&key)? {
                out.push((key, values));
            }
        }
        Ok(out)
    }

    /// Deletes all entries.
    ///
    /// # Errors
    ///
    /// As [`Map::keys`] and [`Map::delete`].
    pub fn clear(&self) -> Result<(), Error> {
        for key in self.keys()? {
            self.delete(&key)?;
        }
        Ok(())
    }

    /// Makes the map read-only for user space, as the verifier wants it for constants.
    pub(super) fn freeze(&self) -> Result<(), Error> {
        bpf(Command::MapFreeze, &mut Attr::new().u32(0, self.fd.as_raw_fd() as u32))
            .map(drop)
            .map_err(|e| Error::kernel(format!("freezing {}", self.shape.name), e))
    }
}
