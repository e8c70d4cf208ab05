//! Syntax of names: RFC 1123 labels and subdomains, label keys and values, port names (RFC 6335). An `Err` is the rule.

const LABEL: &str = "small letters, digits and `-`, beginning and ending with a letter or digit, at most 63";
const SUBDOMAIN: &str = "small letters, digits, `-` and `.`, each part beginning and ending with a letter or digit, \
                         at most 253";
const KEY: &str = "an optional DNS name and `/`, then at most 63 letters, digits, `-`, `_` and `.`, beginning and \
                   ending with a letter or digit";
const VALUE: &str = "at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; or \
                     nothing";
const PORT: &str = "a port's name has at most 15 small letters, digits and `-`, at least one letter, no `--`, and no \
                    `-` at either end";

type Rule = Result<(), &'static str>;

fn hold(holds: bool, rule: &'static str) -> Rule {
    if holds { Ok(()) } else { Err(rule) }
}

fn is_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// A part may be longer than a label; only the whole is limited.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_qualified(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

pub(super) fn dns_label(text: &str) -> Rule {
    hold(is_label(text), LABEL)
}

pub(super) fn dns_subdomain(text: &str) -> Rule {
    hold(is_subdomain(text), SUBDOMAIN)
}

pub(super) fn label_key(text: &str) -> Rule {
    let holds = match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    };
    hold(holds, KEY)
}

pub(super) fn label_value(text: &str) -> Rule {
    hold(text.is_empty() || is_qualified(text), VALUE)
}

pub(super) fn port_name(text: &str) -> Rule {
    let holds = text.len() <= 15
        && is_label(text)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--");
    hold(holds, PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-b", "0a"] {
            assert_eq!(dns_label(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert_eq!(dns_label(bad), Err(LABEL));
        }
        assert_eq!(dns_subdomain("a.b-c.d"), Ok(()));
        assert_eq!(dns_subdomain(&"a".repeat(100)), Ok(()));
        for bad in ["a..b", ".a", "a.-b", &"a".repeat(254)] {
            assert_eq!(dns_subdomain(bad), Err(SUBDOMAIN));
        }
        for good in ["app", "app.kubernetes.io/name", "A_b.c"] {
            assert_eq!(label_key(good), Ok(()));
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.io/x", "-a"] {
            assert_eq!(label_key(bad), Err(KEY));
        }
        assert_eq!(label_value(""), Ok(()));
        assert_eq!(label_value("a b"), Err(VALUE));
        assert_eq!(port_name("http-alt"), Ok(()));
        for bad in ["80", "http--x", "HTTP", "a-name-that-is-too-long", ""] {
            assert_eq!(port_name(bad), Err(PORT));
        }
    }
}
