//! The formats of `bpf_trace_printk` and `bpf_snprintf`.

/// One conversion: flags and width, then what it converts.
struct Conversion<'a> {
    zeros: bool,
    left: bool,
    alternate: bool,
    plus: bool,
    width: usize,
    long: bool,
    what: char,
    rest: &'a str,
}

fn conversion(text: &str) -> Option<Conversion<'_>> {
    let flags = text.trim_start_matches(['0', '-', '#', '+', ' ']);
    let set = &text[..text.len() - flags.len()];
    let after = flags.trim_start_matches(|c: char| c.is_ascii_digit());
    let width = &flags[..flags.len() - after.len()];
    let rest = after.trim_start_matches('l');
    let what = rest.chars().next()?;
    Some(Conversion {
        zeros: set.contains('0') && !set.contains('-'),
        left: set.contains('-'),
        alternate: set.contains('#'),
        plus: set.contains('+'),
        width: if width.is_empty() { 0 } else { width.parse().ok().filter(|w| *w < 512)? },
        long: rest.len() < after.len(),
        what,
        rest: &rest[what.len_utf8()..],
    })
}

impl Conversion<'_> {
    fn padded(&self, text: String) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if missing == 0 {
            return text;
        }
        if self.left {
            return text + &" ".repeat(missing);
        }
        if !self.zeros || matches!(self.what, 's' | 'c') {
            return " ".repeat(missing) + &text;
        }
        // Zeros stand between a sign or prefix and the digits.
        let signs = text.len() - text.trim_start_matches(['-', '+']).len();
        let prefix = if text[signs..].to_ascii_lowercase().starts_with("0x") { signs + 2 } else { signs };
        format!("{}{}{}", &text[..prefix], "0".repeat(missing), &text[prefix..])
    }
}

/// What formats read through pointers.
pub(super) trait Memory {
    /// A text up to its NUL; `None` where nothing stands.
    fn text(&self, address: u64) -> Option<Vec<u8>>;
    /// So many bytes; `None` where they do not stand.
    fn bytes(&self, address: u64, len: usize) -> Option<Vec<u8>>;
}

/// Formats text with arguments that may point into `memory`. `None` where the kernel says `EINVAL`: no final
/// NUL, too few arguments, or a conversion that is not known here.
pub(super) fn format(text: &[u8], arguments: &[u64], memory: &dyn Memory) -> Option<String> {
    let text = text.strip_suffix(&[0])?;
    let text = &text[..text.iter().position(|b| *b == 0).unwrap_or(text.len())];
    let mut text = std::str::from_utf8(text).ok().filter(|t| t.is_ascii())?;
    let mut arguments = arguments.iter();
    let mut out = String::new();
    while let Some((before, after)) = text.split_once('%') {
        out.push_str(before);
        if let Some(rest) = after.strip_prefix('%') {
            out.push('%');
            text = rest;
            continue;
        }
        let mut c = conversion(after)?;
        let all = *arguments.next()?;
        let value = if c.long { all } else { u64::from(all as u32) };
        let plus = |text: String| if c.plus && !text.starts_with('-') { format!("+{text}") } else { text };
        let converted = match c.what {
            'd' | 'i' if c.long => plus((all as i64).to_string()),
            'd' | 'i' => plus((all as i32).to_string()),
            'u' => value.to_string(),
            'x' if c.alternate => format!("{value:#x}"),
            'X' if c.alternate => format!("0X{value:X}"),
            'x' => format!("{value:x}"),
            'X' => format!("{value:X}"),
            'c' => char::from(all as u8).to_string(),
            's' => memory.text(all).map_or("(efault)".into(), |s| String::from_utf8_lossy(&s).into_owned()),
            'p' => match address(c.rest) {
                Some((text, rest)) => {
                    c.rest = rest;
                    text(all, memory)
                }
                None => {
                    c.rest = pointer(c.rest)?;
                    "(pointer)".to_owned()
                }
            },
            _ => return None,
        };
        out.push_str(&c.padded(converted));
        text = c.rest;
    }
    out.push_str(text);
    Some(out)
}

