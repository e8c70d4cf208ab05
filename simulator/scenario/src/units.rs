//! Durations, shares and bytes as files and reports write them.
//!
//! Does not know what they measure.

use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// A duration as `humantime` writes it, such as `100us` or `6h`.
pub mod duration {
    use super::*;

    /// Writes it.
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|e| {
            serde::de::Error::custom(format!("not a duration ({e}); write it like 100us, 5s or 6h"))
        })
    }
}

pub(crate) fn optional_duration<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(d) => duration::serialize(d, s),
        None => s.serialize_none(),
    }
}

pub(crate) fn hex_list<S: Serializer>(packets: &[Vec<u8>], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(packets.iter().map(|p| hex(p)))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
