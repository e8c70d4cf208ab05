//! `bpf_skb_set_tunnel_key` and `bpf_skb_get_tunnel_key`, for IPv4.
//!
//! What a program sets has the remote address as the outer destination; what is read back is always the outer source
//! as remote. So metadata set and read on one node has both addresses exchanged, as in the kernel.

use skep_packet::Tunnel;

use super::skb::packet;
use super::{Call, Outcome, refused};
use crate::scope::Scope;
use crate::{Errno, FaultKind};

/// Bytes of `struct bpf_tunnel_key`.
const SIZE: usize = 44;
/// Sizes that older programs pass: up to `local_ipv6`, `tunnel_label`, `tunnel_ext`, `remote_ipv6[1]`.
const COMPATIBLE: [usize; 4] = [28, 24, 22, 8];

const TUNINFO_IPV6: u64 = 1;
const TUNINFO_FLAGS: u64 = 1 << 4;
const ZERO_CSUM_TX: u64 = 1 << 1;
const DONT_FRAGMENT: u64 = 1 << 2;
const SEQ_NUMBER: u64 = 1 << 3;
const NO_TUNNEL_KEY: u64 = 1 << 4;

/// `IP_TUNNEL_*_BIT`, as bits.
const TUNNEL_CSUM: u16 = 1 << 0;
const TUNNEL_KEY: u16 = 1 << 2;
const TUNNEL_SEQ: u16 = 1 << 3;
const TUNNEL_DONT_FRAGMENT: u16 = 1 << 8;
const TUNNEL_NOCACHE: u16 = 1 << 13;

pub(super) fn set_key(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (size, flags) = (call.arg32(3) as usize, call.arg(4));
    call.check_context(scope)?;
    let given = call.place(scope, 2, size)?;
    if flags & !(TUNINFO_IPV6 | ZERO_CSUM_TX | DONT_FRAGMENT | SEQ_NUMBER | NO_TUNNEL_KEY) != 0 {
        return refused(Errno::EINVAL);
    }
    if size != SIZE && !COMPATIBLE.contains(&size) {
        return refused(Errno::EINVAL);
    }
    let mut key = [0; SIZE];
    key[..size].copy_from_slice(scope.kernel.arena.slice(given, size));
    let word = |at: usize| u32::from_le_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
    let (label, ext) = (word(24), u16::from_le_bytes([key[22], key[23]]));
    if flags & TUNINFO_IPV6 == 0 && label != 0 || ext != 0 {
        return refused(Errno::EINVAL);
    }
    if flags & TUNINFO_IPV6 != 0 {
        return Err(FaultKind::Unsupported {
            helper: call.number,
            what: "tunnels over IPv6 are not supported here",
        });
    }
    let when = |condition: bool, flag: u16| if condition { flag } else { 0 };
    let tunnel = Tunnel {
        id: word(0),
        remote: word(4).to_be_bytes(),
        local: word(28).to_be_bytes(),
        tos: key[20],
        ttl: key[21],
        flags: TUNNEL_NOCACHE
            | when(flags & DONT_FRAGMENT != 0, TUNNEL_DONT_FRAGMENT)
            | when(flags & ZERO_CSUM_TX == 0, TUNNEL_CSUM)
            | when(flags & SEQ_NUMBER != 0, TUNNEL_SEQ)
            | when(flags & NO_TUNNEL_KEY == 0, TUNNEL_KEY),
        transmit: true,
    };
    packet(scope, call)?.skb.tunnel = Some(tunnel);
    Ok(0)
}

pub(super) fn get_key(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (size, flags) = (call.arg32(3) as usize, call.arg(4));
    let to = call.room(scope, 2, size)?;
    let read = read_key(packet(scope, call)?.skb.tunnel, size, flags);
    let place = scope.kernel.arena.slice_mut(to, size);
    match read {
        Ok(key) => {
            place.copy_from_slice(&key[..size]);
            Ok(0)
        }
        Err(errno) => {
            place.fill(0);
            refused(errno)
        }
    }
}

