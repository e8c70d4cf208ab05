//! What contexts look like to programs: a table a structure, a row a field.
//!
//! Offsets, sizes and who may write are those of `include/uapi/linux/bpf.h` and of each kind's `is_valid_access` in
//! `net/core/filter.c` and `kernel/bpf/cgroup.c`. Knows no values.

use crate::ProgramKind;

/// Who may touch a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// How the program's view of a field differs from what stands in the vm's context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// It does not.
    Plain,
    /// 32 bits to the program and a 64-bit address here, which stands at this offset.
    Pointer(i16),
    /// A 64-bit address for both.
    Pointer64,
    /// 32 bits to the program, of which the kernel keeps 16.
    Narrow,
    /// As `Narrow`, and a store of 0xffff or above does nothing.
    QueueMapping,
}

/// One field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    /// As in the C structure.
    pub(crate) name: &'static str,
    pub(crate) offset: i16,
    /// Bytes, as programs see it.
    pub(crate) size: i16,
    pub(crate) access: Access,
    pub(crate) shape: Shape,
}

/// One structure, as one kind of program sees it. What is in no row is refused by the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The C structure.
    pub(crate) name: &'static str,
    /// Bytes of it.
    pub(crate) size: i16,
    pub(crate) fields: &'static [Field],
}

impl Layout {
    /// The field that an access touches first, if any.
    pub(crate) fn touched(&self, offset: i32, width: i32) -> Option<&'static Field> {
        // Fields are in order and do not overlap.
        let at = self.fields.partition_point(|f| i32::from(f.offset) + i32::from(f.size) <= offset);
        self.fields.get(at).filter(|f| i32::from(f.offset) < offset + width)
    }
}

/// Where the 64-bit forms of `data`, `data_end` and `data_meta` stand: behind every structure.
pub(crate) const DATA: i16 = 256;
pub(crate) const DATA_END: i16 = 264;
pub(crate) const DATA_META: i16 = 272;

macro_rules! fields {
    (@access r) => { Access::Read };
    (@access w) => { Access::ReadWrite };
    (@shape) => { Shape::Plain };
    (@shape $shape:expr) => { $shape };
    ($( $name:literal $offset:literal $size:literal $access:ident $($shape:expr)?; )*) => {
        &[ $( Field {
            name: $name,
            offset: $offset,
            size: $size,
            access: fields!(@access $access),
            shape: fields!(@shape $($shape)?),
        } ),* ]
    };
}

use Shape::{Narrow, Pointer, Pointer64, QueueMapping};

const TC: Layout = Layout {
    name: "__sk_buff",
    size: 192,
    fields: fields! {
        "len" 0 4 r;
        "pkt_type" 4 4 r;
        "mark" 8 4 w;
        "queue_mapping" 12 4 w QueueMapping;
        "protocol" 16 4 r;
        "vlan_present" 20 4 r;
        "vlan_tci" 24 4 r;
        "vlan_proto" 28 4 r;
        "priority" 32 4 w;
        "ingress_ifindex" 36 4 r;
        "ifindex" 40 4 r;
        "tc_index" 44 4 w Narrow;
        "cb" 48 20 w;
        "hash" 68 4 r;
        "tc_classid" 72 4 w;
        "data" 76 4 r Pointer(DATA);
        "data_end" 80 4 r Pointer(DATA_END);
        "napi_id" 84 4 r;
        "data_meta" 140 4 r Pointer(DATA_META);
        "tstamp" 152 8 w;
        "wire_len" 160 4 r;
        "gso_segs" 164 4 r;
        "sk" 168 8 r Pointer64;
        "gso_size" 176 4 r;
        "tstamp_type" 180 1 r;
        "hwtstamp" 184 8 r;
    },
};

