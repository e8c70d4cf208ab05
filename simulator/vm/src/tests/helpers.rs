//! Helpers as programs use them.

use skep_packet::{Checksum, Tunnel, fold, ones_complement_sum};

use super::*;
use crate::insn::{ADD, JEQ, STX};
use crate::{Access, FaultKind, Op, Redirect, RedirectKind, UpdateMode, map_kind};

fn exit() -> Insn {
    Insn::exit()
}

fn helper(number: i32) -> Insn {
    Insn::call(number)
}

#[test]
fn a_look_up_gives_the_value_itself_and_is_recorded_as_it_was() {
    // *lookup(map, 5) += 1
    let [a, b] = map(1, 0);
    let [c, d] = stack(2, -8);
    let program = [
        put(-8, 5),
        a,
        b,
        c,
        d,
        helper(1),
        jump(JEQ, 0, 0, 3),
        Insn::load(DW, 3, 0, 0),
        Insn::alu64_imm(ADD, 3, 1),
        Insn::new(STX | MEM | DW, 0, 3, 0, 0),
        mov(0, 0),
        exit(),
    ];
    let mut kernel = kernel();
    let (id, loaded) = load(&mut kernel, &[&program], &[def(map_kind::HASH, 8, 8, 4)]);
    let m = loaded.maps["map1"];
    let (key, value) = (5u64.to_le_bytes(), 41u64.to_le_bytes());
    let missed = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
    assert_eq!((missed.accesses[0].value.clone(), missed.accesses[0].result), (None, -2));
    assert_eq!(missed.stats.instructions, 8);
    kernel.map_update(m, &key, &value, UpdateMode::Any).unwrap();
    let found = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
    let access = Access {
        program: id,
        map: m,
        op: Op::Lookup,
        key: key.to_vec(),
        value: Some(value.to_vec()),
        before: None,
        result: 0,
    };
    assert_eq!(found.accesses, [access]);
    assert_eq!((found.stats.instructions, found.stats.helper_calls, found.stats.map_lookups), (11, 1, 1));
    assert_eq!(kernel.map_lookup(m, &key), Some(42u64.to_le_bytes().to_vec()));
}

#[test]
fn updates_and_deletes_are_recorded_with_what_stood_before() {
    let [a, b] = map(1, 0);
    let [c, d] = stack(2, -8);
    let [e, f] = stack(3, -16);
    let program = [
        put(-8, 5),
        put(-16, 6),
        a,
        b,
        c,
        d,
        e,
        f,
        mov(4, 0),
        helper(2),
        a,
        b,
        c,
        d,
        helper(3),
        a,
        b,
        c,
        d,
        helper(3),
        exit(),
    ];
    let mut kernel = kernel();
    let (id, _) = load(&mut kernel, &[&program], &[def(map_kind::LRU_HASH, 8, 8, 4)]);
    let run = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
    assert_eq!(run.return_value, -2);
    let six = Some(6u64.to_le_bytes().to_vec());
    let seen: Vec<_> = run.accesses.into_iter().map(|a| (a.op, a.value, a.before, a.result)).collect();
    assert_eq!(
        seen,
        [(Op::Update, six.clone(), None, 0), (Op::Delete, None, six, 0), (Op::Delete, None, None, -2)]
    );
}

#[test]
fn an_event_carries_as_much_of_the_packet_as_was_asked_for() {
    let [a, b] = map(2, 0);
    let [c, d] = stack(4, -8);
    let flags = [Insn::new(LD_IMM64, 3, 0, 0, -1), Insn::new(0, 0, 0, 0, 14)];
    let program = [put(-8, 0x0102), a, b, flags[0], flags[1], c, d, mov(5, 2), helper(25), exit()];
    let mut kernel = kernel();
    let (id, loaded) = load(&mut kernel, &[&program], &[def(map_kind::PERF_EVENT_ARRAY, 4, 4, 0)]);
    let (mut world, mut skb) = (World::default(), frame());
    assert_eq!(kernel.run(id, &mut skb, &mut world).unwrap().return_value, 0);
    assert_eq!(world.events, [(loaded.maps["map4"], vec![2, 1], skb.bytes()[..14].to_vec())]);
    skb.trim(13);
    assert_eq!(
        kernel.run(id, &mut skb, &mut world).unwrap().return_value,
        -14,
        "EFAULT: the packet is too short"
    );
}

