//! Kinds of programs, and which section of an object holds which.
//!
//! Knows the kernel's numbers (`enum bpf_prog_type`) and the section names that loaders agree on. Knows neither what
//! a context looks like (see [`crate::context`]) nor how a program runs.

/// What a program expects and gives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProgramKind {
    /// `BPF_PROG_TYPE_SCHED_CLS`: r1 points to a `struct __sk_buff`.
    SchedClassifier,
    /// `BPF_PROG_TYPE_SCHED_ACT`: as a classifier, and its verdict is an action's.
    SchedAction,
    /// `BPF_PROG_TYPE_XDP`: r1 points to a `struct xdp_md`.
    Xdp,
    /// `BPF_PROG_TYPE_CGROUP_SKB`: a `struct __sk_buff` whose packet starts at the network header.
    CgroupSkb,
    /// `BPF_PROG_TYPE_CGROUP_SOCK`: r1 points to a `struct bpf_sock`.
    CgroupSock,
    /// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`: r1 points to a `struct bpf_sock_addr`.
    CgroupSockAddr,
    /// `BPF_PROG_TYPE_CGROUP_SOCKOPT`: r1 points to a `struct bpf_sockopt`.
    CgroupSockopt,
    /// `BPF_PROG_TYPE_SOCK_OPS`: r1 points to a `struct bpf_sock_ops`.
    SockOps,
    /// `BPF_PROG_TYPE_SK_MSG`: r1 points to a `struct sk_msg_md`.
    SkMsg,
    /// `BPF_PROG_TYPE_SK_SKB`: a `struct __sk_buff` of a socket's stream.
    SkSkb,
    /// `BPF_PROG_TYPE_SOCKET_FILTER`: a `struct __sk_buff`, mostly read only.
    SocketFilter,
    /// No kind of the kernel: r1 points to plain memory and r2 holds its length, as bpf_conformance has it.
    Memory,
}

/// Section prefixes, the longest that fits first, and the kind of what stands there. A name fits if it is equal or
/// goes on with `/`.
const SECTIONS: &[(&str, ProgramKind)] = &[
    ("tc", ProgramKind::SchedClassifier),
    ("tcx", ProgramKind::SchedClassifier),
    ("netkit", ProgramKind::SchedClassifier),
    ("classifier", ProgramKind::SchedClassifier),
    ("action", ProgramKind::SchedAction),
    ("xdp", ProgramKind::Xdp),
    ("xdp.frags", ProgramKind::Xdp),
    ("cgroup_skb", ProgramKind::CgroupSkb),
    ("cgroup/skb", ProgramKind::CgroupSkb),
    ("cgroup/sock", ProgramKind::CgroupSock),
    ("cgroup/sock_create", ProgramKind::CgroupSock),
    ("cgroup/sock_release", ProgramKind::CgroupSock),
    ("cgroup/post_bind4", ProgramKind::CgroupSock),
    ("cgroup/post_bind6", ProgramKind::CgroupSock),
    ("cgroup/bind4", ProgramKind::CgroupSockAddr),
    ("cgroup/bind6", ProgramKind::CgroupSockAddr),
    ("cgroup/connect4", ProgramKind::CgroupSockAddr),
    ("cgroup/connect6", ProgramKind::CgroupSockAddr),
    ("cgroup/connect_unix", ProgramKind::CgroupSockAddr),
    ("cgroup/sendmsg4", ProgramKind::CgroupSockAddr),
    ("cgroup/sendmsg6", ProgramKind::CgroupSockAddr),
    ("cgroup/recvmsg4", ProgramKind::CgroupSockAddr),
    ("cgroup/recvmsg6", ProgramKind::CgroupSockAddr),
    ("cgroup/getpeername4", ProgramKind::CgroupSockAddr),
    ("cgroup/getpeername6", ProgramKind::CgroupSockAddr),
    ("cgroup/getsockname4", ProgramKind::CgroupSockAddr),
    ("cgroup/getsockname6", ProgramKind::CgroupSockAddr),
    ("cgroup/getsockopt", ProgramKind::CgroupSockopt),
    ("cgroup/setsockopt", ProgramKind::CgroupSockopt),
    ("sockops", ProgramKind::SockOps),
    ("sk_msg", ProgramKind::SkMsg),
    ("sk_skb", ProgramKind::SkSkb),
    ("socket", ProgramKind::SocketFilter),
];

impl ProgramKind {
    /// The kind of the programs in a section, by the names that libbpf knows.
    pub fn of_section(name: &str) -> Option<Self> {
        let name = name.strip_prefix('?').unwrap_or(name);
        let fits = |prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = SECTIONS.iter().filter(|(prefix, _)| fits(prefix));
        found.max_by_key(|(prefix, _)| prefix.len()).map(|(_, kind)| *kind)
    }

    /// The kernel's number (`enum bpf_prog_type`); 0 for [`Self::Memory`].
    pub const fn number(self) -> u32 {
        match self {
            Self::Memory => 0,
            Self::SocketFilter => 1,
            Self::SchedClassifier => 3,
            Self::SchedAction => 4,
            Self::Xdp => 6,
            Self::CgroupSkb => 8,
            Self::CgroupSock => 9,
            Self::SockOps => 13,
            Self::SkSkb => 14,
            Self::SkMsg => 16,
            Self::CgroupSockAddr => 18,
            Self::CgroupSockopt => 25,
        }
    }

    /// The C structure that the first argument points to; `None` for plain memory.
    pub fn context_name(self) -> Option<&'static str> {
        crate::context::layout(self).map(|layout| layout.name)
    }

    /// Whether the context is a `struct __sk_buff`.
    pub const fn has_skb(self) -> bool {
        matches!(
            self,
            Self::SchedClassifier | Self::SchedAction | Self::CgroupSkb | Self::SkSkb | Self::SocketFilter
        )
    }
}

#[cfg(test)]
mod tests {
    use super::ProgramKind::{self, *};

    #[test]
    fn sections_name_kinds() {
        let kind = ProgramKind::of_section;
        assert_eq!(kind("tc"), Some(SchedClassifier));
        assert_eq!(kind("tc/ingress"), Some(SchedClassifier));
        assert_eq!(kind("classifier/from"), Some(SchedClassifier));
        assert_eq!(kind("xdp.frags/cpumap"), Some(Xdp));
        assert_eq!(kind("cgroup/sock_create"), Some(CgroupSock));
        assert_eq!(kind("cgroup/connect4"), Some(CgroupSockAddr));
        assert_eq!(kind("cgroup_skb/egress"), Some(CgroupSkb));
        assert_eq!(kind("sk_skb/stream_parser"), Some(SkSkb));
        assert_eq!(kind("kprobe/x"), None);
        assert_eq!(kind("tcp"), None);
    }
}
