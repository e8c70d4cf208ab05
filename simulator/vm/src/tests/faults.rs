//! Each kind of bad access is found by the engine `checked`: with the instruction, the region and the offset.

use super::{NAME, World, copy, def, frame, function, jump, map, mov, object, put, read, stack};
use crate::insn::{ADD, B, CALL, DW, H, Insn, JEQ, JMP, JNE, MEM, ST, SUB, W};
use crate::{
    EngineKind, Environment, FaultKind, Kernel, KernelConfig, LoadSpec, MapDef, MapId, Object, ProgramKind,
    Region, Why, map_kind,
};

fn kernel() -> Kernel {
    Kernel::new(&KernelConfig { engine: EngineKind::Checked, ..KernelConfig::default() })
}

/// What a program on the usual frame, of 54 bytes, comes to.
fn fault(parts: &[&[Insn]], maps: &[MapDef]) -> String {
    let mut kernel = kernel();
    let loaded = kernel.load(&object(parts, maps), &LoadSpec::default()).unwrap();
    match kernel.run(loaded.programs[NAME], &mut frame(), &mut World::default()) {
        Ok(run) => format!("{}", run.return_value),
        Err(fault) => fault.to_string(),
    }
}

const EXIT: [Insn; 2] = [Insn::alu64_imm(crate::insn::MOV, 0, 0), Insn::exit()];

/// r2 = data, r3 = data_end
const PACKET: [Insn; 2] = [Insn::load(W, 2, 1, 76), Insn::load(W, 3, 1, 80)];

fn add(dst: u8, imm: i32) -> Insn {
    Insn::alu64_imm(ADD, dst, imm)
}

#[test]
fn outside_of_the_packet() {
    let last = [Insn::load(B, 0, 2, 53), Insn::exit()];
    assert_eq!(fault(&[&PACKET, &last], &[]), "0");
    let behind = [Insn::load(H, 0, 2, 53), Insn::exit()];
    assert_eq!(
        fault(&[&PACKET, &behind], &[]),
        "program program, instruction 2: load of 2 bytes at the packet+53: it has 54 bytes"
    );
    let before = [Insn::new(ST | MEM | W, 2, 0, -4, 7)];
    assert_eq!(
        fault(&[&PACKET, &before, &EXIT], &[]),
        "program program, instruction 2: store of 4 bytes at the packet-4: it has 54 bytes"
    );
    let end = [Insn::load(B, 0, 3, -1), Insn::exit()];
    assert_eq!(
        fault(&[&PACKET, &end], &[]),
        "program program, instruction 2: load of 1 bytes at data_end-1: it has 0 bytes"
    );
}

#[test]
fn a_packet_pointer_from_before_a_helper_changed_it() {
    // r6 = context, r7 = data, pull_data(ctx, 0), then r7 again.
    let stale =
        [copy(6, 1), read(7, 1, 76), mov(2, 0), Insn::call(39), Insn::load(B, 0, 7, 12), Insn::exit()];
    assert_eq!(
        fault(&[&stale], &[]),
        "program program, instruction 4: load of 1 bytes at the packet as it was before a helper changed it+12: \
         it has 0 bytes"
    );
    let fresh = [read(7, 6, 76), Insn::load(B, 0, 7, 12), Insn::exit()];
    assert_eq!(fault(&[&stale[..4], &fresh], &[]), "8");
}

#[test]
fn a_number_that_a_helper_is_given_and_nobody_wrote() {
    // bpf_redirect(2, ?)
    let flags = [mov(1, 2), Insn::call(23), Insn::exit()];
    assert_eq!(fault(&[&flags], &[]), "program program, instruction 1: r2 is read and was not written");
    // Those of a call before are gone.
    let before = [mov(1, 2), mov(2, 0), Insn::call(23), mov(1, 2), Insn::call(23), Insn::exit()];
    assert_eq!(fault(&[&before], &[]), "program program, instruction 4: r2 is read and was not written");
}

