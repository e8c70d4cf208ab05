//! Frames as the devices of a namespace send and receive them (packet(7)), with their times; and what devices must
//! not do if frames are to be told apart.
//!
//! Does not know what a frame holds.
#![expect(unsafe_code, reason = "recvmsg(2), setsockopt(2) and SIOCETHTOOL take addresses")]

use super::sys::monotonic_ns;
use crate::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// A frame that a device sent or received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TappedFrame {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The device.
    pub ifindex: u32,
    /// Whether the device sent it.
    pub outgoing: bool,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// How long it is.
    pub len: usize,
}

/// A tap on all devices of a namespace.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    /// CLOCK_REALTIME less CLOCK_MONOTONIC, nanoseconds.
    offset: u64,
}

/// How much of a frame is kept: headers, in a tunnel too.
const SNAP: usize = 192;
/// Room for what nobody has read yet, bytes.
const ROOM: libc::c_int = 16 << 20;
const ETH_P_ALL: u16 = 3;

fn failed(what: &str) -> Error {
    Error::kernel(what, io::Error::last_os_error())
}

impl Tap {
    /// A tap on the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<Self, Error> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(ETH_P_ALL.to_be())) };
        if fd < 0 {
            return Err(failed("a packet socket"));
        }
        // SAFETY: the call succeeded and returned a new descriptor, which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM)?;
        set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        Ok(Self { fd, offset: realtime_ns().saturating_sub(monotonic_ns()) })
    }

    /// Takes all frames that are there.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) says but that there is none.
    pub fn drain(&mut self) -> Result<Vec<TappedFrame>, Error> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn receive(&mut self) -> Result<Option<TappedFrame>, Error> {
        let mut bytes = vec![0_u8; SNAP];
        let mut control = [0_u64; 16];
        // SAFETY: all-zero is a valid value of these structures of numbers and null addresses.
        let (mut from, mut message) =
            unsafe { (std::mem::zeroed::<libc::sockaddr_ll>(), std::mem::zeroed::<libc::msghdr>()) };
        let mut data = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: every address in `message` is that of a local variable, with its size beside it.
        let len = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
        if len < 0 {
            let e = io::Error::last_os_error();
            return match e.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::Interrupted => self.receive(),
                _ => Err(Error::kernel("reading frames", e)),
            };
        }
        bytes.truncate(len as usize);
        Ok(Some(TappedFrame {
            time_ns: timestamp(&message).unwrap_or_else(realtime_ns).saturating_sub(self.offset),
            ifindex: from.sll_ifindex as u32,
            outgoing: u32::from(from.sll_pkttype) == u32::from(libc::PACKET_OUTGOING),
            bytes,
            len: len as usize,
        }))
    }
}

/// Writes frames to devices of a namespace, and sees none.
#[derive(Debug)]
pub struct FrameSender {
    fd: OwnedFd,
}

impl FrameSender {
    /// For devices of the calling thread's namespace.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW.
    pub fn open() -> Result<Self, Error> {
        let no_protocol = 0;
        // SAFETY: the call takes numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, no_protocol) };
        if fd < 0 {
            return Err(failed("a packet socket"));
        }
        // SAFETY: the call succeeded and returned a new descriptor, which nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sends a frame, from its Ethernet header on, by a device.
    ///
    /// # Errors
    ///
    /// What sendto(2) says: a device that is down or not there, a frame that is too short or too long.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> Result<(), Error> {
        // SAFETY: all-zero is a valid value of this structure of numbers.
        let mut to = unsafe { std::mem::zeroed::<libc::sockaddr_ll>() };
        to.sll_family = libc::AF_PACKET as libc::sa_family_t;
        to.sll_ifindex = ifindex as libc::c_int;
        to.sll_protocol = ETH_P_ALL.to_be();
        // SAFETY: both addresses are those of readable memory, with its size beside each.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(failed("sending a frame")) } else { Ok(()) }
    }
}

/// The time that the kernel noted, nanoseconds of CLOCK_REALTIME.
fn timestamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: recvmsg(2) filled the message in, and its control buffer still lives: the macros stay within it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(found) = header.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                return Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn realtime_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> Result<(), Error> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the address is that of a local number, with its size beside it.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if result < 0 { Err(failed("an option of a socket")) } else { Ok(()) }
}

/// Lets a socket of IPv4 hear of every ICMP error about what it sent, as ping(8) does (`IP_RECVERR`).
///
/// # Errors
///
/// For what is no such socket.
pub fn hear_icmp_errors(socket: &impl AsFd) -> Result<(), Error> {
    set_option(socket.as_fd(), libc::SOL_IP, libc::IP_RECVERR, 1)
}

/// Makes a device of the calling thread's namespace send and receive each segment by itself: no TSO, GSO or GRO.
///
/// # Errors
///
/// If there is no such device, or it cannot do without.
pub fn set_offloads_off(device: &str) -> Result<(), Error> {
    /// `SIOCETHTOOL`, and `ETHTOOL_STSO`, `ETHTOOL_SGSO`, `ETHTOOL_SGRO` (linux/ethtool.h).
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const COMMANDS: [u32; 3] = [0x1f, 0x24, 0x2c];
    // SAFETY: the call takes numbers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(failed("a socket"));
    }
    // SAFETY: the call succeeded and returned a new descriptor, which nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for command in COMMANDS {
        // struct ethtool_value: the command, and 0 for off.
        let mut value = [command, 0_u32];
        // SAFETY: all-zero is a valid value of this structure of bytes.
        let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(device.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: the request's name ends with zero, and its address is that of a structure of the command's size.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            return Err(failed(&format!("switching offloads of {device} off")));
        }
    }
    Ok(())
}
