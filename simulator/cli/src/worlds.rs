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
    Ok(Place::Sim { world: Box::new(SimWorld::new(options)?), pcap: pcap.map(Path::to_owned) })
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

    /// Says what `auto` has chosen, once: each scenario has a world of its own, and the same objects. Not on stdout: what
    /// is reported does not depend on the engine.
    pub(crate) fn tell_engines(&self, asked: EngineKind) {
        static TOLD: Once = Once::new();
        #[cfg_attr(
            not(all(feature = "kernel", target_os = "linux")),
            expect(irrefutable_let_patterns, reason = "without the kernel there is one kind of place")
        )]
        let Self::Sim { world, .. } = self else { return };
        if asked == EngineKind::Auto {
            let each = world.engines().map(|(object, engine)| format!("{engine} for {}.o", object.name()));
            TOLD.call_once(|| eprintln!("engine: {}", each.collect::<Vec<_>>().join(", ")));
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
