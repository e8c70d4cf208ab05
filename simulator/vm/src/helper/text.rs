//! Helpers on text, numbers in text, and memory that is read as it is.

use super::{Call, Outcome, format, refused};
use crate::scope::Scope;
use crate::{Errno, FaultKind};

const SPACES: &[u8] = b" \t\n\x0b\x0c\r\xa0";

/// A string in the arena, up to its NUL.
fn string(scope: &Scope<'_>, address: u64, most: usize) -> Option<Vec<u8>> {
    let arena = &scope.kernel.arena;
    let mut text = Vec::new();
    for n in 0..most as u64 {
        let at = arena.offset(address.checked_add(n)?, 1)?;
        match arena.slice(at, 1)[0] {
            0 => return Some(text),
            byte => text.push(byte),
        }
    }
    Some(text)
}

/// What formats read.
struct Arena<'a, 's>(&'a Scope<'s>);

impl format::Memory for Arena<'_, '_> {
    fn text(&self, address: u64) -> Option<Vec<u8>> {
        string(self.0, address, 512)
    }

    fn bytes(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let at = self.0.kernel.arena.offset(address, len)?;
        Some(self.0.kernel.arena.slice(at, len).to_vec())
    }
}

pub(super) fn trace_printk(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let text = call.bytes(scope, 1, call.arg32(2) as usize)?;
    let formatted = format::format(&text, &call.arguments[2..], &Arena(scope));
    traced(scope, formatted)
}

fn traced(scope: &mut Scope<'_>, formatted: Option<String>) -> Outcome {
    match formatted {
        Some(text) => {
            scope.env.trace(&text);
            Ok(text.len() as u64)
        }
        None => refused(Errno::EINVAL),
    }
}

/// The words that an argument points to; `None` where their length is none.
fn words(scope: &mut Scope<'_>, call: Call, n: u8, len: usize) -> Result<Option<Vec<u64>>, FaultKind> {
    if !len.is_multiple_of(8) || len > 12 * 8 {
        return Ok(None);
    }
    let bytes = call.bytes(scope, n, len)?;
    let word = |w: &[u8]| u64::from_le_bytes(w.try_into().expect("eight bytes"));
    Ok(Some(bytes.chunks_exact(8).map(word).collect()))
}

pub(super) fn trace_vprintk(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let text = call.bytes(scope, 1, call.arg32(2) as usize)?;
    let Some(words) = words(scope, call, 3, call.arg32(4) as usize)? else { return refused(Errno::EINVAL) };
    let formatted = format::format(&text, &words, &Arena(scope));
    traced(scope, formatted)
}

/// `bpf_snprintf`: how long the whole text is, with its NUL.
pub(super) fn snprintf(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(2) as usize;
    let to = call.room(scope, 1, size)?;
    let mut text = string(scope, call.arg(3), 4096).unwrap_or_default();
    text.push(0);
    let Some(words) = words(scope, call, 4, call.arg32(5) as usize)? else { return refused(Errno::EINVAL) };
    let formatted = format::format(&text, &words, &Arena(scope));
    let Some(formatted) = formatted else { return refused(Errno::EINVAL) };
    let fits = formatted.len().min(size.saturating_sub(1));
    if size > 0 {
        let place = scope.kernel.arena.slice_mut(to, size);
        place[..fits].copy_from_slice(&formatted.as_bytes()[..fits]);
        place[fits] = 0;
    }
    Ok(formatted.len() as u64 + 1)
}

/// `__bpf_strtoull`: the number without its sign, whether it has one, and how many bytes it took.
fn parse(text: &[u8], flags: u64) -> Result<(u64, bool, usize), Errno> {
    let mut base = (flags & 0x1f) as u32;
    if text.is_empty() || !matches!(base, 0 | 8 | 10 | 16) || flags & !0x1f != 0 {
        return Err(Errno::EINVAL);
    }
    let spaces = text.iter().take_while(|b| SPACES.contains(b)).count();
    let negative = text.get(spaces) == Some(&b'-');
    let start = spaces + usize::from(negative);
    let rest = &text[start..];
    if rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    let rest = &rest[..rest.len().min(63)];
    let at = |n: usize| rest.get(n).copied().unwrap_or(0);
    let prefixed = at(0) == b'0' && at(1) | 0x20 == b'x';
    if base == 0 {
        base = match at(0) {
            b'0' if prefixed && at(2).is_ascii_hexdigit() => 16,
            b'0' => 8,
            _ => 10,
        };
    }
    let skip = if base == 16 && prefixed { 2 } else { 0 };
    let (mut value, mut digits) = (0u64, 0);
    for byte in &rest[skip.min(rest.len())..] {
        let Some(digit) = char::from(*byte).to_digit(base) else { break };
        let next = value.checked_mul(u64::from(base)).and_then(|v| v.checked_add(u64::from(digit)));
        value = next.ok_or(Errno::ERANGE)?;
        digits += 1;
    }
    if digits == 0 { Err(Errno::EINVAL) } else { Ok((value, negative, start + skip + digits)) }
}