#[test]
fn outside_of_the_stack_and_what_nobody_wrote_there() {
    let low = [Insn::load(DW, 0, 10, -520), Insn::exit()];
    assert_eq!(
        fault(&[&low], &[]),
        "program program, instruction 0: load of 8 bytes at the stack of frame 0-520: it has 512 bytes"
    );
    let high = [copy(2, 10), add(2, -4), Insn::new(ST | MEM | DW, 2, 0, 0, 1)];
    assert_eq!(
        fault(&[&high, &EXIT], &[]),
        "program program, instruction 2: store of 8 bytes at the stack of frame 0-4: it has 512 bytes"
    );
    let half = [Insn::new(ST | MEM | W, 10, 0, -8, 1), Insn::load(DW, 0, 10, -8), Insn::exit()];
    assert_eq!(
        fault(&[&half], &[]),
        "program program, instruction 1: load of 8 bytes at the stack of frame 0-8: not all of it was written"
    );
    // A callee sees nothing of what an earlier callee wrote.
    let calls = [function(3), function(5), mov(0, 0), Insn::exit()];
    let writes = [put(-8, 1), mov(0, 0), Insn::exit()];
    let reads = [Insn::load(DW, 0, 10, -8), Insn::exit()];
    let text = fault(&[&calls, &writes, &reads], &[]);
    assert!(text.ends_with("load of 8 bytes at the stack of frame 1-8: not all of it was written"), "{text}");
}

#[test]
fn a_frame_that_has_returned_and_pointers_that_outlive_theirs() {
    let returned = [function(1), Insn::exit()];
    let returns = [copy(0, 10), Insn::exit()];
    let text = fault(&[&returned, &returns], &[]);
    assert!(
        text.contains("instruction 3: ") && text.ends_with("a pointer to a frame would outlive it"),
        "{text}"
    );
    // The callee stores its frame pointer into its caller's frame.
    let given = [copy(1, 10), function(1), Insn::exit()];
    let keeps = [Insn::store(DW, 1, -8, 10), mov(0, 0), Insn::exit()];
    assert_eq!(
        fault(&[&given, &keeps], &[]),
        "program program, instruction 3: store of 8 bytes at the stack of frame 0-8: \
         a pointer to a frame would outlive it"
    );
    // The other way round is how arguments are passed by reference.
    let reads = [put(-8, 5), copy(1, 10), function(1), Insn::exit()];
    let callee = [Insn::load(DW, 0, 1, -8), Insn::exit()];
    assert_eq!(fault(&[&reads, &callee], &[]), "5");
}

#[test]
fn registers_that_nobody_wrote_or_a_call_made_void() {
    assert_eq!(
        fault(&[&[Insn::exit()]], &[]),
        "program program, instruction 0: r0 is read and was not written"
    );
    assert_eq!(
        fault(&[&[copy(0, 7), Insn::exit()]], &[]),
        "program program, instruction 0: r7 is read and was not written"
    );
    let void = [mov(3, 1), Insn::call(5), copy(0, 3), Insn::exit()];
    assert_eq!(fault(&[&void], &[]), "program program, instruction 2: r3 is read and was not written");
    // On one way only.
    let one = [mov(2, 0), jump(JNE, 2, 0, 1), mov(3, 7), copy(0, 3), Insn::exit()];
    assert_eq!(fault(&[&one], &[]), "7");
    let other = [mov(2, 1), jump(JNE, 2, 0, 1), mov(3, 7), copy(0, 3), Insn::exit()];
    assert_eq!(fault(&[&other], &[]), "program program, instruction 3: r3 is read and was not written");
}

#[test]
fn numbers_are_no_pointers_and_arithmetic_spoils_them() {
    let number = [mov(2, 4096), Insn::load(W, 0, 2, 4), Insn::exit()];
    assert_eq!(
        fault(&[&number], &[]),
        "program program, instruction 1: load of 4 bytes at a number+4100: no memory belongs to it"
    );
    let null = [mov(2, 0), Insn::new(ST | MEM | B, 2, 0, 0, 1)];
    assert_eq!(
        fault(&[&null, &EXIT], &[]),
        "program program, instruction 1: store of 1 bytes at a number+0: no memory belongs to it"
    );
    for spoil in [Insn::alu64_imm(0x40, 2, 1), Insn::alu32_imm(ADD, 2, 0), Insn::alu64(SUB, 2, 3)] {
        let text = fault(&[&PACKET, &[spoil, Insn::load(B, 0, 2, 0), Insn::exit()]], &[]);
        assert!(text.starts_with("program program, instruction 3: load of 1 bytes at a number"), "{text}");
    }
}

