//! Each way of being worse is caught by the check that has its name, and by no other.

use super::super::config::Config;
use super::*;
use skep_agent_linux::ObjectReport;

fn program(name: &str, verified: u64, stack: u32) -> ProgramReport {
    ProgramReport {
        name: name.to_owned(),
        verdict: Verdict::Success,
        size: 50,
        verified,
        stack: Some(stack),
        states: 9,
        peak_states: 8,
        log: Vec::new(),
    }
}

fn report(kernel: &str, programs: Vec<ProgramReport>) -> Report {
    let objects = vec![ObjectReport { name: "lxc".into(), sha256: String::new(), programs }];
    Report { kernel: kernel.to_owned(), objects }
}

fn healthy(kernel: &str) -> Report {
    report(kernel, vec![program("from_container", 1000, 200), program("handle_policy", 50, 0)])
}

fn names(found: &[Finding]) -> Vec<(&'static str, &str)> {
    found.iter().map(|f| (f.check.name(), f.program.as_str())).collect()
}

#[test]
fn a_program_that_fails_on_one_kernel_only_is_caught_there() {
    let tables = ["6.1.0", "6.12.1"].map(|k| Table::of(&healthy(k)).unwrap());
    let mut old = healthy("6.1.0");
    let refused = &mut old.objects[0].programs[1];
    refused.verdict = Verdict::Failure;
    refused.verified = 3;
    refused.log = vec!["BPF_MOV uses reserved fields".into()];
    let found = tables[0].compare(&old);
    assert_eq!(names(&found), [("verifier-verdict", "lxc/handle_policy")]);
    assert!(found[0].to_string().contains("BPF_MOV uses reserved fields"), "{}", found[0]);
    assert_eq!(tables[1].compare(&healthy("6.12.1")), []);
    // Nor can it be made to pass by writing it down.
    assert!(Table::of(&old).unwrap_err().to_string().contains("refuses it"));
}

#[test]
fn a_fifth_more_verified_instructions_is_caught_and_a_tenth_is_not() {
    let table = Table::of(&healthy("6.1.0")).unwrap();
    let with = |verified, stack| {
        report("6.1.0", vec![program("from_container", verified, stack), program("handle_policy", 50, 0)])
    };
    let found = table.compare(&with(1200, 200));
    assert_eq!(names(&found), [("verified-instructions", "lxc/from_container")]);
    assert!(
        found[0].what.starts_with("1200 verified instructions, the table has 1000, 20% more"),
        "{}",
        found[0]
    );
    assert_eq!(table.compare(&with(1100, 220)), []);
    assert_eq!(names(&table.compare(&with(1101, 221))).len(), 2);
    assert_eq!(names(&table.compare(&with(500, 240))), [("stack", "lxc/from_container")]);
    assert_eq!((table.stale(&with(1000, 200)), table.stale(&with(999, 200))), (0, 1));
}

#[test]
fn programs_that_come_and_go_are_named() {
    let table = Table::of(&healthy("6.1.0")).unwrap();
    let other = report("6.1.0", vec![program("from_container", 1000, 200), program("new", 1, 0)]);
    assert_eq!(names(&table.compare(&other)), [("not-in-table", "lxc/new"), ("gone", "lxc/handle_policy")]);
}

#[test]
fn a_table_is_written_as_it_is_read() {
    let table = Table::of(&healthy("6.1.0")).unwrap();
    assert_eq!(toml::from_str::<Table>(&table.to_toml()).unwrap(), table);
}

/// The committed tables, each with its series.
fn committed() -> Vec<(String, Table)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = Config::read(&root).unwrap();
    let table =
        |s: &str| Table::read(&root, s).unwrap().unwrap_or_else(|| panic!("{FOLDER}/{s}.toml is not there"));
    config.kernel.iter().map(|k| (k.series.clone(), table(&k.series))).collect()
}

#[test]
fn every_kernel_has_a_table_with_every_program_of_the_contract() {
    for (series, table) in committed() {
        assert!(super::super::config::is_of_series(&table.kernel, &series), "{series}: {}", table.kernel);
        for p in skep_abi::program::PROGRAMS {
            let line = table.programs.get(p.object.name()).and_then(|o| o.get(p.name));
            assert!(line.is_some_and(|c| c.verified > 0), "{series}: {}/{}", p.object.name(), p.name);
        }
    }
}

#[test]
fn the_pages_show_the_committed_tables() {
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
        let text = std::fs::read_to_string(&path).unwrap();
        let [_, shown, _] = parts(&path, &text).unwrap();
        assert_eq!(
            shown.trim(),
            markdown(&committed()).trim(),
            "{page} is old: `cargo xtask kernels --update`"
        );
    }
}

#[test]
fn a_page_without_a_place_for_tables_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.md");
    std::fs::write(&path, format!("a\n{BEGIN}old\n{END}\nb")).unwrap();
    show(&path, "new\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("a\n{BEGIN}\nnew\n\n{END}\nb"));
    std::fs::write(&path, BEGIN).unwrap();
    let problem = show(&path, "new").unwrap_err().to_string();
    assert!(problem.contains("page.md: no line `<!-- end of tables -->`"), "{problem}");
}
