//! Programs of every kind: what they see, what is left of what they write, and the helpers of their kind.

use std::net::SocketAddr;

use super::*;
use crate::insn::{ADD, JEQ, STX};
use crate::{
    EngineKind, Input, RedirectKind, SkMsg, SockAddr, SockOps, Socket, SocketId, Sockopt, XdpBuff, map_kind,
};

const ENGINES: &[EngineKind] = &[EngineKind::Rbpf, EngineKind::Checked];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn program(kind: ProgramKind, parts: &[&[Insn]], maps: &[MapDef]) -> Object {
    let bytes: Vec<u8> = parts.concat().into_iter().flat_map(Insn::encode).collect();
    Object::from_instructions(NAME, kind, &bytes, maps).unwrap()
}

fn with_engine(engine: EngineKind) -> Kernel {
    Kernel::new(&KernelConfig { engine, ..KernelConfig::default() })
}

fn loaded(kernel: &mut Kernel, object: &Object) -> (ProgramId, Loaded) {
    let loaded = kernel.load(object, &LoadSpec::default()).unwrap();
    (loaded.programs[NAME], loaded)
}

/// `*(u32 *)(dst + off) = src`
fn write(dst: u8, src: u8, off: i16) -> Insn {
    Insn::new(STX | MEM | W, dst, src, off, 0)
}

fn syn() -> Vec<u8> {
    frame().bytes().to_vec()
}

#[test]
fn xdp_moves_its_head_and_leaves_metadata() {
    // adjust_head(-20); adjust_meta(-4); *data_meta = 7; return XDP_TX if data_meta + 4 == data
    let code = [
        copy(6, 1),
        mov(2, -20),
        Insn::call(44),
        copy(1, 6),
        mov(2, -4),
        Insn::call(54),
        read(7, 6, 8),
        read(8, 6, 0),
        copy(3, 7),
        Insn::alu64_imm(ADD, 3, 4),
        mov(0, 0),
        Insn::new(JMP | JEQ | crate::insn::X, 3, 8, 1, 0),
        Insn::exit(),
        mov(2, 7),
        write(7, 2, 0),
        mov(0, 3),
        Insn::exit(),
    ];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::Xdp, &[&code], &[]));
        let mut xdp = XdpBuff::new(&syn(), 3);
        let run = kernel.run_on(id, Input::Xdp(&mut xdp), &mut World::default()).unwrap();
        assert_eq!(run.return_value, 3, "{engine}");
        assert_eq!(xdp.frame.meta, [7, 0, 0, 0]);
        assert_eq!((xdp.frame.len(), &xdp.frame.bytes()[20..]), (74, &syn()[..]));
    }
}

#[test]
fn xdp_redirects_through_a_map_or_returns_what_it_was_told() {
    let [a, b] = map(1, 0);
    let code = [a, b, mov(2, 5), mov(3, 2), Insn::call(51), Insn::exit()];
    let mut kernel = with_engine(EngineKind::Rbpf);
    let def = def(map_kind::DEVMAP, 4, 4, 8);
    let (id, l) = loaded(&mut kernel, &program(ProgramKind::Xdp, &[&code], &[def]));
    let mut run = || {
        let mut xdp = XdpBuff::new(&syn(), 3);
        let map = l.maps["map14"];
        let run = kernel.run_on(id, Input::Xdp(&mut xdp), &mut World::default()).unwrap();
        kernel.map_update(map, &5u32.to_le_bytes(), &9u32.to_le_bytes(), crate::UpdateMode::Any).unwrap();
        (run.return_value, run.redirect.map(|r| (r.ifindex, r.kind)))
    };
    assert_eq!(run(), (2, None));
    let map = MapId(1);
    assert_eq!(run(), (4, Some((9, RedirectKind::Map { map, key: 5 }))));
}

#[test]
fn a_cgroup_skb_program_sees_the_packet_from_its_network_header_on() {
    let code = [
        read(2, 1, 76),
        read(3, 1, 80),
        mov(0, -1),
        copy(4, 2),
        Insn::alu64_imm(ADD, 4, 20),
        Insn::new(JMP | 0x20 | crate::insn::X, 4, 3, 1, 0),
        Insn::load(0x10, 0, 2, 9),
        Insn::exit(),
    ];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSkb, &[&code], &[]));
        let mut skb = frame();
        let run = kernel.run_on(id, Input::Skb(&mut skb), &mut World::default()).unwrap();
        assert_eq!(run.return_value, 6, "{engine}: TCP");
        assert_eq!(skb.bytes(), syn());
    }
}