fn lookup(then: &[Insn], kind: u32) -> String {
    // map[0] = 1 .. 16; r6 = the value
    let key = [put(-8, 0), put(-16, 1), put(-24, 2)];
    let update = [stack(2, -8), stack(3, -24)].concat();
    let write = [mov(4, 0), Insn::call(2)];
    let find = [map(1, 0), stack(2, -8)].concat();
    let found = [Insn::call(1), jump(JEQ, 0, 0, then.len() as i16 + 1), copy(6, 0)];
    let parts = [&key[..], &map(1, 0), &update, &write, &find, &found, then, &EXIT];
    fault(&parts, &[def(kind, 4, 16, 4)])
}

#[test]
fn outside_of_a_map_value() {
    assert_eq!(lookup(&[Insn::load(DW, 0, 6, 8)], map_kind::ARRAY), "0");
    // The next value of the array stands right behind it, and is none of the program's business.
    let text = lookup(&[Insn::load(DW, 0, 6, 12)], map_kind::ARRAY);
    assert!(text.ends_with("load of 8 bytes at a value of map 1+12: it has 16 bytes"), "{text}");
    let text = lookup(&[add(6, -8), Insn::store(DW, 6, 0, 6)], map_kind::ARRAY);
    assert!(text.ends_with("store of 8 bytes at a value of map 1-8: it has 16 bytes"), "{text}");
}

#[test]
fn a_map_value_that_was_deleted() {
    let delete = [&map(1, 0)[..], &stack(2, -8), &[Insn::call(3), Insn::load(DW, 0, 6, 0)]].concat();
    let text = lookup(&delete, map_kind::HASH);
    assert!(text.ends_with("load of 8 bytes at a deleted value of map 1+0: it has 0 bytes"), "{text}");
    // Found anew, in the same place perhaps, it is another.
    let again = [
        &map(1, 0)[..],
        &stack(2, -8),
        &[Insn::call(3)],
        &map(1, 0),
        &stack(2, -8),
        &stack(3, -24),
        &[mov(4, 0), Insn::call(2), Insn::load(DW, 0, 6, 0)],
    ];
    let text = lookup(&again.concat(), map_kind::HASH);
    assert!(text.ends_with("load of 8 bytes at a deleted value of map 1+0: it has 0 bytes"), "{text}");
}

#[test]
fn fields_of_the_context() {
    let text = |insn| fault(&[&[insn], &EXIT], &[]);
    assert_eq!(text(Insn::load(W, 0, 1, 0)), "0");
    assert_eq!(
        text(Insn::load(DW, 0, 1, 0)),
        "program program, instruction 0: load of 8 bytes at the context+0: no field is accessed so"
    );
    assert_eq!(
        text(Insn::load(W, 0, 1, 192)),
        "program program, instruction 0: load of 4 bytes at the context+192: it has 192 bytes"
    );
    assert_eq!(
        text(Insn::new(ST | MEM | W, 1, 0, 0, 1)),
        "program program, instruction 0: store of 4 bytes at the context+0: it is read only"
    );
    assert_eq!(
        text(Insn::load(H, 0, 1, 76)),
        "program program, instruction 0: load of 2 bytes at the context+76: no field is accessed so"
    );
}

