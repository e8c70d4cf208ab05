//! The reasons that scenarios may name are those that the net can give: skep-scenario may not depend on skep-net, so
//! its list is held against the net's here.

#[test]
fn every_reason_of_the_net_can_be_expected_and_explained_and_no_other() {
    let mut given: Vec<&str> = skep_net::DropReason::ALL.iter().map(|r| r.name()).collect();
    let mut known: Vec<&str> = skep_scenario::reasons::OUTER.iter().map(|r| r.name).collect();
    given.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, given);
}
