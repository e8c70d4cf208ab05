//! The packet: the context's fields, the headers, and all pointers into either.
//!
//! Every pointer trick of the datapath is in this file. Does not know what a header's content means for the packet.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated as helper;
use core::ffi::c_void;
use skep_abi::{Be16, Be32, DropReason, Mac};
use skep_core::tuple::{self, Flow};
use skep_core::{checksum, protocol};

/// Bytes of an Ethernet header.
pub const ETH_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Bytes of an ARP packet for IPv4 over Ethernet (RFC 826), with its Ethernet header.
const ARP_LEN: usize = ETH_LEN + 28;

/// The lowest EtherType; below it stands a length (IEEE 802.3).
const ETHERTYPE_MIN: u16 = 0x0600;
/// IPv4.
pub const ETH_IPV4: u16 = 0x0800;
/// ARP.
pub const ETH_ARP: u16 = 0x0806;

/// Where the tunnel's helpers end on the oldest kernel that is supported: `bpf_tunnel_key` up to `local_ipv4`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TunnelKey {
    id: u32,
    remote: [u32; 4],
    tos: u8,
    ttl: u8,
    flags: u16,
    label: u32,
}

/// `BPF_F_ZERO_CSUM_TX`: over IPv4 the outer UDP checksum is zero, as RFC 7348 has it.
const ZERO_CSUM_TX: u64 = 1 << 1;
/// `BPF_F_INGRESS`.
const REDIRECT_INGRESS: u64 = 1;

/// A packet at a tc hook.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Skb(*mut __sk_buff);

impl EbpfContext for Skb {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.0.cast()
    }
}

/// What the datapath reads of an IPv4 header.
#[derive(Clone, Copy)]
pub struct Ipv4 {
    /// Source address.
    pub saddr: Be32,
    /// Destination address.
    pub daddr: Be32,
    /// The transport protocol.
    pub proto: u8,
    /// Time to live.
    pub ttl: u8,
    /// The header's checksum, as it was loaded.
    pub check: u16,
    /// Bytes of the header.
    pub len: u32,
    /// A fragment, the first one too.
    pub is_fragment: bool,
}

/// An ARP request for an IPv4 address.
#[derive(Clone, Copy)]
pub struct ArpRequest {
    /// Who asks.
    pub sender_mac: Mac,
    /// The address of who asks.
    pub sender: Be32,
    /// The address that is asked for.
    pub target: Be32,
}

macro_rules! field {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[inline(always)]
        pub fn $name(self) -> u32 {
            // SAFETY: the kernel passes a valid context. Volatile, because the verifier takes a field of a context
            // only in its own width, and the compiler would join neighbours.
            unsafe { core::ptr::read_volatile(&raw const (*self.0).$name) }
        }
    };
}

#[expect(clippy::len_without_is_empty, reason = "no packet at a hook is empty")]
impl Skb {
    /// The packet of a program's context.
    #[inline(always)]
    pub fn new(ctx: *mut __sk_buff) -> Self {
        Self(ctx)
    }

    field! {
        /// Bytes of the packet, from the Ethernet header on.
        len
    }
    field! {
        /// The mark (`skep_abi::mark`).
        mark
    }
    field! {
        /// The device that the packet is at.
        ifindex
    }
    field! {
        /// The device that the packet came in by; 0 if this node's sockets made it.
        ingress_ifindex
    }
    field! {
        /// Address of the first byte.
        data
    }
    field! {
        /// Address behind the last byte that is in linear memory.
        data_end
    }

    /// Sets the mark.
    #[inline(always)]
    pub fn set_mark(self, mark: u32) {
        // SAFETY: as in `field!`.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).mark, mark) }
    }

    /// A word of `cb`; `slot` is a constant of `skep_abi::mark::cb`.
    #[inline(always)]
    pub fn cb(self, slot: usize) -> u32 {
        // SAFETY: as in `field!`; the constants are below 5.
        unsafe { core::ptr::read_volatile((&raw const (*self.0).cb).cast::<u32>().add(slot)) }
    }

