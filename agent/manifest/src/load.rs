//! From files and folders to documents, and from documents to resources. The only I/O of this crate.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Errors, Location};
use crate::kinds::{self, KINDS, Use};
use crate::resource::{Key, Loaded, Resource};
use crate::source::{Data, Node, Source};
use crate::{Manifests, Options, fields, tree, valid, yaml};

/// Folders within folders; a link to a folder above would never end.
const MAX_FOLDERS: usize = 32;

/// Reads files and folders. A folder is read recursively, in the order of names, for `.yaml`, `.yml` and `.json`; a
/// file that is named itself is read whatever its name is. All errors of all files are returned together, by file and
/// line.
pub fn load(paths: &[PathBuf], options: &Options) -> Result<Manifests, Errors> {
    let mut reader = Reader::new(options);
    for path in paths {
        let mut files = Vec::new();
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                find(path, 0, &mut files, &mut reader.errors);
                if files.is_empty() && reader.errors.0.is_empty() {
                    let error = Error::of_file(path.to_string_lossy(), "no manifests in this folder");
                    reader.errors.0.push(error.help("files that end in .yaml, .yml or .json are read"));
                }
            }
            // Whether it can be read is found out by reading it.
            _ => files.push(path.clone()),
        }
        for file in files {
            let name = file.to_string_lossy();
            match text(&file) {
                Ok(text) => reader.text(&name, &text),
                Err(error) => reader.errors.0.push(error),
            }
        }
    }
    reader.finish()
}

/// Reads one text of any number of documents; `name` is the file's name in messages.
pub fn parse(name: &str, text: &str, options: &Options) -> Result<Manifests, Errors> {
    let mut reader = Reader::new(options);
    reader.text(name, text);
    reader.finish()
}

/// A file's text, or an error that says what to do. For any file that a user names.
pub fn text(path: &Path) -> Result<String, Error> {
    use std::io::ErrorKind;
    let name = path.to_string_lossy();
    let unreadable = |error: &std::io::Error| {
        let (message, help) = match error.kind() {
            ErrorKind::NotFound => ("there is no such file".to_owned(), "check the path and its spelling"),
            ErrorKind::PermissionDenied => {
                ("this file must not be read".to_owned(), "change its permissions, or run as its owner")
            }
            ErrorKind::IsADirectory => ("this is a folder".to_owned(), "name a file in it"),
            _ => (format!("cannot be read: {error}"), "check that it is a file that you may read"),
        };
        Error::of_file(name.clone(), message).help(help)
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    // One byte beyond the limit, so that the tree says that it is too large.
    file.take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let location =
            Location { file: name.clone().into_owned(), line: u32::try_from(line).unwrap_or(0), column: 0 };
        Error::at(location, "not text in UTF-8").help("save the file as UTF-8")
    })
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>, errors: &mut Errors) {
    let name = folder.to_string_lossy();
    if depth > MAX_FOLDERS {
        let error = Error::of_file(name, format!("more than {MAX_FOLDERS} folders within each other"));
        return errors.0.push(error.help("is this a link to a folder above it?"));
    }
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut paths: Vec<PathBuf> = match entries {
        Ok(entries) => entries.iter().map(std::fs::DirEntry::path).collect(),
        Err(error) => {
            let error = Error::of_file(name, format!("this folder cannot be read: {error}"));
            return errors.0.push(error.help("change its permissions, or name the files in it"));
        }
    };
    paths.sort();
    for path in paths {
        if path.is_dir() {
            find(&path, depth + 1, files, errors);
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
    }
}

/// Collects what the files hold, and what is wrong with them.
struct Reader<'o> {
    options: &'o Options,
    manifests: Manifests,
    first: BTreeMap<Key, Location>,
    errors: Errors,
}

