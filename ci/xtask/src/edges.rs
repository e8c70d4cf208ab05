//! The table of crates and their edges in ARCHITECTURE.md, against what cargo says.

use crate::{Outcome, command::root};
use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::{BTreeMap, BTreeSet};

const FILE: &str = "ARCHITECTURE.md";

/// A crate, and those of ours that it depends on; `NAME (dev)` where only its tests do.
type Edges = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn check() -> Outcome {
    let text = std::fs::read_to_string(root().join(FILE)).map_err(|e| format!("{FILE}: {e}"))?;
    let wrong = compare(&table(&text), &workspace()?);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{FILE}: crates and their edges:\n  {}", wrong.join("\n  ")))
    }
}

/// The rows `| crate | a, b (dev) |` below the table's head.
fn table(text: &str) -> Edges {
    text.lines()
        .skip_while(|l| l.split('|').map(str::trim).ne(["", "crate", "depends on", ""]))
        .skip(2)
        .take_while(|l| l.starts_with('|'))
        .filter_map(|l| {
            let mut cells = l.trim().trim_matches('|').split('|').map(str::trim);
            let (name, edges) = (cells.next()?, cells.next()?);
            let edges =
                edges.split(',').map(str::trim).filter(|e| !e.is_empty()).map(str::to_owned).collect();
            Some((name.to_owned(), edges))
        })
        .collect()
}

fn workspace() -> Result<Edges, String> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let edges = metadata
        .packages
        .iter()
        .map(|p| {
            let mut to = BTreeSet::new();
            for d in p.dependencies.iter().filter(|d| ours.contains(&d.name)) {
                let dev = d.kind == DependencyKind::Development;
                to.insert(if dev { format!("{} (dev)", d.name) } else { d.name.clone() });
            }
            // A dependency that is there anyway is none of the tests alone.
            let normal = to.clone();
            to.retain(|d| !d.strip_suffix(" (dev)").is_some_and(|n| normal.contains(n)));
            (p.name.to_string(), to)
        })
        .collect();
    Ok(edges)
}

fn compare(table: &Edges, cargo: &Edges) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, edges) in cargo {
        let Some(allowed) = table.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        wrong.extend(edges.difference(allowed).map(|e| format!("{name} depends on {e}: not in the table")));
        wrong.extend(
            allowed.difference(edges).map(|e| format!("{name} does not depend on {e}: strike it out")),
        );
    }
    wrong.extend(
        table
            .keys()
            .filter(|n| !cargo.contains_key(*n))
            .map(|n| format!("{n} is no crate of this workspace")),
    );
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_too_many_and_one_too_few_are_found() {
        let text = "| crate | depends on |\n|---|---|\n| a | |\n| b | a, c (dev) |\n| c | a |\n\n| x | y |\n";
        let want = table(text);
        assert_eq!(want.len(), 3);
        let mut have = want.clone();
        assert!(compare(&want, &have).is_empty());
        have.get_mut("a").unwrap().insert("b".into());
        have.get_mut("b").unwrap().remove("c (dev)");
        have.remove("c");
        have.insert("d".into(), BTreeSet::new());
        let wrong = compare(&want, &have).join("\n");
        assert_eq!(
            wrong,
            "a depends on b: not in the table\nb does not depend on c (dev): strike it out\n\
             d is not in the table\nc is no crate of this workspace"
        );
    }
}