/// skb_store_bytes(ctx, offset, "at r10-8", len, flags)
fn store(offset: i32, len: i32, flags: i32) -> [Insn; 6] {
    let [c, d] = stack(3, -8);
    [mov(2, offset), c, d, mov(4, len), mov(5, flags), helper(9)]
}

#[test]
fn stored_bytes_keep_the_complete_checksum_right() {
    for (offset, len) in [(26, 4), (27, 3), (30, 1)] {
        let mut skb = frame();
        let sum = |skb: &SkBuff| ones_complement_sum(0, &skb.bytes()[14..]);
        skb.checksum = Checksum::Complete(sum(&skb));
        skb.hash = Some(9);
        let result = run(&[&[put(-8, 0x0102_0304)], &store(offset, len, 3), &[exit()]], &mut skb);
        assert_eq!(result.return_value, 0);
        let Checksum::Complete(kept) = skb.checksum else { panic!("still complete") };
        assert_eq!(fold(kept), fold(sum(&skb)), "at {offset}");
        assert_eq!(skb.hash, None);
    }
}

#[test]
fn stores_outside_of_the_packet_and_unknown_flags_are_refused() {
    let stored = |offset, len, flags| {
        run(&[&[put(-8, 7)], &store(offset, len, flags), &[exit()]], &mut frame()).return_value
    };
    assert_eq!(stored(50, 4, 0), 0);
    assert_eq!(stored(51, 4, 0), -14);
    assert_eq!(stored(0, 4, 4), -22);
}

#[test]
fn a_stored_byte_is_where_it_belongs_and_pulled() {
    let mut skb = frame();
    skb.set_linear_len(14);
    run(&[&[put(-8, 0x55)], &store(22, 1, 0), &[exit()]], &mut skb);
    assert_eq!((skb.bytes()[22], skb.linear_len()), (0x55, 23));
}

#[test]
fn loads_beyond_the_end_give_zeros() {
    let load = |offset| {
        let [c, d] = stack(3, -8);
        let program = [
            put(-8, -1),
            mov(2, offset),
            c,
            d,
            mov(4, 8),
            helper(26),
            copy(7, 0),
            Insn::load(DW, 0, 10, -8),
            Insn::alu64(ADD, 0, 7),
            exit(),
        ];
        run(&[&program], &mut frame()).return_value
    };
    assert_eq!(load(26), i32::from_le_bytes([10, 0, 0, 1]));
    assert_eq!(load(47), -14);
}

#[test]
fn a_checksum_follows_the_address_that_was_replaced() {
    // 10.0.0.1 becomes 10.0.9.1, in the header, its checksum and that of TCP.
    let (from, to) = (0x0100_000a, 0x0109_000a);
    let replace = |number, offset, flags| {
        [copy(1, 6), mov(2, offset), mov(3, from), mov(4, to), mov(5, flags), helper(number)]
    };
    let mut skb = frame();
    let program = [copy(6, 1), put(-8, to)];
    run(&[&program, &store(26, 4, 0), &replace(10, 24, 4), &replace(11, 50, 0x14), &[exit()]], &mut skb);
    assert_eq!(skb.bytes()[26..30], [10, 0, 9, 1]);
    assert_eq!(fold(ones_complement_sum(0, &skb.bytes()[14..34])), 0xffff, "the header's sum");
    let pseudo = ones_complement_sum(0, &skb.bytes()[26..34]) + 6 + 20;
    assert_eq!(fold(ones_complement_sum(pseudo, &skb.bytes()[34..])), 0xffff, "TCP's sum");
}

#[test]
fn heads_and_tails_change_by_zeros() {
    let change = |number, by| vec![mov(2, by), mov(3, 0), helper(number), exit()];
    let mut skb = frame();
    assert_eq!(run(&[&change(43, 14)], &mut skb).return_value, 0);
    assert_eq!(
        (skb.len(), skb.linear_len(), &skb.bytes()[..15]),
        (68, 68, &[&[0; 14][..], &[2]].concat()[..])
    );
    assert_eq!(run(&[&change(43, 2000)], &mut skb).return_value, 0, "more than the headroom");
    assert_eq!((skb.len(), skb.bytes()[2014]), (2068, 2));
    assert_eq!(run(&[&change(38, 20)], &mut skb).return_value, 0);
    assert_eq!(skb.len(), 20);
    assert_eq!(run(&[&change(38, 13)], &mut skb).return_value, -22);
    assert_eq!(run(&[&change(38, 30)], &mut skb).return_value, 0);
    assert_eq!(skb.bytes()[20..], [0; 10]);
}

