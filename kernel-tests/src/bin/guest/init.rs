//! PID 1: mounts, modules, the tests, and the value at the exit device that says how they ended.
//!
//! What goes wrong is said on the console, where the host reads the last lines.
#![expect(unsafe_code, reason = "QEMU's exit device is an I/O port, and these kernels have no /dev/port")]

use rustix::mount::{MountFlags, mount};
use skep_live::qemu::protocol::{AGREED, NOT_AGREED};
use std::fs::File;
use std::process::{Command, ExitCode};
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

pub(crate) fn main() -> ExitCode {
    let value = match run() {
        Ok(()) => AGREED,
        Err(e) => {
            println!("init: {e}");
            NOT_AGREED
        }
    };
    match leave(value) {
        Ok(()) => println!("init: the exit device did not end the machine"),
        Err(e) => println!("init: the exit device: {e}"),
    }
    // A kernel whose PID 1 returns panics, which the host does not take for a pass either.
    ExitCode::FAILURE
}

fn run() -> Result<(), Failure> {
    mounts()?;
    modules()?;
    // Every distribution's node has it on; without it no program may both call and tail call.
    std::fs::write("/proc/sys/net/core/bpf_jit_enable", "1")?;
    let status = Command::new("/proc/self/exe").status()?;
    if status.success() { Ok(()) } else { Err(format!("the tests ended with {status}").into()) }
}

/// Where, from what file system.
const MOUNTS: [(&str, &str); 6] = [
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/dev", "devtmpfs"),
    ("/sys/fs/bpf", "bpf"),
    ("/sys/fs/cgroup", "cgroup2"),
    ("/tmp", "tmpfs"),
];

fn mounts() -> Result<(), Failure> {
    for (at, kind) in MOUNTS {
        mount(kind, at, kind, MountFlags::empty(), None).map_err(|e| format!("mounting {at}: {e}"))?;
    }
    Ok(())
}

fn modules() -> Result<(), Failure> {
    for name in std::fs::read_to_string("/modules/order")?.lines() {
        let file = File::open(format!("/modules/{name}.ko"))?;
        rustix::system::finit_module(&file, c"", 0).map_err(|e| format!("module {name}: {e}"))?;
    }
    Ok(())
}

/// Ends the machine with a status that holds this value.
fn leave(value: u8) -> Result<(), std::io::Error> {
    const PORT: u16 = 0x501;
    // What the serial ports still hold has to be out first.
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(100));
    // SAFETY: ioperm(2) takes no address; it lets this process use one port.
    if unsafe { libc::ioperm(PORT.into(), 1, 1) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just allowed this port; writing to it touches no memory of this process, and at worst
    // ends the machine, which is what it is for.
    unsafe {
        std::arch::asm!("out dx, al", in("dx") PORT, in("al") value, options(nomem, nostack, preserves_flags));
    }
    Ok(())
}