#[test]
fn what_helpers_are_given() {
    // map_lookup_elem(map, r10-4) of which nothing was written; then 4 bytes of which 2 lie above the stack.
    let unwritten = [&map(1, 0)[..], &stack(2, -4), &[Insn::call(1)], &EXIT].concat();
    let maps = [def(map_kind::HASH, 4, 16, 4)];
    assert_eq!(
        fault(&[&unwritten], &maps),
        "program program, instruction 4: helper 1, argument 2: load of 4 bytes at the stack of frame 0-4: \
         not all of it was written"
    );
    let above = [&map(1, 0)[..], &stack(2, -2), &[Insn::call(1)], &EXIT].concat();
    assert_eq!(
        fault(&[&above], &maps),
        "program program, instruction 4: helper 1, argument 2: load of 4 bytes at the stack of frame 0-2: \
         it has 512 bytes"
    );
    // skb_load_bytes writes what it is given room for, which counts as written then.
    let loads = [&[mov(2, 0)][..], &stack(3, -8), &[mov(4, 8), Insn::call(26), Insn::load(DW, 0, 10, -8)]];
    assert_eq!(fault(&[&loads.concat(), &EXIT], &[]), "0");
    let number = [mov(2, 0), mov(3, 64), mov(4, 8), Insn::call(26)];
    assert_eq!(
        fault(&[&number, &EXIT], &[]),
        "program program, instruction 3: helper 26, argument 3: store of 8 bytes at a number+64: \
         no memory belongs to it"
    );
}

#[test]
fn a_call_through_a_register_of_what_is_no_helper() {
    let call = [mov(2, 99_999), Insn::new(JMP | CALL | 8, 2, 0, 0, 0), Insn::exit()];
    assert_eq!(
        fault(&[&call], &[]),
        "program program, instruction 1: a call of helper 99999, which does not exist here"
    );
}

#[test]
fn a_fault_says_what_it_knows_as_values_too() {
    let insns = [mov(0, 0), Insn::load(DW, 0, 1, 60), Insn::exit()];
    let bytes: Vec<u8> = insns.iter().flat_map(|i| i.encode()).collect();
    let object = Object::from_instructions(NAME, ProgramKind::Memory, &bytes, &[]).unwrap();
    let mut kernel = kernel();
    let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
    let fault = kernel.run_memory(loaded.programs[NAME], &mut [0; 64], &mut World::default()).unwrap_err();
    assert_eq!(fault.instruction, Some(1));
    let FaultKind::Access(access) = fault.kind else { panic!("{fault}") };
    assert_eq!((access.region, access.offset, access.len), (Region::Memory, 60, 64));
    assert_eq!((access.size, access.why), (8, Why::Outside));
}

#[test]
fn coverage_and_trace_name_instructions() {
    let program = [mov(2, 1), jump(JEQ, 2, 0, 1), jump(JNE, 2, 0, 1), mov(3, 9), read(0, 1, 0), Insn::exit()];
    let mut kernel = kernel();
    let loaded = kernel.load(&object(&[&program], &[]), &LoadSpec::default()).unwrap();
    let id = loaded.programs[NAME];
    kernel.record_coverage(true);
    kernel.trace_instructions(true);
    let run = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
    assert_eq!(kernel.covered(id), Some(vec![0, 1, 2, 4, 5]));
    assert_eq!(run.stats.instructions, 5);
    let steps: Vec<usize> = run.trace.iter().map(|s| s.instruction).collect();
    assert_eq!(steps, [0, 1, 2, 4, 5]);
    assert_eq!(run.trace[3].source, (Region::Context, 0));
    kernel.trace_instructions(false);
    assert_eq!(kernel.run(id, &mut frame(), &mut World::default()).unwrap().trace, []);
}

/// A world whose clock is broken.
struct Broken;

impl Environment for Broken {
    fn now_ns(&mut self) -> u64 {
        panic!("no clock");
    }
    fn random_u32(&mut self) -> u32 {
        0
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

#[test]
fn a_panic_in_a_helper_is_an_error_of_that_run() {
    for engine in EngineKind::ALL {
        if engine == EngineKind::RbpfJit && cfg!(not(all(target_arch = "x86_64", unix))) {
            continue;
        }
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let program = [&[Insn::call(5)][..], &EXIT].concat();
        let loaded = kernel.load(&object(&[&program], &[]), &LoadSpec::default()).unwrap();
        let id = loaded.programs[NAME];
        let fault = kernel.run(id, &mut frame(), &mut Broken).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Panic("no clock".into()), "{engine}");
        let run = kernel.run(id, &mut frame(), &mut World::default()).unwrap();
        assert_eq!(run.return_value, 0, "{engine}");
    }
}
