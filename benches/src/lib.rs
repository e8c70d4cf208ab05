//! What a packet costs: counted exactly for every row of the packet tables, and the programs that engines and kernel
//! are timed with.
//!
//! Knows skep-live's rows and a few programs written by hand. Times nothing itself: `benches/` does.

pub mod programs;

use skep_live::rows;
use skep_live::vm::Simulator;
use skep_object::ObjectSet;
use skep_vm::EngineKind;
use std::fmt::Write as _;

/// The row that stands for the datapath's most frequent work: a packet of a connection that is established, from a pod
/// to another node.
pub const ESTABLISHED: (&str, &str) = ("from_container", "an_established_packet_asks_the_policy");

/// For every row: the programs that ran, and how many instructions, helper calls and map look-ups that took. The same
/// objects give the same text on every machine and every engine.
///
/// # Errors
///
/// A row that the vm cannot run.
pub fn cost_table() -> Result<String, String> {
    let simulator = Simulator::new(&ObjectSet::built_in())?;
    let mut out = String::from("instructions  helpers  look-ups  program, row\n");
    for row in rows::all() {
        let run = simulator.prepare(&row, EngineKind::Checked)?.run()?;
        let stats = run.stats;
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{:>12}  {:>7}  {:>8}  {}, {} ({} program{})",
            stats.instructions,
            stats.helper_calls,
            stats.map_lookups,
            row.program,
            row.name,
            run.chain.len(),
            if run.chain.len() == 1 { "" } else { "s" }
        );
    }
    Ok(out)
}
