//! The datapath's decisions, on values.
//!
//! Knows tuples, conntrack's transitions, the order of policy entries, identities that travel, checksum arithmetic.
//! Does not know packets, maps, clocks or helpers: the programs in `skep-ebpf` read those and ask here, and the
//! agent asks here for what it must agree on with them.
//!
//! Everything is inlined, because a program of the datapath is verified as one piece, and nothing panics, because
//! the kernel refuses a program that could.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod conntrack;
pub mod identity;
pub mod policy;
pub mod tuple;

use skep_abi::map::{METRIC_EGRESS, METRIC_INGRESS};

/// From where an endpoint sees a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The packet comes to the endpoint.
    Ingress,
    /// The packet leaves the endpoint.
    Egress,
}

impl Direction {
    /// The number in metrics keys and verdict events.
    #[inline(always)]
    pub const fn metric(self) -> u8 {
        match self {
            Self::Ingress => METRIC_INGRESS,
            Self::Egress => METRIC_EGRESS,
        }
    }
}

/// Numbers of transport protocols (IANA).
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
}
