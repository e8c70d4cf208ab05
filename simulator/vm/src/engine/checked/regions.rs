//! What `checked` knows of memory: regions, and which of them each pointer was made for.
//!
//! Every register and every stack slot has a tag beside its value: the number of a region, or that it is a number, or
//! that nobody wrote it. Arithmetic keeps the tag, an access goes to the tag's region alone, and a region that is gone
//! has no bytes. So a pointer that leaves its packet, value or frame is found wherever it points to.
#![expect(unsafe_code, reason = "interpreter and helpers take turns with the regions")]

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::run::Caller;
use crate::context::{self, Layout, Shape};
use crate::legal::FRAME;
use crate::{BadAccess, Doing, Region, Why};

/// The number of a region, and what stands for no region.
pub(crate) type Tag = u32;

/// A number, or a handle of a map or callback.
pub(super) const NUMBER: Tag = 0;
pub(super) const CONTEXT: Tag = 1;
pub(super) const MEMORY: Tag = 2;
/// Frames have tags from here, in the order of their depth.
const FRAMES: Tag = 16;
/// What a run makes has tags from here.
const DYNAMIC: Tag = 512;
/// Not a tag: nobody wrote the register.
pub(super) const UNWRITTEN: Tag = Tag::MAX;

/// As many frames as 34 programs of 8 functions.
const FRAMES_MAX: usize = (DYNAMIC - FRAMES) as usize;

/// How a region is accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// As it is; what is read is a number.
    Plain,
    /// The same, and it is only read.
    ReadOnly,
    Stack,
    Context,
}

/// One region: `len` bytes from an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) class: Class,
    pub(super) is: Region,
}

/// A load from the context: where it is to be made, how many bytes, and what it gives.
pub(super) struct Loaded {
    pub(super) at: u64,
    pub(super) width: u64,
    pub(super) is: Loads,
}

/// What a load from the context gives.
pub(super) enum Loads {
    /// Something with this tag.
    Known(Tag),
    /// A `struct bpf_sock`.
    Socket,
    /// Where bytes start whose end stands in the next 8 bytes of the context.
    Start,
}

const NOTHING: Bytes = Bytes { start: 0, len: 0, class: Class::Plain, is: Region::Number };

/// Bytes of a frame.
const FRAME_BYTES: usize = FRAME as usize;

/// What is known of a frame's bytes.
#[derive(Clone)]
pub(super) struct Frame {
    /// A bit a byte: it was written.
    written: [u64; FRAME_BYTES / 64],
    /// The tag of each aligned 8 bytes.
    tags: [Tag; FRAME_BYTES / 8],
}

/// All regions of a run.
pub(crate) struct Regions {
    table: Vec<Bytes>,
    frames: Vec<Frame>,
    depth: usize,
    packet: [Tag; 3],
    packet_at: [u64; 3],
    layout: Option<&'static Layout>,
    /// Data sections that the run has touched.
    sections: Vec<(u64, Tag)>,
    /// The tags of a helper's arguments while it runs. Atomic so that they are read and written one by one: a wide load of
    /// what was just written in parts waits for it.
    call: [AtomicU32; 5],
    is_called: bool,
    /// Of all programs that run: what is kept of functions that have called another.
    pub(super) callers: Vec<Caller>,
}

/// The regions of a kernel. The interpreter has them while it executes, and helpers while they run; a pointer, as the two
/// take turns.
pub(crate) struct Kept(NonNull<Regions>);

