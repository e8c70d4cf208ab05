//! Tail calls: what runs, what does not, and who goes on.

use super::*;
use crate::insn::ADD;
use crate::{Errno, TailCall, map_kind};

fn programs(entries: u32) -> MapDef {
    def(map_kind::PROG_ARRAY, 4, 4, entries)
}

/// tail_call(ctx, map, index); then r0 = 1.
fn calling(index: i32) -> Vec<Insn> {
    let [a, b] = map(2, 0);
    vec![a, b, mov(3, index), Insn::call(12), mov(0, 1), Insn::exit()]
}

#[test]
fn a_target_takes_over_and_a_miss_goes_on() {
    let mut kernel = kernel();
    let (entry, loaded) = load(&mut kernel, &[&calling(3)], &[programs(4)]);
    let array = loaded.maps["map3"];
    let (target, _) = load(&mut kernel, &[&[read(0, 1, 0), Insn::exit()]], &[]);
    let missed = kernel.run(entry, &mut frame(), &mut World::default()).unwrap();
    assert_eq!((missed.return_value, &missed.chain[..]), (1, &[entry][..]));
    assert_eq!(missed.tail_calls, [TailCall { map: array, index: 3, target: None }]);
    assert_eq!(missed.stats.instructions, 5);

    kernel.prog_array_set(array, 3, Some(target)).unwrap();
    let taken = kernel.run(entry, &mut frame(), &mut World::default()).unwrap();
    assert_eq!((taken.return_value, &taken.chain[..]), (54, &[entry, target][..]));
    assert_eq!(taken.tail_calls, [TailCall { map: array, index: 3, target: Some(target) }]);
    assert_eq!((taken.stats.instructions, taken.stats.helper_calls), (5, 1));
    assert_eq!(kernel.prog_array(array), [(3, target)]);
    assert_eq!(kernel.prog_array_set(array, 4, None), Err(Errno::E2BIG));
}

#[test]
fn the_thirty_fourth_tail_call_misses() {
    let mut kernel = kernel();
    let (entry, loaded) = load(&mut kernel, &[&calling(0)], &[programs(1)]);
    kernel.prog_array_set(loaded.maps["map3"], 0, Some(entry)).unwrap();
    let run = kernel.run(entry, &mut frame(), &mut World::default()).unwrap();
    assert_eq!((run.chain.len(), run.tail_calls.len(), run.return_value), (34, 34, 1));
    assert_eq!(run.tail_calls[33].target, None);
}

#[test]
fn from_a_function_the_target_returns_to_the_caller() {
    // main: r0 = function(ctx) + *(r10-8); the function tail calls.
    let main = [put(-8, 100), function(3), Insn::load(DW, 1, 10, -8), Insn::alu64(ADD, 0, 1), Insn::exit()];
    let mut kernel = kernel();
    let (entry, loaded) = load(&mut kernel, &[&main, &calling(0)], &[programs(1)]);
    let (target, _) = load(&mut kernel, &[&[put(-8, 7), mov(0, 20), Insn::exit()]], &[]);
    assert_eq!(kernel.run(entry, &mut frame(), &mut World::default()).unwrap().return_value, 101);
    kernel.prog_array_set(loaded.maps["map3"], 0, Some(target)).unwrap();
    assert_eq!(kernel.run(entry, &mut frame(), &mut World::default()).unwrap().return_value, 120);
}

#[test]
fn what_stands_in_an_array_outlives_its_load() {
    let mut kernel = kernel();
    let (entry, loaded) = load(&mut kernel, &[&calling(0)], &[programs(1)]);
    let (target, theirs) = load(&mut kernel, &[&[mov(0, 20), Insn::exit()]], &[]);
    kernel.prog_array_set(loaded.maps["map3"], 0, Some(target)).unwrap();
    kernel.unload(&theirs);
    assert_eq!(kernel.program_name(target), None);
    assert_eq!(kernel.run(entry, &mut frame(), &mut World::default()).unwrap().return_value, 20);
    kernel.prog_array_set(loaded.maps["map3"], 0, None).unwrap();
    assert_eq!(kernel.run(entry, &mut frame(), &mut World::default()).unwrap().return_value, 1);
    assert_eq!(kernel.prog_array_set(loaded.maps["map3"], 0, Some(target)), Err(Errno::ENOENT));
}
