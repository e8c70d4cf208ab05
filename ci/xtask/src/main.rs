//! The one door: build, check, compare.
fn main() {}
