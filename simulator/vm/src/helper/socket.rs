//! Helpers on sockets: finding them, their options, and the maps that hold them.

use std::net::{IpAddr, SocketAddr};

use super::maps::{map_of_kind, socket_address};
use super::{Call, Outcome, refused, result};
use crate::input::Rest;
use crate::map::Found;
use crate::scope::Scope;
use crate::sock::{LISTEN, SOCK_SIZE, Socket, SocketId};
use crate::{Errno, FaultKind, MapId, ProgramKind, Redirect, RedirectKind, Region, SocketQuestion, map_kind};

/// Bytes of `struct bpf_sock` with `struct bpf_tcp_sock` behind it.
pub(super) const BYTES: u64 = (SOCK_SIZE + crate::sock::TCP_SIZE) as u64;
/// `BPF_F_INGRESS`
const INGRESS: u64 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// `overflowuid`
const NOBODY: u64 = 65534;

/// The socket that an argument points to.
pub(super) fn socket(scope: &Scope<'_>, call: Call, n: u8) -> Result<SocketId, FaultKind> {
    let at = scope.kernel.arena.offset(call.arg(n), 1);
    let id = at.and_then(|at| scope.kernel.sockets.at(at));
    id.ok_or(FaultKind::Argument { helper: call.number, argument: n, size: SOCK_SIZE })
}

/// The socket that the run is about, or that an argument points to.
fn own_socket(scope: &Scope<'_>, call: Call) -> Option<SocketId> {
    let pointed = scope.kernel.arena.offset(call.arg(1), 1).and_then(|at| scope.kernel.sockets.at(at));
    pointed.or_else(|| match &scope.rest {
        Rest::SockAddr(a) => a.socket,
        Rest::Sockopt(o) => o.socket,
        Rest::SockOps(o) => o.socket,
        Rest::Msg { socket, .. } => *socket,
        Rest::Sock(_) => None,
        Rest::None => {
            let id = SocketId(scope.packet.as_ref()?.skb.socket);
            scope.kernel.sockets.get(id).map(|_| id)
        }
    })
}

fn with_own<R>(scope: &Scope<'_>, call: Call, f: impl FnOnce(SocketId, &Socket) -> R) -> Option<R> {
    if let (Rest::Sock(socket), None) = (&scope.rest, own_socket(scope, call)) {
        return Some(f(SocketId(0), socket));
    }
    let id = own_socket(scope, call)?;
    scope.kernel.sockets.get(id).map(|s| f(id, s))
}

fn give(scope: &mut Scope<'_>, id: Option<SocketId>, offset: usize) -> Outcome {
    let place = id.map_or(0, |id| socket_address(scope, id));
    if place == 0 {
        return Ok(0);
    }
    scope.made = Some((BYTES - offset as u64, Region::Given));
    Ok(place + offset as u64)
}

/// `bpf_map_update_elem` of a map of sockets, whose value is a socket.
pub(super) fn map_update(scope: &mut Scope<'_>, call: Call, id: MapId) -> Outcome {
    let socket = socket(scope, call, 3)?;
    put(scope, call, id, 2, socket, call.arg(4))
}

/// Puts a socket into a map, at the key that an argument points to.
fn put(scope: &mut Scope<'_>, call: Call, id: MapId, key: u8, socket: SocketId, flags: u64) -> Outcome {
    let size = scope.kernel.maps.get(id).map_or(0, |m| m.key_size());
    let key = call.bytes(scope, key, size)?;
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("the caller found it");
    let size = map.value_size();
    let value = socket.0.to_le_bytes();
    result(map.write(&key, &value[..size.min(8)], flags, cpu, &mut kernel.arena))
}

const SOCKET_MAPS: &[u32] = &[map_kind::SOCKMAP, map_kind::SOCKHASH];
const NO_SOCKETS: &str = "its argument is no map of sockets";

/// `bpf_sock_map_update` and `bpf_sock_hash_update`, of a socket's events.
pub(super) fn ops_map_update(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, ..) = map_of_kind(call, scope, 2, SOCKET_MAPS, NO_SOCKETS)?;
    match own_socket(scope, call) {
        Some(socket) => put(scope, call, id, 3, socket, call.arg(4)),
        None => refused(Errno::EOPNOTSUPP),
    }
}

