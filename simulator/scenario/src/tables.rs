//! The datapath's maps as rows: a World hands over the bytes of a map, and whom an identity stands for.
//!
//! Knows the maps' names and layouts through skep-abi. Does not know where a map is.

use crate::evidence::{Identity, PolicyDirection};
use crate::snapshot::{ConntrackEntry, IpcacheRow, Metric, PolicyRow};
use crate::units::hex;
use skep_abi::map::{
    CT_ANY4_GLOBAL, CT4_GLOBAL, CtEntry, CtTuple4, IPCACHE, IpcacheKey, METRICS, MetricsKey, MetricsValue,
    PolicyEntry, PolicyKey, RemoteEndpointInfo,
};
use std::net::{IpAddr, Ipv4Addr};

/// A key and its value: one, or one a CPU.
pub type Entry = (Vec<u8>, Vec<Vec<u8>>);

/// A node's maps, as a World has them.
pub trait Tables {
    /// Why a map cannot be read.
    type Error;

    /// The entries of a map, in the order of keys; `None` if it is not there.
    fn entries(&self, map: &str) -> Result<Option<Vec<Entry>>, Self::Error>;

    /// An identity in words. `ip` is the address that it was found with.
    fn identity(&self, number: u32, ip: Option<Ipv4Addr>) -> Identity;

    /// `skep_metrics`, sorted; counters that are zero are left out.
    fn metrics(&self) -> Result<Vec<Metric>, Self::Error> {
        rows(self, METRICS.name, |key, cpus| {
            let values: Vec<MetricsValue> = cpus.iter().filter_map(|v| MetricsValue::from_bytes(v)).collect();
            Metric::decode(&MetricsKey::from_bytes(key)?, &values).filter(|m| m.packets > 0)
        })
    }

    /// Both conntrack maps, sorted. `now_s` is the monotonic clock that lifetimes are in, in seconds.
    fn conntrack(&self, now_s: u64) -> Result<Vec<ConntrackEntry>, Self::Error> {
        let read = |key: &[u8], value: &[Vec<u8>]| {
            let value = CtEntry::from_bytes(value.first()?)?;
            Some(ConntrackEntry::decode(&CtTuple4::from_bytes(key)?, &value, now_s))
        };
        let mut all = rows(self, CT4_GLOBAL.name, read)?;
        all.extend(rows(self, CT_ANY4_GLOBAL.name, read)?);
        all.sort();
        Ok(all)
    }

    /// An endpoint's policy map, by the name of the map, sorted.
    fn policy(&self, map: &str) -> Result<Vec<PolicyRow>, Self::Error> {
        rows(self, map, |key, value| {
            let (key, entry) = (PolicyKey::from_bytes(key)?, PolicyEntry::from_bytes(value.first()?)?);
            let l4 = key.prefixlen.saturating_sub(PolicyKey::STATIC_PREFIX);
            let port_bits = l4.saturating_sub(PolicyKey::PROTOCOL_PREFIX);
            Some(PolicyRow {
                direction: if key.egress == 1 { PolicyDirection::Egress } else { PolicyDirection::Ingress },
                identity: self.identity(key.sec_label, None),
                protocol: if l4 == 0 { 0 } else { key.protocol },
                port: key.dport.to_host(),
                port_prefix: u8::try_from(port_bits).unwrap_or(u8::MAX),
                deny: entry.deny(),
                packets: entry.packets,
            })
        })
    }

    /// `skep_ipcache`, sorted.
    fn ipcache(&self) -> Result<Vec<IpcacheRow>, Self::Error> {
        rows(self, IPCACHE.name, |key, value| {
            let (key, info) = (IpcacheKey::from_bytes(key)?, RemoteEndpointInfo::from_bytes(value.first()?)?);
            let (ip, tunnel) =
                (Ipv4Addr::from(key.ip4.octets()), Ipv4Addr::from(info.tunnel_endpoint.octets()));
            Some(IpcacheRow {
                cidr: format!("{ip}/{}", key.prefixlen.saturating_sub(IpcacheKey::STATIC_PREFIX)),
                identity: self.identity(info.sec_identity, Some(ip)),
                tunnel_endpoint: (!tunnel.is_unspecified()).then_some(IpAddr::V4(tunnel)),
            })
        })
    }

    /// Any map as hexadecimal digits, in the order of keys; `None` if it is not there.
    fn bytes(&self, map: &str) -> Result<Option<Vec<(String, String)>>, Self::Error> {
        let entries = self.entries(map)?;
        Ok(entries.map(|all| all.iter().map(|(k, v)| (hex(k), hex(&v.concat()))).collect()))
    }
}

/// The entries of a map that can be read as rows, sorted; none if the map is not there.
fn rows<T: Tables + ?Sized, R: Ord>(
    tables: &T,
    map: &str,
    read: impl Fn(&[u8], &[Vec<u8>]) -> Option<R>,
) -> Result<Vec<R>, T::Error> {
    let entries = tables.entries(map)?.unwrap_or_default();
    let mut rows: Vec<R> = entries.iter().filter_map(|(key, values)| read(key, values)).collect();
    rows.sort();
    Ok(rows)
}