fn read_key(tunnel: Option<Tunnel>, size: usize, flags: u64) -> Result<[u8; SIZE], Errno> {
    let tunnel = tunnel.filter(|_| flags & !(TUNINFO_IPV6 | TUNINFO_FLAGS) == 0).ok_or(Errno::EINVAL)?;
    if flags & TUNINFO_IPV6 != 0 {
        return Err(Errno::EPROTO);
    }
    if size != SIZE && !COMPATIBLE.contains(&size) {
        return Err(Errno::EINVAL);
    }
    // The outer source is remote, whoever wrote the metadata.
    let (remote, local) =
        if tunnel.transmit { (tunnel.local, tunnel.remote) } else { (tunnel.remote, tunnel.local) };
    let host_order = |address| u32::from_be_bytes(address).to_le_bytes();
    let mut key = [0; SIZE];
    key[..4].copy_from_slice(&tunnel.id.to_le_bytes());
    key[4..8].copy_from_slice(&host_order(remote));
    key[20] = tunnel.tos;
    key[21] = tunnel.ttl;
    if flags & TUNINFO_FLAGS != 0 {
        key[22..24].copy_from_slice(&tunnel.flags.to_be_bytes());
    }
    key[28..32].copy_from_slice(&host_order(local));
    Ok(key)
}

/// `IP_TUNNEL_OPTS_MAX`
const OPTIONS_MAX: usize = 255;

pub(super) fn set_options(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(3) as usize;
    let given = call.bytes(scope, 2, size)?;
    let skb = &mut *packet(scope, call)?.skb;
    if skb.tunnel.is_none_or(|t| !t.transmit) || !size.is_multiple_of(4) {
        return refused(Errno::EINVAL);
    }
    if size > OPTIONS_MAX {
        return refused(Errno::ENOMEM);
    }
    skb.tunnel_options = given;
    Ok(0)
}

pub(super) fn get_options(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(3) as usize;
    let to = call.room(scope, 2, size)?;
    let skb = &*packet(scope, call)?.skb;
    let options = skb.tunnel_options.clone();
    let errno = match skb.tunnel {
        None => Some(Errno::ENOENT),
        Some(_) if options.is_empty() => Some(Errno::ENOENT),
        Some(_) if size < options.len() => Some(Errno::ENOMEM),
        Some(_) => None,
    };
    let place = scope.kernel.arena.slice_mut(to, size);
    place.fill(0);
    if let Some(errno) = errno {
        return refused(errno);
    }
    place[..options.len()].copy_from_slice(&options);
    Ok(options.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Tunnel {
        Tunnel { id: 7, local: [10, 0, 0, 1], remote: [10, 0, 0, 2], transmit: true, ..Tunnel::default() }
    }

    #[test]
    fn what_was_set_here_is_read_with_the_addresses_exchanged() {
        let key = read_key(Some(sent()), SIZE, 0).unwrap();
        assert_eq!(key[4..8], [1, 0, 0, 10]);
        assert_eq!(key[28..32], [2, 0, 0, 10]);
    }

    #[test]
    fn what_was_received_is_read_as_it_came() {
        let key = read_key(Some(Tunnel { transmit: false, ..sent() }), SIZE, 0).unwrap();
        assert_eq!((key[0], &key[4..8]), (7, &[2, 0, 0, 10][..]));
    }

    #[test]
    fn errors_are_the_kernels() {
        assert_eq!(read_key(None, SIZE, 0), Err(Errno::EINVAL));
        assert_eq!(read_key(Some(sent()), SIZE, 1), Err(Errno::EPROTO));
        assert_eq!(read_key(Some(sent()), 30, 0), Err(Errno::EINVAL));
        assert_eq!(read_key(Some(sent()), SIZE, 4), Err(Errno::EINVAL));
        assert!(read_key(Some(sent()), 8, 0).is_ok());
    }
}
