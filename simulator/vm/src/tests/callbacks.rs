//! Functions that helpers call, on every engine: their frames, what they see of their caller's, and their count.

use super::{NAME, World, copy, def, frame, map, mov, object, put, stack};
use crate::insn::{ADD, DW, Insn, JEQ, JMP, LD_IMM64, PSEUDO_FUNC, W};
use crate::{EngineKind, Kernel, KernelConfig, LoadSpec, MapDef, Run, UpdateMode, map_kind};

/// `dst =` the function so many slots behind this load's second half
fn callback(dst: u8, offset: i32) -> [Insn; 2] {
    [Insn::new(LD_IMM64, dst, PSEUDO_FUNC, 0, offset), Insn::default()]
}

/// The same run on every engine.
fn run(parts: &[&[Insn]], maps: &[MapDef]) -> Run {
    let mut runs = Vec::new();
    for engine in EngineKind::ALL {
        if engine == EngineKind::RbpfJit && cfg!(not(all(target_arch = "x86_64", unix))) {
            continue;
        }
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object(parts, maps), &LoadSpec::default()).unwrap();
        let run = kernel.run(loaded.programs[NAME], &mut frame(), &mut World::default());
        runs.push(run.unwrap_or_else(|e| panic!("{engine}: {e}")));
    }
    let first = runs.remove(0);
    assert!(runs.iter().all(|r| *r == first), "{first:?}\n{runs:?}");
    first
}

#[test]
fn a_loop_writes_into_its_callers_frame_and_has_one_of_its_own() {
    // sum = 0; loop(10, |i, sum| { own = i; *sum += own; 0 }, &sum); sum
    let main = [
        &[put(-8, 0), mov(1, 10)][..],
        &callback(2, 7),
        &stack(3, -8),
        &[mov(4, 0), Insn::call(181), Insn::load(DW, 0, 10, -8), Insn::exit()],
    ];
    let function = [
        Insn::store(DW, 10, -8, 1),
        Insn::load(DW, 3, 2, 0),
        Insn::load(DW, 4, 10, -8),
        Insn::alu64(ADD, 3, 4),
        Insn::store(DW, 2, 0, 3),
        mov(0, 0),
        Insn::exit(),
    ];
    let run = run(&[&main.concat(), &function], &[]);
    assert_eq!(run.return_value, 45);
    assert_eq!(run.stats.instructions, 9 + 10 * 7);
}

#[test]
fn a_callback_finds_the_packet_through_a_pointer_in_its_callers_frame() {
    // loop(1, |_, at| { skb = *at; data = skb->data; *(u8 *)(data + 12) }, &{ skb })
    let main = [&[Insn::store(DW, 10, -8, 1), mov(1, 1)][..], &callback(2, 7), &stack(3, -8)].concat();
    let rest = [mov(4, 0), Insn::call(181), mov(0, 7), Insn::exit()];
    let function = [
        Insn::load(DW, 6, 2, 0),
        Insn::load(W, 7, 6, 76),
        Insn::load(W, 8, 6, 80),
        copy(3, 7),
        Insn::alu64_imm(ADD, 3, 14),
        Insn::new(JMP | 0x20 | 8, 3, 8, 2, 0),
        Insn::load(crate::insn::B, 0, 7, 12),
        Insn::store(W, 6, 8, 0),
        mov(0, 0),
        Insn::exit(),
    ];
    let mut skb = frame();
    for engine in [EngineKind::Rbpf, EngineKind::Checked] {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object(&[&main, &rest, &function], &[]), &LoadSpec::default()).unwrap();
        skb.mark = 0;
        let run = kernel.run(loaded.programs[NAME], &mut skb, &mut World::default()).unwrap();
        assert_eq!((run.return_value, skb.mark), (7, 8), "{engine}");
    }
    assert_eq!(run(&[&main, &rest, &function], &[]).return_value, 7);
}

