//! One case in both places, in a namespace that has devices for it.
//!
//! Knows the running kernel. Does not know where a case comes from.

use super::generate::DEVICES;
use super::may_be_refused;
use crate::kernel::Machine;
use crate::outcome::{Outcome, differences};
use crate::row::Row;
use crate::vm::Simulator;
use skep_agent_linux::{Error, Netlink, Netns, NewEnd};
use skep_object::ObjectSet;
use skep_vm::EngineKind;

/// A namespace without a name, with devices 1 to [`DEVICES`]; it ends with whoever holds it.
///
/// # Errors
///
/// What the kernel refuses: without root that it is not permitted.
pub fn namespace() -> Result<Netns, Error> {
    let netns = Netns::new()?;
    netns.within(|| {
        let mut netlink = Netlink::open()?;
        for pair in 0.. {
            let last = netlink.devices()?.iter().map(|d| d.ifindex).max().unwrap_or(0);
            if last >= DEVICES {
                return Ok(());
            }
            let (a, b) = (format!("a{pair}"), format!("b{pair}"));
            let end = |name, last| NewEnd { name, mac: [2, 0, 0, 1, pair, last], mtu: 1500, netns: None };
            netlink.add_veth(&end(&a, 1), &end(&b, 2))?;
        }
        Ok(())
    })??;
    Ok(netns)
}

/// What became of a case.
pub enum Compared {
    /// The kernel does not take the packet, as [`may_be_refused`] says.
    Refused,
    /// Both ran it: in skep-vm so, with these differences.
    Ran(Box<Outcome>, Vec<String>),
}

/// Both places.
pub struct Pair {
    kernel: Machine,
    vm: Simulator,
}

impl Pair {
    /// Both places, in the calling thread's namespace; the objects are the same but in tests.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot be asked, or an object is none.
    pub fn new(kernel: ObjectSet, vm: &ObjectSet, engine: EngineKind) -> Result<Self, String> {
        let vm = Simulator::new(vm)?.with_engine(engine);
        Ok(Self { kernel: Machine::new(kernel).map_err(|e| e.to_string())?, vm })
    }

    /// Runs a case in both.
    pub fn compare(&mut self, row: &Row) -> Compared {
        let real = match self.kernel.run(row) {
            Ok(real) => real,
            Err(_) if may_be_refused(&row.frame) => return Compared::Refused,
            Err(e) => return Compared::Ran(Box::default(), vec![format!("the kernel: {e}")]),
        };
        match self.vm.run_at(row, real.start_s) {
            Ok(simulated) => {
                let found = differences(&real, &simulated);
                Compared::Ran(Box::new(simulated), found)
            }
            Err(e) => Compared::Ran(Box::new(real), vec![format!("skep-vm: {e}")]),
        }
    }

    /// The differences of a case; none where the kernel refuses it.
    pub fn differences(&mut self, row: &Row) -> Vec<String> {
        match self.compare(row) {
            Compared::Refused => Vec::new(),
            Compared::Ran(_, found) => found,
        }
    }
}
