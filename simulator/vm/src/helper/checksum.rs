//! Helpers on checksums. Sums are computed as the kernel computes them: on words as they lie in memory
//! (`include/net/checksum.h`), so that a result has the kernel's bits and not only its value modulo 0xffff.

use skep_packet::Checksum;

use super::skb::make_writable;
use super::{Call, Outcome, refused};
use crate::Errno;
use crate::scope::Scope;

const HDR_FIELD_MASK: u64 = 0xf;
const PSEUDO_HDR: u64 = 1 << 4;
const MARK_MANGLED_0: u64 = 1 << 5;
const MARK_ENFORCE: u64 = 1 << 6;
const IPV6: u64 = 1 << 7;
/// `CSUM_MANGLED_0`
const MANGLED_0: u16 = 0xffff;

/// `csum_add`
fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(u32::from(carry))
}

/// `csum_sub`
fn sub(a: u32, b: u32) -> u32 {
    add(a, !b)
}

/// `csum_from32to16`
fn fold(sum: u32) -> u16 {
    skep_packet::fold(sum)
}

/// `csum_replace4`
fn replace4(sum: u16, from: u32, to: u32) -> u16 {
    !fold(add(sub(!u32::from(sum), from), to))
}

/// `csum_replace2`, in 16 bits.
fn replace2(sum: u16, from: u16, to: u16) -> u16 {
    let add16 = |a: u16, b: u16| {
        let (sum, carry) = a.overflowing_add(b);
        sum.wrapping_add(u16::from(carry))
    };
    !add16(add16(!sum, !from), to)
}

/// `csum_replace_by_diff`
fn replace_by_diff(sum: u16, diff: u32) -> u16 {
    !fold(add(diff, !u32::from(sum)))
}

/// `csum_partial`, over words as they lie in memory; zeros follow the last byte.
fn partial(bytes: &[u8], seed: u32) -> u32 {
    let word = |w: &[u8]| w.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    bytes.chunks(4).fold(seed, |sum, w| add(sum, word(w)))
}

/// What stands in the packet at `offset`, and where; `Err` for the error numbers that both helpers share.
fn field(scope: &mut Scope<'_>, call: Call) -> Result<Result<(usize, u16), Errno>, crate::FaultKind> {
    call.check_context(scope)?;
    let offset = call.arg32(2) as usize;
    if offset > 0xffff || offset & 1 != 0 || !make_writable(scope, offset + 2) {
        return Ok(Err(Errno::EFAULT));
    }
    let at = scope.packet.as_ref().and_then(|p| p.at(offset, 2)).expect("made writable");
    let bytes = scope.kernel.arena.slice(at, 2);
    Ok(Ok((at, u16::from_le_bytes([bytes[0], bytes[1]]))))
}

fn put(scope: &mut Scope<'_>, at: usize, sum: u16) {
    scope.kernel.arena.slice_mut(at, 2).copy_from_slice(&sum.to_le_bytes());
}

pub(super) fn l3_csum_replace(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (from, to, flags) = (call.arg(3), call.arg(4), call.arg(5));
    if flags & !HDR_FIELD_MASK != 0 {
        return refused(Errno::EINVAL);
    }
    let (at, sum) = match field(scope, call)? {
        Ok(field) => field,
        Err(errno) => return refused(errno),
    };
    let replaced = match flags & HDR_FIELD_MASK {
        0 if from == 0 => replace_by_diff(sum, to as u32),
        2 => replace2(sum, from as u16, to as u16),
        4 => replace4(sum, from as u32, to as u32),
        _ => return refused(Errno::EINVAL),
    };
    put(scope, at, replaced);
    Ok(0)
}

