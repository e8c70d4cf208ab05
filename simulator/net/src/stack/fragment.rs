//! Fragments: cutting a packet to the MTU and putting it together again (RFC 791 section 3.2, `ip_fragment.c`).

use crate::frame::Frame;
use crate::queue::{Due, Event};
use crate::record::{DropReason, Origin, What};
use crate::transit::Place;
use crate::wire::{self, ETH_LEN, Ipv4};
use crate::{Hooks, IfIndex, Net, NsId};
use skep_packet::Checksum;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How long fragments wait for the rest (ipfrag_time), nanoseconds.
const WAIT_NS: u64 = 30_000_000_000;
/// How many packets may be incomplete in a namespace; Linux counts bytes instead.
const MAX_PACKETS: usize = 1024;

/// Which packet a fragment belongs to: source, destination, protocol, identification.
pub(crate) type FragmentKey = (Ipv4Addr, Ipv4Addr, u8, u16);

/// What waits in a namespace.
#[derive(Default)]
pub(crate) struct Fragments(pub(crate) BTreeMap<FragmentKey, Partial>);

/// The parts of one packet, by offset.
pub(crate) struct Partial {
    parts: BTreeMap<usize, (Frame, Ipv4)>,
    pub(crate) timer: Due,
}

impl Partial {
    /// All frames.
    pub(crate) fn into_frames(self) -> impl Iterator<Item = Frame> {
        self.parts.into_values().map(|(frame, _)| frame)
    }

    /// The length of the payload if nothing is missing.
    fn complete(&self) -> Option<usize> {
        let mut expected = 0;
        let mut last = false;
        for (offset, (_, ip)) in &self.parts {
            if *offset != expected || last {
                return None;
            }
            expected += ip.total_len - ip.header_len;
            last = !ip.more_fragments;
        }
        last.then_some(expected)
    }

    fn overlaps(&self, ip: &Ipv4) -> bool {
        let (start, end) = (ip.offset, ip.offset + ip.total_len - ip.header_len);
        self.parts.iter().any(|(offset, (_, other))| {
            let other_end = offset + other.total_len - other.header_len;
            start < other_end && *offset < end || *offset == start
        })
    }
}

impl Net {
    /// `ip_defrag`: the whole packet when its last part has come. It keeps the number of its first fragment.
    pub(crate) fn reassemble(
        &mut self,
        h: &mut dyn Hooks,
        place: Place,
        ip: &Ipv4,
        frame: Frame,
    ) -> Option<Frame> {
        let ns = place.ns?;
        let length = ip.total_len - ip.header_len;
        // ip_frag_queue: beyond 65535 bytes, empty, or a middle part that is not a multiple of eight.
        if ip.offset + length > 65535 || length == 0 || (ip.more_fragments && !length.is_multiple_of(8)) {
            self.drop_frame(h, place, &frame, DropReason::IpInHdr);
            return None;
        }
        let key = (ip.source, ip.destination, ip.protocol, ip.id);
        let (due, waiting) = (self.now + WAIT_NS, self.namespaces.get(&ns)?.fragments.0.len());
        if !self.namespaces.get(&ns)?.fragments.0.contains_key(&key) {
            if waiting >= MAX_PACKETS {
                self.drop_frame(h, place, &frame, DropReason::NotSpecified);
                return None;
            }
            let timer = self.queue.push(due, Event::Fragments { ns, key });
            let partial = Partial { parts: BTreeMap::new(), timer };
            self.namespaces.get_mut(&ns)?.fragments.0.insert(key, partial);
        }
        let fragments = &mut self.namespaces.get_mut(&ns)?.fragments.0;
        let partial = fragments.get_mut(&key)?;
        if partial.overlaps(ip) {
            // RFC 5722's rule, which Linux applies to IPv4 too: the whole packet goes.
            let partial = fragments.remove(&key)?;
            self.queue.cancel(partial.timer);
            for part in partial.into_frames().chain([frame]) {
                self.drop_frame(h, place, &part, DropReason::DupFrag);
            }
            return None;
        }
        partial.parts.insert(ip.offset, (frame, *ip));
        let length = partial.complete()?;
        let partial = fragments.remove(&key)?;
        self.queue.cancel(partial.timer);
        Some(self.join(h, place, partial, length))
    }

