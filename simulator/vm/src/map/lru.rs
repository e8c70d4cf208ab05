//! Which entry of an LRU map goes when a new one needs its place.
//!
//! Knows elements by number and the order in which they were used. Knows no keys.

use super::table::NONE;

/// How LRU maps choose what to evict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Eviction {
    /// Exactly the entry that was used least recently.
    #[default]
    Exact,
    /// As `kernel/bpf/bpf_lru_list.c` of Linux 6.18 does: one bit of use an entry, active and inactive lists, and
    /// batches of up to 128 free entries a CPU, so that a map evicts before it is full and may evict what is in use.
    Kernel,
}

/// Of the kernel: how many entries a CPU takes at once, and how many are looked at (`LOCAL_FREE_TARGET`).
const BATCH: u32 = 128;
/// The same of maps with `BPF_F_NO_COMMON_LRU` (`PERCPU_FREE_TARGET`).
const BATCH_OWN: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    /// Free, or unknown.
    None,
    Active,
    Inactive,
    Pending,
}

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
}

struct Element {
    list: List,
    used: bool,
    cpu: u32,
}

/// Active and inactive entries, and how many are free.
struct Shelf {
    active: u32,
    inactive: u32,
    free: u32,
    /// From where the inactive ones are looked at next.
    rotation: u32,
}

pub(super) struct Lru {
    /// `None` where eviction is exact.
    kernel: Option<Batches>,
    /// Heads of lists first, then elements.
    links: Vec<Link>,
    heads: u32,
    elements: Vec<Element>,
    shelves: Vec<Shelf>,
}

struct Batches {
    /// Every CPU has a shelf of its own.
    own: bool,
    target: u32,
    scans: u32,
    /// A CPU's free entries, and from which CPU it steals next.
    cpus: Vec<(u32, u32)>,
}

impl Lru {
    pub(super) fn exact() -> Self {
        Self::with(None, vec![Shelf { active: 0, inactive: 0, free: 0, rotation: 1 }], 2)
    }

    /// `own`: `BPF_F_NO_COMMON_LRU`.
    pub(super) fn kernel(max: u32, cpus: u32, own: bool) -> Self {
        let target = if own { BATCH_OWN } else { (max / cpus / 2).clamp(1, BATCH) };
        let scans = if own { BATCH_OWN } else { BATCH };
        let count = if own { cpus } else { 1 };
        let shelf = |n| Shelf { active: 0, inactive: 0, free: max / count, rotation: 2 * n + 1 };
        let shelves: Vec<_> = (0..count).map(shelf).collect();
        let heads = 2 * count + cpus;
        let batches = Batches { own, target, scans, cpus: (0..cpus).map(|cpu| (0, cpu)).collect() };
        Self::with(Some(batches), shelves, heads)
    }

    fn with(kernel: Option<Batches>, shelves: Vec<Shelf>, heads: u32) -> Self {
        let links = (0..heads).map(|h| Link { prev: h, next: h }).collect();
        Self { kernel, links, heads, elements: Vec::new(), shelves }
    }

    fn active(shelf: usize) -> u32 {
        2 * shelf as u32
    }

    fn inactive(shelf: usize) -> u32 {
        2 * shelf as u32 + 1
    }

    fn pending(&self, cpu: u32) -> u32 {
        2 * self.shelves.len() as u32 + cpu
    }

    fn detach(&mut self, at: u32) {
        let Link { prev, next } = self.links[at as usize];
        self.links[prev as usize].next = next;
        self.links[next as usize].prev = prev;
    }

    /// Puts it behind the head.
    fn attach(&mut self, at: u32, head: u32) {
        let next = self.links[head as usize].next;
        self.links[at as usize] = Link { prev: head, next };
        self.links[head as usize].next = at;
        self.links[next as usize].prev = at;
    }

    fn element(&mut self, at: u32) -> &mut Element {
        &mut self.elements[(at - self.heads) as usize]
    }

