//! The Worlds that the command can run a scenario on.

use crate::args::{On, RunArgs};
use skep_scenario::{SetupError, World};
use skep_sim::{SimOptions, SimWorld};
use skep_vm::EngineKind;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// A World, and what the command does with it once a scenario has ended.
pub(crate) enum Place {
    /// The simulator.
    Sim {
        /// The World.
        world: Box<SimWorld>,
        /// Where its capture goes.
        pcap: Option<PathBuf>,
    },
    /// The running kernel.
    #[cfg(all(feature = "kernel", target_os = "linux"))]
    Kernel(Box<skep_live::live::LiveWorld>),
}

/// A World of the kind that was asked for.
pub(crate) fn open(on: On, args: &RunArgs) -> Result<Place, SetupError> {
    match on {
        On::Sim => sim(args.object.as_deref(), args.pcap.as_deref(), args.engine),
        On::Kernel => kernel(args.object.as_deref()),
    }
}

/// The simulator, with the objects of a folder or the built-in ones.
fn sim(objects: Option<&Path>, pcap: Option<&Path>, engine: EngineKind) -> Result<Place, SetupError> {
    let options = SimOptions { objects: objects.map(Path::to_owned), capture: pcap.is_some(), engine };
    let world = SimWorld::new(options)?;
    tell_engines(engine, &world);
    Ok(Place::Sim { world: Box::new(world), pcap: pcap.map(Path::to_owned) })
}

/// What `auto` has chosen, once: each scenario has a world of its own, and the same objects.
fn tell_engines(asked: EngineKind, world: &SimWorld) {
    static TOLD: Once = Once::new();
    if asked != EngineKind::Auto {
        return;
    }
    TOLD.call_once(|| {
        let all: Vec<_> = world.engines().map(|(o, engine)| format!("{engine} for {}.o", o.name())).collect();
        // Not on stdout: what is reported does not depend on the engine.
        eprintln!("engine: {}", all.join(", "));
    });
}

/// The running kernel.
#[cfg(all(feature = "kernel", target_os = "linux"))]
fn kernel(objects: Option<&Path>) -> Result<Place, SetupError> {
    skep_live::live::LiveWorld::new(objects).map(|world| Place::Kernel(Box::new(world)))
}

/// Says what it would need.
#[cfg(not(all(feature = "kernel", target_os = "linux")))]
fn kernel(_: Option<&Path>) -> Result<Place, SetupError> {
    use skep_scenario::Diagnostic;

    let (why, help) = if cfg!(target_os = "linux") {
        (
            "this skep was built without the feature `kernel`",
            "run `cargo run --release -p skep --features kernel -- run --on kernel ...` as root",
        )
    } else {
        ("there is no Linux kernel here", "run it on Linux, as root, or in the simulator")
    };
    Err(SetupError::input(Diagnostic::new(why).help(help)))
}

impl Place {
    pub(crate) fn world(&mut self) -> &mut dyn World {
        match self {
            Self::Sim { world, .. } => &mut **world,
            #[cfg(all(feature = "kernel", target_os = "linux"))]
            Self::Kernel(world) => &mut **world,
        }
    }

    /// Writes the capture, if one was asked for.
    pub(crate) fn write_capture(&self) -> io::Result<()> {
        let Self::Sim { world, pcap: Some(path) } = self else { return Ok(()) };
        let mut out = BufWriter::new(File::create(path)?);
        world.write_capture(&mut out)?;
        out.flush()
    }
}