#[test]
fn connect_is_sent_elsewhere() {
    // user_ip4 = 10.0.0.9, user_port = 8080, and the socket's cookie is returned
    let code = [
        mov(2, i32::from_le_bytes([10, 0, 0, 9])),
        write(1, 2, 4),
        mov(2, i32::from(8080u16.to_be())),
        write(1, 2, 24),
        Insn::call(46),
        Insn::exit(),
    ];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSockAddr, &[&code], &[]));
        let socket = kernel.add_socket(Socket { cookie: 77, ..Socket::default() });
        let mut address = SockAddr { socket, user: at("10.96.0.1:80"), kind: 1, protocol: 6, source: None };
        let run = kernel.run_on(id, Input::SockAddr(&mut address), &mut World::default()).unwrap();
        assert_eq!((run.return_value, address.user), (77, at("10.0.0.9:8080")), "{engine}");
    }
}

#[test]
fn a_new_socket_gets_a_mark_and_an_option_another_length() {
    let mark = [mov(2, 5), write(1, 2, 16), mov(0, 1), Insn::exit()];
    let option = [mov(2, 9), write(1, 2, 32), read(0, 1, 28), Insn::exit()];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSock, &[&mark], &[]));
        let mut socket = Socket::default();
        kernel.run_on(id, Input::Sock(&mut socket), &mut World::default()).unwrap();
        assert_eq!(socket.mark, 5, "{engine}");
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSockopt, &[&option], &[]));
        let mut sockopt = Sockopt { level: 1, name: 36, value: vec![1; 4], len: 4, ..Sockopt::default() };
        let run = kernel.run_on(id, Input::Sockopt(&mut sockopt), &mut World::default()).unwrap();
        assert_eq!((run.return_value, sockopt.len), (36, 9), "{engine}");
    }
}

fn run(kernel: &mut Kernel, id: ProgramId, input: Input<'_>) -> Run {
    kernel.run_on(id, input, &mut World::default()).unwrap()
}

#[test]
fn a_connection_is_kept_in_a_map_and_messages_are_sent_on_through_it() {
    // sock_hash_update(ctx, map, "key at r10-8", BPF_ANY)
    let [a, b] = map(2, 0);
    let [c, d] = stack(3, -8);
    let keep = [put(-8, 1), a, b, c, d, mov(4, 0), Insn::call(70), Insn::exit()];
    // msg_redirect_hash(ctx, map, "key at r10-8", BPF_F_INGRESS)
    let send = [put(-8, 1), a, b, c, d, mov(4, 1), Insn::call(71), Insn::exit()];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let def = def(map_kind::SOCKHASH, 8, 8, 4);
        let (keep, l) =
            loaded(&mut kernel, &program(ProgramKind::SockOps, &[&keep], std::slice::from_ref(&def)));
        let send = program(ProgramKind::SkMsg, &[&send], &[def]);
        let spec = LoadSpec { maps: l.maps.clone(), ..LoadSpec::default() };
        let send = kernel.load(&send, &spec).unwrap().programs[NAME];
        let socket = kernel.add_socket(Socket::default()).unwrap();
        let mut message = SkMsg::new(b"hello", None);
        assert_eq!(run(&mut kernel, send, Input::SkMsg(&mut message)).return_value, 0, "{engine}: SK_DROP");
        let mut ops = SockOps { socket: Some(socket), op: 4, is_fullsock: true, ..SockOps::default() };
        assert_eq!(run(&mut kernel, keep, Input::SockOps(&mut ops)).return_value, 0, "{engine}");
        let sent = run(&mut kernel, send, Input::SkMsg(&mut message));
        assert_eq!(sent.return_value, 1, "{engine}: SK_PASS");
        assert_eq!(sent.redirect.map(|r| r.kind), Some(RedirectKind::Socket(SocketId(1))));
        kernel.remove_socket(socket);
        assert_eq!(kernel.entries(l.maps["map18"]), []);
    }
}

#[test]
fn an_input_of_another_kind_is_an_error() {
    let mut kernel = with_engine(EngineKind::Rbpf);
    let (id, _) = loaded(&mut kernel, &program(ProgramKind::Xdp, &[&[mov(0, 0), Insn::exit()]], &[]));
    let fault = kernel.run(id, &mut frame(), &mut World::default()).unwrap_err();
    assert_eq!(fault.kind, crate::FaultKind::NoProgram);
}

/// `dst =` the function so many instructions behind the next.
fn callback(dst: u8, offset: i32) -> [Insn; 2] {
    [Insn::new(LD_IMM64, dst, 4, 0, offset), Insn::default()]
}

