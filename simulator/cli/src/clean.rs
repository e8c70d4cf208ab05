//! `skep clean`: removes what an agent has made on this node.

/// Removes it. Returns the exit status.
#[cfg(all(feature = "kernel", target_os = "linux"))]
pub(crate) fn clean() -> u8 {
    use skep_scenario::Diagnostic;

    match skep_agent_linux::clean(std::path::Path::new("/sys/fs/bpf")) {
        Ok(removed) => {
            for what in &removed {
                println!("removed {what}");
            }
            if removed.is_empty() {
                println!("nothing of skep is here");
            }
            0
        }
        Err(e) => {
            let diagnostic = Diagnostic::new(e.to_string());
            let other = matches!(e, skep_agent_linux::Error::Busy { .. });
            crate::diagnostics::print(&if other { diagnostic } else { diagnostic.help("run it as root") });
            2
        }
    }
}

/// Says what it would need.
#[cfg(not(all(feature = "kernel", target_os = "linux")))]
pub(crate) fn clean() -> u8 {
    use skep_scenario::Diagnostic;

    let why = "this skep was built without the feature `kernel`, or not for Linux";
    crate::diagnostics::print(&Diagnostic::new(why).help("build it with `--features kernel` on Linux"));
    2
}