#[test]
fn every_element_of_a_map_is_shown_with_its_key() {
    // map[7] = 35; for_each(map, |_, key, value, sum| { *sum += *key + *value; 0 }, &sum); sum
    let fill = [
        &[put(-8, 7), put(-16, 35), put(-24, 0)][..],
        &map(1, 0),
        &stack(2, -8),
        &stack(3, -16),
        &[mov(4, 0), Insn::call(2)],
    ];
    let walk = [&map(1, 0)[..], &callback(2, 7), &stack(3, -24), &[mov(4, 0), Insn::call(164)]];
    let rest = [Insn::load(DW, 0, 10, -24), Insn::exit()];
    let function = [
        Insn::load(W, 5, 2, 0),
        Insn::load(DW, 1, 3, 0),
        Insn::alu64(ADD, 1, 5),
        Insn::load(DW, 5, 4, 0),
        Insn::alu64(ADD, 1, 5),
        Insn::store(DW, 4, 0, 1),
        mov(0, 0),
        Insn::exit(),
    ];
    let maps = [def(map_kind::HASH, 4, 8, 4)];
    assert_eq!(run(&[&fill.concat(), &walk.concat(), &rest, &function], &maps).return_value, 42);
}

#[test]
fn may_goto_goes_on_until_it_has_had_enough() {
    // for (n = 0; may_goto && n != 5; n++);
    let program = [
        mov(0, 0),
        Insn::new(0xe5, 0, 0, 3, 0),
        Insn::new(JMP | JEQ, 0, 0, 2, 5),
        Insn::alu64_imm(ADD, 0, 1),
        Insn::new(JMP, 0, 0, -4, 0),
        Insn::exit(),
    ];
    let run = run(&[&program], &[]);
    assert_eq!((run.return_value, run.stats.instructions), (5, 1 + 5 * 4 + 2 + 1));
}

/// A value of 32 bytes: a timer, then how often it ran. The function counts and starts the timer again.
#[test]
fn a_timer_runs_its_function_when_the_clock_says_so() {
    let main = [
        &[put(-8, 5)][..],
        &map(1, 0),
        &stack(2, -8),
        &[Insn::call(1), Insn::new(JMP | JEQ, 0, 0, 14, 0), copy(6, 0), copy(1, 0)],
        &map(2, 0),
        &[mov(3, 1), Insn::call(169), copy(1, 6)],
        &callback(2, 7),
        &[Insn::call(170), copy(1, 6), mov(2, 1000), mov(3, 0), Insn::call(171)],
        &[Insn::exit()],
    ];
    let function = [
        Insn::load(DW, 1, 3, 16),
        Insn::alu64_imm(ADD, 1, 1),
        Insn::store(DW, 3, 16, 1),
        Insn::load(W, 1, 2, 0),
        Insn::store(DW, 3, 24, 1),
        copy(1, 3),
        mov(2, 500),
        mov(3, 0),
        Insn::call(171),
        mov(0, 0),
        Insn::exit(),
    ];
    for engine in [EngineKind::Rbpf, EngineKind::Checked] {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let maps = [def(map_kind::HASH, 4, 32, 4)];
        let object = object(&[&main.concat(), &function], &maps);
        let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
        let (id, key) = (loaded.maps[&maps[0].name], 5u32.to_le_bytes());
        kernel.map_update(id, &key, &[0; 32], UpdateMode::Any).unwrap();
        let mut world = World::default();
        assert_eq!(kernel.run(loaded.programs[NAME], &mut frame(), &mut world).unwrap().return_value, 0);
        // The clock goes on by one each time that it is looked at, and had stood at 0.
        assert_eq!(kernel.next_timer(), Some(1001), "{engine}");
        assert!(kernel.run_timers(&mut world).is_empty());
        for (now, runs) in [(1000, 0), (1001, 1), (1501, 1), (1502, 2), (9000, 3)] {
            world.clock = now - 1;
            for run in kernel.run_timers(&mut world) {
                assert!(run.unwrap().stats.instructions > 0);
            }
            let value = kernel.map_lookup(id, &key).unwrap();
            assert_eq!((value[16], value[24]), (runs, if runs == 0 { 0 } else { 5 }), "{engine} at {now}");
        }
        kernel.map_delete(id, &key).unwrap();
        kernel.map_update(id, &key, &[0; 32], UpdateMode::Any).unwrap();
        world.clock = 1_000_000;
        assert!(kernel.run_timers(&mut world).is_empty(), "its element is gone, and another in its place");
        assert_eq!(kernel.next_timer(), None);
    }
}