    fn join(&mut self, h: &mut dyn Hooks, place: Place, partial: Partial, length: usize) -> Frame {
        let mut parts = partial.parts.into_values();
        let (mut first, header) = parts.next().expect("a complete packet has a first fragment");
        let mut bytes = first.skb.bytes()[..ETH_LEN + header.header_len].to_vec();
        bytes.extend_from_slice(header.payload(first.network()));
        for (part, ip) in parts {
            bytes.extend_from_slice(ip.payload(part.network()));
            self.record(h, place, &part, What::Merged { into: first.id });
        }
        let total = (header.header_len + length).min(usize::from(u16::MAX)) as u16;
        bytes[ETH_LEN + 2..ETH_LEN + 4].copy_from_slice(&total.to_be_bytes());
        bytes[ETH_LEN + 6..ETH_LEN + 8].fill(0);
        wire::fix_ipv4_checksum(&mut bytes[ETH_LEN..]);
        first.skb.checksum = Checksum::None;
        // The other fragments hang on as a list: only the first is linear.
        let linear = first.skb.linear_len();
        first.skb.replace(&bytes, linear);
        first
    }

    /// `ip_expire`.
    pub(crate) fn fragments_expired(&mut self, h: &mut dyn Hooks, ns: NsId, key: FragmentKey) {
        let Some(namespace) = self.namespaces.get_mut(&ns) else { return };
        let Some(partial) = namespace.fragments.0.remove(&key) else { return };
        let place = self.place_in(ns, None);
        let has_first = partial.parts.contains_key(&0);
        for (number, frame) in partial.into_frames().enumerate() {
            if number == 0 && has_first {
                self.icmp_error(h, ns, &frame, 11, 1, [0; 4]);
            }
            self.drop_frame(h, place, &frame, DropReason::FragReasmTimeout);
        }
    }

    /// `ip_do_fragment`: cuts a packet to `mtu` and sends the parts. The first keeps the packet's number.
    pub(crate) fn fragment(
        &mut self,
        h: &mut dyn Hooks,
        ns: NsId,
        ifindex: IfIndex,
        next_hop: Ipv4Addr,
        mtu: usize,
        mut frame: Frame,
    ) {
        let place = self.place_in(ns, Some(ifindex));
        crate::transit::complete_checksum(&mut frame.skb);
        let Ok(ip) = Ipv4::parse(frame.network()) else {
            return self.drop_frame(h, place, &frame, DropReason::IpInHdr);
        };
        let room = mtu.saturating_sub(ip.header_len) & !7;
        if room == 0 {
            return self.drop_frame(h, place, &frame, DropReason::PktTooBig);
        }
        let header = frame.skb.bytes()[..ETH_LEN + ip.header_len].to_vec();
        let payload = ip.payload(frame.network()).to_vec();
        let (of, devices, template) = (frame.id, frame.devices, frame.skb.clone());
        let mut whole = Some(frame);
        for (number, chunk) in payload.chunks(room).enumerate() {
            let last = (number + 1) * room >= payload.len();
            let mut bytes = header.clone();
            let offset = (ip.offset + number * room) / 8;
            let flags = if last && !ip.more_fragments { 0 } else { 0x2000 };
            let total = (ip.header_len + chunk.len()) as u16;
            bytes[ETH_LEN + 2..ETH_LEN + 4].copy_from_slice(&total.to_be_bytes());
            bytes[ETH_LEN + 6..ETH_LEN + 8].copy_from_slice(&(flags | offset as u16 & 0x1fff).to_be_bytes());
            wire::fix_ipv4_checksum(&mut bytes[ETH_LEN..]);
            bytes.extend_from_slice(chunk);
            let mut part = match whole.take() {
                Some(frame) => frame,
                None => {
                    let mut part = self.new_frame(template.clone());
                    part.devices = devices;
                    self.record(h, place, &part, What::Sent { origin: Origin::Fragment { of } });
                    part
                }
            };
            part.skb.replace(&bytes, usize::MAX);
            self.neighbour_output(h, ns, ifindex, next_hop, part);
        }
    }
}
