//! How the values of an entry lie in the arena.

use crate::arena::Arena;

/// The values of one entry: one a CPU, each rounded up to 8 bytes, one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub(crate) at: usize,
}

/// How values lie in the arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(super) size: usize,
    pub(super) cpus: usize,
    /// Where in a value a `struct bpf_spin_lock` is, which system calls neither read nor write.
    pub(super) lock: Option<usize>,
}

impl Layout {
    pub(super) fn stride(self) -> usize {
        self.size.next_multiple_of(8)
    }

    pub(super) fn total(self) -> usize {
        self.stride() * self.cpus
    }

    pub(super) fn get(self, values: Values, arena: &Arena) -> Vec<Vec<u8>> {
        (0..self.cpus).map(|cpu| self.get_one(values, cpu, arena)).collect()
    }

    pub(super) fn get_one(self, values: Values, cpu: usize, arena: &Arena) -> Vec<u8> {
        let mut value = arena.slice(values.at + cpu * self.stride(), self.size).to_vec();
        if let Some(lock) = self.lock {
            value[lock..lock + 4].fill(0);
        }
        value
    }

    /// Writes what a system call gives: one value for all CPUs, or one for each.
    pub(super) fn set(self, values: Values, value: &[u8], arena: &mut Arena) {
        for cpu in 0..self.cpus {
            let step = if value.len() == self.total() { self.stride() } else { self.size };
            let from = if value.len() == self.size { value } else { &value[cpu * step..][..self.size] };
            self.set_one(values.at + cpu * self.stride(), from, arena);
        }
    }

    pub(super) fn set_one(self, at: usize, from: &[u8], arena: &mut Arena) {
        let to = arena.slice_mut(at, self.size);
        match self.lock {
            Some(lock) => {
                to[..lock].copy_from_slice(&from[..lock]);
                to[lock + 4..].copy_from_slice(&from[lock + 4..]);
            }
            None => to.copy_from_slice(from),
        }
    }
}