    /// Sets a word of `cb`.
    #[inline(always)]
    pub fn set_cb(self, slot: usize, value: u32) {
        // SAFETY: as in `cb`.
        unsafe { core::ptr::write_volatile((&raw mut (*self.0).cb).cast::<u32>().add(slot), value) }
    }

    /// The flow hash, computed if it was not.
    #[inline(always)]
    pub fn hash(self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { helper::bpf_get_hash_recalc(self.0) }
    }

    /// The first `len` bytes, if they are in linear memory now.
    #[inline(always)]
    fn linear(self, len: usize) -> Option<*mut u8> {
        let data = self.data() as usize;
        if data + len > self.data_end() as usize { None } else { Some(data as *mut u8) }
    }

    /// The first `len` bytes, brought to linear memory if they are not there; `None` if there are fewer.
    ///
    /// Every pointer that was made before is void afterwards.
    #[inline(always)]
    fn pulled(self, len: usize) -> Option<*mut u8> {
        if let Some(p) = self.linear(len) {
            return Some(p);
        }
        // SAFETY: the context is valid; what fails is seen by the second look.
        unsafe { helper::bpf_skb_pull_data(self.0, len as u32) };
        self.linear(len)
    }

    /// Bytes from the packet, wherever they are; `None` if it ends before.
    #[inline(always)]
    fn load<const N: usize>(self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: `bytes` holds N bytes, which the helper fills or clears.
        let failed =
            unsafe { helper::bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        if failed != 0 { None } else { Some(bytes) }
    }

    /// The EtherType, in host byte order.
    ///
    /// # Errors
    /// UNSUPPORTED_L2_PROTOCOL if the packet is too short for one, or has a length in its place.
    #[inline(always)]
    pub fn ether_type(self) -> Result<u16, DropReason> {
        let p = self.pulled(ETH_LEN).ok_or(DropReason::UNSUPPORTED_L2_PROTOCOL)?;
        // SAFETY: 14 bytes are there.
        let kind = u16::from_be(unsafe { u16_at(p, 12) });
        if kind < ETHERTYPE_MIN { Err(DropReason::UNSUPPORTED_L2_PROTOCOL) } else { Ok(kind) }
    }

    /// The IPv4 header.
    ///
    /// # Errors
    /// INVALID_PACKET_DROPPED if it is truncated or is none.
    #[inline(always)]
    pub fn ipv4(self) -> Result<Ipv4, DropReason> {
        let p = self.pulled(ETH_LEN + IPV4_LEN).ok_or(DropReason::INVALID_PACKET_DROPPED)?;
        // SAFETY: 34 bytes are there, and all offsets end before them.
        let (version, fragment, ttl, proto, check, saddr, daddr) = unsafe {
            let ip = p.add(ETH_LEN);
            (
                ip.read(),
                u16_at(ip, 6),
                ip.add(8).read(),
                ip.add(9).read(),
                u16_at(ip, 10),
                u32_at(ip, 12),
                u32_at(ip, 16),
            )
        };
        let len = (version & 0x0f) as u32 * 4;
        if version >> 4 != 4 || len < IPV4_LEN as u32 || self.len() < ETH_LEN as u32 + len {
            return Err(DropReason::INVALID_PACKET_DROPPED);
        }
        // RFC 791: more fragments, and the offset.
        let is_fragment = fragment & 0x3fffu16.to_be() != 0;
        Ok(Ipv4 {
            saddr: Be32::from_bits(saddr),
            daddr: Be32::from_bits(daddr),
            proto,
            ttl,
            check,
            len,
            is_fragment,
        })
    }

    /// What conntrack and policy need to know.
    ///
    /// # Errors
    /// IP_FRAGMENTATION_NOT_SUPPORTED, CT_UNKNOWN_L4_PROTOCOL, CT_TRUNCATED_OR_INVALID_HEADER.
    #[inline(always)]
    pub fn flow(self, ip: &Ipv4) -> Result<Flow, DropReason> {
        if ip.is_fragment {
            return Err(DropReason::IP_FRAGMENTATION_NOT_SUPPORTED);
        }
        let l4 = ETH_LEN as u32 + ip.len;
        let truncated = DropReason::CT_TRUNCATED_OR_INVALID_HEADER;
        let (sport, dport, related, tcp_flags) = match ip.proto {
            protocol::TCP => {
                let [s0, s1, d0, d1, .., flags] = self.load::<14>(l4).ok_or(truncated)?;
                (port(s0, s1), port(d0, d1), false, flags)
            }
            protocol::UDP => {
                let [s0, s1, d0, d1, ..] = self.load::<8>(l4).ok_or(truncated)?;
                (port(s0, s1), port(d0, d1), false, 0)
            }
            protocol::ICMP => {
                let [kind, _, _, _, i0, i1, ..] = self.load::<8>(l4).ok_or(truncated)?;
                let (sport, dport, related) = tuple::icmp(kind, port(i0, i1));
                (sport, dport, related, 0)
            }
            _ => return Err(DropReason::CT_UNKNOWN_L4_PROTOCOL),
        };
        Ok(Flow { saddr: ip.saddr, daddr: ip.daddr, sport, dport, proto: ip.proto, related, tcp_flags })
    }

    /// The ARP request, if the packet is one for IPv4 over Ethernet.
    #[inline(always)]
    pub fn arp_request(self) -> Option<ArpRequest> {
        let p = self.pulled(ARP_LEN)?;
        // SAFETY: 42 bytes are there, and all offsets end before them.
        unsafe {
            let arp = p.add(ETH_LEN);
            let be16 = |offset| u16::from_be(u16_at(arp, offset));
            // Hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request.
            if be16(0) != 1 || be16(2) != ETH_IPV4 || be16(4) != 0x0604 || be16(6) != 1 {
                return None;
            }
            Some(ArpRequest {
                sender_mac: Mac::from_bits(u32_at(arp, 8) as u64 | (u16_at(arp, 12) as u64) << 32),
                sender: Be32::from_bits(u32_at(arp, 14)),
                target: Be32::from_bits(u32_at(arp, 24)),
            })
        }
    }

    /// Makes of an ARP request its answer, that `mac` has the address.
    ///
    /// # Errors
    /// ERROR_WRITING_TO_PACKET.
    #[inline(always)]
    pub fn answer_arp(self, request: &ArpRequest, mac: Mac) -> Result<(), DropReason> {
        let p = self.linear(ARP_LEN).ok_or(DropReason::ERROR_WRITING_TO_PACKET)?;
        // SAFETY: 42 bytes are there, and all offsets end before them.
        unsafe {
            put_mac(p, request.sender_mac);
            put_mac(p.add(6), mac);
            let arp = p.add(ETH_LEN);
            put16(arp, 6, 2u16.to_be());
            put_mac(arp.add(8), mac);
            put32(arp, 14, request.target.bits());
            put_mac(arp.add(18), request.sender_mac);
            put32(arp, 24, request.sender.bits());
        }
        Ok(())
    }

    /// Addresses the frame to `dst`, from `src`.
    ///
    /// # Errors
    /// ERROR_WRITING_TO_PACKET.
    #[inline(always)]
    pub fn set_macs(self, src: Mac, dst: Mac) -> Result<(), DropReason> {
        let p = self.pulled(ETH_LEN).ok_or(DropReason::ERROR_WRITING_TO_PACKET)?;
        // SAFETY: 14 bytes are there.
        unsafe {
            put_mac(p, dst);
            put_mac(p.add(6), src);
        }
        Ok(())
    }

    /// One router further on: time to live, header checksum, Ethernet addresses.
    ///
    /// # Errors
    /// TTL_EXCEEDED, ERROR_WRITING_TO_PACKET.
    #[inline(always)]
    pub fn forward(self, ip: &Ipv4, src: Mac, dst: Mac) -> Result<(), DropReason> {
        let (ttl, check) =
            checksum::decrement_ttl(ip.ttl, ip.proto, ip.check).ok_or(DropReason::TTL_EXCEEDED)?;
        let p = self.pulled(ETH_LEN + IPV4_LEN).ok_or(DropReason::ERROR_WRITING_TO_PACKET)?;
        // SAFETY: 34 bytes are there, and all offsets end before them.
        unsafe {
            put_mac(p, dst);
            put_mac(p.add(6), src);
            let ip = p.add(ETH_LEN);
            ip.add(8).write(ttl);
            put16(ip, 10, check);
        }
        Ok(())
    }

    /// The network identifier that the packet came, or will go, through the tunnel with.
    #[inline(always)]
    pub fn tunnel_id(self) -> Option<u32> {
        let mut key = TunnelKey::default();
        // SAFETY: the helper fills as many bytes as it is told, or clears them.
        let failed = unsafe {
            helper::bpf_skb_get_tunnel_key(self.0, (&raw mut key).cast(), size_of::<TunnelKey>() as u32, 0)
        };
        if failed != 0 { None } else { Some(key.id) }
    }

    /// Tells the tunnel device which node to send the packet to, with which network identifier.
    ///
    /// # Errors
    /// ERROR_WRITING_TO_PACKET if the kernel refuses.
    #[inline(always)]
    pub fn set_tunnel(self, remote: Be32, id: u32) -> Result<(), DropReason> {
        // The helper takes the address in host byte order.
        let mut key = TunnelKey { id, remote: [remote.to_host(), 0, 0, 0], ..TunnelKey::default() };
        // SAFETY: the helper reads as many bytes as it is told.
        let failed = unsafe {
            helper::bpf_skb_set_tunnel_key(
                self.0,
                (&raw mut key).cast(),
                size_of::<TunnelKey>() as u32,
                ZERO_CSUM_TX,
            )
        };
        if failed != 0 { Err(DropReason::ERROR_WRITING_TO_PACKET) } else { Ok(()) }
    }

    /// Sends the packet out of a device, through its tc egress; the value to return.
    #[inline(always)]
    pub fn redirect(self, ifindex: u32) -> i32 {
        // SAFETY: the helper only notes where to.
        unsafe { helper::bpf_redirect(ifindex, 0) as i32 }
    }

    /// Lets the packet come in by a device, through its tc ingress; the value to return.
    #[inline(always)]
    pub fn redirect_ingress(self, ifindex: u32) -> i32 {
        // SAFETY: the helper only notes where to.
        unsafe { helper::bpf_redirect(ifindex, REDIRECT_INGRESS) as i32 }
    }
}

/// A port, or what stands for one, from its two bytes.
#[inline(always)]
fn port(first: u8, second: u8) -> Be16 {
    Be16::from_bits(u16::from_ne_bytes([first, second]))
}

/// A value at an even address. Headers begin at one (the kernel's NET_IP_ALIGN, and drivers without it), but an IPv4
/// address need not stand at a multiple of four; the verifier refuses nothing here, the compiler must know.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Even<T: Copy>(T);

/// # Safety
/// Two bytes at `p + offset` may be read, and both are even.
#[inline(always)]
unsafe fn u16_at(p: *const u8, offset: usize) -> u16 {
    // SAFETY: the caller's.
    unsafe { p.add(offset).cast::<u16>().read() }
}

/// # Safety
/// Four bytes at `p + offset` may be read, and both are even.
#[inline(always)]
unsafe fn u32_at(p: *const u8, offset: usize) -> u32 {
    // SAFETY: the caller's.
    unsafe { p.add(offset).cast::<Even<u32>>().read().0 }
}

/// # Safety
/// Two bytes at `p + offset` may be written, and both are even.
#[inline(always)]
unsafe fn put16(p: *mut u8, offset: usize, value: u16) {
    // SAFETY: the caller's.
    unsafe { p.add(offset).cast::<u16>().write(value) }
}

/// # Safety
/// Four bytes at `p + offset` may be written, and both are even.
#[inline(always)]
unsafe fn put32(p: *mut u8, offset: usize, value: u32) {
    // SAFETY: the caller's.
    unsafe { p.add(offset).cast::<Even<u32>>().write(Even(value)) }
}

/// Writes an Ethernet address.
///
/// # Safety
/// Six bytes at `p` may be written, and it is even.
#[inline(always)]
unsafe fn put_mac(p: *mut u8, mac: Mac) {
    let bits = mac.bits();
    // SAFETY: the caller's.
    unsafe {
        put32(p, 0, bits as u32);
        put16(p, 4, (bits >> 32) as u16);
    }
}