const CGROUP_SKB: Layout = Layout {
    name: "__sk_buff",
    size: 192,
    fields: fields! {
        "len" 0 4 r;
        "pkt_type" 4 4 r;
        "mark" 8 4 w;
        "queue_mapping" 12 4 r;
        "protocol" 16 4 r;
        "vlan_present" 20 4 r;
        "vlan_tci" 24 4 r;
        "vlan_proto" 28 4 r;
        "priority" 32 4 w;
        "ingress_ifindex" 36 4 r;
        "ifindex" 40 4 r;
        "tc_index" 44 4 r;
        "cb" 48 20 w;
        "hash" 68 4 r;
        "data" 76 4 r Pointer(DATA);
        "data_end" 80 4 r Pointer(DATA_END);
        "napi_id" 84 4 r;
        "family" 88 4 r;
        "remote_ip4" 92 4 r;
        "local_ip4" 96 4 r;
        "remote_ip6" 100 16 r;
        "local_ip6" 116 16 r;
        "remote_port" 132 4 r;
        "local_port" 136 4 r;
        "tstamp" 152 8 w;
        "gso_segs" 164 4 r;
        "sk" 168 8 r Pointer64;
        "gso_size" 176 4 r;
        "hwtstamp" 184 8 r;
    },
};

const SK_SKB: Layout = Layout {
    name: "__sk_buff",
    size: 192,
    fields: fields! {
        "len" 0 4 r;
        "pkt_type" 4 4 r;
        "mark" 8 4 r;
        "queue_mapping" 12 4 r;
        "protocol" 16 4 r;
        "vlan_present" 20 4 r;
        "vlan_tci" 24 4 r;
        "vlan_proto" 28 4 r;
        "priority" 32 4 w;
        "ingress_ifindex" 36 4 r;
        "ifindex" 40 4 r;
        "tc_index" 44 4 w Narrow;
        "cb" 48 20 r;
        "hash" 68 4 r;
        "data" 76 4 r Pointer(DATA);
        "data_end" 80 4 r Pointer(DATA_END);
        "napi_id" 84 4 r;
        "family" 88 4 r;
        "remote_ip4" 92 4 r;
        "local_ip4" 96 4 r;
        "remote_ip6" 100 16 r;
        "local_ip6" 116 16 r;
        "remote_port" 132 4 r;
        "local_port" 136 4 r;
        "gso_segs" 164 4 r;
        "sk" 168 8 r Pointer64;
        "gso_size" 176 4 r;
    },
};

const SOCKET_FILTER: Layout = Layout {
    name: "__sk_buff",
    size: 192,
    fields: fields! {
        "len" 0 4 r;
        "pkt_type" 4 4 r;
        "mark" 8 4 r;
        "queue_mapping" 12 4 r;
        "protocol" 16 4 r;
        "vlan_present" 20 4 r;
        "vlan_tci" 24 4 r;
        "vlan_proto" 28 4 r;
        "priority" 32 4 r;
        "ingress_ifindex" 36 4 r;
        "ifindex" 40 4 r;
        "tc_index" 44 4 r;
        "cb" 48 20 w;
        "hash" 68 4 r;
        "napi_id" 84 4 r;
        "gso_segs" 164 4 r;
        "sk" 168 8 r Pointer64;
        "gso_size" 176 4 r;
    },
};

const XDP: Layout = Layout {
    name: "xdp_md",
    size: 24,
    fields: fields! {
        "data" 0 4 r Pointer(DATA);
        "data_end" 4 4 r Pointer(DATA_END);
        "data_meta" 8 4 r Pointer(DATA_META);
        "ingress_ifindex" 12 4 r;
        "rx_queue_index" 16 4 r;
        "egress_ifindex" 20 4 r;
    },
};

/// A socket, as a context and wherever a helper gives one.
pub(crate) const SOCK: Layout = Layout {
    name: "bpf_sock",
    size: 80,
    fields: fields! {
        "bound_dev_if" 0 4 w;
        "family" 4 4 r;
        "type" 8 4 r;
        "protocol" 12 4 r;
        "mark" 16 4 w;
        "priority" 20 4 w;
        "src_ip4" 24 4 r;
        "src_ip6" 28 16 r;
        "src_port" 44 4 r;
        "dst_port" 48 2 r;
        "dst_ip4" 52 4 r;
        "dst_ip6" 56 16 r;
        "state" 72 4 r;
        "rx_queue_mapping" 76 4 r;
    },
};

const SOCK_ADDR: Layout = Layout {
    name: "bpf_sock_addr",
    size: 72,
    fields: fields! {
        "user_family" 0 4 r;
        "user_ip4" 4 4 w;
        "user_ip6" 8 16 w;
        "user_port" 24 4 w;
        "family" 28 4 r;
        "type" 32 4 r;
        "protocol" 36 4 r;
        "msg_src_ip4" 40 4 w;
        "msg_src_ip6" 44 16 w;
        "sk" 64 8 r Pointer64;
    },
};

