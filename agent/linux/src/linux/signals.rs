//! Signals as something to wait for, in place of handlers that interrupt.
//!
//! Knows signalfd(2) and poll(2). Does not know what a signal is taken for.
#![expect(unsafe_code, reason = "pthread_sigmask(3), signalfd(2), poll(2) and read(2) are calls of libc")]

use crate::Error;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// What another process can ask of this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGTERM or SIGINT: to end.
    End,
    /// SIGHUP: to look at its input again.
    Again,
}

/// Why a wait is over; for neither reason if the time has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Woken {
    /// A signal has come.
    pub signal: Option<Signal>,
    /// The other descriptor is readable, or was closed at its other end.
    pub other: bool,
}

/// SIGTERM, SIGINT and SIGHUP, which wait until they are asked for.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Keeps these signals from ending the process. They stay so in threads that the calling one makes from now on, and
    /// the processes that it starts must be asked to end otherwise: call it in the main thread, first of all.
    ///
    /// # Errors
    ///
    /// When the process has too many descriptors.
    pub fn hold() -> Result<Self, Error> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set, the others read or change one that is; a null pointer for the old
        // mask is allowed.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if failed != 0 {
                return Err(Error::kernel("pthread_sigmask", io::Error::from_raw_os_error(failed)));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(Error::kernel("signalfd", io::Error::last_os_error()));
        }
        // SAFETY: the call succeeded and returned a new descriptor, which nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Waits for one of the signals, for `other` to become readable, or for the time to pass.
    ///
    /// # Errors
    ///
    /// What poll(2) and read(2) say.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<Woken, Error> {
        // Rounded up, or a wait for less than a millisecond would be none.
        let limit = i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // poll(2) passes over a negative descriptor.
        let mut fds = [entry(self.fd.as_raw_fd()), entry(other.map_or(-1, |fd| fd.as_raw_fd()))];
        // SAFETY: `fds` is an array of two, whose descriptors are open for as long as they are borrowed.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, limit) };
        if ready < 0 {
            let e = io::Error::last_os_error();
            let interrupted = e.kind() == io::ErrorKind::Interrupted;
            let woken = Woken { signal: None, other: false };
            return if interrupted { Ok(woken) } else { Err(Error::kernel("poll", e)) };
        }
        Ok(Woken { signal: self.take()?, other: fds[1].revents != 0 })
    }

    fn take(&self) -> Result<Option<Signal>, Error> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is `size` writable bytes.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read < 0 {
            let e = io::Error::last_os_error();
            let none = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if none { Ok(None) } else { Err(Error::kernel("signalfd", e)) };
        }
        // SAFETY: every bit pattern is a signalfd_siginfo, and it began as zeros.
        let number = unsafe { info.assume_init() }.ssi_signo;
        Ok(Some(if number == libc::SIGHUP as u32 { Signal::Again } else { Signal::End }))
    }
}
