//! Any text as a Kubernetes manifest.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(errors) = skep_manifest::parse("fuzz.yaml", text, &skep_manifest::Options::default()) {
        let _ = errors.to_string();
    }
});
