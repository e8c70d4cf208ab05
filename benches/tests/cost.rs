//! What each path costs is known before and after a change: `cost.txt` beside this folder is what the committed objects
//! take.

use std::path::Path;

#[test]
fn every_path_costs_what_is_written() {
    let table = skep_benches::cost_table().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cost.txt");
    if std::env::var_os("SKEP_WRITE_COST").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = table.lines().zip(written.lines()).find(|(now, before)| now != before);
    assert_eq!(differs, None, "now, and as written");
    assert_eq!(
        table.lines().count(),
        written.lines().count(),
        "rows were added or taken away: SKEP_WRITE_COST=1 cargo test -p skep-benches writes the table anew"
    );
}
