//! A device as a node keeps it. What passes through it is in `transit`.

use crate::{DeviceKind, Direction, HookId, Mac, NsId};
use std::net::Ipv4Addr;

/// A device.
pub(crate) struct Device {
    pub(crate) ns: NsId,
    pub(crate) name: String,
    pub(crate) kind: DeviceKind,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// IFF_NOARP: nobody is asked, every neighbour has the device's own address.
    pub(crate) noarp: bool,
    pub(crate) addresses: Vec<(Ipv4Addr, u8)>,
    pub(crate) ingress: Option<HookId>,
    pub(crate) egress: Option<HookId>,
}

impl Device {
    /// A device that is up, without addresses and hooks.
    pub(crate) fn new(ns: NsId, name: &str, kind: DeviceKind, mac: Mac, mtu: u32) -> Self {
        Self {
            ns,
            name: name.to_owned(),
            kind,
            mac,
            mtu,
            up: true,
            noarp: false,
            addresses: Vec::new(),
            ingress: None,
            egress: None,
        }
    }

    /// What is attached in this direction.
    pub(crate) fn hook(&self, direction: Direction) -> Option<HookId> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }

    /// The place for what is attached in this direction.
    pub(crate) fn hook_mut(&mut self, direction: Direction) -> &mut Option<HookId> {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }

    /// The longest frame that it takes: `is_skb_forwardable` allows a VLAN tag beyond header and MTU.
    pub(crate) fn max_frame(&self) -> usize {
        self.mtu as usize + crate::wire::ETH_LEN + 4
    }
}

/// The network of an address, with its host bits cleared.
pub(crate) fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) & mask)
}

/// The broadcast address of a network that has one (shorter than /31).
pub(crate) fn broadcast(address: Ipv4Addr, prefix: u8) -> Option<Ipv4Addr> {
    (prefix < 31).then(|| Ipv4Addr::from(u32::from(network(address, prefix)) | (u32::MAX >> prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_broadcasts_at_both_ends_of_the_range() {
        let a = Ipv4Addr::new(10, 42, 1, 77);
        assert_eq!(network(a, 0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(network(a, 24), Ipv4Addr::new(10, 42, 1, 0));
        assert_eq!(network(a, 32), a);
        assert_eq!(broadcast(a, 24), Some(Ipv4Addr::new(10, 42, 1, 255)));
        assert_eq!(broadcast(a, 0), Some(Ipv4Addr::BROADCAST));
        assert_eq!(broadcast(a, 31), None);
    }
}
