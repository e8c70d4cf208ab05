//! Helpers on sockets.

use super::{Call, Outcome, result};
use crate::scope::Scope;
use crate::sock::SocketId;
use crate::{FaultKind, MapId};

/// Bytes of `struct bpf_sock` with `struct bpf_tcp_sock` behind it.
pub(super) const BYTES: u64 = (crate::sock::SOCK_SIZE + crate::sock::TCP_SIZE) as u64;

/// The socket that an argument points to.
pub(super) fn socket(scope: &Scope<'_>, call: Call, n: u8) -> Result<SocketId, FaultKind> {
    let at = scope.kernel.arena.offset(call.arg(n), 1);
    let id = at.and_then(|at| scope.kernel.sockets.at(at));
    id.ok_or(FaultKind::Argument { helper: call.number, argument: n, size: crate::sock::SOCK_SIZE })
}

/// `bpf_map_update_elem` of a map of sockets, whose value is a socket.
pub(super) fn map_update(scope: &mut Scope<'_>, call: Call, id: MapId) -> Outcome {
    let socket = socket(scope, call, 3)?;
    put(scope, call, id, 2, socket, call.arg(4))
}

/// Puts a socket into a map, at the key that an argument points to.
pub(super) fn put(
    scope: &mut Scope<'_>,
    call: Call,
    id: MapId,
    key: u8,
    socket: SocketId,
    flags: u64,
) -> Outcome {
    let size = scope.kernel.maps.get(id).map_or(0, |m| m.key_size());
    let key = call.bytes(scope, key, size)?;
    let cpu = scope.cpu;
    let kernel = &mut *scope.kernel;
    let map = kernel.maps.get_mut(id).expect("the caller found it");
    let size = map.value_size();
    let value = socket.0.to_le_bytes();
    result(map.write(&key, &value[..size.min(8)], flags, cpu, &mut kernel.arena))
}
