//! The agent of a node as a process of its own: this very program again, which serves orders instead of what it is for.
//!
//! It ends with its socket, and so with the process that holds the cluster, however that ends. Knows processes; what is
//! said is skep-agent's.

use skep_agent::control::{Answer, Order, serve};
use skep_agent_linux::Error;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};

/// What this program is called with when it is to be the agent of a node.
pub const AGENT_ARGUMENT: &str = "--be-the-agent-of-a-node";

/// Serves as a node's agent if this process was started for that; the status to end with. Every program that builds a
/// [`super::LiveWorld`] calls it first of all.
pub fn agent_process() -> Option<ExitCode> {
    if std::env::args().nth(1).as_deref() != Some(AGENT_ARGUMENT) {
        return None;
    }
    let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let served = socket.map_err(|e| failed("the agent's socket", e)).and_then(serve);
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "agent of a node: {e}");
            ExitCode::FAILURE
        }
    })
}

fn failed(what: &str, source: io::Error) -> Error {
    Error::Kernel { what: what.to_owned(), source }
}

/// A process that serves a node.
pub(super) struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    /// Starts it in the namespaces of the calling thread.
    pub(super) fn start() -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| failed("a socket", e))?;
        let child = Command::new("/proc/self/exe")
            .arg(AGENT_ARGUMENT)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| failed("starting a node's agent", e))?;
        Ok(Self { child, socket: BufReader::new(ours) })
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has an order followed, and waits until it was.
    pub(super) fn order(&mut self, order: &Order) -> Result<Answer, Error> {
        let gone = |e| failed("a node's agent", e);
        let mut text = serde_json::to_string(order).map_err(|e| gone(e.into()))?;
        text.push('\n');
        self.socket.get_mut().write_all(text.as_bytes()).map_err(gone)?;
        let mut line = String::new();
        if self.socket.read_line(&mut line).map_err(gone)? == 0 {
            let why = "its process has ended; a program that builds a live World calls `agent_process` first";
            return Err(gone(io::Error::other(why)));
        }
        serde_json::from_str(&line).map_err(|e| gone(e.into()))
    }
}

impl Drop for Process {
    /// What it has made is taken away with its namespaces.
    fn drop(&mut self) {
        self.kill();
    }
}
