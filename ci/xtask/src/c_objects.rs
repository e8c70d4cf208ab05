//! The objects in C of skep-vm's tests, as others write them: built with clang, and compared with the committed ones.
//!
//! Knows where the script stands that builds them. Flags are the script's.

use crate::{Outcome, command};
use std::process::Command;

/// From the root.
const SCRIPT: &str = "simulator/vm/tests/objects/build.sh";

/// Builds them where they are committed, or elsewhere to compare.
pub(crate) fn build(check: bool) -> Outcome {
    let mut script = Command::new("sh");
    script.arg(command::root().join(SCRIPT));
    if check {
        script.arg("--check");
    }
    let help = "ci/toolchain.sh installs clang; after a change of a source: cargo xtask c-objects";
    command::run(&mut script).map_err(|e| format!("{e}; {help}"))
}
