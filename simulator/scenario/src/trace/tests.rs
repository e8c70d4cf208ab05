//! Traces as they look at 80 and at 160 columns.

use super::*;
use crate::fake;

fn at(width: usize, allowed: bool) -> String {
    render(&fake::evidence(allowed), 0, TextStyle { width, color: false })
}

#[test]
fn a_wide_terminal_has_a_line_a_hop() {
    insta::assert_snapshot!(at(160, true));
}

#[test]
fn a_narrow_terminal_has_an_indented_line_below() {
    insta::assert_snapshot!(at(80, true));
}

#[test]
fn a_drop_names_its_reason_its_number_and_its_rule() {
    insta::assert_snapshot!(at(160, false));
    insta::assert_snapshot!(at(80, false));
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [80, 100, 119, 120, 160, 200] {
        for allowed in [true, false] {
            let text = at(width, allowed);
            // The flow's line is Hubble's: one line, however long.
            let hops = text.trim_end().rsplit_once('\n').unwrap().0;
            let widest = hops.lines().map(|l| l.chars().count()).max().unwrap();
            assert!(widest <= width, "{widest} > {width}:\n{text}");
        }
    }
}

#[test]
fn colour_changes_no_character() {
    let coloured = render(&fake::evidence(false), 0, TextStyle { width: 160, color: true });
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some(i) = rest.find('\u{1b}') {
        plain += &rest[..i];
        rest = &rest[i + rest[i..].find('m').unwrap() + 1..];
    }
    assert_eq!(plain + rest, at(160, false));
}
