//! The case of a seed and an index.
//!
//! Knows which programs there are and how a node may be set up. Does not know how a case is run.

use super::random::Random;
use super::{contents, packet};
use crate::row::{Row, passed};
use crate::world::{NEIGHBOUR, OTHER_NODE, POD};
use skep_abi::global::{self, Global};
use skep_abi::program::{self, Object, PROGRAMS, call};
use std::collections::BTreeMap;

/// So many cases in a row are about one program and one set-up: filling arrays of programs costs as much as some cases.
pub const BLOCK: u64 = 64;
/// Devices of the namespace in which cases run: from 1 on, this many.
pub const DEVICES: u32 = 13;

/// How a node is set up: what cannot change from case to case without a load.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct SetUp {
    globals: BTreeMap<&'static str, Vec<u8>>,
    unplugged: Option<u32>,
    not_ready: Option<u16>,
}

/// Every set-up of an object that is tried; the first is the usual one.
fn set_ups(object: Object) -> Vec<SetUp> {
    let with = |values: &[(Global, &[u8])]| {
        let of_object = values.iter().filter(|(g, _)| g.objects.contains(&object));
        let globals = of_object.map(|(g, v)| (g.name, v.to_vec())).collect();
        SetUp { globals, ..SetUp::default() }
    };
    let routes: (Global, &[u8]) = (global::ENABLE_ENDPOINT_ROUTES, &[1]);
    let mut all = vec![
        SetUp::default(),
        with(&[routes]),
        with(&[(global::TUNNEL_IFINDEX, &[0; 4])]),
        with(&[(global::HOST_IFINDEX, &[0; 4])]),
        with(&[(global::SECURITY_LABEL, &[1, 0, 0, 0]), routes]),
        with(&[(global::SECURITY_LABEL, &[5, 0, 0, 1]), (global::ENDPOINT_ID, &[0xff, 0xff])]),
        with(&[(global::ENDPOINT_IPV4, &OTHER_NODE), (global::ROUTER_IPV4, &POD.ip)]),
        SetUp { not_ready: Some(POD.id), ..SetUp::default() },
        SetUp { not_ready: Some(NEIGHBOUR.id), ..SetUp::default() },
    ];
    if object == Object::Lxc {
        let slots = [
            call::ARP,
            call::IPV4_FROM_LXC,
            call::IPV4_FROM_LXC_CONT,
            call::IPV4_CT_INGRESS_POLICY_ONLY,
            call::IPV4_CT_EGRESS,
            call::IPV4_TO_ENDPOINT,
        ];
        all.extend(slots.map(|slot| SetUp { unplugged: Some(slot), ..SetUp::default() }));
    }
    all.dedup();
    all
}

/// Makes cases.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    programs: Vec<&'static program::Program>,
    set_ups: BTreeMap<Object, Vec<SetUp>>,
}

impl Generator {
    /// All cases of a seed; of one program or of all.
    pub fn new(seed: u64, program: Option<&program::Program>) -> Self {
        let programs = PROGRAMS.iter().filter(|p| program.is_none_or(|only| only.name == p.name)).collect();
        let set_ups = Object::ALL.iter().map(|o| (*o, set_ups(*o))).collect();
        Self { seed, programs, set_ups }
    }

    /// The case of an index.
    pub fn case(&self, index: u64) -> Row {
        let block = index / BLOCK;
        let program = self.programs[(block % self.programs.len() as u64) as usize];
        let mut of_block = Random::of_case(!self.seed, block);
        let all = &self.set_ups[&program.object];
        let set_up = if of_block.chance(45) { &all[0] } else { &all[of_block.below(all.len())] };
        let mut random = Random::of_case(self.seed, index);
        let (frame, flow) = packet::frame(&mut random, sends(program.name));
        let mut row = Row::new(program.name, "case", frame, passed());
        row.context = contents::context(&mut random, DEVICES);
        row.state = contents::state(&mut random, flow);
        row.globals = set_up.globals.clone();
        (row.unplugged, row.not_ready) = (set_up.unplugged, set_up.not_ready);
        row
    }
}

/// Whether a program sees what a pod sends.
fn sends(program: &str) -> bool {
    let at_sender = [
        "from_container",
        "tail_handle_arp",
        "tail_handle_ipv4",
        "tail_ipv4_ct_egress",
        "tail_handle_ipv4_cont",
    ];
    at_sender.contains(&program) || matches!(program, "to_host" | "to_netdev" | "to_overlay")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::case::CaseFile;

    #[test]
    fn every_program_comes_up_and_every_case_can_be_kept() {
        let generator = Generator::new(1, None);
        let mut seen = std::collections::BTreeSet::new();
        for index in (0..BLOCK * PROGRAMS.len() as u64).step_by(16) {
            let row = generator.case(index);
            seen.insert(row.program);
            let file = CaseFile::of(&row, String::new());
            let again = CaseFile::parse(&file.text().unwrap()).unwrap().row().unwrap();
            assert_eq!(CaseFile::of(&again, String::new()), file);
        }
        assert_eq!(seen.len(), PROGRAMS.len());
    }

    #[test]
    fn one_program_is_all_there_is_if_it_is_asked_for() {
        let generator = Generator::new(1, program::by_name("to_host"));
        assert!((0..2000).step_by(99).all(|i| generator.case(i).program == "to_host"));
    }
}
