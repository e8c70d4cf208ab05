//! Pins, links and what the kernel tells of an object: what lets a datapath outlive the process that made it.
//!
//! Knows bpf(2)'s BPF_OBJ_*, BPF_LINK_* and BPF_OBJ_GET_INFO_BY_FD. Does not know what a pin's name means.

use super::load::Program;
use super::map::{Map, MapShape};
use super::sys::{Attr, Command, bpf, bpf_fd};
use crate::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where tcx runs a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcxHook {
    /// `BPF_TCX_INGRESS`.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`.
    Egress = 47,
}

/// A program at a hook of a device: it runs as long as this, or a pin of it.
#[derive(Debug)]
pub struct TcxLink {
    fd: OwnedFd,
}

/// What a link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// The program's id.
    pub program: u32,
    /// The device; 0 once it is gone.
    pub ifindex: u32,
}

fn c_path(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn pin(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    let name = c_path(path);
    bpf(Command::ObjPin, &mut Attr::new().bytes(0, &name).u32(8, fd.as_raw_fd() as u32))
        .map(drop)
        .map_err(|e| Error::kernel(format!("pinning {}", path.display()), e))
}

fn open(path: &Path) -> Result<Option<OwnedFd>, Error> {
    let name = c_path(path);
    match bpf_fd(Command::ObjGet, &mut Attr::new().bytes(0, &name)) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(Error::kernel(format!("opening {}", path.display()), e)),
    }
}

/// The ids of all links of the kernel, whoever made them: what is attached anywhere.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
pub fn link_ids() -> Result<Vec<u32>, Error> {
    let (mut ids, mut last) = (Vec::new(), 0);
    loop {
        let mut attr = Attr::new().u32(0, last);
        match bpf(Command::LinkNextId, &mut attr) {
            Ok(_) => {
                last = attr.read_u32(4);
                ids.push(last);
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(e) => return Err(Error::kernel("listing links", e)),
        }
    }
}

/// Removes a pin; that there is none is no error.
///
/// # Errors
///
/// What unlink(2) says.
pub fn unpin(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::kernel(format!("removing the pin {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// BPF_OBJ_GET_INFO_BY_FD: the first bytes of the object's info structure.
fn info<const N: usize>(fd: &OwnedFd) -> Result<[u8; N], Error> {
    let mut raw = [0; N];
    let mut attr = Attr::new().u32(0, fd.as_raw_fd() as u32).u32(4, N as u32).bytes_mut(8, &mut raw);
    bpf(Command::ObjInfo, &mut attr).map_err(|e| Error::kernel("asking about a BPF object", e))?;
    Ok(raw)
}

fn word(raw: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}

impl Map {
    /// Pins the map.
    ///
    /// # Errors
    ///
    /// What the kernel says: something is pinned there, or it is no bpffs.
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        pin(self.fd(), path)
    }

    /// Opens a pinned map; none if nothing is pinned there. The name is that of `name`, as the kernel cuts names.
    ///
    /// # Errors
    ///
    /// What the kernel says: it is no map, no permission.
    pub fn open(path: &Path, name: &str) -> Result<Option<Self>, Error> {
        let Some(fd) = open(path)? else { return Ok(None) };
        // struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags.
        let raw = info::<24>(&fd)?;
        let shape = MapShape {
            name: name.to_owned(),
            kind: word(&raw, 0),
            key_size: word(&raw, 8),
            value_size: word(&raw, 12),
            max_entries: word(&raw, 16),
            flags: word(&raw, 20),
        };
        Self::from_fd(fd, shape).map(Some)
    }

    /// The id of the program in a slot of an array of programs.
    ///
    /// # Errors
    ///
    /// Where the map is not such an array.
    pub fn program_id(&self, index: u32) -> Result<Option<u32>, Error> {
        Ok(self.lookup(&index.to_ne_bytes())?.map(|value| word(&value, 0)))
    }
}

impl Program {
    /// Pins the program.
    ///
    /// # Errors
    ///
    /// As [`Map::pin`].
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        pin(&self.fd, path)
    }

    /// Opens a pinned program; none if nothing is pinned there. What the verifier counted is not known any more.
    ///
    /// # Errors
    ///
    /// As [`Map::open`].
    pub fn open(path: &Path, name: &str) -> Result<Option<Self>, Error> {
        let program = |fd| Self { fd, name: name.to_owned(), statistics: Default::default() };
        Ok(open(path)?.map(program))
    }

    /// The kernel's number of the program.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn id(&self) -> Result<u32, Error> {
        // struct bpf_prog_info: type, id.
        Ok(word(&info::<8>(&self.fd)?, 4))
    }
}

impl TcxLink {
    /// Attaches a program to a device of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// What the kernel says: no tcx (before 6.6), no such device.
    pub fn attach(program: &Program, ifindex: u32, hook: TcxHook) -> Result<Self, Error> {
        let mut attr = Attr::new().u32(0, program.fd.as_raw_fd() as u32).u32(4, ifindex).u32(8, hook as u32);
        bpf_fd(Command::LinkCreate, &mut attr)
            .map(|fd| Self { fd })
            .map_err(|e| Error::kernel(format!("attaching {} to device {ifindex}", program.name), e))
    }

    /// Puts another program in the place of the one that runs, in one step.
    ///
    /// # Errors
    ///
    /// What the kernel says: the device is gone.
    pub fn replace(&self, program: &Program) -> Result<(), Error> {
        let mut attr = Attr::new().u32(0, self.fd.as_raw_fd() as u32).u32(4, program.fd.as_raw_fd() as u32);
        bpf(Command::LinkUpdate, &mut attr)
            .map(drop)
            .map_err(|e| Error::kernel(format!("replacing a program by {}", program.name), e))
    }

    /// Takes the program off the device, whoever holds the link.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn detach(&self) -> Result<(), Error> {
        match bpf(Command::LinkDetach, &mut Attr::new().u32(0, self.fd.as_raw_fd() as u32)) {
            Err(e) if e.raw_os_error() != Some(libc::ENOLINK) => Err(Error::kernel("detaching a program", e)),
            _ => Ok(()),
        }
    }

    /// Pins the link.
    ///
    /// # Errors
    ///
    /// As [`Map::pin`].
    pub fn pin(&self, path: &Path) -> Result<(), Error> {
        pin(&self.fd, path)
    }

    /// Opens a pinned link; none if nothing is pinned there.
    ///
    /// # Errors
    ///
    /// As [`Map::open`].
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        Ok(open(path)?.map(|fd| Self { fd }))
    }

    /// What it holds.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn info(&self) -> Result<LinkInfo, Error> {
        // struct bpf_link_info: type, id, prog_id, padding; of tcx: ifindex, attach_type.
        let raw = info::<24>(&self.fd)?;
        Ok(LinkInfo { program: word(&raw, 8), ifindex: word(&raw, 16) })
    }
}

impl AsFd for TcxLink {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