#[test]
fn loops_and_walks_call_the_programs_functions() {
    // r10-8 = 0; loop(5, add one to *ctx, r10-8, 0); for_each(array, add the value, r10-8, 0)
    let [a, b] = callback(2, 15);
    let [c, d] = stack(3, -8);
    let [e, f] = map(1, 0);
    let [g, h] = callback(2, 12);
    let main = [
        put(-8, 0),
        mov(1, 5),
        a,
        b,
        c,
        d,
        mov(4, 0),
        Insn::call(181),
        e,
        f,
        g,
        h,
        c,
        d,
        mov(4, 0),
        Insn::call(164),
        Insn::load(DW, 0, 10, -8),
        Insn::exit(),
    ];
    let each = [
        Insn::load(DW, 3, 2, 0),
        Insn::alu64_imm(ADD, 3, 1),
        Insn::new(STX | MEM | DW, 2, 3, 0, 0),
        mov(0, 0),
        Insn::exit(),
    ];
    let element = [
        Insn::load(DW, 5, 4, 0),
        Insn::load(DW, 2, 3, 0),
        Insn::alu64(ADD, 5, 2),
        Insn::new(STX | MEM | DW, 4, 5, 0, 0),
        mov(0, 0),
        Insn::exit(),
    ];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let def = def(map_kind::ARRAY, 4, 8, 3);
        let parts: [&[Insn]; 3] = [&main, &each, &element];
        let (id, l) = loaded(&mut kernel, &program(ProgramKind::SchedClassifier, &parts, &[def]));
        for (key, value) in [(0u32, 100u64), (2, 7)] {
            let any = crate::UpdateMode::Any;
            kernel.map_update(l.maps["map2"], &key.to_le_bytes(), &value.to_le_bytes(), any).unwrap();
        }
        let run = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
        assert_eq!(run.return_value, 5 + 107, "{engine}");
    }
}

#[test]
fn records_of_a_ring_buffer_are_read_in_order_and_make_room() {
    // r = reserve(ring, 8, 0); *r = 5; submit(r, 0)
    let [a, b] = map(1, 0);
    let code = [
        a,
        b,
        mov(2, 8),
        mov(3, 0),
        Insn::call(131),
        jump(JEQ, 0, 0, 6),
        mov(2, 5),
        Insn::new(STX | MEM | DW, 0, 2, 0, 0),
        copy(1, 0),
        mov(2, 0),
        Insn::call(132),
        mov(0, 1),
        Insn::exit(),
    ];
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let object = program(ProgramKind::SchedClassifier, &[&code], &[def(map_kind::RINGBUF, 0, 0, 4096)]);
        let (id, l) = loaded(&mut kernel, &object);
        let run = |k: &mut Kernel| k.run(id, &mut frame(), &mut World::default()).unwrap().return_value;
        // Of 4096 bytes each record takes 16, and the last of them is never given.
        let filled = (0..300).filter(|_| run(&mut kernel) == 1).count();
        assert_eq!(filled, 255, "{engine}");
        let mut records = Vec::new();
        kernel.ring_read(l.maps["map27"], |r| records.push(r.to_vec()));
        assert_eq!((records.len(), &records[0][..]), (255, &5u64.to_le_bytes()[..]));
        assert_eq!(run(&mut kernel), 1);
    }
}

/// What stands behind pointers of the context has regions of its own.
#[test]
fn an_options_bytes_and_its_socket_are_reached_and_nothing_behind_them() {
    let code = |behind: i16| {
        [
            Insn::load(DW, 2, 1, 8),
            Insn::load(DW, 3, 1, 0),
            Insn::new(ST | MEM | crate::insn::B, 2, 0, behind, 7),
            // bpf_sock.family
            read(0, 3, 4),
            Insn::exit(),
        ]
    };
    for engine in ENGINES {
        let mut kernel = with_engine(*engine);
        let socket = kernel.add_socket(Socket::default());
        let option = Sockopt { level: 1, name: 36, value: vec![1; 4], len: 4, socket, ..Sockopt::default() };
        let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSockopt, &[&code(3)], &[]));
        let mut given = option.clone();
        let run = kernel.run_on(id, Input::Sockopt(&mut given), &mut World::default()).unwrap();
        assert_eq!((run.return_value, given.value), (2, vec![1, 1, 1, 7]), "{engine}: AF_INET");
        if *engine == EngineKind::Checked {
            let (id, _) = loaded(&mut kernel, &program(ProgramKind::CgroupSockopt, &[&code(4)], &[]));
            let fault = kernel.run_on(id, Input::Sockopt(&mut option.clone()), &mut World::default());
            let wanted = "program program, instruction 2: store of 1 bytes at the memory+4: it has 4 bytes";
            assert_eq!(fault.unwrap_err().to_string(), wanted);
        }
    }
}
