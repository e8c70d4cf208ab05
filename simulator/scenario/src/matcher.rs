//! Numbers, lifetimes and conntrack entries as expectations write them: exact, or as a bound.
//!
//! Does not know where the values that it is compared with come from.

use crate::snapshot::ConntrackEntry;
use serde::{Deserialize, Deserializer, de};
use std::fmt;

/// How a number is bounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    Exactly,
    AtLeast,
    AtMost,
    MoreThan,
    LessThan,
}

impl Bound {
    fn split(text: &str) -> (Self, &str) {
        const SIGNS: [(&str, Bound); 4] =
            [(">=", Bound::AtLeast), ("<=", Bound::AtMost), (">", Bound::MoreThan), ("<", Bound::LessThan)];
        SIGNS
            .iter()
            .find_map(|(sign, bound)| Some((*bound, text.strip_prefix(sign)?.trim())))
            .unwrap_or((Self::Exactly, text.trim()))
    }

    const fn holds(self, value: i64, limit: i64) -> bool {
        match self {
            Self::Exactly => value == limit,
            Self::AtLeast => value >= limit,
            Self::AtMost => value <= limit,
            Self::MoreThan => value > limit,
            Self::LessThan => value < limit,
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Exactly => "",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::MoreThan => ">",
            Self::LessThan => "<",
        }
    }
}

/// A number: `3`, `">=1"`, `"<5"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    bound: Bound,
    limit: u64,
}

impl Count {
    /// Exactly one.
    pub const fn one() -> Self {
        Self::exactly(1)
    }

    /// Exactly `n`.
    pub const fn exactly(n: u64) -> Self {
        Self { bound: Bound::Exactly, limit: n }
    }

    /// Whether a value is in it.
    pub fn holds(self, value: u64) -> bool {
        self.bound.holds(value.try_into().unwrap_or(i64::MAX), self.limit.try_into().unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.bound.sign(), self.limit)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a bound like \">=1\"")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Count, E> {
                Ok(Count::exactly(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Count, E> {
                u64::try_from(n).map(Count::exactly).map_err(|_| E::custom("a count is never negative"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
                let (bound, rest) = Bound::split(text);
                let limit = rest.parse().map_err(|_| {
                    E::custom(format!("{text:?} is no count; write a number, or a bound like \">=1\""))
                })?;
                Ok(Count { bound, limit })
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// When a conntrack entry expires: `<=10s`, `>5h`, or `expired`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    text: String,
    bound: Bound,
    limit_s: i64,
}

impl Expiry {
    /// Whether a remaining lifetime, in seconds, is in it.
    pub fn holds(&self, expires_s: i64) -> bool {
        self.bound.holds(expires_s, self.limit_s)
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text == "expired" {
            return Ok(Self { text, bound: Bound::LessThan, limit_s: 0 });
        }
        let (bound, rest) = Bound::split(&text);
        let limit = humantime::parse_duration(rest).map_err(|_| {
            de::Error::custom(format!("{text:?} is no lifetime; write <=10s, >5h or expired"))
        })?;
        let limit_s = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        Ok(Self { text, bound, limit_s })
    }
}

/// A conntrack entry's `PROTOCOL DIRECTION SRC:PORT -> DST:PORT`, each part of it or `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConntrackPattern {
    text: String,
    /// Protocol, direction, source address, source port, destination address, destination port.
    parts: [String; 6],
}

impl ConntrackPattern {
    /// Whether an entry has it.
    pub fn matches(&self, entry: &ConntrackEntry) -> bool {
        let tuple = entry.tuple();
        let Some(parts) = Self::split(&tuple) else { return false };
        self.parts.iter().zip(&parts).all(|(want, got)| want == "*" || want.eq_ignore_ascii_case(got))
    }

    fn split(text: &str) -> Option<[String; 6]> {
        let (left, right) = text.split_once("->")?;
        let mut left = left.split_whitespace();
        let (protocol, direction, source) = (left.next()?, left.next()?, left.next()?);
        let (src, sport) = source.rsplit_once(':')?;
        let (dst, dport) = right.trim().rsplit_once(':')?;
        if left.next().is_some() || dst.contains(char::is_whitespace) {
            return None;
        }
        Some([protocol, direction, src, sport, dst, dport].map(str::to_owned))
    }
}

impl fmt::Display for ConntrackPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ConntrackPattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        match Self::split(&text) {
            Some(parts) => Ok(Self { text, parts }),
            None => Err(de::Error::custom(format!(
                "{text:?} is no conntrack entry; write it like \"TCP OUT 10.42.1.80:* -> 10.42.0.51:80\""
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ConntrackDirection;

    fn count(text: &str) -> Count {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn counts_are_exact_or_bounded() {
        assert!(count("3").holds(3) && !count("3").holds(4));
        assert!(count("\">=1\"").holds(1) && !count("\">=1\"").holds(0));
        assert!(count("\"<5\"").holds(4) && !count("\"<5\"").holds(5));
        assert_eq!(count("\">= 2\"").to_string(), ">=2");
        assert!(serde_json::from_str::<Count>("\"many\"").is_err());
        assert!(serde_json::from_str::<Count>("-1").is_err());
    }

    #[test]
    fn lifetimes_are_bounded_in_any_unit() {
        let e: Expiry = serde_json::from_str("\">5h\"").unwrap();
        assert!(e.holds(21599) && !e.holds(18000));
        let e: Expiry = serde_json::from_str("\"expired\"").unwrap();
        assert!(e.holds(-1) && !e.holds(0));
    }

    #[test]
    fn a_pattern_finds_its_entry_by_every_part() {
        let entry = ConntrackEntry {
            protocol: 6,
            direction: ConntrackDirection::Out,
            src: "10.42.1.80".parse().unwrap(),
            dst: "10.42.0.51".parse().unwrap(),
            sport: 49152,
            dport: 80,
            expires_s: 60,
            packets: 1,
            bytes: 74,
            flags: vec![],
            src_identity: 256,
        };
        let matches =
            |text: &str| serde_json::from_value::<ConntrackPattern>(text.into()).unwrap().matches(&entry);
        assert!(matches("TCP OUT 10.42.1.80:* -> 10.42.0.51:80"));
        assert!(matches("* * *:* -> *:*"));
        for wrong in [
            "UDP OUT 10.42.1.80:* -> 10.42.0.51:80",
            "TCP IN 10.42.1.80:* -> 10.42.0.51:80",
            "TCP OUT 10.42.1.81:* -> 10.42.0.51:80",
            "TCP OUT 10.42.1.80:1 -> 10.42.0.51:80",
            "TCP OUT 10.42.1.80:* -> 10.42.0.5:80",
            "TCP OUT 10.42.1.80:* -> 10.42.0.51:8",
        ] {
            assert!(!matches(wrong), "{wrong}");
        }
        assert!(serde_json::from_value::<ConntrackPattern>("TCP 10.42.1.80".into()).is_err());
    }
}
