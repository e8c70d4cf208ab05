//! What a program sees of `struct __sk_buff`, and what is left of what it writes.

use skep_packet::VlanTag;

use super::*;
use crate::insn::{ADD, EXIT, JEQ, LSH, STX, X};
use crate::{Error, FaultKind};

fn exit() -> Insn {
    Insn::new(JMP | EXIT, 0, 0, 0, 0)
}

fn write(off: i16, src: u8) -> Insn {
    Insn::new(STX | MEM | W, 1, src, off, 0)
}

#[test]
fn fields_stand_where_the_kernel_has_them() {
    let mut skb = frame();
    skb.mark = 11;
    skb.priority = 12;
    skb.ifindex = 13;
    skb.ingress_ifindex = 14;
    skb.tc_index = 15;
    skb.queue_mapping = 16;
    skb.cb = [20, 21, 22, 23, 24];
    skb.hash = Some(17);
    skb.vlan = Some(VlanTag { protocol: 0x8100, tci: 7 });
    let fields = [
        (0, 54),
        (4, 0),
        (8, 11),
        (12, 16),
        (16, 0x0008),
        (20, 1),
        (24, 7),
        (28, 0x0081),
        (32, 12),
        (36, 14),
        (40, 13),
        (44, 15),
        (48, 20),
        (64, 24),
        (68, 17),
        (160, 54),
    ];
    for (off, want) in fields {
        let got = run(&[&[read(0, 1, off), exit()]], &mut skb.clone()).return_value;
        assert_eq!(got, want, "offset {off}");
    }
    let narrow = [Insn::load(crate::insn::B, 0, 1, 17), exit()];
    assert_eq!(run(&[&narrow], &mut skb).return_value, 0, "the protocol's second byte");
}

#[test]
fn what_a_program_writes_is_left_in_the_packet() {
    let mut skb = frame();
    let program = [
        mov(2, 0x12345),
        write(8, 2),
        write(32, 2),
        write(44, 2),
        write(52, 2),
        write(12, 2),
        read(0, 1, 44),
        exit(),
    ];
    let result = run(&[&program], &mut skb);
    assert_eq!(result.return_value, 0x2345, "tc_index has 16 bits");
    assert_eq!((skb.mark, skb.priority, skb.tc_index), (0x12345, 0x12345, 0x2345));
    assert_eq!(skb.cb, [0, 0x12345, 0, 0, 0]);
    assert_eq!(skb.queue_mapping, 0, "0xffff and above are ignored");
    assert_eq!((result.stats.instructions, result.stats.helper_calls), (8, 0));
}

/// r0 = the Ethernet type, or -1 if `len` bytes are not linear. r1 is the context.
fn ether_type(len: i32) -> Vec<Insn> {
    vec![
        read(2, 1, 76),
        read(3, 1, 80),
        mov(0, -1),
        copy(4, 2),
        Insn::alu64_imm(ADD, 4, len),
        Insn::new(JMP | 0x20 | X, 4, 3, 1, 0),
        Insn::load(crate::insn::H, 0, 2, 12),
        exit(),
    ]
}

#[test]
fn data_ends_where_the_linear_part_ends() {
    let mut skb = frame();
    assert_eq!(run(&[&ether_type(14)], &mut skb).return_value, 8);
    assert_eq!(run(&[&ether_type(54)], &mut skb).return_value, 8);
    assert_eq!(run(&[&ether_type(55)], &mut skb).return_value, -1);
    skb.set_linear_len(20);
    assert_eq!(run(&[&ether_type(21)], &mut skb).return_value, -1);
    let pulled = [copy(6, 1), mov(2, 34), Insn::call(39), copy(1, 6)];
    assert_eq!(run(&[&pulled, &ether_type(34)], &mut skb).return_value, 8);
    assert_eq!(skb.linear_len(), 34);
}

#[test]
fn the_context_is_followed_through_stack_and_functions() {
    // r1 goes to the stack and comes back through a copy of r10, as r7, and into a function as its second argument.
    let main = [
        Insn::new(STX | MEM | DW, 10, 1, -16, 0),
        copy(3, 10),
        Insn::alu64_imm(ADD, 3, -24),
        Insn::load(DW, 7, 3, 8),
        mov(1, 5),
        copy(2, 7),
        function(1),
        exit(),
        copy(1, 2),
    ];
    assert_eq!(run(&[&main, &ether_type(14)], &mut frame()).return_value, 8);
}

#[test]
fn a_register_that_may_hold_two_things_is_refused_where_it_matters() {
    let program = |off| {
        vec![
            read(2, 1, 8),
            copy(3, 10),
            Insn::alu64_imm(ADD, 3, -128),
            jump(JEQ, 2, 0, 1),
            copy(3, 1),
            read(0, 3, off),
            exit(),
        ]
    };
    let refused = kernel().load(&object(&[&program(76)], &[]), &LoadSpec::default()).unwrap_err();
    let Error::Instruction { instruction: 5, what, .. } = refused else { panic!("{refused}") };
    assert!(what.contains("on one way"), "{what}");
    assert!(kernel().load(&object(&[&program(8)], &[]), &LoadSpec::default()).is_ok());
}

#[test]
fn the_packets_start_is_no_32_bit_number() {
    let whole = [Insn::load(DW, 0, 1, 76), exit()];
    assert!(kernel().load(&object(&[&whole], &[]), &LoadSpec::default()).is_err());
    let written = [mov(2, 0), write(80, 2), exit()];
    assert!(kernel().load(&object(&[&written], &[]), &LoadSpec::default()).is_err());
}

#[test]
fn packet_bytes_written_directly_are_the_packets() {
    let mut skb = frame();
    let program = [read(2, 1, 76), mov(3, 0x77), Insn::new(STX | MEM | 0x10, 2, 3, 5, 0), mov(0, 0), exit()];
    run(&[&program], &mut skb);
    assert_eq!(skb.bytes()[..7], [2, 0, 0, 0, 0, 0x77, 2]);
}

#[test]
fn a_read_behind_all_memory_is_a_fault() {
    let program = [
        read(2, 1, 80),
        mov(3, 1),
        Insn::alu64_imm(LSH, 3, 40),
        Insn::alu64(ADD, 2, 3),
        read(0, 2, 0),
        exit(),
    ];
    let mut kernel = kernel();
    let (id, _) = load(&mut kernel, &[&program], &[]);
    let fault = kernel.run(id, &mut frame(), &mut World::default()).unwrap_err();
    assert_eq!((fault.kind, fault.instruction), (FaultKind::Memory, Some(4)));
}

#[test]
fn two_kernels_agree() {
    // What lies on an unwritten stack, too: r0 is a word of it.
    let program = [Insn::load(DW, 0, 10, -64), exit()];
    assert_eq!(run(&[&program], &mut frame()), run(&[&program], &mut frame()));
}
