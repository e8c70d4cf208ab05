//! YAML text to marked trees, one a document. Knows YAML, no Kubernetes and no serde types.
//!
//! Scalars mean what they mean to kubectl, which reads YAML 1.1: a plain `yes` is a boolean and `0644` is octal.
//! Repeated keys, aliases without an anchor, unknown tags and keys that are no text are errors. Depth, size and the
//! number of nodes (aliases multiply them) are limited, so no text can exhaust memory or the stack.

use std::collections::BTreeMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Number, Value};

use crate::error::{Error, Errors, Location};
use crate::source::{Data, Entry, Mark, Node, Source};

/// The deepest nesting; deeper than the schemas in any CustomResourceDefinition.
const MAX_DEPTH: usize = 100;
/// Nodes a file may have, those that aliases repeat included.
const MAX_NODES: usize = 1_000_000;
/// Bytes a file may have.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// The documents of a text and what is wrong with it. Documents before a syntax error are returned beside it, so that
/// what is wrong in them is reported too. Empty documents are left out.
pub(crate) fn documents(name: &str, text: &str) -> (Vec<Source>, Errors) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MAX_BYTES {
        let error =
            Error::of_file(name, format!("larger than {} MiB", MAX_BYTES >> 20)).help("split the file");
        return (Vec::new(), error.into());
    }
    let mut builder = Builder::new(name, text);
    for event in Parser::<StrInput<'_>>::new_from_str(text) {
        let result = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.syntax_error(error.marker(), error.info())),
        };
        if let Err(error) = result {
            builder.errors.0.push(error);
            break;
        }
    }
    (builder.documents, builder.errors)
}

/// A collection that is not finished.
enum Frame {
    List { mark: Mark, anchor: usize, items: Vec<Node> },
    Map { mark: Mark, anchor: usize, entries: Vec<Entry>, seen: BTreeMap<String, Mark>, key: Option<Key> },
}

/// A key that waits for its value.
struct Key {
    text: String,
    mark: Mark,
    merge: bool,
}

struct Builder<'t> {
    name: Arc<str>,
    text: Arc<str>,
    lines: &'t str,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    documents: Vec<Source>,
    errors: Errors,
}

