//! A pcapng file of everything that passed a hook: one interface a hook, the verdict as the packet's comment.
//!
//! Knows the file format through `pcap-file`. Does not know what a hook is: it is given names.

use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// Packets as they stood before each hook, in the order of the run.
#[derive(Default)]
pub(crate) struct Capture {
    interfaces: Vec<String>,
    packets: Vec<Packet>,
}

struct Packet {
    interface: u32,
    time: Duration,
    bytes: Vec<u8>,
    comment: String,
}

impl Capture {
    /// Adds an Ethernet frame that was at `interface`, `time` after the start, with a comment that says what became
    /// of it.
    pub(crate) fn add(&mut self, interface: &str, time: Duration, bytes: &[u8], comment: String) {
        let index = self.interfaces.iter().position(|i| i == interface).unwrap_or_else(|| {
            self.interfaces.push(interface.to_owned());
            self.interfaces.len() - 1
        });
        self.packets.push(Packet { interface: index as u32, time, bytes: bytes.to_vec(), comment });
    }

    /// Writes the file. Times are nanoseconds since the start of the run, which stands at the epoch: the clock is
    /// simulated, and the same run gives the same bytes.
    pub(crate) fn write<W: Write>(&self, out: W) -> io::Result<()> {
        let section = SectionHeaderBlock {
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed("skep"))],
            ..Default::default()
        };
        let mut pcap = PcapNgWriter::with_section_header(out, section).map_err(as_io)?;
        for name in &self.interfaces {
            pcap.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    // 10^-9 s.
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            })
            .map_err(as_io)?;
        }
        for p in &self.packets {
            pcap.write_pcapng_block(EnhancedPacketBlock {
                interface_id: p.interface,
                timestamp: p.time,
                original_len: p.bytes.len() as u32,
                data: Cow::Borrowed(&p.bytes),
                options: vec![EnhancedPacketOption::Comment(Cow::Borrowed(&p.comment))],
            })
            .map_err(as_io)?;
        }
        Ok(())
    }
}

fn as_io(e: pcap_file::PcapError) -> io::Error {
    match e {
        pcap_file::PcapError::IoError(e) => e,
        other => io::Error::other(other),
    }
}