#[test]
fn a_tunnel_key_is_set_for_sending() {
    // tunnel_id 7, remote 10.0.0.2; then read back into r10-128.
    let [a, b] = stack(2, -64);
    let [c, d] = stack(2, -128);
    let mut program = vec![copy(6, 1)];
    program.extend((0..6).map(|i| put(-64 + 8 * i, 0)));
    program.extend([
        Insn::new(ST | MEM | W, 10, 0, -64, 7),
        Insn::new(ST | MEM | W, 10, 0, -60, 0x0a00_0002),
        a,
        b,
        mov(3, 44),
        mov(4, 2),
        helper(21),
        copy(1, 6),
        c,
        d,
        mov(3, 44),
        mov(4, 0),
        helper(20),
        read(0, 10, -100),
        exit(),
    ]);
    let mut skb = frame();
    assert_eq!(run(&[&program], &mut skb).return_value, 0x0a00_0002, "local_ipv4 is the outer destination");
    let flags = 1 << 13 | 1 << 2;
    assert_eq!(
        skb.tunnel,
        Some(Tunnel { id: 7, remote: [10, 0, 0, 2], flags, transmit: true, ..Tunnel::default() })
    );
}

#[test]
fn redirects_are_recorded_and_not_followed() {
    let redirect = |number, flags| {
        run(&[&[mov(1, 9), mov(2, flags), mov(3, 0), mov(4, 0), helper(number), exit()]], &mut frame())
    };
    let made = redirect(23, 1);
    assert_eq!(made.return_value, 7);
    assert_eq!(made.redirect, Some(Redirect { ifindex: 9, flags: 1, kind: RedirectKind::Device }));
    assert_eq!((redirect(23, 2).return_value, redirect(23, 2).redirect), (2, None));
    assert_eq!(redirect(155, 0).redirect.unwrap().kind, RedirectKind::Peer);
    assert_eq!(redirect(152, 0).redirect.unwrap().kind, RedirectKind::Neighbour { next_hop: None });
}

#[test]
fn a_flow_has_one_hash_in_both_directions() {
    let hash = |skb: &mut SkBuff| run(&[&[helper(34), exit()]], skb).return_value;
    let mut there = frame();
    let mut back = frame();
    let bytes = back.bytes_mut();
    bytes[26..34].rotate_left(4);
    bytes[34..38].rotate_left(2);
    assert_eq!(hash(&mut there), hash(&mut back));
    back.bytes_mut()[34] ^= 1;
    assert_eq!(hash(&mut back), hash(&mut there), "what is known is not computed again");
    back.hash = None;
    assert_ne!(hash(&mut back), hash(&mut there));
}

#[test]
fn a_wrong_pointer_is_a_fault_that_names_helper_and_argument() {
    let mut kernel = kernel();
    let program = [mov(2, 0), mov(3, 1), mov(4, 8), helper(26), exit()];
    let (id, _) = load(&mut kernel, &[&program], &[]);
    let fault = kernel.run(id, &mut frame(), &mut World::default()).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Argument { helper: 26, argument: 3, size: 8 });
    let program = [mov(1, 3), helper(41), exit()];
    let (id, _) = load(&mut kernel, &[&program], &[]);
    let fault = kernel.run(id, &mut frame(), &mut World::default()).unwrap_err();
    assert_eq!(fault.to_string(), "program program: helper 41: argument 1 is not the context");
}

#[test]
fn text_goes_to_the_world() {
    let text = i32::from_le_bytes(*b"%d!\0");
    let [a, b] = stack(1, -8);
    let program = [put(-8, text), a, b, mov(2, 4), mov(3, 42), helper(6), exit()];
    let mut kernel = kernel();
    let (id, _) = load(&mut kernel, &[&program], &[]);
    let mut world = World::default();
    assert_eq!(kernel.run(id, &mut frame(), &mut world).unwrap().return_value, 3);
    assert_eq!(world.texts, ["42!"]);
}
