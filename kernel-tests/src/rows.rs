//! The tables: every program's rows, each expectation written from docs/datapath.md.

mod from_container;
mod host;
mod overlay;
mod receive;
mod send_steps;

use crate::row::Row;

/// All rows.
pub fn all() -> Vec<Row> {
    [from_container::rows(), send_steps::rows(), receive::rows(), host::rows(), overlay::rows()].concat()
}

#[cfg(test)]
mod tests {
    use super::all;
    use skep_abi::DropReason;
    use skep_abi::program::PROGRAMS;
    use std::collections::BTreeSet;

    #[test]
    fn every_program_has_rows_and_no_two_have_one_title() {
        let rows = all();
        for p in PROGRAMS {
            let count = rows.iter().filter(|r| r.program == p.name).count();
            assert!(count >= 2, "{} has {count} rows", p.name);
        }
        let titles: BTreeSet<String> = rows.iter().map(super::Row::title).collect();
        assert_eq!(titles.len(), rows.len());
    }
    /// Reasons that no packet at one hook can meet, and why.
    const NO_ROW: &[(DropReason, &str)] = &[
        (DropReason::ERROR_WRITING_TO_PACKET, "a linear packet is always written to"),
        (DropReason::UNKNOWN_L4_PROTOCOL, "conntrack is asked first and refuses with 137"),
        (DropReason::CT_MAP_INSERTION_FAILED, "an LRU map makes room"),
        (DropReason::INVALID_IDENTITY, "BPF_PROG_TEST_RUN carries no tunnel metadata"),
        (DropReason::INVALID_VNI, "BPF_PROG_TEST_RUN carries no tunnel metadata"),
        (DropReason::UNKNOWN_SENDER, "whom the ipcache does not know is the world"),
    ];

    #[test]
    fn every_reason_has_a_row_or_a_reason_for_none() {
        let met: BTreeSet<DropReason> = all().iter().filter_map(|r| r.expected.reason()).collect();
        for reason in DropReason::ALL {
            let excused = NO_ROW.iter().find(|(r, _)| r == reason);
            match (met.contains(reason), excused) {
                (true, None) | (false, Some(_)) => {}
                (true, Some((_, why))) => panic!("{} has a row, so strike out: {why}", reason.name()),
                (false, None) => panic!("{} has no row", reason.name()),
            }
        }
    }
}
