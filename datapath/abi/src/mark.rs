//! What a packet carries between programs beside its bytes: the skb's mark and the slots of its `cb`.
//!
//! Marks are Cilium's (`bpf/lib/common.h`, `MARK_MAGIC_*`). A mark is cleared when the packet crosses a network
//! namespace; `cb` survives tail calls and direct redirects only.

/// The bits of a mark that say what the rest of it means.
pub const MAGIC_MASK: u32 = 0x0f00;
/// The packet came from the host's own sockets.
pub const MAGIC_HOST: u32 = 0x0c00;
/// The mark carries the source's identity.
pub const MAGIC_IDENTITY: u32 = 0x0f00;
/// An encapsulated packet: to_netdev leaves it as it is.
pub const MAGIC_OVERLAY: u32 = 0x0400;
/// The packet goes to the proxy; the port stands in the upper half.
pub const MAGIC_TO_PROXY: u32 = 0x0200;

/// A mark that carries an identity: its lower 16 bits in the mark's upper half, its next 8 in the mark's lowest byte.
#[inline(always)]
pub const fn encode_identity(identity: u32) -> u32 {
    ((identity & 0xffff) << 16) | ((identity >> 16) & 0xff) | MAGIC_IDENTITY
}

/// The identity in a mark whose magic is [`MAGIC_IDENTITY`] or [`MAGIC_OVERLAY`].
#[inline(always)]
pub const fn decode_identity(mark: u32) -> u32 {
    ((mark & 0xff) << 16) | (mark >> 16)
}

/// The slots of `__sk_buff.cb` between an entry program and its tail calls. Entry programs clear them.
///
/// Names are those of Cilium's `CB_*`; a slot has two names where two paths use it differently.
pub mod cb {
    /// The source's identity, for handle_policy and for drops.
    pub const SRC_LABEL: usize = 0;
    /// The destination's identity, for drops.
    pub const DST_LABEL: usize = 1;
    /// The ifindex to deliver to; 0 leaves the packet to the stack.
    pub const IFINDEX: usize = 1;
    /// What else the tail call must know: [`super::delivery`] flags, or the trace reason.
    pub const FLAGS: usize = 2;
    /// The conntrack state that the look-up found ([`crate::map::CtStatus`]).
    pub const CT_STATE: usize = 3;
    /// A second argument of the tail call at hand.
    pub const CUSTOM: usize = 4;
}

/// Flags in [`cb::FLAGS`] of a tail call through call_policy.
pub mod delivery {
    /// The packet came out of the tunnel.
    pub const FROM_TUNNEL: u32 = 1;
    /// The packet came from the host's stack.
    pub const FROM_HOST: u32 = 2;
}
