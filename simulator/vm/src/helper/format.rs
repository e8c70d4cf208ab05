//! The formats of `bpf_trace_printk`, as far as programs use them on numbers.

/// Formats text with up to three arguments. `None` where the kernel says `EINVAL`: no final NUL, or a conversion that
/// is not known here.
pub(super) fn format(text: &[u8], arguments: &[u64]) -> Option<String> {
    let text = text.strip_suffix(&[0])?;
    let mut text = std::str::from_utf8(text).ok()?;
    let mut arguments = arguments.iter();
    let mut out = String::new();
    while let Some((before, after)) = text.split_once('%') {
        out.push_str(before);
        let rest = after.trim_start_matches('l');
        let long = rest.len() < after.len();
        let conversion = rest.chars().next()?;
        text = &rest[conversion.len_utf8()..];
        if conversion == '%' {
            out.push('%');
            continue;
        }
        let all = *arguments.next()?;
        let value = if long { all } else { u64::from(all as u32) };
        out.push_str(&match conversion {
            'd' | 'i' if long => (all as i64).to_string(),
            'd' | 'i' => (all as i32).to_string(),
            'u' => value.to_string(),
            'x' => format!("{value:x}"),
            'X' => format!("{value:X}"),
            'c' => char::from(all as u8).to_string(),
            // An address would differ from run to run.
            'p' => "(pointer)".to_owned(),
            _ => return None,
        });
    }
    out.push_str(text);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::format;

    #[test]
    fn numbers_of_each_width() {
        let minus = -1i64 as u64;
        assert_eq!(format(b"%d %u %lx\0", &[minus, minus, minus]).unwrap(), "-1 4294967295 ffffffffffffffff");
        assert_eq!(format(b"100%% %c\0", &[65, 0, 0]).unwrap(), "100% A");
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        assert_eq!(format(b"no end", &[0; 3]), None);
        assert_eq!(format(b"%q\0", &[0; 3]), None);
        assert_eq!(format(b"%d%d%d%d\0", &[0; 3]), None);
        assert_eq!(format(b"%\0", &[0; 3]), None);
    }
}
