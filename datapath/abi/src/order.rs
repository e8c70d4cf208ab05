//! Values that stand in network byte order, and Ethernet addresses as the maps hold them.

use core::fmt;

/// A 16-bit value in network byte order, as it stands in a packet (the kernel's `__be16`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be16(u16);

/// A 32-bit value in network byte order, as it stands in a packet (the kernel's `__be32`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Be32(u32);

/// An Ethernet address in the low six bytes of a 64-bit value, first octet lowest (Cilium's `mac_t`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Mac(u64);

impl Be16 {
    /// From a value in host byte order.
    #[inline(always)]
    pub const fn from_host(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the raw bits as they were loaded from a packet.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn to_host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The raw bits as they stand in a packet.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl Be32 {
    /// From a value in host byte order.
    #[inline(always)]
    pub const fn from_host(host: u32) -> Self {
        Self(host.to_be())
    }

    /// From the raw bits as they were loaded from a packet.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// From an address's four octets, first octet first.
    #[inline(always)]
    pub const fn from_octets(octets: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(octets))
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn to_host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The raw bits as they stand in a packet.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// An address's four octets, first octet first.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

impl Mac {
    /// From the address's six octets.
    #[inline(always)]
    pub const fn from_octets(o: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([o[0], o[1], o[2], o[3], o[4], o[5], 0, 0]))
    }

    /// From the 64-bit form that maps and globals hold; the two upper bytes are ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// The 64-bit form that maps and globals hold.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The address's six octets.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 6] {
        let b = self.0.to_le_bytes();
        [b[0], b[1], b[2], b[3], b[4], b[5]]
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_host())
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.octets();
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.octets();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