fn number(scope: &mut Scope<'_>, call: Call, sign: impl FnOnce(u64, bool) -> Result<u64, Errno>) -> Outcome {
    let text = call.bytes(scope, 1, call.arg32(2) as usize)?;
    let to = call.room(scope, 4, 8)?;
    let parsed = parse(&text, call.arg(3)).and_then(|(v, n, taken)| Ok((sign(v, n)?, taken)));
    match parsed {
        Ok((value, taken)) => {
            scope.kernel.arena.slice_mut(to, 8).copy_from_slice(&value.to_le_bytes());
            Ok(taken as u64)
        }
        Err(errno) => {
            scope.kernel.arena.slice_mut(to, 8).fill(0);
            refused(errno)
        }
    }
}

pub(super) fn strtol(scope: &mut Scope<'_>, call: Call) -> Outcome {
    number(scope, call, |value, negative| {
        let signed = if negative { (value as i64).wrapping_neg() } else { value as i64 };
        if negative && signed > 0 || !negative && signed < 0 { Err(Errno::ERANGE) } else { Ok(signed as u64) }
    })
}

pub(super) fn strtoul(scope: &mut Scope<'_>, call: Call) -> Outcome {
    number(scope, call, |value, negative| if negative { Err(Errno::EINVAL) } else { Ok(value) })
}

pub(super) fn strncmp(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(2) as usize;
    let (a, b) = (call.bytes(scope, 1, size)?, string(scope, call.arg(3), size).unwrap_or_default());
    for (n, x) in a.into_iter().enumerate() {
        let y = b.get(n).copied().unwrap_or(0);
        if x != y {
            return Ok(if x < y { u64::MAX } else { 1 });
        }
        if x == 0 {
            break;
        }
    }
    Ok(0)
}

/// `bpf_probe_read_kernel`: here all of the kernel is the arena. Zeros where there is nothing.
pub(super) fn probe_read(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(2) as usize;
    let to = call.room(scope, 1, size)?;
    match scope.kernel.arena.offset(call.arg(3), size) {
        Some(from) => {
            scope.kernel.arena.copy(from, to, size);
            Ok(0)
        }
        None => {
            scope.kernel.arena.slice_mut(to, size).fill(0);
            refused(Errno::EFAULT)
        }
    }
}

pub(super) fn probe_read_str(scope: &mut Scope<'_>, call: Call) -> Outcome {
    let size = call.arg32(2) as usize;
    let to = call.room(scope, 1, size)?;
    let text = string(scope, call.arg(3), size.saturating_sub(1));
    let place = scope.kernel.arena.slice_mut(to, size);
    place.fill(0);
    match text {
        Some(text) if size > 0 => {
            place[..text.len()].copy_from_slice(&text);
            Ok(text.len() as u64 + 1)
        }
        Some(_) => Ok(0),
        None => refused(Errno::EFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        assert_eq!(parse(b" -12x", 0), Ok((12, true, 4)));
        assert_eq!(parse(b"0x1fg", 0), Ok((31, false, 4)));
        assert_eq!(parse(b"0x", 0), Ok((0, false, 1)));
        assert_eq!(parse(b"017", 0), Ok((15, false, 3)));
        assert_eq!(parse(b"9", 8), Err(Errno::EINVAL));
        assert_eq!(parse(b"9", 7), Err(Errno::EINVAL));
        assert_eq!(parse(b"99999999999999999999", 10), Err(Errno::ERANGE));
        assert_eq!(parse(b"-", 10), Err(Errno::EINVAL));
    }
}
