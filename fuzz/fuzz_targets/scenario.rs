//! Any text as a scenario.yaml, planned with whatever files it names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skep_scenario::plan::{Plan, PlanOptions};

fuzz_target!(|text: &str| {
    let file = std::env::temp_dir().join(format!("skep-fuzz-{}.yaml", std::process::id()));
    if std::fs::write(&file, text).is_err() {
        return;
    }
    if let Err(all) = Plan::load(&file, &PlanOptions { seed: None, ignore_kinds: Vec::new() }) {
        for diagnostic in all {
            let _ = diagnostic.to_string();
        }
    }
});
