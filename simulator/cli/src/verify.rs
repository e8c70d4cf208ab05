//! `skep verify`: what the running kernel's verifier says to every program.

use crate::args::VerifyArgs;

/// Asks the kernel. Returns the exit status: 1 if it refuses a program, 2 if it cannot be asked.
#[cfg(all(feature = "kernel", target_os = "linux"))]
pub(crate) fn verify(args: &VerifyArgs) -> u8 {
    use crate::args::VerifyOutput;
    use crate::diagnostics;
    use skep_object::ObjectSet;
    use skep_scenario::Diagnostic;

    let objects = match ObjectSet::new(args.object.as_deref()) {
        Ok(objects) => objects,
        Err(e) => {
            diagnostics::print(&Diagnostic::new(e.to_string()));
            return 2;
        }
    };
    match skep_agent_linux::verify_running_kernel(&objects) {
        Ok(report) => {
            match args.output {
                VerifyOutput::Text => print!("{report}"),
                VerifyOutput::Json => println!("{}", report.to_json()),
            }
            u8::from(!report.is_success())
        }
        Err(e) => {
            diagnostics::print(&Diagnostic::new(e.to_string()).help("run it as root on a kernel with BPF"));
            2
        }
    }
}

/// Says what it would need.
#[cfg(not(all(feature = "kernel", target_os = "linux")))]
pub(crate) fn verify(_: &VerifyArgs) -> u8 {
    use skep_scenario::Diagnostic;

    let (why, help) = if cfg!(target_os = "linux") {
        (
            "this skep was built without the feature `kernel`",
            "run `cargo run --release -p skep --features kernel -- verify` as root",
        )
    } else {
        ("there is no Linux kernel to ask here", "run `skep verify` on Linux, as root")
    };
    crate::diagnostics::print(&Diagnostic::new(why).help(help));
    2
}
