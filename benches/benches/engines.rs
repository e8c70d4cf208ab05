//! Engines and programs under criterion: `cargo bench -p skep-benches --bench engines`.

use criterion::{Criterion, criterion_group, criterion_main};
use skep_benches::{ESTABLISHED, programs};
use skep_live::rows;
use skep_live::vm::Simulator;
use skep_object::ObjectSet;
use skep_vm::{EngineKind, Kernel, KernelConfig, LoadSpec, Object};

const ENGINES: [EngineKind; 3] = [EngineKind::RbpfJit, EngineKind::Checked, EngineKind::Rbpf];

fn runs(c: &mut Criterion) {
    let simulator = Simulator::new(&ObjectSet::built_in()).expect("the built-in objects are read");
    let row = rows::all().into_iter().find(|r| (r.program, r.name) == ESTABLISHED).expect("the row is there");
    for engine in ENGINES {
        for program in programs::all() {
            let Ok(mut prepared) = program.prepare(engine) else { continue };
            c.bench_function(&format!("{}/{engine}", program.name), |b| b.iter(|| prepared.run()));
        }
        let Ok(mut prepared) = simulator.prepare(&row, engine) else { continue };
        c.bench_function(&format!("from_container established/{engine}"), |b| b.iter(|| prepared.run()));
    }
}

/// The largest object.
fn lxc() -> &'static [u8] {
    include_bytes!("../../datapath/object/objects/lxc.o")
}

fn loads(c: &mut Criterion) {
    let bytes = lxc();
    for engine in ENGINES {
        c.bench_function(&format!("read and load lxc.o/{engine}"), |b| {
            b.iter(|| {
                let object = Object::parse(bytes).expect("it is read");
                let mut kernel = Kernel::new(&KernelConfig { engine, ..KernelConfig::default() });
                kernel.load(&object, &LoadSpec::default()).map(|loaded| loaded.programs.len())
            })
        });
    }
}

criterion_group!(benches, runs, loads);
criterion_main!(benches);
