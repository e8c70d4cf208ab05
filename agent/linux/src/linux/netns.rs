//! Network namespaces that have no name, and private mounts: both end with the processes that hold them.
//!
//! Knows setns(2), unshare(2) and mount(2). Does not know what stands in a namespace.
#![expect(unsafe_code, reason = "setns(2), unshare(2), mount(2) and statfs(2) are calls of libc")]

use crate::Error;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Which namespace the calling thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, held open: it lives at least as long as this.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Without /proc.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(OWN))
    }

    /// A namespace by a file that stands for it, such as those below /var/run/netns.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::kernel(path.display().to_string(), e))?;
        Ok(Self { fd: file.into() })
    }

    /// A new namespace without a name: nothing but descriptors and threads holds it.
    ///
    /// # Errors
    ///
    /// What unshare(2) says: without CAP_SYS_ADMIN that it is not permitted.
    pub fn new() -> Result<Self, Error> {
        let thread = std::thread::spawn(|| {
            unshare(libc::CLONE_NEWNET)?;
            Self::current()
        });
        thread.join().unwrap_or_else(|_| Err(Error::kernel("a new network namespace", broken())))
    }

    /// Another descriptor of the same namespace.
    ///
    /// # Errors
    ///
    /// When the process has too many of them.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.fd.try_clone().map(|fd| Self { fd }).map_err(|e| Error::kernel("a network namespace", e))
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    ///
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), Error> {
        // SAFETY: the call takes a descriptor that is open as long as `self` and a number.
        let result = unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) };
        if result < 0 {
            return Err(Error::kernel("entering a network namespace", io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Runs `work` on a thread of its own in the namespace. What it opens there stays of that namespace.
    ///
    /// # Errors
    ///
    /// As [`Netns::enter`].
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|_| Err(Error::kernel("work in a network namespace", broken())))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn broken() -> io::Error {
    io::Error::other("a thread panicked")
}

fn unshare(flags: libc::c_int) -> Result<(), Error> {
    // SAFETY: the call takes a number, and changes the calling thread only.
    let result = unsafe { libc::unshare(flags) };
    if result < 0 {
        let e = io::Error::last_os_error();
        return Err(match e.raw_os_error() {
            Some(libc::EPERM) => Error::NotPermitted,
            _ => Error::kernel("unshare(2)", e),
        });
    }
    Ok(())
}

/// Gives the calling thread mounts of its own: what it mounts from now on ends with it, and nobody else sees it.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
pub fn private_mounts() -> Result<(), Error> {
    unshare(libc::CLONE_NEWNS)?;
    mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Mounts a BPF file system.
///
/// # Errors
///
/// What mount(2) says.
pub fn mount_bpffs(at: &Path) -> Result<(), Error> {
    let at = at.to_str().ok_or_else(|| Error::kernel("mounting a bpffs", io::Error::other("not UTF-8")))?;
    mount("bpffs", at, Some("bpf"), 0)
}

/// Refuses a directory that is on no BPF file system.
pub(super) fn check_bpffs(at: &Path) -> Result<(), Error> {
    const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
    let failed = |e| Error::kernel(at.display().to_string(), e);
    let path = CString::new(at.as_os_str().as_encoded_bytes()).map_err(|e| failed(io::Error::other(e)))?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a string that ends with zero and a statfs to write to, both of which live until after the call.
    let result = unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) };
    if result < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: every bit pattern is a statfs, and it began as zeros.
    let magic = unsafe { found.assume_init() }.f_type as u32;
    if magic == BPF_FS_MAGIC { Ok(()) } else { Err(Error::NoBpffs { path: at.to_owned() }) }
}

fn mount(source: &str, target: &str, kind: Option<&str>, flags: libc::c_ulong) -> Result<(), Error> {
    let text = |s: &str| CString::new(s).map_err(|e| Error::kernel(target, io::Error::other(e)));
    let (from, to) = (text(source)?, text(target)?);
    let kind = kind.map(text).transpose()?;
    let kind = kind.as_ref().map_or(std::ptr::null(), |k| k.as_ptr());
    // SAFETY: three strings that end with zero and live until after the call, or null, which these flags allow.
    let result = unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind, flags, std::ptr::null()) };
    if result < 0 {
        return Err(Error::kernel(format!("mounting {source} at {target}"), io::Error::last_os_error()));
    }
    Ok(())
}