impl<'o> Reader<'o> {
    fn new(options: &'o Options) -> Reader<'o> {
        Reader { options, manifests: Manifests::default(), first: BTreeMap::new(), errors: Errors::default() }
    }

    fn finish(self) -> Result<Manifests, Errors> {
        self.errors.or(self.manifests)
    }

    fn text(&mut self, name: &str, text: &str) {
        let (documents, errors) = tree::documents(name, text);
        self.errors.extend(errors);
        for document in documents {
            self.object(document, None, 0);
        }
    }

    /// `item_of` is the apiVersion and kind that an item of a typed list may leave out.
    fn object(&mut self, source: Source, item_of: Option<(&str, &str)>, depth: usize) {
        let root = source.root();
        if !matches!(root.data, Data::Map(_)) {
            let error = Error::at(source.location(), "not a Kubernetes object");
            return self
                .errors
                .0
                .push(error.help("an object is a mapping with apiVersion, kind and metadata"));
        }
        let api_version = root.text("apiVersion").or(item_of.map(|(api_version, _)| api_version));
        let kind = root.text("kind").or(item_of.map(|(_, kind)| kind));
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            return self.unnamed(&source);
        };
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        if let (Some(item), Some(items)) = (kind.strip_suffix("List"), root.get("items")) {
            let item_of = (!item.is_empty()).then_some((api_version.as_str(), item));
            return self.list(&source, &items.value, item_of, depth);
        }
        self.kind(&source, group, version, &kind);
    }

    fn unnamed(&mut self, source: &Source) {
        let missing = if source.root().text("kind").is_none() { "kind" } else { "apiVersion" };
        if let Some(found) = source.root().get(missing).filter(|entry| !entry.value.is_null()) {
            let error = Error::at(source.place(found.mark), "not text").field(missing);
            return self.errors.0.push(error.help("put it in quotes"));
        }
        let error = Error::at(source.location(), format!("not a Kubernetes object: {missing} is missing"));
        let help = match source.file().rsplit(['/', '\\']).next().unwrap_or_default() {
            "kustomization.yaml" | "kustomization.yml" | "Kustomization" => {
                "this is an input of kustomize: give the output of `kubectl kustomize FOLDER` instead"
            }
            "Chart.yaml" | "values.yaml" => {
                "this belongs to a Helm chart: give the output of `helm template` instead"
            }
            _ => "write apiVersion and kind, or keep the file out of the folder",
        };
        self.errors.0.push(error.help(help));
    }

    fn list(&mut self, source: &Source, items: &Node, item_of: Option<(&str, &str)>, depth: usize) {
        const MAX_LISTS: usize = 4;
        match &items.data {
            Data::List(_) if depth >= MAX_LISTS => {
                let error = Error::at(source.location(), "lists within lists within lists");
                self.errors.0.push(error.help("write the objects as documents, with --- between them"));
            }
            Data::List(items) => {
                for item in items {
                    self.object(source.part(item), item_of, depth + 1);
                }
            }
            Data::Scalar(Value::Null) => {}
            _ => self.errors.0.push(source.error("items", "not a list")),
        }
    }

    fn kind(&mut self, source: &Source, group: &str, version: &str, kind: &str) {
        if self.is_ignored(group, kind) {
            return self.read_past(kind);
        }
        let Some(row) = kinds::find(group, kind) else {
            return self.unknown_kind(source, group, version, kind);
        };
        let is_other_version = !row.version.is_empty() && row.version != version;
        if is_other_version && !matches!(row.usage, Use::Refused(_)) {
            let at = if source.has("apiVersion") { "apiVersion" } else { "" };
            let error = source.error(at, format!("{kind} has no version {version} here"));
            let group = if group.is_empty() { String::new() } else { format!("{group}/") };
            return self.errors.0.push(error.help(format!("write apiVersion: {group}{}", row.version)));
        }
        match row.usage {
            Use::Used => self.used(source, kind),
            Use::NoEffect => self.read_past(kind),
            Use::NotYet(_) => {
                self.checked_only(source, kind);
                self.read_past(kind);
            }
            Use::Refused(why) => {
                let error = source.error("kind", format!("{kind} is not supported"));
                self.errors
                    .0
                    .push(error.help(why.replace("cilium.io/KIND", &kinds::group_kind(group, kind))));
            }
        }
    }

