//! `skep-agent`: one process a node that holds its datapath to what a folder of manifests says.
//!
//! Knows files, namespaces by name, signals and time; agent/core decides and agent/linux does. Nothing that forwarding
//! needs lives in this process: killed, it is missed by nobody until something changes.

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod daemon;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod tally;

use std::process::ExitCode;

/// A line about what is done, to stdout. That nobody listens any more is no reason to end.
#[cfg(target_os = "linux")]
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "skep-agent: {}", format_args!($($text)*));
    }};
}

/// A line about what is wrong, to stderr.
#[cfg(target_os = "linux")]
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skep-agent: {}", format_args!($($text)*));
    }};
}

#[cfg(target_os = "linux")]
pub(crate) use {complain, say};

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser as _;

    let args = args::Args::parse();
    let result = if args.clean { clean(&args) } else { daemon::run(args) };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(why) => {
            complain!("{why}");
            ExitCode::from(2)
        }
    }
}

#[cfg(target_os = "linux")]
fn clean(args: &args::Args) -> Result<u8, String> {
    let removed = skep_agent_linux::clean(&args.bpffs).map_err(|e| e.to_string())?;
    for what in &removed {
        say!("removed {what}");
    }
    if removed.is_empty() {
        say!("nothing of skep is here");
    }
    Ok(0)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("skep-agent: this is not Linux; `skep run` needs no kernel");
    ExitCode::from(2)
}
