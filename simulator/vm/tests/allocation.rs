//! A packet costs no heap allocation once everything is warm: counted, for the engines and helpers that a datapath uses.
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use skep_packet::SkBuff;
use skep_vm::{
    EngineKind, Environment, Input, Kernel, KernelConfig, LoadSpec, MapDef, MapId, Object, ProgramKind, Run,
    UpdateMode, map_kind,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that ends has no counter any more.
    let _ = COUNT.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: all is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Still;

impl Environment for Still {
    fn now_ns(&mut self) -> u64 {
        1
    }
    fn random_u32(&mut self) -> u32 {
        4
    }
    fn emit(&mut self, _: MapId, _: &[u8], _: &[u8]) {}
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = code;
    bytes[1] = src << 4 | dst;
    bytes[2..4].copy_from_slice(&off.to_le_bytes());
    bytes[4..].copy_from_slice(&imm.to_le_bytes());
    bytes
}

fn arguments(map: i32) -> Vec<[u8; 8]> {
    let stack = |dst, at| [insn(0xbf, dst, 10, 0, 0), insn(0x07, dst, 0, 0, at)];
    let mut code = vec![insn(0x18, 1, 1, 0, map), insn(0, 0, 0, 0, 0)];
    code.extend(stack(2, -8));
    code.extend(stack(3, -16));
    code.push(insn(0xb7, 4, 0, 0, 0));
    code
}

/// Look-ups, updates and deletes in each kind of map, an event, bytes of the packet read and written, checksums.
fn program(maps: &[MapDef]) -> Vec<u8> {
    let mut code = vec![
        insn(0xbf, 6, 1, 0, 0),
        insn(0x7a, 10, 0, -8, 1),
        insn(0x7a, 10, 0, -16, 2),
        insn(0x7a, 10, 0, -24, 3),
    ];
    for (n, map) in maps.iter().enumerate() {
        let calls: &[i32] = match map.kind {
            map_kind::ARRAY | map_kind::PERCPU_ARRAY => &[2, 1],
            map_kind::RINGBUF | map_kind::PERF_EVENT_ARRAY => &[],
            _ => &[2, 1, 2, 3],
        };
        for call in calls {
            code.extend(arguments(n as i32));
            code.push(insn(0x85, 0, 0, 0, *call));
        }
    }
    let packet = |helper: i32, arguments: &[i32]| {
        let mut code = vec![insn(0xbf, 1, 6, 0, 0)];
        for (value, register) in arguments.iter().zip(2..) {
            match value {
                -1 => code.extend([insn(0xbf, register, 10, 0, 0), insn(0x07, register, 0, 0, -16)]),
                value => code.push(insn(0xb7, register, 0, 0, *value)),
            }
        }
        code.push(insn(0x85, 0, 0, 0, helper));
        code
    };
    code.extend(packet(26, &[14, -1, 8]));
    code.extend(packet(9, &[14, -1, 8, 1]));
    code.extend(packet(10, &[24, 0, 5, 0]));
    code.extend(packet(11, &[50, 1, 2, 0x14]));
    code.extend(packet(39, &[40]));
    code.extend(packet(34, &[]));
    code.extend([insn(0xb7, 0, 0, 0, 0), insn(0x95, 0, 0, 0, 0)]);
    code.concat()
}

#[test]
fn a_packet_allocates_nothing() {
    let kinds = [
        map_kind::HASH,
        map_kind::LRU_HASH,
        map_kind::PERCPU_HASH,
        map_kind::LPM_TRIE,
        map_kind::ARRAY,
        map_kind::PERCPU_ARRAY,
    ];
    let maps: Vec<MapDef> = kinds
        .iter()
        .map(|kind| MapDef {
            name: format!("map{kind}"),
            kind: *kind,
            key_size: if matches!(*kind, map_kind::ARRAY | map_kind::PERCPU_ARRAY) { 4 } else { 8 },
            value_size: 8,
            max_entries: 16,
            flags: u32::from(*kind == map_kind::LPM_TRIE),
            ..MapDef::default()
        })
        .collect();
    let object =
        Object::from_instructions("program", ProgramKind::SchedClassifier, &program(&maps), &maps).unwrap();
    let mut engines = vec![EngineKind::Checked];
    if cfg!(all(target_arch = "x86_64", unix)) {
        engines.push(EngineKind::RbpfJit);
    }
    for engine in engines {
        let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
        let loaded = kernel.load(&object, &LoadSpec::default()).unwrap();
        let id = loaded.programs["program"];
        for n in 0..8u64 {
            let any = UpdateMode::Any;
            kernel.map_update(loaded.maps["map9"], &(100 + n).to_le_bytes(), &[0; 8], any).unwrap();
        }
        let mut skb = SkBuff::from_frame(&[8; 100]);
        let mut run = Run::default();
        for _ in 0..4 {
            kernel.run_again(id, Input::Skb(&mut skb), &mut Still, &mut run).unwrap();
        }
        let before = COUNT.get();
        for _ in 0..100 {
            kernel.run_again(id, Input::Skb(&mut skb), &mut Still, &mut run).unwrap();
        }
        assert_eq!(COUNT.get() - before, 0, "{engine}: allocations in 100 packets");
    }
}