/// `bpf_sk_redirect_map`, `bpf_msg_redirect_map` (by index) and `..._hash` (by key): `SK_PASS`, or `SK_DROP`.
pub(super) fn redirect(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_any_context(scope)?;
    let (id, key_size, _) = map_of_kind(call, scope, 2, SOCKET_MAPS, NO_SOCKETS)?;
    let by_key = scope.kernel.map_def(id).is_some_and(|d| d.kind == map_kind::SOCKHASH);
    let key = if by_key { call.bytes(scope, 3, key_size)? } else { call.arg32(3).to_le_bytes().to_vec() };
    let flags = call.arg(4);
    if flags & !INGRESS != 0 {
        return Ok(0);
    }
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    let Some(Found::Socket(number)) = map.lookup(&key, scope.cpu, &kernel.arena) else { return Ok(0) };
    let kind = RedirectKind::Socket(SocketId(number));
    scope.run.redirect = Some(Redirect { ifindex: 0, flags, kind });
    Ok(1)
}

pub(super) fn lookup_tcp(scope: &mut Scope<'_>, call: Call) -> Outcome {
    lookup(scope, call, TCP, false)
}

pub(super) fn lookup_udp(scope: &mut Scope<'_>, call: Call) -> Outcome {
    lookup(scope, call, UDP, false)
}

pub(super) fn skc_lookup_tcp(scope: &mut Scope<'_>, call: Call) -> Outcome {
    lookup(scope, call, TCP, true)
}

fn lookup(scope: &mut Scope<'_>, call: Call, protocol: u32, any_state: bool) -> Outcome {
    let (len, netns, flags) = (call.arg32(3) as usize, call.arg(4) as i64, call.arg(5));
    let tuple = call.bytes(scope, 2, len)?;
    if flags != 0 || (netns as i32) >= 0 && netns > i64::from(i32::MAX) {
        return Ok(0);
    }
    let Some((source, destination)) = addresses(&tuple) else { return Ok(0) };
    let ifindex = scope.packet.as_ref().map_or(0, |p| p.skb.ifindex);
    let netns = if (netns as i32) < 0 { -1 } else { netns };
    let question = SocketQuestion { protocol, source, destination, ifindex, netns, any_state };
    let found = scope.env.socket_lookup(&question);
    let found = found.unwrap_or_else(|| scope.kernel.sockets.lookup(protocol, source, destination, ifindex));
    give(scope, found, 0)
}

/// The source and destination of a `struct bpf_sock_tuple`.
fn addresses(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| u16::from_be_bytes([tuple[at], tuple[at + 1]]);
    let four = |at: usize| IpAddr::from([tuple[at], tuple[at + 1], tuple[at + 2], tuple[at + 3]]);
    let six = |at: usize| {
        let octets: [u8; 16] = std::array::from_fn(|i| tuple[at + i]);
        IpAddr::from(octets)
    };
    let pair = |s, sp, d, dp| Some((SocketAddr::new(s, port(sp)), SocketAddr::new(d, port(dp))));
    match tuple.len() {
        12 => pair(four(0), 8, four(4), 10),
        36 => pair(six(0), 32, six(16), 34),
        _ => None,
    }
}

pub(super) fn release(scope: &mut Scope<'_>, call: Call) -> Outcome {
    socket(scope, call, 1)?;
    Ok(0)
}

pub(super) fn fullsock(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = own_socket(scope, call);
    give(scope, id, 0)
}

pub(super) fn tcp_sock(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = own_socket(scope, call);
    let id = id.filter(|id| scope.kernel.sockets.get(*id).is_some_and(|s| s.protocol == TCP));
    give(scope, id, SOCK_SIZE)
}

pub(super) fn listener(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let id = own_socket(scope, call);
    let id = id.filter(|id| scope.kernel.sockets.get(*id).is_some_and(|s| s.state == LISTEN));
    give(scope, id, 0)
}

pub(super) fn assign(scope: &mut Scope<'_>, call: Call) -> Outcome {
    call.check_context(scope)?;
    let flags = call.arg(3);
    if call.arg(2) == 0 || flags != 0 {
        return refused(Errno::EINVAL);
    }
    scope.run.assigned = Some(socket(scope, call, 2)?);
    Ok(0)
}

pub(super) fn cookie(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let cookie = with_own(scope, call, |id, s| if s.cookie == 0 { id.0 } else { s.cookie });
    Ok(cookie.unwrap_or(0))
}

pub(super) fn netns_cookie(scope: &mut Scope<'_>, call: Call) -> Outcome {
    Ok(with_own(scope, call, |_, s| s.netns_cookie).unwrap_or(1))
}

pub(super) fn uid(scope: &mut Scope<'_>, call: Call) -> Outcome {
    Ok(with_own(scope, call, |_, s| u64::from(s.uid)).unwrap_or(NOBODY))
}

