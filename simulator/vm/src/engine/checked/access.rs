//! Loads, stores and atomic operations of the interpreter.
//!
//! Nothing is read or written but through [`Regions::find`](super::regions::Regions::find), which says that the bytes
//! belong to what the pointer was made for.
#![expect(
    unsafe_code,
    reason = "programs use real addresses; each is used right behind the check of its region"
)]

use super::decode::Op;
use super::regions::{CONTEXT, Class, Loaded, Loads, NUMBER, Tag};
use super::run::Machine;
use crate::helper::socket;
use crate::insn::{CMPXCHG, FETCH, XCHG};
use crate::{Doing, FaultKind, Region, Why};

impl Machine<'_> {
    #[cold]
    #[inline(never)]
    pub(super) fn refused(&self, doing: Doing, tag: Tag, address: u64, width: u64, why: Why) -> FaultKind {
        FaultKind::Access(self.regions().bad(doing, tag, address, width, why))
    }

    #[inline(always)]
    pub(super) fn load<const WIDTH: u64>(&mut self, op: &Op) -> Result<(u64, Tag), FaultKind> {
        let base = usize::from(op.src & 15);
        let (address, tag) = (self.r[base].wrapping_add(op.off as i64 as u64), self.t[base]);
        let Some(bytes) = self.regions().find(tag, address, WIDTH) else {
            return Err(self.refused(Doing::Load, tag, address, WIDTH, Why::Outside));
        };
        let loaded = match bytes.class {
            Class::Plain | Class::ReadOnly => NUMBER,
            Class::Stack => match self.regions().load_slot(tag, address - bytes.start, WIDTH) {
                Some(loaded) => loaded,
                None => return Err(self.refused(Doing::Load, tag, address, WIDTH, Why::Uninitialised)),
            },
            Class::Context => return self.load_context(address, WIDTH),
        };
        // SAFETY: the bytes lie inside of a region of the arena.
        Ok((unsafe { read::<WIDTH>(address) }, loaded))
    }

    #[inline(never)]
    fn load_context(&mut self, address: u64, width: u64) -> Result<(u64, Tag), FaultKind> {
        let found = self.regions().load_context(address, width);
        let Loaded { at, width, is } =
            found.map_err(|why| self.refused(Doing::Load, CONTEXT, address, width, why))?;
        // SAFETY: a field of the context, or the pointer that stands behind it, and `width` is one of these.
        let value = unsafe {
            match width {
                1 => read::<1>(at),
                2 => read::<2>(at),
                4 => read::<4>(at),
                _ => read::<8>(at),
            }
        };
        let tag = match is {
            Loads::Known(tag) => tag,
            Loads::Socket => self.regions_mut().pointed(value, socket::BYTES, Region::Given),
            Loads::Start => {
                // SAFETY: the field behind this one, which is 8 bytes long, too.
                let end = unsafe { read::<8>(at + 8) };
                self.regions_mut().pointed(value, end.saturating_sub(value), Region::Memory)
            }
        };
        Ok((value, tag))
    }

    #[inline(always)]
    pub(super) fn store<const WIDTH: u64>(&mut self, op: &Op) -> Result<(), FaultKind> {
        let (base, from) = (usize::from(op.dst & 15), usize::from(op.src & 15));
        let (address, tag) = (self.r[base].wrapping_add(op.off as i64 as u64), self.t[base]);
        let (value, value_tag) = (self.r[from].wrapping_add(op.imm as u64), self.t[from]);
        let Some(bytes) = self.regions().find(tag, address, WIDTH) else {
            return Err(self.refused(Doing::Store, tag, address, WIDTH, Why::Outside));
        };
        match bytes.class {
            Class::Plain => {}
            Class::Stack => {
                let offset = address - bytes.start;
                if !self.regions_mut().store_slot(tag, offset, WIDTH, value_tag) {
                    return Err(self.refused(Doing::Store, tag, address, WIDTH, Why::Escapes));
                }
            }
            Class::ReadOnly => return Err(self.refused(Doing::Store, tag, address, WIDTH, Why::ReadOnly)),
            Class::Context => return self.store_context(address, WIDTH, value),
        }
        // SAFETY: the bytes lie inside of a region of the arena, which programs may write.
        unsafe { write::<WIDTH>(address, value) };
        Ok(())
    }

    #[cold]
    fn store_context(&self, address: u64, width: u64, value: u64) -> Result<(), FaultKind> {
        let kept = self.regions().store_context(address, width, value);
        let kept = kept.map_err(|why| self.refused(Doing::Store, CONTEXT, address, width, why))?;
        // SAFETY: inside of a field of the context, no wider than the access.
        unsafe {
            match kept {
                0 => {}
                1 => write::<1>(address, value),
                2 => write::<2>(address, value),
                4 => write::<4>(address, value),
                _ => write::<8>(address, value),
            }
        }
        Ok(())
    }

    pub(super) fn atomic<const WIDTH: u64>(&mut self, op: &Op) -> Result<(), FaultKind> {
        let (base, from) = (usize::from(op.dst & 15), usize::from(op.src & 15));
        let (address, tag) = (self.r[base].wrapping_add(op.off as i64 as u64), self.t[base]);
        let Some(bytes) = self.regions().find(tag, address, WIDTH) else {
            return Err(self.refused(Doing::Store, tag, address, WIDTH, Why::Outside));
        };
        match bytes.class {
            Class::Plain => {}
            Class::Stack => {
                let offset = address - bytes.start;
                if self.regions().load_slot(tag, offset, WIDTH).is_none() {
                    return Err(self.refused(Doing::Load, tag, address, WIDTH, Why::Uninitialised));
                }
                self.regions_mut().store_slot(tag, offset, WIDTH, NUMBER);
            }
            // `check_atomic` refuses the context, as it does read-only memory.
            _ => return Err(self.refused(Doing::Store, tag, address, WIDTH, Why::ReadOnly)),
        }
        let mask = if WIDTH == 4 { u64::from(u32::MAX) } else { u64::MAX };
        // SAFETY: the bytes lie inside of a region of the arena.
        let old = unsafe { read::<WIDTH>(address) };
        let operand = self.r[from] & mask;
        let new = match op.imm as i32 {
            XCHG => operand,
            CMPXCHG if old == self.r[0] & mask => operand,
            CMPXCHG => old,
            code => match code & !FETCH {
                0x00 => old.wrapping_add(operand),
                0x40 => old | operand,
                0x50 => old & operand,
                _ => old ^ operand,
            },
        };
        // SAFETY: as above, and programs may write there.
        unsafe { write::<WIDTH>(address, new) };
        match op.imm as i32 {
            CMPXCHG => (self.r[0], self.t[0]) = (old, NUMBER),
            code if code & FETCH != 0 => (self.r[from], self.t[from]) = (old, NUMBER),
            _ => {}
        }
        Ok(())
    }
}

/// # Safety
///
/// All bytes lie inside of the arena.
#[inline(always)]
unsafe fn read<const WIDTH: u64>(address: u64) -> u64 {
    let at = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: as the caller says; all memory of the arena is initialised.
    unsafe {
        match WIDTH {
            1 => u64::from(at.read()),
            2 => u64::from(u16::from_le(at.cast::<u16>().read_unaligned())),
            4 => u64::from(u32::from_le(at.cast::<u32>().read_unaligned())),
            _ => u64::from_le(at.cast::<u64>().read_unaligned()),
        }
    }
}

/// # Safety
///
/// All bytes lie inside of the arena, and nobody holds a slice of them.
#[inline(always)]
unsafe fn write<const WIDTH: u64>(address: u64, value: u64) {
    let at = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: as the caller says.
    unsafe {
        match WIDTH {
            1 => at.write(value as u8),
            2 => at.cast::<u16>().write_unaligned((value as u16).to_le()),
            4 => at.cast::<u32>().write_unaligned((value as u32).to_le()),
            _ => at.cast::<u64>().write_unaligned(value.to_le()),
        }
    }
}
