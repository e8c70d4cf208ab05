//! Whether the packets of TCP connections, seen at one place, make sense together (RFC 9293): sequence numbers follow
//! one another, nobody acknowledges what was not sent, what is sent again is the same, nothing comes after the end.
//!
//! Knows no loss: a packet that was lost on the way is only missing, and what comes again later fills the gap.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{IpNumber, Ipv4HeaderSlice, TcpSlice};

use crate::check::Violation;

/// Connections by their ends, the lower first.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    streams: BTreeMap<(SocketAddrV4, SocketAddrV4), [Side; 2]>,
}

/// What one end has sent.
#[derive(Debug, Clone, Default)]
struct Side {
    /// The sequence number of its SYN.
    initial: Option<u32>,
    /// What was seen from the first byte on without a gap; its first byte is at offset 1.
    bytes: Vec<u8>,
    /// Segments behind a gap, by offset.
    ahead: BTreeMap<u32, Vec<u8>>,
    /// The highest offset that was sent, SYN and FIN counted, plus one.
    sent: u32,
    /// The offset of the FIN.
    fin: Option<u32>,
}

impl Streams {
    /// Nothing seen yet.
    pub fn new() -> Streams {
        Streams::default()
    }

    /// Looks at an IPv4 packet from its IP header. What is not whole TCP is passed over; broken headers are for
    /// [`crate::check`].
    pub fn see(&mut self, packet: &[u8]) -> Vec<Violation> {
        let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else { return Vec::new() };
        if ip.protocol() != IpNumber::TCP || ip.is_fragmenting_payload() {
            return Vec::new();
        }
        let payload = packet.get(ip.slice().len()..usize::from(ip.total_len()));
        let Some(tcp) = payload.and_then(|payload| TcpSlice::from_slice(payload).ok()) else {
            return Vec::new();
        };
        let from = SocketAddrV4::new(Ipv4Addr::from(ip.source()), tcp.source_port());
        let to = SocketAddrV4::new(Ipv4Addr::from(ip.destination()), tcp.destination_port());
        let me = usize::from(from > to);
        let sides = self.streams.entry((from.min(to), from.max(to))).or_default();
        let mut found = Vec::new();
        let mut fail = |rule, detail: String| {
            found.push(Violation { rule, detail: format!("{from} -> {to}: {detail}") });
        };
        // A new SYN after the end is a new connection between the same ends.
        let sequence = tcp.sequence_number();
        if tcp.syn() && sides[me].initial.is_some_and(|initial| initial != sequence) {
            match sides[me].fin.is_some() || sides[1 - me].fin.is_some() {
                true => *sides = <[Side; 2]>::default(),
                false => fail("tcp syn", format!("sequence number {sequence} differs from the first SYN's")),
            }
        }
        if let Err(detail) = sides[me].send(&tcp) {
            fail("tcp sequence", detail);
        }
        let other = &sides[1 - me];
        if let (true, Some(initial)) = (tcp.ack(), other.initial) {
            let acknowledged = tcp.acknowledgment_number().wrapping_sub(initial);
            if acknowledged > other.sent {
                let detail = format!("acknowledges offset {acknowledged}, the other end sent {}", other.sent);
                fail("tcp acknowledgment", detail);
            }
        }
        found
    }

    /// What `from` has sent to `to` without a gap, from the first byte on.
    pub fn bytes(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let Some(sides) = self.streams.get(&(from.min(to), from.max(to))) else { return Vec::new() };
        sides[usize::from(from > to)].bytes.clone()
    }
}

