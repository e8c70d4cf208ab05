//! A scenario whose every name is resolved: nodes, pods, files and packets, before anything runs.
//!
//! Reads files. Does not interpret Kubernetes beyond names, and does not know which World will carry it out.

mod check;
mod steps;

use crate::error::{Diagnostic, diagnostics};
use crate::names::Names;
use crate::schema::{API_VERSION, AssertStep, Document, Expect, KIND, NodeSpec};
use crate::suggest;
use crate::world::{Capability, Change, ClusterSpec, Network, NodeEntry, Stimulus, Until};
use skep_manifest::{Loaded, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in a scenario's folder.
pub const FILE: &str = "scenario.yaml";

/// What the caller decides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlanOptions {
    /// Instead of the scenario's own seed.
    pub seed: Option<u64>,
    /// Kinds to read past beside the scenario's own.
    pub ignore_kinds: Vec<String>,
}

/// A scenario, ready to run.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.description`.
    pub description: String,
    /// The scenario's file, as it was named.
    pub file: PathBuf,
    /// The cluster to build.
    pub cluster: ClusterSpec,
    /// What a World must offer to build it.
    pub needs: BTreeSet<Capability>,
    /// What happens, in order.
    pub steps: Vec<PlannedStep>,
    /// Objects of the first manifests that have no effect on networking, by kind.
    pub read_past: BTreeMap<String, usize>,
    /// The objects that the cluster starts with, for the second opinion of the oracle.
    pub manifests: Vec<Loaded>,
    source: Source,
}

/// A step.
#[derive(Clone, PartialEq, Debug)]
pub struct PlannedStep {
    /// Its number, from 1.
    pub number: usize,
    /// Its line in scenario.yaml.
    pub line: u32,
    /// What it does, for reports: `http default/curl -> http://10.42.0.51:80/get`.
    pub title: String,
    /// What it does.
    pub action: Action,
    /// What is expected of it.
    pub expect: Option<Expect>,
    /// What a World must offer for it.
    pub needs: BTreeSet<Capability>,
}

/// What a step does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Starts a flow, and finishes it unless it has a name.
    Start {
        /// Under which name it stays open.
        name: Option<String>,
        /// What is sent.
        stimulus: Stimulus,
        /// How far it is carried on.
        until: Until,
    },
    /// Finishes the flow of that name.
    Await(String),
    /// Changes the cluster. The objects of `apply` and `delete` come along, for the oracle.
    Change(Change, Vec<Loaded>),
    /// Lets time pass.
    Advance(Duration),
    /// Compares the cluster's state.
    Assert(AssertStep),
}

impl Plan {
    /// Reads a scenario: its folder, or its file. All errors that can be told apart are returned together.
    pub fn load(path: &Path, options: &PlanOptions) -> Result<Self, Vec<Diagnostic>> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let text = std::fs::read_to_string(&file).map_err(|e| {
            vec![
                Diagnostic::new(format!("cannot be read: {e}"))
                    .in_file(&file)
                    .help(format!("name a scenario's folder, which holds {FILE}, or the file itself")),
            ]
        })?;
        let shown = file.display().to_string();
        let (document, source) =
            skep_manifest::yaml::from_str::<Document>(&shown, &text).map_err(diagnostics)?;
        Planner::new(file, source, document, options)?.plan()
    }

    /// Where a field of the scenario's file stands: the line, from 1.
    pub fn line_of(&self, field: &str) -> u32 {
        self.source.at(field).line
    }
}

/// A plan in the making.
struct Planner {
    file: PathBuf,
    folder: PathBuf,
    source: Source,
    document: Document,
    load_options: skep_manifest::Options,
    seed: Option<u64>,
    names: Names,
    /// Names of flows that are open, each with the pod that acts.
    open: BTreeMap<String, String>,
    errors: Vec<Diagnostic>,
}

impl Planner {
    fn new(
        file: PathBuf,
        source: Source,
        document: Document,
        options: &PlanOptions,
    ) -> Result<Self, Vec<Diagnostic>> {
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        let ignore_kinds = document.spec.ignore_kinds.iter().chain(&options.ignore_kinds).cloned().collect();
        let mut planner = Self {
            file,
            folder,
            source,
            document,
            load_options: skep_manifest::Options { ignore_kinds },
            seed: options.seed,
            names: Names::default(),
            open: BTreeMap::new(),
            errors: Vec::new(),
        };
        planner.header();
        if planner.errors.is_empty() { Ok(planner) } else { Err(planner.errors) }
    }