const SOCKOPT: Layout = Layout {
    name: "bpf_sockopt",
    size: 40,
    fields: fields! {
        "sk" 0 8 r Pointer64;
        "optval" 8 8 r Pointer64;
        "optval_end" 16 8 r Pointer64;
        "level" 24 4 w;
        "optname" 28 4 w;
        "optlen" 32 4 w;
        "retval" 36 4 w;
    },
};

const SOCK_OPS: Layout = Layout {
    name: "bpf_sock_ops",
    size: 224,
    fields: fields! {
        "op" 0 4 r;
        "args" 4 16 w;
        "family" 20 4 r;
        "remote_ip4" 24 4 r;
        "local_ip4" 28 4 r;
        "remote_ip6" 32 16 r;
        "local_ip6" 48 16 r;
        "remote_port" 64 4 r;
        "local_port" 68 4 r;
        "is_fullsock" 72 4 r;
        "snd_cwnd" 76 4 r;
        "srtt_us" 80 4 r;
        "bpf_sock_ops_cb_flags" 84 4 r;
        "state" 88 4 r;
        "rtt_min" 92 4 r;
        "snd_ssthresh" 96 4 r;
        "rcv_nxt" 100 4 r;
        "snd_nxt" 104 4 r;
        "snd_una" 108 4 r;
        "mss_cache" 112 4 r;
        "ecn_flags" 116 4 r;
        "rate_delivered" 120 4 r;
        "rate_interval_us" 124 4 r;
        "packets_out" 128 4 r;
        "retrans_out" 132 4 r;
        "total_retrans" 136 4 r;
        "segs_in" 140 4 r;
        "data_segs_in" 144 4 r;
        "segs_out" 148 4 r;
        "data_segs_out" 152 4 r;
        "lost_out" 156 4 r;
        "sacked_out" 160 4 r;
        "sk_txhash" 164 4 w;
        "bytes_received" 168 8 r;
        "bytes_acked" 176 8 r;
        "sk" 184 8 r Pointer64;
        "skb_data" 192 8 r Pointer64;
        "skb_data_end" 200 8 r Pointer64;
        "skb_len" 208 4 r;
        "skb_tcp_flags" 212 4 r;
        "skb_hwtstamp" 216 8 r;
    },
};

const SK_MSG: Layout = Layout {
    name: "sk_msg_md",
    size: 80,
    fields: fields! {
        "data" 0 8 r Pointer64;
        "data_end" 8 8 r Pointer64;
        "family" 16 4 r;
        "remote_ip4" 20 4 r;
        "local_ip4" 24 4 r;
        "remote_ip6" 28 16 r;
        "local_ip6" 44 16 r;
        "remote_port" 60 4 r;
        "local_port" 64 4 r;
        "size" 68 4 r;
        "sk" 72 8 r Pointer64;
    },
};

/// What the first argument of a program of this kind points to; `None` for plain memory.
pub(crate) const fn layout(kind: ProgramKind) -> Option<&'static Layout> {
    Some(match kind {
        ProgramKind::SchedClassifier | ProgramKind::SchedAction => &TC,
        ProgramKind::CgroupSkb => &CGROUP_SKB,
        ProgramKind::SkSkb => &SK_SKB,
        ProgramKind::SocketFilter => &SOCKET_FILTER,
        ProgramKind::Xdp => &XDP,
        ProgramKind::CgroupSock => &SOCK,
        ProgramKind::CgroupSockAddr => &SOCK_ADDR,
        ProgramKind::CgroupSockopt => &SOCKOPT,
        ProgramKind::SockOps => &SOCK_OPS,
        ProgramKind::SkMsg => &SK_MSG,
        ProgramKind::Memory => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_each_other_inside_of_their_structure() {
        for layout in [TC, CGROUP_SKB, SK_SKB, SOCKET_FILTER, XDP, SOCK, SOCK_ADDR, SOCKOPT, SOCK_OPS, SK_MSG]
        {
            let mut end = 0;
            for field in layout.fields {
                assert!(field.offset >= end, "{}.{}", layout.name, field.name);
                end = field.offset + field.size;
            }
            assert!(end <= layout.size, "{}", layout.name);
        }
    }
}