impl Side {
    /// Offset 0 is the SYN, 1 the first byte.
    fn send(&mut self, tcp: &TcpSlice<'_>) -> Result<(), String> {
        let sequence = tcp.sequence_number();
        if tcp.syn() {
            self.initial.get_or_insert(sequence);
            self.sent = self.sent.max(1);
            return Ok(());
        }
        // A connection whose beginning was not seen here cannot be judged.
        let Some(initial) = self.initial else { return Ok(()) };
        let offset = sequence.wrapping_sub(initial);
        let payload = tcp.payload();
        let end = offset.wrapping_add(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        if !payload.is_empty() && offset == 0 {
            return Err("data at the place of the SYN".to_owned());
        }
        if let Some(fin) = self.fin
            && end > fin
            && !payload.is_empty()
        {
            return Err(format!("data up to offset {end} after the FIN at {fin}"));
        }
        self.store(offset, payload)?;
        self.sent = self.sent.max(end);
        if tcp.fin() {
            if self.fin.is_some_and(|fin| fin != end) {
                return Err(format!("a FIN at offset {end}, after one elsewhere"));
            }
            self.fin = Some(end);
            self.sent = self.sent.max(end.wrapping_add(1));
        }
        Ok(())
    }

    fn store(&mut self, offset: u32, payload: &[u8]) -> Result<(), String> {
        if offset as usize > self.bytes.len() + 1 {
            self.ahead.insert(offset, payload.to_vec());
            return Ok(());
        }
        self.append(offset, payload)?;
        // What waited behind the gap may follow now.
        while let Some(waiting) = self.ahead.first_entry()
            && *waiting.key() as usize <= self.bytes.len() + 1
        {
            let (offset, payload) = waiting.remove_entry();
            self.append(offset, &payload)?;
        }
        Ok(())
    }

    /// Compares what is there already and adds what is not. There is no gap before it.
    fn append(&mut self, offset: u32, payload: &[u8]) -> Result<(), String> {
        // Offset 0 is the SYN's, and bears no byte.
        let Some(at) = (offset as usize).checked_sub(1) else { return Ok(()) };
        let known = self.bytes.get(at..).unwrap_or_default();
        if let Some(n) = known.iter().zip(payload).position(|(a, b)| a != b) {
            return Err(format!("other data at offset {} than before", at + n + 1));
        }
        let new = payload.get(known.len()..).unwrap_or_default().to_vec();
        self.bytes.extend(new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpHeader};

    use super::*;

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn packet(from_a: bool, sequence: u32, ack: Option<u32>, flags: &str, payload: &[u8]) -> Vec<u8> {
        let (from, to, ports) = if from_a { (A, B, (4000, 80)) } else { (B, A, (80, 4000)) };
        let mut tcp = TcpHeader::new(ports.0, ports.1, sequence, 1000);
        (tcp.syn, tcp.fin) = (flags.contains('S'), flags.contains('F'));
        (tcp.ack, tcp.acknowledgment_number) = (ack.is_some(), ack.unwrap_or(0));
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(from, to, 64).tcp_header(tcp).write(&mut bytes, payload).expect("a Vec takes it");
        bytes
    }

    fn rules(streams: &mut Streams, packet: &[u8]) -> Vec<&'static str> {
        streams.see(packet).iter().map(|violation| violation.rule).collect()
    }

    fn opened() -> Streams {
        let mut streams = Streams::new();
        // Sequence numbers wrap around in the middle of the stream.
        assert!(streams.see(&packet(true, u32::MAX - 2, None, "S", b"")).is_empty());
        assert!(streams.see(&packet(false, 500, Some(u32::MAX - 1), "S", b"")).is_empty());
        assert!(streams.see(&packet(true, u32::MAX - 1, Some(501), "", b"hello")).is_empty());
        streams
    }

    #[test]
    fn a_good_stream_passes_and_can_be_read() {
        let mut streams = opened();
        assert!(streams.see(&packet(true, u32::MAX - 1, Some(501), "", b"hello again")).is_empty());
        assert!(streams.see(&packet(true, 9, Some(501), "F", b"")).is_empty());
        assert!(streams.see(&packet(false, 501, Some(10), "F", b"bye")).is_empty());
        let (a, b) = (SocketAddrV4::new(A.into(), 4000), SocketAddrV4::new(B.into(), 80));
        assert_eq!(streams.bytes(a, b), b"hello again");
        assert_eq!(streams.bytes(b, a), b"bye");
    }

    #[test]
    fn what_was_lost_comes_again() {
        let mut streams = opened();
        assert!(streams.see(&packet(true, 13, Some(501), "", b"three")).is_empty());
        assert!(streams.see(&packet(true, 8, Some(501), "", b"-two-")).is_empty());
        let (a, b) = (SocketAddrV4::new(A.into(), 4000), SocketAddrV4::new(B.into(), 80));
        assert_eq!(streams.bytes(a, b), b"hello");
        assert!(streams.see(&packet(true, 3, Some(501), "", b"-one-")).is_empty());
        assert_eq!(streams.bytes(a, b), b"hello-one--two-three");
        assert_eq!(rules(&mut streams, &packet(true, 8, Some(501), "", b"-TWO-")), ["tcp sequence"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let mut streams = opened();
        assert_eq!(
            rules(&mut streams, &packet(true, u32::MAX - 1, Some(501), "", b"hullo")),
            ["tcp sequence"]
        );
        assert_eq!(rules(&mut streams, &packet(false, 501, Some(40), "", b"")), ["tcp acknowledgment"]);
        assert_eq!(rules(&mut streams, &packet(true, 77, None, "S", b"")), ["tcp syn"]);
        assert!(rules(&mut streams, &packet(true, 3, Some(501), "F", b"")).is_empty());
        assert_eq!(rules(&mut streams, &packet(true, 3, Some(501), "", b"more")), ["tcp sequence"]);
        assert!(rules(&mut streams, &packet(true, 77, None, "S", b"")).is_empty(), "a new connection");
    }
}