    fn header(&mut self) {
        let (version, kind) = (self.document.api_version.clone(), self.document.kind.clone());
        if kind != KIND {
            self.complain("kind", format!("{kind:?} is not a scenario"), format!("write {KIND}"));
        }
        if version != API_VERSION {
            self.complain("apiVersion", format!("{version:?} is not known"), format!("write {API_VERSION}"));
        }
    }

    fn plan(mut self) -> Result<Plan, Vec<Diagnostic>> {
        let nodes = self.nodes();
        self.names = Names::of_nodes(&nodes);
        let manifests = self.paths("spec.manifests", &self.document.spec.manifests.clone());
        let loaded = self.load(&manifests);
        self.names.add(&loaded.resources);
        self.names.or_one_node();
        if !self.errors.is_empty() {
            // Whether steps name what is there cannot be told.
            return Err(self.errors);
        }

        let mut steps = Vec::new();
        for (i, step) in self.document.spec.steps.clone().into_iter().enumerate() {
            match self.step(i, &step) {
                Ok(step) => steps.push(step),
                Err(e) => self.errors.push(e),
            }
        }
        self.unfinished();
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let Document { metadata, spec, .. } = self.document;
        // Where frames take another time than by default, a World that gives them none would run another scenario.
        let other_latency = spec.network.latency != Network::default().latency;
        Ok(Plan {
            needs: other_latency.then_some(Capability::Latency).into_iter().collect(),
            name: metadata.name,
            description: metadata.description,
            file: self.file,
            cluster: ClusterSpec {
                seed: self.seed.unwrap_or(spec.seed),
                network: spec.network,
                nodes,
                manifests,
                ignore_kinds: self.load_options.ignore_kinds.into_iter().collect(),
            },
            steps,
            read_past: loaded.read_past,
            manifests: loaded.resources,
            source: self.source,
        })
    }

    fn nodes(&mut self) -> Vec<NodeEntry> {
        let mut seen = BTreeSet::new();
        for (i, node) in self.document.spec.nodes.clone().iter().enumerate() {
            if !seen.insert(node.name.clone()) {
                let field = format!("spec.nodes[{i}].name");
                self.complain(&field, format!("there are two nodes {}", node.name), "give each its own name");
            }
        }
        let entry =
            |n: &NodeSpec| NodeEntry { name: n.name.clone(), address: n.address, pod_cidr: n.pod_cidr };
        self.document.spec.nodes.iter().map(entry).collect()
    }

    /// Paths relative to the scenario's folder; one that is not there is an error.
    fn paths(&mut self, field: &str, names: &[String]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let path = self.folder.join(name);
            if path.exists() {
                paths.push(path);
                continue;
            }
            // `apply` takes a file or a list of them.
            let item = format!("{field}[{i}]");
            let field = if self.source.has(&item) { item } else { field.to_owned() };
            let message = format!("there is no {}", path.display());
            self.complain(&field, message, "paths are relative to the scenario's folder");
        }
        paths
    }

    fn load(&mut self, paths: &[PathBuf]) -> skep_manifest::Manifests {
        if paths.is_empty() {
            return skep_manifest::Manifests::default();
        }
        skep_manifest::load(paths, &self.load_options).unwrap_or_else(|errors| {
            self.errors.extend(diagnostics(errors));
            skep_manifest::Manifests::default()
        })
    }

    /// Flows that were named and never awaited.
    fn unfinished(&mut self) {
        for name in std::mem::take(&mut self.open).into_keys() {
            let message = format!("the flow {name} is left open and never awaited");
            self.complain("spec.steps", message, format!("end with a step `await: {name}`"));
        }
    }

    fn complain(&mut self, field: &str, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.at(field, message).help(help);
        self.errors.push(diagnostic);
    }

    /// A complaint at a field of the scenario.
    fn at(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        let place = self.source.value_at(field);
        Diagnostic::new(message).in_file(&self.file).at(place.line, place.column).about(field)
    }

    fn known_node(&self, field: &str, node: &str) -> Result<(), Diagnostic> {
        if self.names.nodes.contains(node) {
            return Ok(());
        }
        let hint = suggest::hint(node, self.names.nodes.iter().map(String::as_str));
        Err(self.at(field, format!("no node {node}")).help(hint))
    }

    fn known_pod(&self, field: &str, pod: &str) -> Result<(), Diagnostic> {
        if self.names.pods.contains_key(pod) {
            return Ok(());
        }
        let hint = suggest::hint(pod, self.names.pods.keys().map(String::as_str));
        Err(self.at(field, format!("no pod {pod}")).help(hint))
    }
}
