//! All maps of a kernel.

use super::Map;
use crate::MapId;
use crate::arena::Arena;

/// All maps of a kernel, by number; a number is never given again.
#[derive(Default)]
pub(crate) struct Maps(Vec<Option<Map>>);

impl Maps {
    pub(crate) fn get(&self, id: MapId) -> Option<&Map> {
        self.0.get(id.0.checked_sub(1)? as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: MapId) -> Option<&mut Map> {
        self.0.get_mut(id.0.checked_sub(1)? as usize)?.as_mut()
    }

    pub(crate) fn insert(&mut self, map: Map) -> MapId {
        self.0.push(Some(map));
        MapId(self.0.len() as u32)
    }

    pub(crate) fn remove(&mut self, id: MapId) -> Option<Map> {
        self.0.get_mut(id.0.checked_sub(1)? as usize)?.take()
    }

    /// A socket is closed: nothing holds it any more.
    pub(crate) fn forget_socket(&mut self, socket: u64, arena: &mut Arena) {
        for map in self.0.iter_mut().flatten() {
            map.forget_socket(socket, arena);
        }
    }
}