const SOL_IP: i32 = 0;
const SOL_SOCKET: i32 = 1;
const SOL_TCP: i32 = 6;
const SOL_IPV6: i32 = 41;
/// `SO_MARK` and `SO_PRIORITY`
const MARK: i32 = 36;
const PRIORITY: i32 = 12;

/// Whether programs may reach an option, and how long it is; `None` for text of any length.
fn option_len(level: i32, name: i32) -> Option<Option<usize>> {
    match (level, name) {
        (SOL_SOCKET, 25) | (SOL_TCP, 13 | 28) => Some(None),
        (SOL_SOCKET, 2 | 7 | 8 | 9 | 12 | 15 | 18 | 36 | 47 | 62 | 74)
        | (SOL_IP, 1)
        | (SOL_IPV6, 67 | 70)
        | (SOL_TCP, 1 | 2 | 4 | 5 | 6 | 7 | 10 | 18 | 25 | 27 | 1001..=1008) => Some(Some(4)),
        _ => None,
    }
}

pub(super) fn setsockopt(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (level, name, len) = (call.arg(2) as i32, call.arg(3) as i32, call.arg32(5) as usize);
    let value = call.bytes(scope, 4, len)?;
    let Some(wanted) = option_len(level, name) else { return refused(Errno::EINVAL) };
    if wanted.is_some_and(|wanted| wanted != len) {
        return refused(Errno::EINVAL);
    }
    let number = value.get(..4).map_or(0, |v| u32::from_le_bytes(v.try_into().expect("four bytes")));
    let id = own_socket(scope, call);
    let socket = match (&mut scope.rest, id) {
        (Rest::Sock(socket), None) => Some(&mut **socket),
        (_, Some(id)) => scope.kernel.sockets.get_mut(id),
        _ => None,
    };
    let Some(socket) = socket else { return refused(Errno::EINVAL) };
    match (level, name) {
        (SOL_SOCKET, MARK) => socket.mark = number,
        (SOL_SOCKET, PRIORITY) => socket.priority = number,
        _ => {}
    }
    socket.options.insert((level, name), value);
    if let Some(id) = id {
        scope.kernel.sockets.refresh(id, &mut scope.kernel.arena);
    }
    Ok(0)
}

pub(super) fn getsockopt(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (level, name, len) = (call.arg(2) as i32, call.arg(3) as i32, call.arg32(5) as usize);
    let to = call.room(scope, 4, len)?;
    let found = with_own(scope, call, |_, s| match (level, name) {
        (SOL_SOCKET, MARK) => s.mark.to_le_bytes().to_vec(),
        (SOL_SOCKET, PRIORITY) => s.priority.to_le_bytes().to_vec(),
        _ => s.options.get(&(level, name)).cloned().unwrap_or_default(),
    });
    let wanted = option_len(level, name);
    let place = scope.kernel.arena.slice_mut(to, len);
    place.fill(0);
    let (Some(found), Some(wanted)) = (found, wanted) else { return refused(Errno::EINVAL) };
    if wanted.is_some_and(|wanted| wanted != len) {
        return refused(Errno::EINVAL);
    }
    let fits = found.len().min(len);
    place[..fits].copy_from_slice(&found[..fits]);
    Ok(0)
}

pub(super) fn bind(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let len = call.arg32(3) as usize;
    let address = call.bytes(scope, 2, len)?;
    let family = address.get(..2).map_or(0, |f| u16::from_le_bytes([f[0], f[1]]));
    let (ip, port) = match family {
        2 if len >= 16 => (IpAddr::from([address[4], address[5], address[6], address[7]]), &address[2..4]),
        10 if len >= 24 => {
            let octets: [u8; 16] = std::array::from_fn(|i| address[8 + i]);
            (IpAddr::from(octets), &address[2..4])
        }
        2 | 10 => return refused(Errno::EINVAL),
        _ => return refused(Errno::EAFNOSUPPORT),
    };
    let port = u16::from_be_bytes([port[0], port[1]]);
    let Some(id) = own_socket(scope, call) else { return refused(Errno::EINVAL) };
    if let Some(socket) = scope.kernel.sockets.get_mut(id) {
        socket.local = SocketAddr::new(ip, port);
        scope.kernel.sockets.refresh(id, &mut scope.kernel.arena);
    }
    Ok(0)
}

