//! `bpf_tcp_raw_gen_syncookie_*` and `bpf_tcp_raw_check_syncookie_*`: SYN cookies without a socket (`net/ipv4/syncookies.c`).
//!
//! What a cookie is made of, and how long it is good, is as in the kernel. The secret is a constant here, so that a cookie is
//! another number than in any kernel.

use super::{Call, Outcome, refused};
use crate::scope::Scope;
use crate::{Errno, FaultKind};

/// Bytes of `struct tcphdr`.
const TCP: usize = 20;
/// Sizes that a cookie can tell, of IPv4 and of IPv6.
const SIZES: [[u16; 4]; 2] = [[536, 1300, 1440, 1460], [1220, 1420, 1440, 8940]];
/// A cookie's lower bits: which size.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;
/// `MAX_SYNCOOKIE_AGE`, and how long one counts.
const AGE_MAX: u32 = 2;
const PERIOD_NS: u64 = 60_000_000_000;

/// Whose cookie it is: addresses and ports as they stand in the headers, and which protocol.
struct Flow {
    bytes: Vec<u8>,
    sizes: [u16; 4],
}

impl Flow {
    /// Of an IP header of 20 or 40 bytes and a TCP header.
    fn new(ip: &[u8], tcp: &[u8]) -> Self {
        let (addresses, v6) = if ip.len() == 20 { (&ip[12..20], 0) } else { (&ip[8..40], 1) };
        Self { bytes: [addresses, &tcp[..4]].concat(), sizes: SIZES[v6] }
    }

    /// `cookie_hash`
    fn hash(&self, count: u32, which: u32) -> u32 {
        // FNV-1a over the flow, and SplitMix64's last steps.
        let start = 0xcbf2_9ce4_8422_2325 ^ u64::from(count) << 8 ^ u64::from(which);
        let mut z = self.bytes.iter().fold(start, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as u32
    }

    /// `secure_tcp_syn_cookie`, and the size that it tells.
    fn make(&self, sequence: u32, size: u16, minute: u32) -> (u32, u16) {
        let index = self.sizes.iter().rposition(|s| size >= *s).unwrap_or(0);
        let told = self.hash(minute, 1).wrapping_add(index as u32) & MASK;
        let cookie = self.hash(0, 0).wrapping_add(sequence).wrapping_add(minute << BITS).wrapping_add(told);
        (cookie, self.sizes[index])
    }

    /// `check_tcp_syn_cookie`: the size, if it is a cookie of this flow and not too old.
    fn check(&self, cookie: u32, sequence: u32, minute: u32) -> Option<u16> {
        let rest = cookie.wrapping_sub(self.hash(0, 0).wrapping_add(sequence));
        let age = minute.wrapping_sub(rest >> BITS) & (u32::MAX >> BITS);
        if age >= AGE_MAX {
            return None;
        }
        let index = rest.wrapping_sub(self.hash(minute.wrapping_sub(age), 1)) & MASK;
        self.sizes.get(index as usize).copied()
    }
}

fn minute(scope: &mut Scope<'_>) -> u32 {
    (scope.env.now_ns() / PERIOD_NS) as u32
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// `tcp_parse_mss_option`: of a whole header; `None` without the option.
fn segment_size(tcp: &[u8]) -> Option<u16> {
    let mut options = &tcp[TCP..];
    loop {
        options = match *options {
            [0, ..] | [] | [_] => return None,
            [1, ref rest @ ..] => rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])).filter(|size| *size > 0),
            [_, len, ..] if len < 2 => return None,
            [_, len, ..] => options.get(usize::from(len)..)?,
        };
    }
}

fn make(scope: &mut Scope<'_>, call: Call, header: usize, default: u16) -> Outcome {
    let len = call.arg32(3) as usize;
    let ip = call.bytes(scope, 1, header)?;
    let tcp = call.bytes(scope, 2, len)?;
    if len < TCP || len != usize::from(tcp[12] >> 4) * 4 {
        return refused(Errno::EINVAL);
    }
    let size = segment_size(&tcp).unwrap_or(default);
    let (cookie, size) = Flow::new(&ip, &tcp).make(word(&tcp, 4), size, minute(scope));
    Ok(u64::from(cookie) | u64::from(size) << 32)
}

fn check(scope: &mut Scope<'_>, call: Call, header: usize) -> Outcome {
    let ip = call.bytes(scope, 1, header)?;
    let tcp = call.bytes(scope, 2, TCP)?;
    let (cookie, sequence) = (word(&tcp, 8).wrapping_sub(1), word(&tcp, 4).wrapping_sub(1));
    match Flow::new(&ip, &tcp).check(cookie, sequence, minute(scope)) {
        Some(_) => Ok(0),
        None => refused(Errno::EACCES),
    }
}

pub(super) fn make_v4(scope: &mut Scope<'_>, call: Call) -> Result<u64, FaultKind> {
    make(scope, call, 20, 536)
}

pub(super) fn make_v6(scope: &mut Scope<'_>, call: Call) -> Result<u64, FaultKind> {
    make(scope, call, 40, 1220)
}

pub(super) fn check_v4(scope: &mut Scope<'_>, call: Call) -> Result<u64, FaultKind> {
    check(scope, call, 20)
}

pub(super) fn check_v6(scope: &mut Scope<'_>, call: Call) -> Result<u64, FaultKind> {
    check(scope, call, 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_flow_and_up_to_two_minutes() {
        for ip in [&[7; 20][..], &[7; 40]] {
            let flow = Flow::new(ip, &[9; 20]);
            for size in [0, 536, 1399, 1460, 9000] {
                let (cookie, told) = flow.make(1000, size, 41);
                assert!(told <= size || told == flow.sizes[0]);
                let ages = [41, 42, 43].map(|minute| flow.check(cookie, 1000, minute));
                assert_eq!(ages, [Some(told), Some(told), None]);
                assert_eq!(flow.check(cookie, 2000, 41), None);
                assert_eq!(Flow::new(ip, &[8; 20]).check(cookie, 1000, 41), None);
            }
        }
    }

    #[test]
    fn the_size_is_found_among_other_options() {
        let tcp = |options: &[u8]| [&[0; TCP][..], options].concat();
        assert_eq!(segment_size(&tcp(&[1, 3, 3, 7, 2, 4, 5, 0xb4, 0, 0, 0, 0])), Some(1460));
        for none in [&[][..], &[0, 2, 4, 5, 0xb4], &[2, 4, 0, 0], &[8, 1, 2, 4, 5], &[8, 200, 0, 0], &[2]] {
            assert_eq!(segment_size(&tcp(none)), None, "{none:?}");
        }
    }
}
