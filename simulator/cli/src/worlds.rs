//! The Worlds that the command can run a scenario on.

use skep_scenario::{SetupError, World};
use skep_sim::{SimOptions, SimWorld};
use skep_vm::EngineKind;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A World, and what the command does with it once a scenario has ended.
pub(crate) struct Simulator {
    world: SimWorld,
    pcap: Option<PathBuf>,
}

/// The simulator, with the objects of a folder or the built-in ones.
pub(crate) fn sim(
    objects: Option<&Path>,
    pcap: Option<&Path>,
    engine: EngineKind,
) -> Result<Simulator, SetupError> {
    let options = SimOptions { objects: objects.map(Path::to_owned), capture: pcap.is_some(), engine };
    Ok(Simulator { world: SimWorld::new(options)?, pcap: pcap.map(Path::to_owned) })
}

impl Simulator {
    pub(crate) fn world(&mut self) -> &mut dyn World {
        &mut self.world
    }

    /// Writes the capture, if one was asked for.
    pub(crate) fn write_capture(&self) -> io::Result<()> {
        let Some(path) = &self.pcap else { return Ok(()) };
        let mut out = BufWriter::new(File::create(path)?);
        self.world.write_capture(&mut out)?;
        out.flush()
    }
}