    fn is_ignored(&self, group: &str, kind: &str) -> bool {
        let ignored = &self.options.ignore_kinds;
        ignored.contains(&kinds::group_kind(group, kind)) || (group.is_empty() && ignored.contains(kind))
    }

    fn read_past(&mut self, kind: &str) {
        *self.manifests.read_past.entry(kind.to_owned()).or_default() += 1;
    }

    fn unknown_kind(&mut self, source: &Source, group: &str, version: &str, kind: &str) {
        let ignore =
            format!("if it means nothing to networking: --ignore-kind {}", kinds::group_kind(group, kind));
        if let Some(row) = KINDS.iter().find(|row| row.kind == kind && row.usage == Use::Used) {
            let error = source.error("apiVersion", format!("{kind} is not of {}", shown(group, version)));
            let right = if row.group.is_empty() { String::new() } else { format!("{}/", row.group) };
            return self.errors.0.push(error.help(format!("did you mean {right}{}? {ignore}", row.version)));
        }
        let known: Vec<&str> = KINDS.iter().map(|row| row.kind).collect();
        let help = yaml::spelling(kind, &known);
        let help = if help.starts_with("did") { format!("{help} {ignore}") } else { ignore };
        let message = format!("unknown kind {kind} of {}", shown(group, version));
        self.errors.0.push(source.error("kind", message).help(help));
    }

    fn used(&mut self, source: &Source, kind: &str) {
        // The checks look at what is wrong with this object, not with others.
        let mut errors = Errors::default();
        self.object_of(source, kind, &mut errors);
        self.errors.extend(errors);
    }

    fn object_of(&mut self, source: &Source, kind: &str, errors: &mut Errors) {
        let resource = match kind {
            "Namespace" => read(source, Resource::Namespace, errors),
            "Node" => read(source, Resource::Node, errors),
            "Pod" => read(source, Resource::Pod, errors),
            "Deployment" => read(source, Resource::Deployment, errors),
            "ReplicaSet" => read(source, Resource::ReplicaSet, errors),
            "ReplicationController" => read(source, Resource::ReplicationController, errors),
            "StatefulSet" => read(source, Resource::StatefulSet, errors),
            "DaemonSet" => read(source, Resource::DaemonSet, errors),
            "Job" => read(source, Resource::Job, errors),
            "CronJob" => read(source, Resource::CronJob, errors),
            "NetworkPolicy" => read(source, Resource::NetworkPolicy, errors),
            _ => None,
        };
        let Some(resource) = resource else { return };
        fields::check(kind, source, errors);
        valid::check(&resource, source, errors);
        if resource.name().is_empty() {
            return;
        }
        let here = source.at("metadata.name");
        match self.first.get(&resource.key()) {
            Some(first) => {
                let error =
                    Error::at(here, format!("{} is here twice", resource.key())).field("metadata.name");
                errors.0.push(error.help(format!("remove one of them; the first is at {first}")));
            }
            None => {
                self.first.insert(resource.key(), here);
                self.manifests.resources.push(Loaded { resource, source: source.clone() });
            }
        }
    }

    /// Objects that have no effect yet are read all the same, so that a misspelt field is found today.
    fn checked_only(&mut self, source: &Source, kind: &str) {
        use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
        let errors = &mut self.errors;
        match kind {
            "Service" => drop(yaml::typed::<core::Service>(source, errors)),
            "EndpointSlice" => drop(yaml::typed::<discovery::EndpointSlice>(source, errors)),
            "Ingress" => drop(yaml::typed::<networking::Ingress>(source, errors)),
            _ => {}
        }
    }
}

fn read<T: DeserializeOwned>(
    source: &Source,
    resource: fn(Box<T>) -> Resource,
    errors: &mut Errors,
) -> Option<Resource> {
    yaml::typed(source, errors).map(|object| resource(Box::new(object)))
}

fn shown(group: &str, version: &str) -> String {
    if group.is_empty() { format!("apiVersion {version}") } else { format!("{group}/{version}") }
}
