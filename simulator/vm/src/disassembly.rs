//! What a program's instructions are, as text: as the object has them, and beside them what the engine executes.
//!
//! Knows names of maps, globals, functions and helpers. Does not know what instructions do.

mod names;
mod text;

use std::sync::Arc;

use crate::insn::{Insn, PSEUDO_BTF_ID, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE};
use crate::legal::{Legal, Value};
use crate::{Error, Object, helper};

pub use names::{helper_name, map_kind_name};

/// A program as text.
#[derive(Clone, Debug)]
pub struct Listing {
    /// One of each instruction of the object, in order.
    pub lines: Vec<Line>,
    /// Why the program cannot be made executable here. Then [`Line::legal`] is empty everywhere.
    pub illegal: Option<Error>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Line {
    /// Counted from the program's first, a 16-byte load as two.
    pub instruction: usize,
    /// The function that begins here.
    pub function: Option<String>,
    /// The bytes of its 8-byte slots.
    pub bytes: Vec<u8>,
    /// It in the notation of the kernel's verifier; jumps name the instruction that they go to.
    pub original: String,
    /// What rbpf's engines execute in its place: position and text. Beside the first instruction and at the start of
    /// each block stands the vm's own: where the frame is, and how many instructions are left.
    pub legal: Vec<(usize, String)>,
}

struct Original<'a>(&'a Object, &'a str);

impl text::Names for Original<'_> {
    fn load(&self, at: usize, insn: Insn, next: Insn) -> String {
        let object = self.0;
        let index = usize::try_from(insn.imm).unwrap_or(usize::MAX);
        match insn.src {
            PSEUDO_MAP_FD => match object.maps().get(index) {
                Some(map) => format!("map[{}]", map.name),
                None => format!("map[{index}]"),
            },
            PSEUDO_BTF_ID => match object.externs().get(index) {
                Some(name) => format!("extern {name}"),
                None => format!("extern {index}"),
            },
            PSEUDO_MAP_VALUE => object.place_name(index, next.imm as u32 as usize),
            4 => {
                let to = at as i64 + 1 + i64::from(insn.imm);
                format!("function {}", usize::try_from(to).map_or("?".into(), |at| self.function(at)))
            }
            other => format!("pseudo {other}: {}, {}", insn.imm, next.imm),
        }
    }

    fn helper(&self, number: i32) -> String {
        let name = u32::try_from(number).ok().and_then(helper_name);
        format!("{}#{number}", name.as_deref().unwrap_or("unknown"))
    }

    fn function(&self, at: usize) -> String {
        self.0.function_name(self.1, at).unwrap_or_else(|| format!("function at {at}"))
    }
}

struct Executed<'a> {
    original: Original<'a>,
    fixups: &'a [(usize, Value)],
    code: &'a [Insn],
    origin: &'a [u32],
}

impl text::Names for Executed<'_> {
    fn load(&self, at: usize, insn: Insn, next: Insn) -> String {
        self.original.load(at, insn, next)
    }

    fn helper(&self, number: i32) -> String {
        helper::own_name(number).unwrap_or_else(|| self.original.helper(number))
    }

    fn function(&self, at: usize) -> String {
        match self.origin.get(at) {
            Some(origin) => self.original.function(*origin as usize),
            None => format!("function at {at}"),
        }
    }
}

impl Executed<'_> {
    fn text(&self, at: usize) -> Option<String> {
        use text::Names as _;
        let fixup = self.fixups.iter().find(|(position, _)| *position == at);
        if let Some((_, value)) = fixup {
            let (source, index, offset) = match *value {
                Value::Constant(_) => return text::text(self.code, at, self),
                Value::Callback(function) => {
                    return Some(format!(
                        "r{} = function {}",
                        self.code[at].dst,
                        self.original.function(function)
                    ));
                }
                Value::FrameCell => return Some(format!("r{} = [frame cell]", self.code[at].dst)),
                Value::TailResult => return Some(format!("r{} = [tail result]", self.code[at].dst)),
                Value::Map(index) => (PSEUDO_MAP_FD, index, 0),
                Value::Extern(index) => (PSEUDO_BTF_ID, index, 0),
                Value::Data { section, offset } => (PSEUDO_MAP_VALUE, section, offset),
            };
            let insn = Insn::new(self.code[at].code, self.code[at].dst, source, 0, index as i32);
            let named = self.load(at, insn, Insn { imm: offset as i32, ..Insn::default() });
            return Some(format!("r{} = {named}", insn.dst));
        }
        let is_second_half = at > 0 && self.fixups.iter().any(|(position, _)| position + 1 == at);
        if is_second_half { None } else { text::text(self.code, at, self) }
    }
}

impl Object {
    fn legal(&self, program: &str) -> Result<Arc<Legal>, Error> {
        let sound = self.sound_program(program)?;
        sound.legal().cloned().map_err(|error| self.in_section(program, error))
    }

    /// A program as text, original and executed; `None` if the object has no such program.
    pub fn listing(&self, program: &str) -> Option<Listing> {
        let linked = self.linked(program)?;
        let insns = &linked.instructions;
        let names = Original(self, program);
        let mut lines = Vec::new();
        for at in 0..insns.len() {
            let Some(original) = text::text(insns, at, &names) else { continue };
            let slots = if insns[at].code == crate::insn::LD_IMM64 { 2 } else { 1 };
            let bytes = insns[at..].iter().take(slots).flat_map(|i| i.encode()).collect();
            let function = self.function_name(program, at);
            lines.push(Line { instruction: at, function, bytes, original, legal: Vec::new() });
        }
        let mut listing = Listing { lines, illegal: None };
        match self.legal(program) {
            Err(error) => listing.illegal = Some(error),
            Ok(made) => listing.fill(&Executed {
                original: names,
                fixups: &made.fixups,
                code: &made.code,
                origin: &made.origin,
            }),
        }
        Some(listing)
    }
}

impl Listing {
    fn fill(&mut self, executed: &Executed<'_>) {
        for (at, origin) in executed.origin.iter().enumerate() {
            let Some(text) = executed.text(at) else { continue };
            if let Ok(line) = self.lines.binary_search_by_key(&(*origin as usize), |l| l.instruction) {
                self.lines[line].legal.push((at, text));
            }
        }
    }
}
