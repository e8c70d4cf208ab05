//! What goes into a run and comes out of it, for each kind of program.
//!
//! Knows which structure a program's first argument points to and what of it is left afterwards. Knows no helper.

use std::net::{IpAddr, SocketAddr};

use skep_packet::SkBuff;

use crate::context::{self, put16, put32, put64};
use crate::packet::{Packet, SLOT};
use crate::sock::{SOCK_SIZE, SocketId, Sockets, TCP_FIELDS, octets};
use crate::{FaultKind, Kernel, ProgramKind, Socket};

/// What a program runs on. It holds afterwards what the program made of it.
#[derive(Debug)]
pub enum Input<'a> {
    /// For `sched_cls`, `sched_act`, `cgroup_skb`, `sk_skb` and `socket`. A `cgroup_skb` program sees the packet from its
    /// network header on; a `sk_skb` program sees a stream's bytes.
    Skb(&'a mut SkBuff),
    /// For `xdp`.
    Xdp(&'a mut XdpBuff),
    /// For `cgroup/sock`: the socket that is made, bound or released.
    Sock(&'a mut Socket),
    /// For `cgroup/connect4` and its like.
    SockAddr(&'a mut SockAddr),
    /// For `cgroup/getsockopt` and `cgroup/setsockopt`.
    Sockopt(&'a mut Sockopt),
    /// For `sockops`.
    SockOps(&'a mut SockOps),
    /// For `sk_msg`.
    SkMsg(&'a mut SkMsg),
}

/// A frame as a driver hands it to XDP (`struct xdp_buff`), with 256 bytes of headroom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpBuff {
    /// The frame and the device that it came in by ([`SkBuff::ifindex`]); of its other fields only
    /// [`SkBuff::meta`] counts: what stands before the frame.
    pub frame: SkBuff,
    /// The receive queue.
    pub rx_queue_index: u32,
    /// The device that it is to leave by, for programs in a devmap.
    pub egress_ifindex: u32,
}

impl XdpBuff {
    /// A frame that came in by a device.
    pub fn new(frame: &[u8], ifindex: u32) -> Self {
        let mut frame = SkBuff::from_frame(frame);
        frame.ifindex = ifindex;
        Self { frame, rx_queue_index: 0, egress_ifindex: 0 }
    }
}

/// An address that a process gives to a system call, or gets (`struct bpf_sock_addr`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SockAddr {
    /// The socket of the call.
    pub socket: Option<SocketId>,
    /// The address. Its kind says the family.
    pub user: SocketAddr,
    /// `SOCK_*`.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// The source that a `sendmsg` names.
    pub source: Option<IpAddr>,
}

/// An option that a process reads or sets (`struct bpf_sockopt`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sockopt {
    /// The socket of the call.
    pub socket: Option<SocketId>,
    /// `SOL_*`.
    pub level: i32,
    /// `SO_*` and its like.
    pub name: i32,
    /// The option's bytes; its length is what the program may reach.
    pub value: Vec<u8>,
    /// The length that the process gave or gets.
    pub len: i32,
    /// What `getsockopt` returns.
    pub result: i32,
}

/// An event of a TCP connection (`struct bpf_sock_ops`). What else programs see is the socket's ([`Socket::tcp`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SockOps {
    /// The connection.
    pub socket: Option<SocketId>,
    /// `BPF_SOCK_OPS_*`.
    pub op: u32,
    /// Arguments; the first is also the reply.
    pub args: [u32; 4],
    /// Whether the socket is more than a request.
    pub is_fullsock: bool,
    /// The socket's hash for transmission.
    pub tx_hash: u32,
    /// The TCP header and options that the event is about.
    pub header: Vec<u8>,
    /// Bytes of the whole packet.
    pub packet_len: u32,
}

/// A message on its way into a socket (`struct sk_msg_md`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SkMsg {
    /// The socket that it is sent on.
    pub socket: Option<SocketId>,
    /// Its bytes; the linear ones are the first element of the scatter list.
    pub message: SkBuff,
    /// `bpf_msg_apply_bytes`: for how many bytes the verdict holds; 0 for the message.
    pub apply_bytes: u32,
    /// `bpf_msg_cork_bytes`: how many bytes to wait for before asking again.
    pub cork_bytes: u32,
}

impl SkMsg {
    /// A message, all of it in one element.
    pub fn new(bytes: &[u8], socket: Option<SocketId>) -> Self {
        Self { socket, message: SkBuff::from_frame(bytes), apply_bytes: 0, cork_bytes: 0 }
    }
}

/// What of an input is no packet, while the program runs.
pub(crate) enum Rest<'a> {
    None,
    Sock(&'a mut Socket),
    SockAddr(&'a mut SockAddr),
    Sockopt(&'a mut Sockopt),
    SockOps(&'a mut SockOps),
    Msg { apply: &'a mut u32, cork: &'a mut u32, socket: Option<SocketId> },
}

impl Input<'_> {
    fn fits(&self, kind: ProgramKind) -> bool {
        match self {
            Self::Skb(_) => kind.has_skb(),
            Self::Xdp(_) => kind == ProgramKind::Xdp,
            Self::Sock(_) => kind == ProgramKind::CgroupSock,
            Self::SockAddr(_) => kind == ProgramKind::CgroupSockAddr,
            Self::Sockopt(_) => kind == ProgramKind::CgroupSockopt,
            Self::SockOps(_) => kind == ProgramKind::SockOps,
            Self::SkMsg(_) => kind == ProgramKind::SkMsg,
        }
    }
}

/// Puts an input where the program finds it.
pub(crate) fn enter<'a>(
    kernel: &mut Kernel,
    kind: ProgramKind,
    input: Input<'a>,
) -> Result<(Option<Packet<'a>>, Rest<'a>), FaultKind> {
    if !input.fits(kind) {
        return Err(FaultKind::NoProgram);
    }
    let slots = kernel.slots;
    let arena = &mut kernel.arena;
    let mut context = [0; context::SIZE];
    let c = &mut context[..];
    let entered = match input {
        Input::Skb(skb) => {
            let socket = SocketId(skb.socket);
            let packet = Packet::load(skb, kind, slots.packet, arena)?;
            context::write(slots.context, &packet, arena);
            let base = arena.address(0);
            let c = arena.slice_mut(slots.context, context::SIZE);
            if let Some(s) = kernel.sockets.get(socket) {
                addresses(c, 88, s);
            }
            put_socket(c, 168, Some(socket), &kernel.sockets, base);
            return Ok((Some(packet), Rest::None));
        }
        Input::Xdp(xdp) => {
            put32(c, 12, xdp.frame.ifindex);
            put32(c, 16, xdp.rx_queue_index);
            put32(c, 20, xdp.egress_ifindex);
            (Some(Packet::load(&mut xdp.frame, kind, slots.packet, arena)?), Rest::None)
        }
        Input::Sock(socket) => {
            let mut block = [0; SOCK_SIZE + crate::sock::TCP_SIZE];
            socket.write(&mut block);
            c[..SOCK_SIZE].copy_from_slice(&block[..SOCK_SIZE]);
            (None, Rest::Sock(socket))
        }
        Input::SockAddr(address) => {
            sock_addr(c, address);
            put_socket(c, 64, address.socket, &kernel.sockets, arena.address(0));
            (None, Rest::SockAddr(address))
        }
        Input::Sockopt(option) => {
            if option.value.len() > SLOT {
                return Err(FaultKind::PacketTooLong(option.value.len()));
            }
            arena.slice_mut(slots.packet, option.value.len()).copy_from_slice(&option.value);
            put_socket(c, 0, option.socket, &kernel.sockets, arena.address(0));
            put64(c, 8, arena.address(slots.packet));
            put64(c, 16, arena.address(slots.packet + option.value.len()));
            for (at, value) in [(24, option.level), (28, option.name), (32, option.len), (36, option.result)]
            {
                put32(c, at, value as u32);
            }
            (None, Rest::Sockopt(option))
        }
        Input::SockOps(ops) => {
            if ops.header.len() > SLOT {
                return Err(FaultKind::PacketTooLong(ops.header.len()));
            }
            arena.slice_mut(slots.packet, ops.header.len()).copy_from_slice(&ops.header);
            sock_ops(c, ops, ops.socket.and_then(|id| kernel.sockets.get(id)));
            put_socket(c, 184, ops.socket, &kernel.sockets, arena.address(0));
            put64(c, 192, arena.address(slots.packet));
            put64(c, 200, arena.address(slots.packet + ops.header.len()));
            (None, Rest::SockOps(ops))
        }
        Input::SkMsg(message) => {
            let SkMsg { socket, message, apply_bytes, cork_bytes } = message;
            if let Some(s) = socket.and_then(|id| kernel.sockets.get(id)) {
                addresses(c, 16, s);
            }
            put_socket(c, 72, *socket, &kernel.sockets, arena.address(0));
            let packet = Packet::load(message, kind, slots.packet, arena)?;
            (Some(packet), Rest::Msg { apply: apply_bytes, cork: cork_bytes, socket: *socket })
        }
    };
    arena.slice_mut(slots.context, context::SIZE).copy_from_slice(&context);
    if let Some(packet) = &entered.0 {
        context::refresh(slots.context, packet, arena);
    }
    Ok(entered)
}

/// Takes what the program left.
pub(crate) fn leave(kernel: &mut Kernel, packet: Option<Packet<'_>>, rest: Rest<'_>) {
    let slots = kernel.slots;
    if let Some(mut packet) = packet {
        context::read(slots.context, &mut packet, &kernel.arena);
        packet.save(&kernel.arena);
    }
    let c = kernel.arena.slice(slots.context, context::SIZE);
    match rest {
        Rest::None | Rest::Msg { .. } => {}
        Rest::Sock(socket) => {
            socket.bound_dev_if = context::get32(c, 0);
            socket.mark = context::get32(c, 16);
            socket.priority = context::get32(c, 20);
        }
        Rest::SockAddr(address) => {
            let port = u16::from_be_bytes([c[24], c[25]]);
            address.user = SocketAddr::new(ip(address.user.ip(), &c[4..8], &c[8..24]), port);
            address.source = address.source.map(|s| ip(s, &c[40..44], &c[44..60]));
        }
        Rest::Sockopt(option) => {
            let number = |at| context::get32(c, at) as i32;
            (option.level, option.name) = (number(24), number(28));
            (option.len, option.result) = (number(32), number(36));
            let len = option.value.len();
            option.value.copy_from_slice(kernel.arena.slice(slots.packet, len));
        }
        Rest::SockOps(ops) => {
            for (i, word) in ops.args.iter_mut().enumerate() {
                *word = context::get32(c, 4 + 4 * i);
            }
            ops.tx_hash = context::get32(c, 164);
        }
    }
}

/// An address of the kind that it was.
fn ip(was: IpAddr, four: &[u8], sixteen: &[u8]) -> IpAddr {
    let octets =
        |n: usize, from: &[u8]| -> [u8; 16] { std::array::from_fn(|i| if i < n { from[i] } else { 0 }) };
    match was {
        IpAddr::V4(_) => IpAddr::from([four[0], four[1], four[2], four[3]]),
        IpAddr::V6(_) => IpAddr::from(octets(16, sixteen)),
    }
}

fn put_socket(c: &mut [u8], at: usize, socket: Option<SocketId>, sockets: &Sockets, base: u64) {
    let place = socket.and_then(|id| sockets.place(id));
    put64(c, at, place.map_or(0, |place| base + place as u64));
}

/// `family`, `remote_ip4`, `local_ip4`, `remote_ip6`, `local_ip6`, `remote_port`, `local_port`.
fn addresses(c: &mut [u8], at: usize, socket: &Socket) {
    let (local4, local6) = octets(socket.local.ip());
    let remote = socket.remote.map(|r| (octets(r.ip()), r.port()));
    let ((remote4, remote6), port) = remote.unwrap_or_default();
    put32(c, at, socket.family());
    c[at + 4..at + 8].copy_from_slice(&remote4);
    c[at + 8..at + 12].copy_from_slice(&local4);
    c[at + 12..at + 28].copy_from_slice(&remote6);
    c[at + 28..at + 44].copy_from_slice(&local6);
    // In network byte order, in the upper half: the kernel shifts it there on little endian.
    put32(c, at + 44, u32::from(port.to_be()) << 16);
    put32(c, at + 48, u32::from(socket.local.port()));
}

fn sock_addr(c: &mut [u8], address: &SockAddr) {
    let (four, six) = octets(address.user.ip());
    let family = if address.user.is_ipv4() { 2 } else { 10 };
    put32(c, 0, family);
    c[4..8].copy_from_slice(&four);
    c[8..24].copy_from_slice(&six);
    put16(c, 24, address.user.port().to_be());
    put32(c, 28, family);
    put32(c, 32, address.kind);
    put32(c, 36, address.protocol);
    let (four, six) = address.source.map(octets).unwrap_or_default();
    c[40..44].copy_from_slice(&four);
    c[44..60].copy_from_slice(&six);
}

/// Where the fields of `struct bpf_tcp_sock` stand in `struct bpf_sock_ops`, by name.
const OPS_FIELDS: &[(&str, usize)] = &[
    ("snd_cwnd", 76),
    ("srtt_us", 80),
    ("rtt_min", 92),
    ("snd_ssthresh", 96),
    ("rcv_nxt", 100),
    ("snd_nxt", 104),
    ("snd_una", 108),
    ("mss_cache", 112),
    ("ecn_flags", 116),
    ("rate_delivered", 120),
    ("rate_interval_us", 124),
    ("packets_out", 128),
    ("retrans_out", 132),
    ("total_retrans", 136),
    ("segs_in", 140),
    ("data_segs_in", 144),
    ("segs_out", 148),
    ("data_segs_out", 152),
    ("lost_out", 156),
    ("sacked_out", 160),
    ("bytes_received", 168),
    ("bytes_acked", 176),
];

fn sock_ops(c: &mut [u8], ops: &SockOps, socket: Option<&Socket>) {
    put32(c, 0, ops.op);
    for (i, word) in ops.args.iter().enumerate() {
        put32(c, 4 + 4 * i, *word);
    }
    put32(c, 72, u32::from(ops.is_fullsock));
    put32(c, 164, ops.tx_hash);
    put32(c, 208, ops.packet_len);
    put32(c, 212, ops.header.get(13).copied().unwrap_or(0).into());
    let Some(socket) = socket else { return };
    addresses(c, 20, socket);
    put32(c, 84, socket.cb_flags);
    put32(c, 88, socket.state);
    if ops.is_fullsock {
        for (name, at) in OPS_FIELDS {
            let size = TCP_FIELDS.iter().find(|(n, ..)| n == name).map_or(4, |(_, _, size)| *size);
            let value = socket.tcp.get(name).copied().unwrap_or(0);
            if size == 8 { put64(c, *at, value) } else { put32(c, *at, value as u32) }
        }
    }
}
