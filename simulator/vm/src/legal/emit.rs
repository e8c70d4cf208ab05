//! Puts instructions in a row and resolves jumps, calls and origins.

use std::collections::BTreeMap;

use super::Value;
use crate::insn::{CALL, Insn, JA, JMP, LD_IMM64, PSEUDO_CALL};

/// A place that a jump can go to, within one function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Label {
    /// The translation of this instruction of the object.
    Original(usize),
    /// A place that a rewrite made.
    Local(usize),
}

enum Item {
    Plain(Insn),
    Jump(Insn, Label),
    Call(usize),
    Load64(u8, Value),
}

/// Code, 16-byte loads to fill in, and the origin of each slot.
pub(crate) type Row = (Vec<Insn>, Vec<(usize, Value)>, Vec<u32>);

/// Instructions on their way into a row.
#[derive(Default)]
pub(crate) struct Emit {
    items: Vec<(Item, u32, usize)>,
    slots: usize,
    labels: BTreeMap<(usize, Label), usize>,
    starts: BTreeMap<usize, usize>,
    function: usize,
    origin: u32,
    locals: usize,
}

impl Emit {
    fn add(&mut self, item: Item) {
        let slots = if matches!(item, Item::Load64(..)) { 2 } else { 1 };
        self.items.push((item, self.origin, self.function));
        self.slots += slots;
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.slots
    }

    pub(crate) fn push(&mut self, insn: Insn) {
        self.add(Item::Plain(insn));
    }

    /// A jump, whose offset is filled in.
    pub(crate) fn jump(&mut self, insn: Insn, to: Label) {
        self.add(Item::Jump(insn, to));
    }

    /// An unconditional jump.
    pub(crate) fn go(&mut self, to: Label) {
        self.jump(Insn::new(JMP | JA, 0, 0, 0, 0), to);
    }

    /// A call of a function, by number.
    pub(crate) fn call(&mut self, function: usize) {
        self.add(Item::Call(function));
    }

    pub(crate) fn load64(&mut self, dst: u8, value: Value) {
        self.add(Item::Load64(dst, value));
    }

    /// A label of its own, to be bound.
    pub(crate) fn local(&mut self) -> Label {
        self.locals += 1;
        Label::Local(self.locals)
    }

    pub(crate) fn bind(&mut self, label: Label) {
        self.labels.insert((self.function, label), self.slots);
    }

    /// What follows belongs to this function.
    pub(crate) fn begin_function(&mut self, number: usize, origin: usize) {
        self.function = number;
        self.origin(origin);
        self.starts.insert(number, self.slots);
    }

    /// What follows comes from this instruction of the object.
    pub(crate) fn origin(&mut self, at: usize) {
        self.origin = at as u32;
    }

    /// The row, or the origin of a jump that does not reach its target: both engines have 16 bits for it.
    pub(crate) fn resolve(self) -> Result<Row, usize> {
        let (mut code, mut fixups, mut origin) = (Vec::new(), Vec::new(), Vec::new());
        for (item, from, function) in self.items {
            let here = code.len();
            match item {
                Item::Plain(insn) => code.push(insn),
                Item::Jump(insn, label) => {
                    let to = self.labels.get(&(function, label)).expect("every label is bound");
                    let by = *to as i64 - here as i64 - 1;
                    code.push(Insn { off: i16::try_from(by).map_err(|_| from as usize)?, ..insn });
                }
                Item::Call(number) => {
                    let to = self.starts.get(&number).expect("every function is emitted");
                    code.push(Insn::new(
                        JMP | CALL,
                        0,
                        PSEUDO_CALL,
                        0,
                        (*to as i64 - here as i64 - 1) as i32,
                    ));
                }
                Item::Load64(dst, value) => {
                    let constant = if let Value::Constant(constant) = value { constant } else { 0 };
                    if !matches!(value, Value::Constant(_)) {
                        fixups.push((here, value));
                    }
                    code.extend(load64(dst, constant));
                }
            }
            origin.resize(code.len(), from);
        }
        Ok((code, fixups, origin))
    }
}

/// A 16-byte load of a constant.
pub(crate) fn load64(dst: u8, constant: u64) -> [Insn; 2] {
    let half = |imm: u32| imm as i32;
    [
        Insn::new(LD_IMM64, dst, 0, 0, half(constant as u32)),
        Insn::new(0, 0, 0, 0, half((constant >> 32) as u32)),
    ]
}
