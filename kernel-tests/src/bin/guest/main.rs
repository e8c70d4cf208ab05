//! All that runs in a kernel under test: PID 1, which sets the machine up, and the tests, which it starts as a process
//! of their own. One static binary, so that the initramfs needs no C library.
//!
//! What is checked is the libraries': the same verifier report as `skep verify`'s, the same packet tables as
//! `cargo test`'s.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod init;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    if let Some(status) = skep_live::live::agent_process() {
        return status;
    }
    if std::process::id() == 1 { init::main() } else { tests::main() }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("SKIP kernels-in-qemu: linux");
}
