//! Every program of every object past the running kernel's verifier.

use super::load::{Prepared, Spec};
use super::map::Map;
use super::sys::{kernel_release, probe};
use crate::{Error, ObjectReport, ProgramReport, Report, Verdict};
use skep_object::ObjectSet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The report about all objects. Maps of one name are made once and shared, as on a node.
pub(crate) fn verify(objects: &ObjectSet) -> Result<Report, Error> {
    probe()?;
    let mut shared: BTreeMap<String, Arc<Map>> = BTreeMap::new();
    let mut reports = Vec::new();
    for object in skep_abi::program::Object::ALL {
        let (name, bytes) = (object.name(), objects.bytes(*object));
        let declared = super::load::shapes(name, bytes)?;
        let maps = shared
            .iter()
            .filter(|(n, _)| declared.iter().any(|d| d.name == **n))
            .map(|(n, m)| (n.clone(), Arc::clone(m)))
            .collect();
        let prepared = Prepared::new(name, bytes, &Spec { maps, ..Spec::default() })?;
        shared.extend(prepared.maps.iter().map(|(n, m)| (n.clone(), Arc::clone(m))));
        let programs = in_order(&prepared.programs(), *object)
            .into_iter()
            .map(|program| report(&prepared, &program))
            .collect::<Result<_, _>>()?;
        reports.push(ObjectReport { name: name.to_owned(), sha256: objects.sha256(*object), programs });
    }
    Ok(Report { kernel: kernel_release(), objects: reports })
}

/// The contract's order first, then what the object has beyond it; what it lacks shows as a refusal of its own.
fn in_order(present: &[String], object: skep_abi::program::Object) -> Vec<String> {
    let listed: Vec<String> = skep_abi::program::of(object).map(|p| p.name.to_owned()).collect();
    let beyond = present.iter().filter(|p| !listed.contains(p)).cloned().collect::<Vec<_>>();
    listed.into_iter().chain(beyond).collect()
}

fn report(prepared: &Prepared, program: &str) -> Result<ProgramReport, Error> {
    let (verdict, s, log) = match prepared.load(program)? {
        Ok(loaded) => (Verdict::Success, loaded.statistics, Vec::new()),
        Err(refusal) => (Verdict::Failure, refusal.statistics, refusal.last_lines()),
    };
    Ok(ProgramReport {
        name: program.to_owned(),
        verdict,
        size: s.size,
        verified: s.verified,
        stack: s.stack,
        states: s.states,
        peak_states: s.peak_states,
        log,
    })
}