/// `bpf_sock_ops_cb_flags_set`: what it does not know.
pub(super) fn cb_flags_set(scope: &mut Scope<'_>, call: Call) -> Outcome {
    const ALL: u32 = 0x7f;
    let flags = call.arg32(2);
    let full = matches!(&scope.rest, Rest::SockOps(ops) if ops.is_fullsock);
    let Some(id) = own_socket(scope, call).filter(|_| full) else { return refused(Errno::EINVAL) };
    if let Some(socket) = scope.kernel.sockets.get_mut(id) {
        socket.cb_flags = flags & ALL;
    }
    let at = scope.slots().context + 84;
    scope.kernel.arena.slice_mut(at, 4).copy_from_slice(&(flags & ALL).to_le_bytes());
    Ok(u64::from(flags & !ALL))
}

pub(super) fn storage_get(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, _, size) =
        map_of_kind(call, scope, 1, &[map_kind::SK_STORAGE], "its argument is no socket storage")?;
    let flags = call.arg(4);
    if flags > 1 || call.arg(2) == 0 {
        return Ok(0);
    }
    let key = socket(scope, call, 2)?.0.to_le_bytes();
    let value = if call.arg(3) == 0 { None } else { Some(call.bytes(scope, 3, size)?) };
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    let mut found = map.lookup(&key, cpu, &kernel.arena);
    if found.is_none() && flags == 1 {
        let value = value.unwrap_or_else(|| vec![0; size]);
        if map.write(&key, &value, 1, cpu, &mut kernel.arena).is_ok() {
            found = map.lookup(&key, cpu, &kernel.arena);
        }
    }
    let Some(Found::Place(at)) = found else { return Ok(0) };
    scope.made = Some((size as u64, Region::MapValue(id)));
    Ok(scope.kernel.arena.address(at))
}

pub(super) fn storage_delete(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (id, ..) = map_of_kind(call, scope, 1, &[map_kind::SK_STORAGE], "its argument is no socket storage")?;
    if call.arg(2) == 0 {
        return refused(Errno::EINVAL);
    }
    let key = socket(scope, call, 2)?.0.to_le_bytes();
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("found above");
    result(map.delete(&key, &mut kernel.arena))
}

/// Refuses what is not a message.
fn message(scope: &Scope<'_>, call: Call) -> Result<(), FaultKind> {
    call.check_context(scope)?;
    match scope.packet.as_ref().map(|p| p.kind()) {
        Some(ProgramKind::SkMsg) => Ok(()),
        _ => Err(FaultKind::Context { helper: call.number }),
    }
}

pub(super) fn msg_apply_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    message(scope, call)?;
    if let Rest::Msg { apply, .. } = &mut scope.rest {
        **apply = call.arg32(2);
    }
    Ok(0)
}

pub(super) fn msg_cork_bytes(scope: &mut Scope<'_>, call: Call) -> Outcome {
    message(scope, call)?;
    if let Rest::Msg { cork, .. } = &mut scope.rest {
        **cork = call.arg32(2);
    }
    Ok(0)
}

/// `bpf_msg_pull_data`: afterwards `data` is where these bytes are.
pub(super) fn msg_pull_data(scope: &mut Scope<'_>, call: Call) -> Outcome {
    message(scope, call)?;
    let (start, end, flags) = (call.arg32(2) as usize, call.arg32(3) as usize, call.arg(4));
    let packet = scope.packet.as_mut().expect("checked with the context");
    if flags != 0 || end <= start || end > packet.len() {
        return refused(Errno::EINVAL);
    }
    packet.pull(end);
    packet.show(start, end);
    scope.refresh();
    Ok(0)
}

pub(super) fn msg_push_data(scope: &mut Scope<'_>, call: Call) -> Outcome {
    message(scope, call)?;
    let (start, len, flags) = (call.arg32(2) as usize, call.arg32(3) as usize, call.arg(4));
    let packet = scope.packet.as_mut().expect("checked with the context");
    if flags != 0 {
        return refused(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    if start > packet.len() || start + len > u16::MAX.into() {
        return refused(Errno::EINVAL);
    }
    let done = packet.pull(start) && packet.insert(start, len, &mut scope.kernel.arena);
    packet.show_linear();
    scope.refresh();
    if done { Ok(0) } else { refused(Errno::ENOMEM) }
}

pub(super) fn msg_pop_data(scope: &mut Scope<'_>, call: Call) -> Outcome {
    message(scope, call)?;
    let (start, len, flags) = (call.arg32(2) as usize, call.arg32(3) as usize, call.arg(4));
    let packet = scope.packet.as_mut().expect("checked with the context");
    if flags != 0 || start.saturating_add(len) > packet.len() {
        return refused(Errno::EINVAL);
    }
    if len > 0 {
        packet.remove(start, len, &mut scope.kernel.arena);
    }
    packet.show_linear();
    scope.refresh();
    Ok(0)
}
