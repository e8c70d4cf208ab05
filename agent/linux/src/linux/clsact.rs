//! Programs at a device's tc hooks where there is no tcx (before 6.6): a clsact qdisc, and one bpf filter a hook.
//!
//! Knows rtnetlink's tc messages. A filter lives and dies with its device, needs no pin, and is replaced in one step;
//! ours are known by their name.

use super::load::Program;
use super::netlink::Netlink;
use super::pin::TcxHook;
use crate::Error;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use std::os::fd::AsRawFd as _;

/// `TC_H_CLSACT` and its two ends (include/uapi/linux/pkt_sched.h).
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// The one filter of a hook: its handle, and priority 1 of all protocols (`ETH_P_ALL`, in network order).
const HANDLE: u32 = 1;
const INFO: u32 = 1 << 16 | 0x0300;
/// `TCA_BPF_FLAGS` with `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is the verdict.
const FLAGS: u16 = 8;
const DIRECT: u32 = 1;
/// How names of our filters begin.
const OURS: &str = "skep/";

fn message(ifindex: u32, parent: u32, handle: u32, info: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    message.header.info = info;
    message
}

const fn end(hook: TcxHook) -> u32 {
    match hook {
        TcxHook::Ingress => INGRESS,
        TcxHook::Egress => EGRESS,
    }
}

fn is(e: &Error, codes: &[i32]) -> bool {
    matches!(e, Error::Kernel { source, .. } if source.raw_os_error().is_some_and(|c| codes.contains(&c)))
}

impl Netlink {
    /// Runs a program at a hook of a device, in the place of the one that runs there.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(super) fn set_filter(&mut self, ifindex: u32, hook: TcxHook, program: &Program) -> Result<(), Error> {
        let what = format!("attaching {} to device {ifindex}", program.name);
        let mut qdisc = message(ifindex, CLSACT, CLSACT & 0xffff_0000, 0);
        qdisc.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        match self.request(&what, RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
            Err(e) if !is(&e, &[libc::EEXIST]) => return Err(e),
            _ => {}
        }
        let mut filter = message(ifindex, end(hook), HANDLE, INFO);
        filter.attributes = vec![
            TcAttribute::Kind("bpf".to_owned()),
            TcAttribute::Options(
                [
                    TcFilterBpfOption::ProgFd(program.fd.as_raw_fd() as u32),
                    TcFilterBpfOption::ProgName(format!("{OURS}{}", program.name)),
                    TcFilterBpfOption::Other(DefaultNla::new(FLAGS, DIRECT.to_ne_bytes().to_vec())),
                ]
                .map(TcOption::Bpf)
                .to_vec(),
            ),
        ];
        self.request(&what, RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes our program off a hook; that there is none is no error.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(super) fn delete_filter(&mut self, ifindex: u32, hook: TcxHook) -> Result<(), Error> {
        if self.filter(ifindex, hook)?.is_none() {
            return Ok(());
        }
        let filter = message(ifindex, end(hook), HANDLE, INFO);
        self.request("detaching a program", RouteNetlinkMessage::DelTrafficFilter(filter), 0)
    }

    /// The id of our program at a hook, if one is there.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(super) fn filter(&mut self, ifindex: u32, hook: TcxHook) -> Result<Option<u32>, Error> {
        let all = message(ifindex, end(hook), 0, 0);
        let found = match self.dump("reading filters", RouteNetlinkMessage::GetTrafficFilter(all)) {
            Ok(found) => found,
            // A device that has no clsact has none, and neither has one that is gone.
            Err(e) if is(&e, &[libc::EINVAL, libc::ENOENT, libc::ENODEV]) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(found.into_iter().find_map(|m| match m {
            RouteNetlinkMessage::NewTrafficFilter(filter) => our_program(filter),
            _ => None,
        }))
    }
}

fn our_program(filter: TcMessage) -> Option<u32> {
    let options = filter.attributes.into_iter().find_map(|a| match a {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut id, mut is_ours) = (None, false);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => id = Some(program),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => is_ours = name.starts_with(OURS),
            _ => {}
        }
    }
    id.filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_filter_of_ours_is_found() {
        let filter = |name: &str| {
            let mut filter = message(2, INGRESS, HANDLE, INFO);
            let options = [TcFilterBpfOption::ProgName(name.to_owned()), TcFilterBpfOption::ProgId(7)];
            filter.attributes = vec![TcAttribute::Options(options.map(TcOption::Bpf).to_vec())];
            filter
        };
        assert_eq!(our_program(filter("skep/from_netdev")), Some(7));
        assert_eq!(our_program(filter("somebody")), None);
        assert_eq!(our_program(message(2, INGRESS, HANDLE, INFO)), None);
    }
}