    /// A program looked it up.
    pub(super) fn touch(&mut self, element: u32) {
        if self.kernel.is_some() {
            self.elements[element as usize].used = true;
            return;
        }
        let (at, head) = (self.heads + element, Self::active(0));
        if self.links[head as usize].next != at {
            self.detach(at);
            self.attach(at, head);
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.kernel.is_none()
    }

    /// Undoes [`Self::make_room`] on a CPU.
    pub(super) fn give_room(&mut self, cpu: u32) {
        match &self.kernel {
            None => {}
            Some(k) if k.own => self.shelves[cpu as usize].free += 1,
            Some(_) => self.set_free(cpu, self.free(cpu) + 1),
        }
    }

    /// The entry that is to go if eviction is exact.
    pub(super) fn oldest(&self) -> Option<u32> {
        let tail = self.links[Self::active(0) as usize].prev;
        tail.checked_sub(self.heads)
    }

    /// Makes room for one more on a CPU; `evict` is told each entry that goes. False if there is nothing to evict.
    pub(super) fn make_room(&mut self, cpu: u32, evict: &mut dyn FnMut(u32)) -> bool {
        let Some(batches) = &self.kernel else { return true };
        if batches.own {
            let shelf = cpu as usize;
            self.rotate(shelf);
            if self.shelves[shelf].free == 0 {
                let freed = self.shrink(shelf, BATCH_OWN, evict);
                self.shelves[shelf].free = freed;
            }
            let has = self.shelves[shelf].free > 0;
            self.shelves[shelf].free -= u32::from(has);
            return has;
        }
        if self.free(cpu) == 0 {
            self.fetch(cpu, evict);
        }
        if self.free(cpu) > 0 {
            self.set_free(cpu, self.free(cpu) - 1);
            return true;
        }
        self.steal(cpu, evict)
    }

    fn free(&self, cpu: u32) -> u32 {
        self.kernel.as_ref().map_or(0, |k| k.cpus[cpu as usize].0)
    }

    fn set_free(&mut self, cpu: u32, free: u32) {
        if let Some(kernel) = &mut self.kernel {
            kernel.cpus[cpu as usize].0 = free;
        }
    }

    fn limits(&self) -> (u32, u32) {
        self.kernel.as_ref().map_or((0, 0), |k| (k.target, k.scans))
    }

    /// `bpf_lru_list_pop_free_to_local`
    fn fetch(&mut self, cpu: u32, evict: &mut dyn FnMut(u32)) {
        let pending = self.pending(cpu);
        loop {
            let at = self.links[pending as usize].prev;
            if at == pending {
                break;
            }
            let used = self.element(at).used;
            let (list, head) = if used {
                self.shelves[0].active += 1;
                (List::Active, Self::active(0))
            } else {
                self.shelves[0].inactive += 1;
                (List::Inactive, Self::inactive(0))
            };
            self.detach(at);
            self.attach(at, head);
            let element = self.element(at);
            (element.list, element.used) = (list, false);
        }
        self.rotate(0);
        let target = self.limits().0;
        let taken = self.shelves[0].free.min(target);
        self.shelves[0].free -= taken;
        let shrunk = if taken < target { self.shrink(0, target - taken, evict) } else { 0 };
        self.set_free(cpu, taken + shrunk);
    }

    /// From the free and pending entries of all CPUs in turn.
    fn steal(&mut self, cpu: u32, evict: &mut dyn FnMut(u32)) -> bool {
        let Some(kernel) = &self.kernel else { return false };
        let (first, count) = (kernel.cpus[cpu as usize].1, kernel.cpus.len() as u32);
        let mut from = first;
        let mut found = false;
        loop {
            if self.free(from) > 0 {
                self.set_free(from, self.free(from) - 1);
                found = true;
            } else if let Some(at) = self.oldest_pending(from) {
                self.detach(at);
                self.element(at).list = List::None;
                evict(at - self.heads);
                found = true;
            }
            from = (from + 1) % count;
            if found || from == first {
                break;
            }
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.cpus[cpu as usize].1 = from;
        }
        found
    }

    /// The oldest that was not used, else the oldest.
    fn oldest_pending(&mut self, cpu: u32) -> Option<u32> {
        let head = self.pending(cpu);
        let mut at = self.links[head as usize].prev;
        let oldest = (at != head).then_some(at);
        while at != head {
            if !self.element(at).used {
                return Some(at);
            }
            at = self.links[at as usize].prev;
        }
        oldest
    }

    /// `__bpf_lru_node_move`, and to the free ones: the mark of rotation steps back from what moves.
    fn shift(&mut self, at: u32, shelf: usize, to: List) {
        let from = self.element(at).list;
        let s = &mut self.shelves[shelf];
        match from {
            List::Active => s.active -= 1,
            List::Inactive => s.inactive -= 1,
            _ => {}
        }
        match to {
            List::Active => s.active += 1,
            List::Inactive => s.inactive += 1,
            _ => {}
        }
        if s.rotation == at {
            s.rotation = self.links[at as usize].prev;
        }
        self.detach(at);
        match to {
            List::Active => self.attach(at, Self::active(shelf)),
            List::Inactive => self.attach(at, Self::inactive(shelf)),
            _ => {}
        }
        let element = self.element(at);
        (element.list, element.used) = (to, false);
    }

    fn rotate(&mut self, shelf: usize) {
        if self.shelves[shelf].inactive < self.shelves[shelf].active {
            self.rotate_active(shelf);
        }
        self.rotate_inactive(shelf);
    }

    fn rotate_active(&mut self, shelf: usize) {
        let head = Self::active(shelf);
        let (first, scans) = (self.links[head as usize].next, self.limits().1);
        let mut at = self.links[head as usize].prev;
        let mut seen = 0;
        while at != head {
            let prev = self.links[at as usize].prev;
            let to = if self.element(at).used { List::Active } else { List::Inactive };
            self.shift(at, shelf, to);
            seen += 1;
            if seen == scans || at == first {
                break;
            }
            at = prev;
        }
    }

    fn rotate_inactive(&mut self, shelf: usize) {
        let (head, scans) = (Self::inactive(shelf), self.limits().1);
        if self.links[head as usize].next == head {
            return;
        }
        let mut last = self.links[self.shelves[shelf].rotation as usize].next;
        if last == head {
            last = self.links[head as usize].next;
        }
        let (mut at, mut next) = (self.shelves[shelf].rotation, head);
        let mut seen = 0;
        while seen < scans {
            if at == head {
                at = self.links[head as usize].prev;
                if at == head {
                    // All of them were used and have gone.
                    next = head;
                    break;
                }
                continue;
            }
            next = self.links[at as usize].prev;
            if self.element(at).used {
                self.shift(at, shelf, List::Active);
            }
            if at == last {
                break;
            }
            at = next;
            seen += 1;
        }
        self.shelves[shelf].rotation = next;
    }

    /// Evicts up to `target` entries; at least one if there is any.
    fn shrink(&mut self, shelf: usize, target: u32, evict: &mut dyn FnMut(u32)) -> u32 {
        let (head, scans) = (Self::inactive(shelf), self.limits().1);
        let mut at = self.links[head as usize].prev;
        let (mut freed, mut seen) = (0, 0);
        while at != head {
            let prev = self.links[at as usize].prev;
            if self.element(at).used {
                self.shift(at, shelf, List::Active);
            } else {
                self.shift(at, shelf, List::None);
                evict(at - self.heads);
                freed += 1;
                if freed == target {
                    break;
                }
            }
            seen += 1;
            if seen == scans {
                break;
            }
            at = prev;
        }
        if freed > 0 {
            return freed;
        }
        let head = if self.links[head as usize].prev == head { Self::active(shelf) } else { head };
        let at = self.links[head as usize].prev;
        if at == head {
            return 0;
        }
        self.shift(at, shelf, List::None);
        evict(at - self.heads);
        1
    }

    /// An element that [`Self::make_room`] made room for.
    pub(super) fn insert(&mut self, element: u32, cpu: u32, used: bool) {
        debug_assert_ne!(element, NONE);
        while self.elements.len() <= element as usize {
            let at = self.links.len() as u32;
            self.links.push(Link { prev: at, next: at });
            self.elements.push(Element { list: List::None, used: false, cpu: 0 });
        }
        let at = self.heads + element;
        let (list, head) = match &self.kernel {
            None => (List::Active, Self::active(0)),
            Some(k) if k.own => {
                self.shelves[cpu as usize].inactive += 1;
                (List::Inactive, Self::inactive(cpu as usize))
            }
            Some(_) => (List::Pending, self.pending(cpu)),
        };
        self.attach(at, head);
        *self.element(at) = Element { list, used, cpu };
    }

    /// An element that was deleted.
    pub(super) fn remove(&mut self, element: u32) {
        let at = self.heads + element;
        let (list, cpu) = (self.element(at).list, self.element(at).cpu);
        match (&self.kernel, list) {
            (None, _) => self.detach(at),
            (Some(_), List::Pending) => {
                self.detach(at);
                self.set_free(cpu, self.free(cpu) + 1);
            }
            (Some(k), _) => {
                let shelf = if k.own { cpu as usize } else { 0 };
                self.shift(at, shelf, List::None);
                self.shelves[shelf].free += 1;
            }
        }
        self.element(at).list = List::None;
    }
}
