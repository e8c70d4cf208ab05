//! Which identity a packet bears when it crosses from one place to another.
//!
//! Knows the numbers of `skep_abi::identity`. Does not know labels or addresses.

use skep_abi::{DropReason, identity, mark};

/// The identity that travels in the tunnel for a source known here as `id`.
///
/// This node's own packets are another node's there, and identities whose scope is this node mean nothing there.
#[inline(always)]
pub const fn to_tunnel(id: u32) -> u32 {
    if id == identity::HOST || id >= identity::SCOPE_REMOTE_NODE {
        identity::REMOTE_NODE
    } else if id >= identity::SCOPE_CIDR || id == identity::UNKNOWN {
        identity::WORLD
    } else {
        id
    }
}

/// The source's identity of a packet that came through the tunnel with network identifier `vni`.
///
/// # Errors
/// INVALID_IDENTITY for this node's own identity, which nobody else may claim; INVALID_VNI for none at all.
#[inline(always)]
pub const fn from_tunnel(vni: u32) -> Result<u32, DropReason> {
    if vni == identity::HOST {
        return Err(DropReason::INVALID_IDENTITY);
    }
    if vni == identity::UNKNOWN || vni >= identity::SCOPE_CIDR {
        return Err(DropReason::INVALID_VNI);
    }
    Ok(vni)
}

/// The source's identity behind that of the tunnel, where `known` is what the ipcache says of the source's address:
/// another node may be the API server's, or be told apart from the rest by an identity of its own.
#[inline(always)]
pub const fn refine_remote_node(tunnel: u32, known: Option<u32>) -> u32 {
    match known {
        Some(id) if tunnel == identity::REMOTE_NODE && is_node(id) => id,
        _ => tunnel,
    }
}

/// Whether an identity is one of other nodes.
#[inline(always)]
const fn is_node(id: u32) -> bool {
    matches!(id, identity::REMOTE_NODE | identity::KUBE_APISERVER)
        || id >> 24 == identity::SCOPE_REMOTE_NODE >> 24
}

/// The identity of a packet that came in from the network without a tunnel, where `known` is what the ipcache says
/// of its source: this node's own addresses are forged there.
#[inline(always)]
pub const fn from_network(known: Option<u32>) -> u32 {
    match known {
        None | Some(identity::UNKNOWN | identity::HOST) => identity::WORLD,
        Some(id) => id,
    }
}

/// The identity that a mark carries, or `None` if it carries none.
#[inline(always)]
pub const fn of_mark(value: u32) -> Option<u32> {
    match value & mark::MAGIC_MASK {
        mark::MAGIC_IDENTITY | mark::MAGIC_OVERLAY => Some(mark::decode_identity(value)),
        mark::MAGIC_HOST => Some(identity::HOST),
        _ => None,
    }
}

/// The mark of an encapsulated packet, which tells to_netdev the source's identity.
#[inline(always)]
pub const fn overlay_mark(id: u32) -> u32 {
    (mark::encode_identity(id) & !mark::MAGIC_MASK) | mark::MAGIC_OVERLAY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_travels_is_cluster_wide() {
        for (id, want) in [
            (identity::HOST, identity::REMOTE_NODE),
            (identity::UNKNOWN, identity::WORLD),
            (identity::WORLD, identity::WORLD),
            (256, 256),
            (65535, 65535),
            (identity::SCOPE_CIDR, identity::WORLD),
            (identity::SCOPE_CIDR + 7, identity::WORLD),
            (identity::SCOPE_REMOTE_NODE + 1, identity::REMOTE_NODE),
        ] {
            assert_eq!(to_tunnel(id), want, "{id}");
        }
    }

    #[test]
    fn nobody_can_claim_to_be_this_node() {
        assert_eq!(from_tunnel(1), Err(DropReason::INVALID_IDENTITY));
        assert_eq!(from_tunnel(0), Err(DropReason::INVALID_VNI));
        assert_eq!(from_tunnel(6), Ok(6));
        assert_eq!(from_network(Some(identity::HOST)), identity::WORLD);
        assert_eq!(from_network(None), identity::WORLD);
        assert_eq!(from_network(Some(300)), 300);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_accepted(id: u32) {
            let vni = to_tunnel(id);
            prop_assert!(vni < 1 << 24);
            prop_assert_eq!(from_tunnel(vni), Ok(vni));
        }

        #[test]
        fn a_mark_brings_back_its_identity(id in 0u32..1 << 24) {
            prop_assert_eq!(of_mark(mark::encode_identity(id)), Some(id));
            prop_assert_eq!(of_mark(overlay_mark(id)), Some(id));
            prop_assert_eq!(overlay_mark(id) & mark::MAGIC_MASK, mark::MAGIC_OVERLAY);
        }
    }

    #[test]
    fn only_another_node_is_refined_and_only_to_a_node() {
        let scoped = identity::SCOPE_REMOTE_NODE + 3;
        for (tunnel, known, want) in [
            (6, Some(7), 7),
            (6, Some(scoped), scoped),
            (6, Some(6), 6),
            (6, None, 6),
            (6, Some(300), 6),
            (6, Some(identity::HOST), 6),
            (300, Some(7), 300),
            (2, Some(7), 2),
        ] {
            assert_eq!(refine_remote_node(tunnel, known), want, "{tunnel} {known:?}");
        }
    }

    #[test]
    fn other_marks_carry_nothing() {
        assert_eq!(of_mark(0), None);
        assert_eq!(of_mark(mark::MAGIC_TO_PROXY | 0x1234_0000), None);
        assert_eq!(of_mark(mark::MAGIC_HOST), Some(identity::HOST));
    }
}
