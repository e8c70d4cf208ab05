//! The skep command: arguments in, exit status out.
//!
//! Tables go to stdout, diagnostics to stderr. Exit status: 0 as expected, 1 an expectation failed, 2 the input or the
//! set-up is wrong, 3 an invariant broke.

mod args;
mod clean;
mod diagnostics;
mod explain;
mod fuzz;
mod prog;
mod run;
mod terminal;
mod verify;
mod worlds;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    // `skep run --on kernel` starts this program again, once a node.
    #[cfg(all(feature = "kernel", target_os = "linux"))]
    if let Some(status) = skep_live::live::agent_process() {
        return status;
    }
    // clap exits with 2 on arguments that it does not know.
    let args = Args::parse();
    let status = match args.command {
        Command::Run(run) => run::run(&run),
        Command::Prog(prog) => prog::prog(&prog),
        Command::Verify(verify) => verify::verify(&verify),
        Command::Fuzz(fuzz) => fuzz::fuzz(&fuzz),
        Command::Clean => clean::clean(),
        Command::Explain { reason } => explain::explain(reason.as_deref()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "skep", &mut std::io::stdout());
            0
        }
    };
    ExitCode::from(status)
}
