//! The engines behind one seam: rbpf's interpreter, rbpf's JIT, and `checked`, which is ours.
//!
//! Knows which engine runs a program and what each needs. Knows nothing of what a program does: helpers find their
//! world by themselves (see [`crate::scope`]). An engine that cannot run a program says so when it is loaded; only
//! [`EngineKind::Auto`] chooses, and [`crate::Kernel::engine`] says what it chose.

pub(crate) mod checked;
#[cfg(all(target_arch = "x86_64", unix))]
mod jit;
mod rbpf;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use crate::insn::Insn;
use crate::legal::{Legal, Sound, Value, load64};
use crate::{Error, FaultKind, ProgramKind};

/// What executes programs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum EngineKind {
    /// The JIT for programs that a kernel has verified ([`crate::LoadSpec::verified`]) where there is one, else `Checked`.
    #[default]
    Auto,
    /// rbpf's interpreter. For programs that a kernel has verified: it sees only the grossest of bad accesses.
    Rbpf,
    /// rbpf's JIT, on x86-64. For programs that a kernel has verified: it sees no bad access at all.
    RbpfJit,
    /// The interpreter of this crate, which checks every access.
    Checked,
}

impl EngineKind {
    /// All of them, in the order in which a user reads them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::RbpfJit, Self::Rbpf, Self::Checked];

    /// As a flag names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Rbpf => "rbpf",
            Self::RbpfJit => "rbpf-jit",
            Self::Checked => "checked",
        }
    }

    /// What [`Self::Auto`] comes to for a program that a kernel has verified, or has not; of another, itself.
    pub const fn chosen(self, verified: bool) -> Self {
        match self {
            Self::Auto if verified && cfg!(all(target_arch = "x86_64", unix)) => Self::RbpfJit,
            Self::Auto => Self::Checked,
            named => named,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|e| e.name() == name);
        named.ok_or_else(|| format!("{name} is no engine: auto, rbpf-jit, rbpf or checked"))
    }
}

/// A loaded program.
pub(crate) struct Program {
    sound: Arc<Sound>,
    kind: EngineKind,
    engine: Box<dyn Engine>,
}

/// What runs one program.
trait Engine {
    /// Runs it, or the function of it that the scope names, and gives r0. Arguments and stack come from the scope.
    fn execute(&self) -> Result<u64, Stopped>;

    /// Which instructions of the object have been executed, if the engine keeps account of it.
    fn covered(&self) -> Option<Vec<usize>> {
        None
    }
}

/// How an execution ended before `exit`.
pub(crate) struct Stopped {
    /// Of the object, if it is known.
    pub(crate) instruction: Option<usize>,
    pub(crate) kind: FaultKind,
}

/// What a load knows and an engine needs.
pub(crate) struct Site<'a> {
    /// What 16-byte loads stand for.
    pub(crate) value: &'a dyn Fn(Value) -> u64,
    /// How long the data section is that a value lies in, and where it starts.
    pub(crate) section: &'a dyn Fn(usize) -> Range<u64>,
    /// Whether programs may not write to a data section.
    pub(crate) read_only: &'a dyn Fn(usize) -> bool,
    /// All that programs may touch.
    pub(crate) memory: Range<u64>,
    /// Whether a kernel has verified it.
    pub(crate) verified: bool,
}

impl Program {
    pub(crate) fn new(sound: &Arc<Sound>, kind: EngineKind, site: &Site<'_>) -> Result<Self, Error> {
        let kind = kind.chosen(site.verified);
        let engine: Box<dyn Engine> = match kind {
            EngineKind::Checked | EngineKind::Auto => Box::new(checked::Checked::new(sound, site)?),
            EngineKind::Rbpf => Box::new(rbpf::Interpreter::new(sound, site)?),
            EngineKind::RbpfJit => jit(sound, site)?,
        };
        Ok(Self { sound: Arc::clone(sound), kind, engine })
    }

    pub(crate) fn name(&self) -> &str {
        &self.sound.name
    }

    pub(crate) fn kind(&self) -> ProgramKind {
        self.sound.kind
    }

    pub(crate) fn engine(&self) -> EngineKind {
        self.kind
    }

    /// Bytes that its functions may see of each frame, the program's own first: what must be zero before a run. None where
    /// the engine finds reads of what was not written.
    pub(crate) fn stack(&self) -> &[u16] {
        if self.kind == EngineKind::Checked { &[] } else { &self.sound.stack }
    }

    /// Whether the kernel lets it run longer than its verifier follows it.
    pub(crate) fn may_loop(&self) -> bool {
        self.sound.may_loop
    }

    pub(crate) fn execute(&self) -> Result<u64, Stopped> {
        self.engine.execute()
    }

    pub(crate) fn covered(&self) -> Option<Vec<usize>> {
        self.engine.covered()
    }
}

#[cfg(all(target_arch = "x86_64", unix))]
fn jit(sound: &Arc<Sound>, site: &Site<'_>) -> Result<Box<dyn Engine>, Error> {
    Ok(Box::new(jit::Jit::new(sound, site)?))
}

#[cfg(not(all(target_arch = "x86_64", unix)))]
fn jit(sound: &Arc<Sound>, _: &Site<'_>) -> Result<Box<dyn Engine>, Error> {
    let what = "the engine rbpf-jit runs on x86-64 under Unix only; take rbpf or checked".to_owned();
    Err(Error::Program { program: sound.name.clone(), what })
}

fn refused(sound: &Sound, what: impl fmt::Display) -> Error {
    Error::Program { program: sound.name.clone(), what: format!("the engine refuses it: {what}") }
}

/// Legal code with its values filled in.
fn filled(legal: &Legal, site: &Site<'_>) -> Vec<Insn> {
    let mut insns = legal.code.clone();
    for (at, fixup) in &legal.fixups {
        let filled = load64(insns[*at].dst, (site.value)(*fixup));
        insns[*at..*at + 2].copy_from_slice(&filled);
    }
    insns
}
