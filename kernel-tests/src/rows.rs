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
}