impl<'t> Builder<'t> {
    fn new(name: &str, text: &'t str) -> Builder<'t> {
        Builder {
            name: name.into(),
            text: text.into(),
            lines: text,
            stack: Vec::new(),
            anchors: BTreeMap::new(),
            nodes: 0,
            documents: Vec::new(),
            errors: Errors::default(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Error> {
        let mark = mark(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::SequenceStart(anchor, _) => {
                self.open(mark, Frame::List { mark, anchor, items: Vec::new() })
            }
            Event::MappingStart(anchor, _) => {
                let (entries, seen) = (Vec::new(), BTreeMap::new());
                self.open(mark, Frame::Map { mark, anchor, entries, seen, key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let mut node = node.ok_or_else(|| self.error(mark, "an alias to what is not finished"))?;
                node.mark = mark;
                self.count(size(&node), mark)?;
                self.add(node)
            }
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(Frame::Map { key: key @ None, .. }) = self.stack.last_mut() {
                    let merge = style == ScalarStyle::Plain && text == "<<";
                    if style == ScalarStyle::Plain && text.is_empty() {
                        return Err(self.error(mark, "a key is missing before `:`"));
                    }
                    *key = Some(Key { text: text.into_owned(), mark, merge });
                    return Ok(());
                }
                let value = scalar(&text, style, tag.as_deref()).map_err(|message| {
                    self.error(mark, message).help("Kubernetes has no such tags: leave it out")
                })?;
                self.count(1, mark)?;
                let node = Node { mark, data: Data::Scalar(value) };
                self.anchor(anchor, &node)?;
                self.add(node)
            }
        }
    }

    fn open(&mut self, mark: Mark, frame: Frame) -> Result<(), Error> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.error(mark, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if let Some(Frame::Map { key: None, .. }) = self.stack.last() {
            let error = self.error(mark, "a key must be text, not a list or a mapping");
            let template =
                "this looks like a template: render it first (`helm template`), then give the result";
            return Err(if self.line_has(mark.line, "{{") { error.help(template) } else { error });
        }
        self.count(1, mark)?;
        self.stack.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let (anchor, node) = match self.stack.pop().expect("the parser closes only what it opened") {
            Frame::List { mark, anchor, items } => (anchor, Node { mark, data: Data::List(items) }),
            Frame::Map { mark, anchor, entries, .. } => (anchor, Node { mark, data: Data::Map(entries) }),
        };
        self.anchor(anchor, &node)?;
        self.add(node)
    }

    fn anchor(&mut self, anchor: usize, node: &Node) -> Result<(), Error> {
        if anchor != 0 {
            self.count(size(node), node.mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), Error> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self
                .error(mark, format!("more than {MAX_NODES} values, aliases counted"))
                .help("split the file, or write out what the aliases repeat"));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node) -> Result<(), Error> {
        let name = self.name.clone();
        match self.stack.last_mut() {
            None => {
                if !node.is_null() {
                    self.documents.push(Source::new(&self.name, &self.text, Arc::new(node)));
                }
            }
            Some(Frame::List { items, .. }) => items.push(node),
            Some(Frame::Map { entries, seen, key, .. }) => {
                let Some(Key { text, mark, merge }) = key.take() else {
                    return Err(self.error(node.mark, "a key must be text, not an alias"));
                };
                if merge {
                    return merge_into(entries, seen, node)
                        .map_err(|message| Error::at(place(&name, mark), message));
                }
                // A key of the mapping itself comes before one that `<<` brought.
                match seen.get(&text).copied() {
                    None => {
                        // More entries than own keys: some came by `<<`.
                        if entries.len() > seen.len() {
                            entries.retain(|entry| entry.key != text);
                        }
                        seen.insert(text.clone(), mark);
                        entries.push(Entry { key: text, mark, value: node });
                    }
                    Some(first) => {
                        let message = format!("the key `{text}` is here twice");
                        let help = format!("remove one of them; the first is in line {}", first.line);
                        self.errors.0.push(Error::at(place(&name, mark), message).field(text).help(help));
                    }
                }
            }
        }
        Ok(())
    }

    fn error(&self, mark: Mark, message: impl Into<String>) -> Error {
        Error::at(place(&self.name, mark), message)
    }

    fn syntax_error(&self, marker: &Marker, info: &str) -> Error {
        let mark = mark(marker);
        let error = self.error(mark, format!("not YAML: {info}"));
        let near =
            |what: &str| self.line_has(mark.line, what) || self.line_has(mark.line.saturating_sub(1), what);
        let indented_by_tab = |line: u32| {
            let line = self.line(line).unwrap_or_default();
            line[..line.len() - line.trim_start().len()].contains('\t')
        };
        if near("{{") {
            error.help("this looks like a template: render it first (`helm template`), then give the result")
        } else if indented_by_tab(mark.line) || indented_by_tab(mark.line.saturating_sub(1)) {
            error.help("YAML is indented with spaces: replace the tab")
        } else {
            error.help("check the indentation and the quotes here and in the line before")
        }
    }

    fn line(&self, line: u32) -> Option<&'t str> {
        self.lines.lines().nth((line as usize).checked_sub(1)?)
    }

    fn line_has(&self, line: u32, what: &str) -> bool {
        self.line(line).is_some_and(|line| line.contains(what))
    }
}

fn place(name: &str, mark: Mark) -> Location {
    Location { file: name.to_owned(), line: mark.line, column: mark.column }
}

fn mark(marker: &Marker) -> Mark {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: count(marker.line().max(1)), column: count(marker.col().saturating_add(1)) }
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(_) => 1,
        Data::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

/// YAML 1.1's merge key: what the mapping does not have itself.
fn merge_into(
    entries: &mut Vec<Entry>,
    seen: &BTreeMap<String, Mark>,
    node: Node,
) -> Result<(), &'static str> {
    const MESSAGE: &str = "`<<` takes a mapping or a list of mappings";
    match node.data {
        Data::Map(others) => {
            for other in others {
                if !seen.contains_key(&other.key) && !entries.iter().any(|entry| entry.key == other.key) {
                    entries.push(other);
                }
            }
            Ok(())
        }
        Data::List(nodes) => {
            if nodes.iter().any(|node| !matches!(node.data, Data::Map(_))) {
                return Err(MESSAGE);
            }
            nodes.into_iter().try_for_each(|node| merge_into(entries, seen, node))
        }
        Data::Scalar(_) => Err(MESSAGE),
    }
}

/// A scalar's value by its style, tag and text.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = style == ScalarStyle::Plain;
    match tag {
        None if plain => Ok(resolve(text)),
        None => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => Ok(Value::String(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() => {
            let value = resolve(text);
            let fits = match tag.suffix.as_str() {
                "str" => return Ok(Value::String(text.to_owned())),
                "int" => value.is_i64() || value.is_u64(),
                "float" => value.is_number(),
                "bool" => value.is_boolean(),
                "null" => value.is_null(),
                _ => false,
            };
            if fits { Ok(value) } else { Err(format!("the tag `!!{}` does not fit here", tag.suffix)) }
        }
        Some(tag) => Err(format!("the tag `{tag}` is unknown")),
    }
}

/// A plain scalar's value: YAML 1.1 as kubectl reads it.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = text.replace('_', "");
    let (negative, digits) = match digits.as_bytes().first()? {
        b'-' => (true, &digits[1..]),
        b'+' => (false, &digits[1..]),
        _ => (false, digits.as_str()),
    };
    let (radix, body) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some(two) if two.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if body.starts_with(|c: char| c.is_digit(radix))
        && let Ok(n) = u64::from_str_radix(body, radix)
    {
        return match negative {
            false => Some(n.into()),
            true => 0_i64.checked_sub_unsigned(n).map(Number::from),
        };
    }
    let float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let value: f64 = if float { digits.parse().ok()? } else { return None };
    Number::from_f64(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        let (documents, errors) = documents("t.yaml", text);
        assert_eq!(errors, Errors::default());
        documents[0].root().to_value()
    }

    fn errors(text: &str) -> Vec<String> {
        documents("t.yaml", text).1.iter().map(|e| format!("{}:{} {}", e.line, e.column, e.message)).collect()
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        for (text, expected) in [
            ("yes", json!(true)),
            ("off", json!(false)),
            ("0644", json!(420)),
            ("0x1f", json!(31)),
            ("-7", json!(-7)),
            ("1_000", json!(1000)),
            ("1.5", json!(1.5)),
            ("10.0.0.1", json!("10.0.0.1")),
            ("1e3", json!(1000.0)),
            ("2026-01-01", json!("2026-01-01")),
            ("'80'", json!("80")),
            ("\"yes\"", json!("yes")),
            ("!!str 80", json!("80")),
            ("-", json!([null])),
            ("18446744073709551615", json!(u64::MAX)),
            (".", json!(".")),
            ("+", json!("+")),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn merge_keys_bring_what_is_missing() {
        let text = "base: &b {a: 1, b: 2}\nuse:\n  b: 3\n  <<: *b\nlate:\n  <<: *b\n  a: 4\n";
        assert_eq!(
            value(text),
            json!({"base": {"a": 1, "b": 2}, "use": {"b": 3, "a": 1}, "late": {"b": 2, "a": 4}})
        );
    }

    #[test]
    fn json_with_tabs_is_read() {
        assert_eq!(value("{\n\t\"a\": [\n\t\t1,\n\t\t\"x\"\n\t]\n}\n"), json!({"a": [1, "x"]}));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        assert_eq!(errors("a: 1\nb: 2\na: 3\n"), ["3:1 the key `a` is here twice"]);
        assert_eq!(errors("a: !vault x\n"), ["1:4 the tag `!vault` is unknown"]);
        assert_eq!(errors("? [a]\n: b\n"), ["1:3 a key must be text, not a list or a mapping"]);
        assert_eq!(errors(&"[".repeat(500)).len(), 1);
    }

    #[test]
    fn aliases_cannot_multiply_without_end() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        let errors = errors(&text);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("aliases counted"), "{errors:?}");
    }
}