pub(super) fn l4_csum_replace(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (from, to, flags) = (call.arg(3), call.arg(4), call.arg(5));
    if flags & !(PSEUDO_HDR | MARK_MANGLED_0 | MARK_ENFORCE | IPV6 | HDR_FIELD_MASK) != 0 {
        return refused(Errno::EINVAL);
    }
    let (at, sum) = match field(scope, call)? {
        Ok(field) => field,
        Err(errno) => return refused(errno),
    };
    if flags & MARK_MANGLED_0 != 0 && flags & MARK_ENFORCE == 0 && sum == 0 {
        return Ok(0);
    }
    let (from, to) = match flags & HDR_FIELD_MASK {
        0 if from == 0 => (None, to as u32),
        2 => (Some(u32::from(from as u16)), u32::from(to as u16)),
        4 => (Some(from as u32), to as u32),
        _ => return refused(Errno::EINVAL),
    };
    let packet = scope.packet.as_mut().expect("checked with the context");
    let mut replaced =
        replace_l4(sum, &mut packet.skb.checksum, from, to, flags & PSEUDO_HDR != 0, flags & IPV6 != 0);
    if flags & MARK_MANGLED_0 != 0 && replaced == 0 {
        replaced = MANGLED_0;
    }
    put(scope, at, replaced);
    Ok(0)
}

/// `inet_proto_csum_replace4`, and without `from` `inet_proto_csum_replace_by_diff`.
fn replace_l4(sum: u16, state: &mut Checksum, from: Option<u32>, to: u32, pseudo: bool, ipv6: bool) -> u16 {
    if let Checksum::Partial { .. } = state {
        // The field holds the sum of the pseudo header, not complemented.
        return match (pseudo, from) {
            (false, _) => sum,
            (true, Some(from)) => fold(add(sub(u32::from(sum), from), to)),
            (true, None) => fold(add(to, u32::from(sum))),
        };
    }
    if let Checksum::Complete(whole) = state
        && pseudo
        && !(ipv6 && from.is_none())
    {
        // The packet's own sum is kept in the packet's byte order, the kernel's in memory order.
        let memory = u32::from(fold(*whole).swap_bytes());
        let changed = match from {
            Some(from) => !add(sub(!memory, from), to),
            None => !add(to, !memory),
        };
        *whole = u32::from(fold(changed).swap_bytes());
    }
    match from {
        Some(from) => replace4(sum, from, to),
        None => replace_by_diff(sum, to),
    }
}

/// `bpf_csum_diff` as since Linux 6.13: of any sizes, folded to 16 bits on every architecture.
pub(super) fn csum_diff(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let (from_size, to_size, seed) = (call.arg32(2) as usize, call.arg32(4) as usize, call.arg32(5));
    let (from, to) = (call.source(scope, 1, from_size)?, call.source(scope, 3, to_size)?);
    let (from, to) = (scope.kernel.arena.slice(from, from_size), scope.kernel.arena.slice(to, to_size));
    let sum = match (from_size, to_size) {
        (0, 0) => seed,
        (0, _) => partial(to, seed),
        (_, 0) => !partial(from, !seed),
        _ => sub(partial(to, seed), partial(from, 0)),
    };
    Ok(u64::from(fold(sum)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's example, with the sum that makes it valid.
    fn valid(words: &[u16]) -> u16 {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
        let sum = !skep_packet::fold(skep_packet::ones_complement_sum(0, &bytes));
        sum.swap_bytes()
    }

    fn memory(a: u16, b: u16) -> u32 {
        u32::from_le_bytes([(a >> 8) as u8, a as u8, (b >> 8) as u8, b as u8])
    }

    #[test]
    fn replacing_a_field_gives_the_sum_of_the_new_packet() {
        let sum = valid(&[0x4500, 0x1234, 0xc0a8, 0x0001]);
        assert_eq!(replace4(sum, memory(0xc0a8, 1), memory(10, 7)), valid(&[0x4500, 0x1234, 10, 7]));
        let swap = u16::swap_bytes;
        assert_eq!(replace2(sum, swap(0x1234), swap(0xbeef)), valid(&[0x4500, 0xbeef, 0xc0a8, 1]));
        let diff = sub(memory(10, 7), memory(0xc0a8, 1));
        assert_eq!(replace_by_diff(sum, diff), valid(&[0x4500, 0x1234, 10, 7]));
    }

    #[test]
    fn a_partial_sum_changes_only_with_the_pseudo_header() {
        let mut state = Checksum::Partial { start: 34, offset: 16 };
        assert_eq!(replace_l4(0x1111, &mut state, Some(2), 3, false, false), 0x1111);
        assert_eq!(replace_l4(0x1111, &mut state, Some(2), 3, true, false), 0x1112);
    }
}
