//! Engines agree: random programs without a fault give the same result and the same memory on each of them.
//! `cargo run --release --example agree -- 100000` runs more of them, and one seed again with `-- 1 SEED`.

#[path = "agree/compare.rs"]
mod compare;
#[expect(dead_code, reason = "programs that begin with a map are for the comparison with a kernel")]
#[path = "agree/generator.rs"]
mod generator;

#[test]
fn random_programs_do_the_same_on_every_engine() {
    let mut engines = compare::Engines::new();
    for seed in 0..3000 {
        engines.compare(seed).unwrap_or_else(|e| panic!("{e}; again: cargo run --example agree -- 1 {seed}"));
    }
}
