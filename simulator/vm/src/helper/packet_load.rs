//! `LD_ABS` and `LD_IND`: what classic BPF had, in network byte order (`bpf_skb_load_helper_32` and its like).

use crate::Errno;
use crate::scope;

/// `SKF_NET_OFF`: from here on offsets count from the network header.
const NET_OFF: i32 = -0x10_0000;
/// `SKF_LL_OFF`: from here on offsets count from the link layer's header.
const LL_OFF: i32 = -0x20_0000;

/// `len` bytes at an offset, or `-EFAULT` where the packet does not have them.
pub(crate) fn load(offset: i32, len: usize) -> u64 {
    let found = scope::with(|scope| {
        let packet = scope.packet.as_ref()?;
        let (from, offset) = match offset {
            0.. => (0, offset),
            NET_OFF..0 => (packet.network(), offset - NET_OFF),
            LL_OFF..NET_OFF => (0, offset - LL_OFF),
            _ => return None,
        };
        let at = packet.at(from + usize::try_from(offset).ok()?, len)?;
        let bytes = scope.kernel.arena.slice(at, len);
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    });
    found.unwrap_or(i64::from(-Errno::EFAULT.0) as u64)
}
