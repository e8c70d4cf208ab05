//! Loading an object: its maps are found or created, its globals get their place and values, its programs their ids.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::{Program, Site};
use crate::helper::{callback_handle, map_handle};
use crate::legal::{Sound, Value};
use crate::object::Target;
use crate::{Error, Kernel, LoadSpec, Loaded, MapDef, MapId, Object, ProgramId, UpdateMode};

pub(crate) fn load(kernel: &mut Kernel, object: &Object, spec: &LoadSpec) -> Result<Loaded, Error> {
    check_spec(object, spec)?;
    let sound = object.sound()?;
    let mut loaded =
        Loaded { programs: BTreeMap::new(), maps: BTreeMap::new(), created: Vec::new(), globals: Vec::new() };
    let result = fill(kernel, object, spec, sound, &mut loaded);
    if result.is_err() {
        kernel.unload(&loaded);
    }
    result.map(|()| loaded)
}

fn fill(
    kernel: &mut Kernel,
    object: &Object,
    spec: &LoadSpec,
    sound: &[std::sync::Arc<Sound>],
    loaded: &mut Loaded,
) -> Result<(), Error> {
    let maps = maps(kernel, object, spec, loaded)?;
    sections(kernel, object, spec, loaded)?;
    let externs = externs(object, spec);
    for program in sound {
        check_externs(object, program, &externs)?;
        let value = |value| match value {
            Value::Constant(constant) => constant,
            Value::Map(index) => map_handle(maps[index]),
            Value::Data { section, offset } => kernel.arena.address(loaded.globals[section].0 + offset),
            Value::Extern(index) => externs[index].unwrap_or(0),
            Value::Callback(function) => callback_handle(function),
            Value::FrameCell => kernel.arena.address(kernel.slots.frame),
            Value::TailResult => kernel.arena.address(kernel.slots.frame + 8),
        };
        let section = |section: usize| {
            let (at, len) = loaded.globals[section];
            kernel.arena.address(at)..kernel.arena.address(at + len)
        };
        let site = Site {
            value: &value,
            section: &section,
            read_only: &|section| object.is_read_only(section),
            memory: kernel.arena.addresses(),
            verified: spec.verified,
        };
        let made = Program::new(program, kernel.engine, &site);
        let made = made.map_err(|error| object.in_section(&program.name, error))?;
        let id = ProgramId(kernel.next_program);
        kernel.next_program += 1;
        loaded.programs.insert(program.name.clone(), id);
        kernel.programs.insert(id, Rc::new(made));
    }
    slots(kernel, object, &maps, loaded)
}

/// The value that the load gives to each extern of the object; `None` for those that it leaves out.
fn externs(object: &Object, spec: &LoadSpec) -> Vec<Option<u64>> {
    let value = |bytes: &Vec<u8>| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    object.externs().iter().map(|name| spec.globals.get(name).map(value)).collect()
}

/// A program that needs an extern without a value cannot be loaded.
fn check_externs(object: &Object, program: &Sound, externs: &[Option<u64>]) -> Result<(), Error> {
    let missing = program.values.iter().find_map(|(at, value)| match value {
        Value::Extern(index) if externs[*index].is_none() => Some((*at, *index)),
        _ => None,
    });
    let Some((instruction, index)) = missing else { return Ok(()) };
    let what =
        format!("{} is left to the loader: the load must give a value for it", object.externs()[index]);
    let program = program.name.clone();
    Err(object.in_section(&program.clone(), Error::Instruction { program, instruction, what }))
}

/// Fills in what the object wants in its maps from the beginning.
fn slots(kernel: &mut Kernel, object: &Object, maps: &[MapId], loaded: &Loaded) -> Result<(), Error> {
    for slot in object.slots() {
        let map = maps[slot.map];
        let done = match &slot.target {
            Target::Program(name) => kernel.prog_array_set(map, slot.key, loaded.programs.get(name).copied()),
            Target::Map(inner) => {
                let value = maps[*inner].number().to_le_bytes();
                kernel.map_update(map, &slot.key.to_le_bytes(), &value, UpdateMode::Any)
            }
        };
        done.map_err(|e| Error::Map {
            map: object.maps()[slot.map].name.clone(),
            what: format!("its initial value in slot {}: {e}", slot.key),
        })?;
    }
    Ok(())
}

