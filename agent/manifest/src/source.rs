//! Where each field of a document stands. Holds the marked tree and finds a path in it; knows no Kubernetes.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Location};

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A node of a document with its place. Its depth is limited when it is built, so recursion over it is safe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) data: Data,
}

/// What stands at a node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a mapping; keys are unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// The field of a mapping; none for anything else.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of a string field.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value.data {
            Data::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Null, or nothing at all: what Kubernetes treats like a missing field.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    /// The same without places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Scalar(value) => value.clone(),
            Data::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            Data::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect(),
            ),
        }
    }
}

/// Where an object came from: a file, and the place of each of its fields. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    file: Arc<str>,
    text: Arc<str>,
    root: Arc<Node>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        self.file == other.file && self.root.mark == other.root.mark && self.text == other.text
    }
}

impl Source {
    pub(crate) fn new(file: &Arc<str>, text: &Arc<str>, root: Arc<Node>) -> Source {
        Source { file: file.clone(), text: text.clone(), root }
    }

    /// A source for an object that no file holds, such as a Pod made from a workload: every field is at `file` itself.
    pub fn synthetic(file: &str) -> Source {
        let root = Node { mark: Mark { line: 0, column: 0 }, data: Data::Scalar(Value::Null) };
        Source { file: file.into(), text: "".into(), root: Arc::new(root) }
    }

    /// The same file, for an object within a list.
    pub(crate) fn part(&self, node: &Node) -> Source {
        Source { file: self.file.clone(), text: self.text.clone(), root: Arc::new(node.clone()) }
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The object's first line.
    pub fn line(&self) -> u32 {
        self.root.mark.line
    }

    /// Where the object begins.
    pub fn location(&self) -> Location {
        self.place(self.root.mark)
    }

    /// Where a field stands: its name in the file, or a list's item. `path` is as `spec.ingress[0].ports[1].port`;
    /// a key with dots or slashes may stand in brackets (`metadata.labels[app.kubernetes.io/name]`) or plain.
    /// When the field itself is not there, the nearest parent that is.
    pub fn at(&self, path: &str) -> Location {
        self.place(self.find(path).0)
    }

    /// Where a field's value stands; otherwise as [`Source::at`].
    pub fn value_at(&self, path: &str) -> Location {
        let (mark, node) = self.find(path);
        match node.data {
            Data::Scalar(Value::Null) => self.place(mark),
            Data::Scalar(_) => self.place(node.mark),
            _ => self.place(mark),
        }
    }

    /// Whether the field is written in the file.
    pub fn has(&self, path: &str) -> bool {
        matches!(walk(&self.root, path), (_, _, ""))
    }

    /// The text of a line of the file, from 1, without its end; for messages that show the place.
    pub fn snippet(&self, line: u32) -> Option<&str> {
        self.text.lines().nth((line as usize).checked_sub(1)?)
    }

    /// An error at a field.
    pub fn error(&self, path: &str, message: impl Into<String>) -> Error {
        Error::at(self.value_at(path), message).field(path)
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    fn find(&self, path: &str) -> (Mark, &Node) {
        let (mark, node, _) = walk(&self.root, path);
        (mark, node)
    }

    pub(crate) fn place(&self, mark: Mark) -> Location {
        Location { file: self.file.to_string(), line: mark.line, column: mark.column }
    }
}

/// Follows a path as far as it goes: the field's place, the node, and what of the path was not found.
fn walk<'n, 'p>(root: &'n Node, path: &'p str) -> (Mark, &'n Node, &'p str) {
    let (mut mark, mut node, mut rest) = (root.mark, root, path);
    while !rest.is_empty() {
        let step = match &node.data {
            Data::Scalar(_) => None,
            Data::List(items) => {
                index(rest).and_then(|(n, after)| items.get(n).map(|item| (item.mark, item, after)))
            }
            Data::Map(entries) => entries
                .iter()
                .filter_map(|entry| {
                    after_key(rest, &entry.key).map(|after| (entry.mark, &entry.value, after))
                })
                .min_by_key(|(_, _, after)| after.len()),
        };
        match step {
            Some((m, n, after)) => (mark, node, rest) = (m, n, after),
            None => break,
        }
    }
    (mark, node, rest)
}

/// `[3].port` -> 3 and `.port`.
fn index(path: &str) -> Option<(usize, &str)> {
    let (number, after) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, after))
}

/// What follows a key at the beginning of a path, if the path begins with it.
fn after_key<'p>(path: &'p str, key: &str) -> Option<&'p str> {
    let bracketed =
        path.strip_prefix('[').and_then(|p| p.strip_prefix(key)).and_then(|p| p.strip_prefix(']'));
    let plain = || path.strip_prefix('.').unwrap_or(path).strip_prefix(key);
    let after = bracketed.or_else(plain)?;
    (after.is_empty() || after.starts_with(['.', '['])).then_some(after)
}

/// A path with one more key, in brackets where dots would be misread.
pub(crate) fn join_key(path: &str, key: &str) -> String {
    let plain =
        !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '$');
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key}]"),
    }
}
