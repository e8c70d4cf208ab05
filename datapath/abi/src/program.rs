//! The one list of programs: names, objects, hooks, and the tail calls between them.

/// An object file: one ELF, loaded once an endpoint or a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Object {
    /// The pod's host-side device (Cilium's bpf_lxc).
    Lxc,
    /// skep_host, skep_net and the node's devices (Cilium's bpf_host).
    Host,
    /// The tunnel device (Cilium's bpf_overlay).
    Overlay,
}

impl Object {
    /// All objects.
    pub const ALL: &'static [Object] = &[Object::Lxc, Object::Host, Object::Overlay];

    /// The object's name; its file is `NAME.o`.
    pub const fn name(self) -> &'static str {
        match self {
            Object::Lxc => "lxc",
            Object::Host => "host",
            Object::Overlay => "overlay",
        }
    }
}

/// Where the kernel runs a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hook {
    /// tc/tcx ingress of a device.
    TcIngress,
    /// tc/tcx egress of a device.
    TcEgress,
    /// Only through a slot of `skep_call_policy`.
    CallPolicy,
    /// Only through a slot of `skep_calls`.
    Calls(u32),
}

/// A program of the datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program {
    /// The name: of the function, in traces, in expectations.
    pub name: &'static str,
    /// The object that holds it.
    pub object: Object,
    /// Where it runs.
    pub hook: Hook,
}

/// Slots of `skep_calls`, with Cilium's numbers (`CILIUM_CALL_*`).
pub mod call {
    /// Answers a pod's ARP request.
    pub const ARP: u32 = 6;
    /// Goes on with a pod's IPv4 packet; in overlay and host, with one that came in.
    pub const IPV4_FROM_LXC: u32 = 7;
    /// Goes on after conntrack on egress.
    pub const IPV4_FROM_LXC_CONT: u32 = 25;
    /// Conntrack on ingress, before [`IPV4_TO_ENDPOINT`].
    pub const IPV4_CT_INGRESS_POLICY_ONLY: u32 = 28;
    /// Conntrack on egress.
    pub const IPV4_CT_EGRESS: u32 = 29;
    /// Policy and delivery on ingress.
    pub const IPV4_TO_ENDPOINT: u32 = 13;
    /// How many slots there are.
    pub const SIZE: u32 = 43;
}

/// The one list of programs.
pub const PROGRAMS: &[Program] = &[
    Program { name: "from_container", object: Object::Lxc, hook: Hook::TcIngress },
    Program { name: "to_container", object: Object::Lxc, hook: Hook::TcEgress },
    Program { name: "handle_policy", object: Object::Lxc, hook: Hook::CallPolicy },
    Program { name: "tail_handle_arp", object: Object::Lxc, hook: Hook::Calls(call::ARP) },
    Program { name: "tail_handle_ipv4", object: Object::Lxc, hook: Hook::Calls(call::IPV4_FROM_LXC) },
    Program { name: "tail_ipv4_ct_egress", object: Object::Lxc, hook: Hook::Calls(call::IPV4_CT_EGRESS) },
    Program {
        name: "tail_handle_ipv4_cont",
        object: Object::Lxc,
        hook: Hook::Calls(call::IPV4_FROM_LXC_CONT),
    },
    Program {
        name: "tail_ipv4_ct_ingress_policy_only",
        object: Object::Lxc,
        hook: Hook::Calls(call::IPV4_CT_INGRESS_POLICY_ONLY),
    },
    Program { name: "tail_ipv4_to_endpoint", object: Object::Lxc, hook: Hook::Calls(call::IPV4_TO_ENDPOINT) },
    Program { name: "from_host", object: Object::Host, hook: Hook::TcEgress },
    Program { name: "to_host", object: Object::Host, hook: Hook::TcIngress },
    Program { name: "from_netdev", object: Object::Host, hook: Hook::TcIngress },
    Program { name: "to_netdev", object: Object::Host, hook: Hook::TcEgress },
    Program { name: "from_overlay", object: Object::Overlay, hook: Hook::TcIngress },
    Program { name: "to_overlay", object: Object::Overlay, hook: Hook::TcEgress },
];

/// The program of a name.
pub fn by_name(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|p| p.name == name)
}

/// The programs of an object.
pub fn of(object: Object) -> impl Iterator<Item = &'static Program> {
    PROGRAMS.iter().filter(move |p| p.object == object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_object_fills_a_slot_twice() {
        for (i, p) in PROGRAMS.iter().enumerate() {
            for q in &PROGRAMS[..i] {
                assert_ne!(p.name, q.name);
                if let Hook::Calls(slot) = p.hook {
                    assert!(p.object != q.object || q.hook != Hook::Calls(slot), "{} and {}", p.name, q.name);
                    assert!(slot < call::SIZE);
                }
            }
        }
    }
}