impl Kernel {
    /// A data section of a loaded object ([`Object::data`]), as its programs see it now. `None` if the object has none of
    /// this name, or is not the one that was loaded.
    pub fn data(&self, loaded: &Loaded, object: &Object, name: &str) -> Option<Vec<u8>> {
        let section = object.data().position(|(n, _)| n == name)?;
        let (at, len) = loaded.globals.get(section)?;
        Some(self.arena.slice(*at, *len).to_vec())
    }

    /// The bytes of a global of a loaded object, as its programs see them now. `None` if the object has none of this
    /// name, or is not the one that was loaded.
    pub fn global(&self, loaded: &Loaded, object: &Object, name: &str) -> Option<Vec<u8>> {
        let global = object.globals().iter().find(|g| g.name == name)?;
        let (at, len) = loaded.globals.get(global.section)?;
        let inside = global.offset.checked_add(global.size).is_some_and(|end| end <= *len);
        inside.then(|| self.arena.slice(at + global.offset, global.size).to_vec())
    }
}

/// What a load names, the object must have.
fn check_spec(object: &Object, spec: &LoadSpec) -> Result<(), Error> {
    for (name, value) in &spec.globals {
        let wrong = |what: String| Err(Error::Global { global: name.clone(), what });
        let is_extern = object.externs().contains(name);
        match object.globals().iter().find(|g| g.name == *name) {
            None if is_extern && (1..=8).contains(&value.len()) => {}
            None if is_extern => {
                return wrong(format!("a loader's value has 1 to 8 bytes and this {}", value.len()));
            }
            None => return wrong("the object has none of this name; leave it out of the load".into()),
            Some(g) if g.size != value.len() => {
                return wrong(format!("it has {} bytes and the value {}", g.size, value.len()));
            }
            Some(_) => {}
        }
    }
    match spec.maps.keys().find(|name| !object.maps().iter().any(|m| m.name == **name)) {
        Some(name) => Err(Error::UnknownMap(name.clone())),
        None => Ok(()),
    }
}

fn maps(
    kernel: &mut Kernel,
    object: &Object,
    spec: &LoadSpec,
    loaded: &mut Loaded,
) -> Result<Vec<MapId>, Error> {
    let mut ids = Vec::new();
    for def in object.maps() {
        let id = match spec.maps.get(&def.name) {
            Some(id) => {
                check_map(def, kernel.map_def(*id))?;
                *id
            }
            None => {
                let id = kernel.create_map(def.clone())?;
                loaded.created.push(id);
                id
            }
        };
        loaded.maps.insert(def.name.clone(), id);
        ids.push(id);
    }
    Ok(ids)
}

/// A map that takes another's place must look the same to the program. How many entries it has is its own affair.
fn check_map(want: &MapDef, have: Option<&MapDef>) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Map { map: want.name.clone(), what });
    let Some(have) = have else { return wrong("the map given for it does not exist".into()) };
    let shape = |m: &MapDef| (m.kind, m.key_size, m.value_size);
    if shape(want) != shape(have) {
        return wrong(format!(
            "the map given for it is {:?} (kind, key size, value size) and not {:?}",
            shape(have),
            shape(want)
        ));
    }
    Ok(())
}

/// A copy of each data section, with the globals filled in.
fn sections(kernel: &mut Kernel, object: &Object, spec: &LoadSpec, loaded: &mut Loaded) -> Result<(), Error> {
    for (number, data) in object.sections().iter().enumerate() {
        let at = kernel.arena.alloc(data.len()).ok_or_else(|| Error::Map {
            map: format!("data section {number}"),
            what: "no memory left in the simulated kernel".into(),
        })?;
        loaded.globals.push((at, data.len()));
        let place = kernel.arena.slice_mut(at, data.len());
        place.copy_from_slice(data);
        for global in object.globals().iter().filter(|g| g.section == number) {
            if let Some(value) = spec.globals.get(&global.name) {
                place[global.offset..global.offset + global.size].copy_from_slice(value);
            }
        }
    }
    Ok(())
}
