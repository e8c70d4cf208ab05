//! That a node has one agent: a lock on the directory of its pins, which ends with the process that took it.

use super::pins;
use crate::Error;
use std::fs::{File, TryLockError};
use std::path::Path;

/// Held by the process that may change the node.
#[derive(Debug)]
pub struct NodeLock {
    /// None while there are no pins to lock.
    _directory: Option<File>,
}

impl NodeLock {
    /// Takes the lock of the node whose pins stand below `bpffs`. Where there are none yet there is nothing to lock:
    /// an agent takes it after [`super::LinuxNode::new`], which makes their directory.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if another process has it.
    pub fn take(bpffs: &Path) -> Result<Self, Error> {
        let path = pins::top(bpffs);
        if !path.exists() {
            return Ok(Self { _directory: None });
        }
        let failed = |e| Error::kernel(path.display().to_string(), e);
        let directory = File::open(&path).map_err(failed)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self { _directory: Some(directory) }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path }),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }
}