/// An address of the network behind `%p`: what shows it, and what stands behind.
type Shown<'a> = (fn(u64, &dyn Memory) -> String, &'a str);

/// `%pI4`, `%pi4`, `%pI6` and `%pi6`. Letters behind them say nothing.
fn address(rest: &str) -> Option<Shown<'_>> {
    fn v4(at: u64, memory: &dyn Memory) -> [u8; 4] {
        // What cannot be read is shown as zeros.
        memory.bytes(at, 4).and_then(|b| b.try_into().ok()).unwrap_or_default()
    }
    fn v6(at: u64, memory: &dyn Memory) -> [u16; 8] {
        let bytes = memory.bytes(at, 16).unwrap_or_else(|| vec![0; 16]);
        std::array::from_fn(|n| u16::from_be_bytes([bytes[2 * n], bytes[2 * n + 1]]))
    }
    let show: fn(u64, &dyn Memory) -> String = match rest.get(..2)? {
        "I4" => |at, memory| v4(at, memory).map(|b| b.to_string()).join("."),
        "i4" => |at, memory| v4(at, memory).map(|b| format!("{b:03}")).join("."),
        "I6" => |at, memory| v6(at, memory).map(|g| format!("{g:04x}")).join(":"),
        "i6" => |at, memory| v6(at, memory).map(|g| format!("{g:04x}")).concat(),
        _ => return None,
    };
    Some((show, rest[2..].trim_start_matches(|c: char| c.is_ascii_alphanumeric())))
}

/// What follows `%p`: an address of memory would differ from run to run, so none is shown.
fn pointer(rest: &str) -> Option<&str> {
    match rest.chars().next().filter(char::is_ascii_alphanumeric) {
        None => Some(rest),
        Some('K' | 'x' | 's' | 'S' | 'B') => Some(&rest[1..]),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    fn format(text: &[u8], arguments: &[u64]) -> Option<String> {
        super::format(text, arguments, &Fixed)
    }

    struct Fixed;

    impl super::Memory for Fixed {
        fn text(&self, _: u64) -> Option<Vec<u8>> {
            Some(b"text".to_vec())
        }
        fn bytes(&self, address: u64, len: usize) -> Option<Vec<u8>> {
            (address != 0).then(|| (0..len as u8).map(|n| n + 7).collect())
        }
    }

    #[test]
    fn addresses_of_the_network() {
        assert_eq!(format(b"%pI4 %pi4,\0", &[1, 1]).unwrap(), "7.8.9.10 007.008.009.010,");
        assert_eq!(format(b"<%pI4>\0", &[0]).unwrap(), "<0.0.0.0>");
        assert_eq!(format(b"%pI6\0", &[1]).unwrap(), "0708:090a:0b0c:0d0e:0f10:1112:1314:1516");
        assert_eq!(format(b"%pi6\0", &[1]).unwrap(), "0708090a0b0c0d0e0f10111213141516");
        assert_eq!(format(b"%pI5\0", &[1]), None);
    }

    #[test]
    fn numbers_of_each_width() {
        let minus = -1i64 as u64;
        assert_eq!(format(b"%d %u %lx\0", &[minus, minus, minus]).unwrap(), "-1 4294967295 ffffffffffffffff");
        assert_eq!(format(b"100%% %c\0", &[65, 0, 0]).unwrap(), "100% A");
        assert_eq!(
            format(b"[%5d|%-5d|%05d|%#x|%08x]\0", &[1, 2, minus, 4, 5]).unwrap(),
            "[    1|2    |-0001|0x4|00000005]"
        );
        assert_eq!(format(b"%s.\0", &[1]).unwrap(), "text.");
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        assert_eq!(format(b"no end", &[0; 3]), None);
        assert_eq!(format(b"%q\0", &[0; 3]), None);
        assert_eq!(format(b"%d%d%d%d\0", &[0; 3]), None);
        assert_eq!(format(b"%\0", &[0; 3]), None);
    }
}