impl Default for Kept {
    fn default() -> Self {
        Self(NonNull::from(Box::leak(Box::default())))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: from a box, and whoever shares it executes a program of the kernel that this belongs to.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Deref for Kept {
    type Target = Regions;
    #[inline(always)]
    fn deref(&self) -> &Regions {
        // SAFETY: alive as long as this is; the interpreter holds no reference while somebody else asks.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Kept {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Regions {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

/// A kernel's regions in the hands of the interpreter.
#[derive(Clone, Copy)]
pub(super) struct Shared(NonNull<Regions>);

impl Deref for Shared {
    type Target = Regions;
    #[inline(always)]
    fn deref(&self) -> &Regions {
        // SAFETY: the kernel outlives what executes its programs, and keeps its regions; helpers, which look at them too, run
        // only where the interpreter holds no reference.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Shared {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Regions {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

impl Default for Regions {
    fn default() -> Self {
        let (table, frames) = (vec![NOTHING; DYNAMIC as usize], Vec::new());
        Self {
            table,
            frames,
            depth: 0,
            packet: [NUMBER; 3],
            packet_at: [0; 3],
            layout: None,
            sections: Vec::new(),
            call: Default::default(),
            is_called: false,
            callers: Vec::new(),
        }
    }
}

impl Regions {
    /// For the interpreter.
    pub(super) fn shared(kept: &Kept) -> Shared {
        Shared(kept.0)
    }

    /// Before a run.
    pub(crate) fn reset(
        &mut self,
        context: Option<(u64, &'static Layout)>,
        memory: (u64, u64),
        packet: [u64; 3],
    ) {
        self.table.truncate(DYNAMIC as usize);
        (self.depth, self.is_called) = (0, false);
        self.sections.clear();
        self.callers.clear();
        self.layout = context.map(|(_, layout)| layout);
        let bytes = |start, len, class, is| Bytes { start, len, class, is };
        self.table[CONTEXT as usize] = match context {
            Some((start, layout)) => bytes(start, layout.size as u64, Class::Context, Region::Context),
            None => NOTHING,
        };
        self.table[MEMORY as usize] = bytes(memory.0, memory.1, Class::Plain, Region::Memory);
        self.packet = [NUMBER; 3];
        self.add_packet(packet);
    }

    fn add(&mut self, start: u64, len: u64, class: Class, is: Region) -> Tag {
        self.table.push(Bytes { start, len, class, is });
        (self.table.len() - 1) as Tag
    }

    fn add_packet(&mut self, at: [u64; 3]) {
        let [meta, start, end] = at;
        self.packet_at = at;
        let tag = self.table.len() as Tag;
        self.packet = [tag, tag + 1, tag + 2];
        let part = |start, end, is| Bytes { start, len: end - start, class: Class::Plain, is };
        self.table.extend_from_slice(&[
            part(meta, start, Region::PacketMeta),
            part(start, end, Region::Packet),
            part(end, end, Region::PacketEnd),
        ]);
    }

    /// After a helper: the packet is where it was, unless it moved or the kernel says that it may have.
    pub(super) fn after_helper(&mut self, packet: [u64; 3], changes_packet: bool) {
        // One by one: a wide comparison waits for what was just written in parts.
        let ([meta, start, end], at) = (packet, &self.packet_at);
        if end == at[2] && start == at[1] && meta == at[0] && !changes_packet {
            return;
        }
        for tag in self.packet {
            let old = &mut self.table[tag as usize];
            (old.len, old.is) = (0, Region::StalePacket);
        }
        self.add_packet(packet);
    }

    /// The frame of a function that is entered; `None` where there are too many. `pointer` is its frame pointer.
    pub(super) fn enter_frame(&mut self, pointer: u64) -> Option<Tag> {
        if self.depth == FRAMES_MAX {
            return None;
        }
        let written = [0; FRAME_BYTES / 64];
        match self.frames.get_mut(self.depth) {
            // Tags of bytes that were not written are never looked at.
            Some(frame) => frame.written = written,
            None => self.frames.push(Frame { written, tags: [NUMBER; FRAME_BYTES / 8] }),
        }
        let tag = FRAMES + self.depth as Tag;
        let (start, is) = (pointer.wrapping_sub(FRAME_BYTES as u64), Region::Stack(self.depth));
        self.table[tag as usize] = Bytes { start, len: FRAME_BYTES as u64, class: Class::Stack, is };
        self.depth += 1;
        Some(tag)
    }

    pub(super) fn leave_frame(&mut self) {
        self.depth -= 1;
        let old = &mut self.table[FRAMES as usize + self.depth];
        (old.len, old.is) = (0, Region::StaleStack(self.depth));
    }

    /// A program that was tail called has ended, wherever it was.
    pub(super) fn leave_frames(&mut self, depth: usize) {
        while self.depth > depth {
            self.leave_frame();
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// A region that lives until the run's end or until it is [`Self::end`]ed.
    pub(super) fn make(&mut self, start: u64, len: u64, is: Region) -> Tag {
        // The same place again and again, as in a loop around a look-up, is the same region.
        let last = self.table.last().expect("it begins with regions");
        if last.start == start && last.len == len && last.is == is {
            return (self.table.len() - 1) as Tag;
        }
        let class = if is == Region::ReadOnlyData { Class::ReadOnly } else { Class::Plain };
        self.add(start, len, class, is)
    }

    /// A data section: one region a run.
    pub(super) fn section(&mut self, start: u64, len: u64, is: Region) -> Tag {
        if let Some((_, tag)) = self.sections.iter().find(|(known, _)| *known == start) {
            return *tag;
        }
        let tag = self.make(start, len, is);
        self.sections.push((start, tag));
        tag
    }

    /// What starts in these bytes is there no more.
    pub(super) fn end(&mut self, start: u64, len: u64, becomes: fn(Region) -> Option<Region>) {
        for region in &mut self.table[DYNAMIC as usize..] {
            let inside = region.start.wrapping_sub(start) < len && region.len > 0;
            if let (true, Some(is)) = (inside, becomes(region.is)) {
                (region.len, region.is) = (0, is);
            }
        }
    }

    /// The bytes behind an address and a tag, if `width` of them lie inside.
    #[inline(always)]
    pub(super) fn find(&self, tag: Tag, address: u64, width: u64) -> Option<&Bytes> {
        let bytes = self.table.get(tag as usize)?;
        let offset = address.wrapping_sub(bytes.start);
        (offset <= bytes.len && bytes.len - offset >= width).then_some(bytes)
    }

    /// What is wrong with an access that [`Self::find`] or a class refused.
    #[cold]
    pub(super) fn bad(&self, doing: Doing, tag: Tag, address: u64, width: u64, why: Why) -> BadAccess {
        let (region, offset) = self.shown(tag, address);
        let len = match region {
            Region::Stack(_) => FRAME_BYTES,
            _ => self.table.get(tag as usize).map_or(0, |b| b.len as usize),
        };
        BadAccess { doing, size: width as usize, region, offset, len, why }
    }

    /// A register's content without an address.
    pub(super) fn shown(&self, tag: Tag, value: u64) -> (Region, i64) {
        let bytes = self.table.get(tag as usize).copied().unwrap_or(NOTHING);
        let offset = value.wrapping_sub(bytes.start) as i64;
        match bytes.is {
            Region::Number => (Region::Number, value as i64),
            Region::Stack(_) | Region::StaleStack(_) => (bytes.is, offset.wrapping_sub(FRAME_BYTES as i64)),
            is => (is, offset),
        }
    }

    /// The tag of a stack slot that is loaded, or `None` if not all of it was written.
    #[inline(always)]
    pub(super) fn load_slot(&self, tag: Tag, offset: u64, width: u64) -> Option<Tag> {
        let frame = self.frames.get((tag - FRAMES) as usize)?;
        let at = (offset as usize) & (FRAME_BYTES - 1);
        if !frame.is_written(at, width as usize) {
            return None;
        }
        Some(if width == 8 && at & 7 == 0 { frame.tags[at >> 3] } else { NUMBER })
    }

    /// A stack slot gets a value; false if that is a pointer to a frame that ends before this one.
    #[inline(always)]
    pub(super) fn store_slot(&mut self, tag: Tag, offset: u64, width: u64, value: Tag) -> bool {
        if value > tag && value < DYNAMIC {
            return false;
        }
        let Some(frame) = self.frames.get_mut((tag - FRAMES) as usize) else { return false };
        let at = (offset as usize) & (FRAME_BYTES - 1);
        frame.write(at, width as usize);
        frame.tags[at >> 3] = if width == 8 && at & 7 == 0 { value } else { NUMBER };
        if at & 7 != 0 {
            // What begins here may lie over the next slot too.
            frame.tags[(at + width as usize - 1) >> 3 & (FRAME_BYTES / 8 - 1)] = NUMBER;
        }
        true
    }

    /// Whether a value with this tag points into the frame with that tag, or one that it called.
    pub(super) fn belongs_to(&self, value: Tag, frame: Tag) -> bool {
        value >= frame && value < DYNAMIC
    }

    /// A load from the context.
    pub(super) fn load_context(&self, address: u64, width: u64) -> Result<Loaded, Why> {
        let offset = address.wrapping_sub(self.table[CONTEXT as usize].start) as i32;
        let base = address - offset as u64;
        let field = self.layout.and_then(|l| l.touched(offset, width as i32)).ok_or(Why::NoField)?;
        let from = offset - i32::from(field.offset);
        if from < 0 || from + width as i32 > i32::from(field.size) {
            return Err(Why::NoField);
        }
        // The fields that every packet's program reads are told by their place, which is quicker than their names.
        let is = match field.shape {
            Shape::Pointer(context::DATA) => Loads::Known(self.packet[1]),
            Shape::Pointer(context::DATA_END) => Loads::Known(self.packet[2]),
            Shape::Pointer(context::DATA_META) => Loads::Known(self.packet[0]),
            Shape::Pointer(_) | Shape::Pointer64 => match field.name {
                "data" => Loads::Known(self.packet[1]),
                "data_end" => Loads::Known(self.packet[2]),
                "data_meta" => Loads::Known(self.packet[0]),
                "sk" => Loads::Socket,
                "optval" | "skb_data" => Loads::Start,
                _ => Loads::Known(NUMBER),
            },
            _ => Loads::Known(NUMBER),
        };
        match field.shape {
            Shape::Pointer(at) if from == 0 && width == 4 => {
                Ok(Loaded { at: base + at as u64, width: 8, is })
            }
            Shape::Pointer64 if from == 0 && width == 8 => Ok(Loaded { at: address, width: 8, is }),
            Shape::Pointer(_) | Shape::Pointer64 => Err(Why::NoField),
            _ => Ok(Loaded { at: address, width, is: Loads::Known(NUMBER) }),
        }
    }

    /// What a pointer that stood in the context points to: one region a run, nothing if it is 0.
    pub(super) fn pointed(&mut self, value: u64, len: u64, is: Region) -> Tag {
        if value == 0 { NUMBER } else { self.section(value, len, is) }
    }

    /// A store to the context: how many bytes of the value are to be written, if any.
    pub(super) fn store_context(&self, address: u64, width: u64, value: u64) -> Result<u64, Why> {
        let offset = address.wrapping_sub(self.table[CONTEXT as usize].start) as i32;
        let field = self.layout.and_then(|l| l.touched(offset, width as i32)).ok_or(Why::NoField)?;
        let from = offset - i32::from(field.offset);
        if from < 0 || from + width as i32 > i32::from(field.size) {
            return Err(Why::NoField);
        }
        if field.access == context::Access::Read {
            return Err(Why::ReadOnly);
        }
        Ok(match field.shape {
            Shape::Narrow if width == 4 => 2,
            Shape::QueueMapping if width == 4 && value as u32 >= 0xffff => 0,
            Shape::QueueMapping if width == 4 => 2,
            _ => width,
        })
    }

    /// Tells what a helper is given.
    #[inline(always)]
    pub(crate) fn give_tags(&mut self, tags: [Tag; 5]) {
        for (place, tag) in self.call.iter().zip(tags) {
            place.store(tag, Relaxed);
        }
        self.is_called = true;
    }

    /// No helper runs.
    pub(super) fn take_tags(&mut self) {
        self.is_called = false;
    }

    pub(crate) fn given(&self) -> [Tag; 5] {
        if self.is_called { self.call.each_ref().map(|tag| tag.load(Relaxed)) } else { [NUMBER; 5] }
    }

    /// Checks bytes that a helper reads or writes through its argument; they count as written afterwards.
    pub(crate) fn check_argument(
        &mut self,
        argument: u8,
        address: u64,
        size: usize,
        doing: Doing,
    ) -> Result<(), BadAccess> {
        if !self.is_called {
            return Ok(());
        }
        let (tag, width) = (self.call[usize::from(argument) - 1].load(Relaxed), size as u64);
        let refused = |why| Err(self.bad(doing, tag, address, width, why));
        let Some(bytes) = self.find(tag, address, width) else { return refused(Why::Outside) };
        let offset = (address - bytes.start) as usize;
        if bytes.class == Class::Stack && doing == Doing::Load {
            // Keys and values, most of all.
            if self.frames[(tag - FRAMES) as usize].is_written(offset, size) {
                return Ok(());
            }
            return refused(Why::Uninitialised);
        }
        match bytes.class {
            Class::Plain => Ok(()),
            Class::ReadOnly if doing == Doing::Load => Ok(()),
            Class::ReadOnly => refused(Why::ReadOnly),
            // The kernel passes the context on as a whole and lets no helper write into it.
            Class::Context => refused(Why::NoField),
            Class::Stack => {
                let frame = &mut self.frames[(tag - FRAMES) as usize];
                frame.write(offset, size);
                frame.tags[offset >> 3..(offset + size).div_ceil(8)].fill(NUMBER);
                Ok(())
            }
        }
    }
}

impl Frame {
    /// The words of `written` that so many bytes from a place touch, with the bits of these bytes.
    fn words(at: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
        let end = at + len;
        (at / 64..end.div_ceil(64)).map(move |word| {
            let (from, to) = (at.max(word * 64) - word * 64, end.min(word * 64 + 64) - word * 64);
            (word, (u64::MAX >> (64 - (to - from))) << from)
        })
    }

    #[inline(always)]
    fn is_written(&self, at: usize, len: usize) -> bool {
        if len <= 8 && at % 64 + len <= 64 {
            let mask = (u64::MAX >> (64 - len)) << (at % 64);
            return self.written[at / 64] & mask == mask;
        }
        Self::words(at, len).all(|(word, mask)| self.written[word] & mask == mask)
    }

    #[inline(always)]
    fn write(&mut self, at: usize, len: usize) {
        if len <= 8 && at % 64 + len <= 64 {
            self.written[at / 64] |= (u64::MAX >> (64 - len)) << (at % 64);
            return;
        }
        for (word, mask) in Self::words(at, len) {
            self.written[word] |= mask;
        }
    }
}
