//! The command line of `skep-agent`, and what it teaches. Knows neither files nor kernels.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLE: &str = "\
A first look, as root on a node that the folder has a Node object of:

  kubectl get nodes,namespaces,pods,networkpolicies -A -o yaml > /etc/skep/cluster.yaml
  ip netns add default_web           # the namespace of the pod web in the namespace default
  skep-agent --node node-1 /etc/skep

The agent goes on until SIGTERM or SIGINT. However it ends, the datapath stays and goes on forwarding; the next agent \
finds it and changes only what is no longer wanted. `skep-agent --clean` takes all of it away.

Exit status: 0 it was asked to end (with --once: the datapath is as the files say), 1 the node refused a change \
(--once), 2 the arguments, the files (--once) or the set-up are wrong.";

/// A node's agent: holds the node's eBPF datapath to what manifests say.
///
/// It reads Kubernetes manifests from files and folders, and again whenever they change: Nodes with their podCIDR and
/// InternalIP, Namespaces, Pods and workloads, NetworkPolicies. Files that are wrong are told with file, line and
/// field, and change nothing until they are right.
#[derive(Parser, Debug)]
#[command(name = "skep-agent", version, after_help = EXAMPLE, max_term_width = 100)]
pub(crate) struct Args {
    /// Files and folders with the cluster's manifests; the same for all nodes of the cluster
    #[arg(required_unless_present = "clean", value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,

    /// The name of this node, as its Node object has it [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,

    /// Where pods' network namespaces stand, each by the name NAMESPACE_POD; a pod waits for its own
    #[arg(long, value_name = "DIR", default_value = "/run/netns")]
    pub(crate) netns: PathBuf,

    /// The BPF file system that holds the datapath
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: PathBuf,

    /// Objects to load instead of the built-in ones: a folder with a NAME.o for each
    #[arg(long, value_name = "DIR")]
    pub(crate) object: Option<PathBuf>,

    /// How often to look whether files and namespaces have changed, in milliseconds
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = milliseconds)]
    pub(crate) interval: Duration,

    /// The UDP port of the tunnel between nodes
    #[arg(long, value_name = "PORT", default_value = "8472")]
    pub(crate) tunnel_port: u16,

    /// The MTU of the pods' devices
    #[arg(long, value_name = "BYTES", default_value = "1500")]
    pub(crate) mtu: u16,

    /// Give every pod of this node a route of its own
    #[arg(long)]
    pub(crate) endpoint_routes: bool,

    /// A kind to read past although nothing is known about it, as GROUP/KIND; can be given again
    #[arg(long, value_name = "GROUP/KIND")]
    pub(crate) ignore_kind: Vec<String>,

    /// Bring the datapath to what the files say, and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Print every action
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Remove all that skep has on this node, and end
    #[arg(long, conflicts_with_all = ["manifests", "once"])]
    pub(crate) clean: bool,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(ms) if ms >= 10 => Ok(Duration::from_millis(ms.into())),
        _ => Err("give a whole number of milliseconds, at least 10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["skep-agent", "/etc/skep"]).unwrap();
        assert_eq!((args.interval, args.tunnel_port, args.mtu), (Duration::from_secs(1), 8472, 1500));
        assert!(Args::try_parse_from(["skep-agent"]).is_err(), "what to hold the node to?");
        assert!(Args::try_parse_from(["skep-agent", "--clean"]).is_ok());
        assert!(Args::try_parse_from(["skep-agent", "--interval", "1", "x"]).is_err(), "that is a busy loop");
    }
}
