//! Random cases through every program, in skep-vm and through BPF_PROG_TEST_RUN; a difference is made small and kept.
//!
//! Knows what may go into a program, and that two runs of one case must leave the same behind. Does not know what is right:
//! that both are wrong alike is for the tables of `rows` to say.

#[cfg(target_os = "linux")]
pub mod campaign;
pub mod case;
mod contents;
pub mod generate;
mod packet;
pub mod random;
#[cfg(target_os = "linux")]
pub mod replay;
pub mod report;
pub mod shrink;
#[cfg(target_os = "linux")]
pub mod tunnel;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Whether BPF_PROG_TEST_RUN takes no such frame (`bpf_prog_test_run_skb` in net/bpf/test_run.c): one without an Ethernet
/// header, and on newer kernels one whose EtherType promises a header that is not whole.
pub fn may_be_refused(frame: &[u8]) -> bool {
    let needs = match frame.get(12..14) {
        Some([0x08, 0x00]) => ETHERNET + IPV4,
        Some([0x86, 0xdd]) => ETHERNET + IPV6,
        _ => ETHERNET,
    };
    frame.len() < needs || frame.len() == ETHERNET
}
