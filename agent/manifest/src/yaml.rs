//! A typed value from YAML text, with the place of each of its fields. Knows no Kubernetes; scenario files use it too.

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Errors};
use crate::shape::{self, Step};
use crate::source::{Source, join_key};
use crate::tree;

/// Wrong types that are reported of one document; a document with more is of another kind than it says.
const MAX_TYPE_ERRORS: usize = 20;
/// Numbers that may stand for quantities (`cpu: 1`) in one document.
const MAX_QUANTITIES: usize = 1_000;

/// Reads one document as a `T`. Syntax errors, repeated keys, wrong types and unknown fields are all errors, each with
/// file, line, column and field. `name` is the file's name in messages. No document, or more than one, is an error.
///
/// What serde buffers (`flatten`, `untagged`, internally tagged enums) hides unknown fields and paths from this;
/// such types need `deny_unknown_fields` where serde has it. Externally tagged enums and plain structures need nothing.
pub fn from_str<T: DeserializeOwned>(name: &str, text: &str) -> Result<(T, Source), Errors> {
    let (documents, mut errors) = tree::documents(name, text);
    if let Some(second) = documents.get(1) {
        let error = Error::at(second.location(), "a second document");
        errors.0.push(error.help("this file holds one document: remove what follows `---`"));
    }
    let Some(source) = documents.into_iter().next() else {
        if errors.0.is_empty() {
            errors.0.push(Error::of_file(name, "the file is empty"));
        }
        return Err(errors);
    };
    let value = typed::<T>(&source, &mut errors);
    match value {
        Some(value) => errors.or((value, source)),
        None => Err(errors.or(()).expect_err("typed says what is wrong")),
    }
}

/// The object of a source as a `T`; none when it cannot be one, and then `errors` says why.
///
/// After a wrong type its value is taken out and the rest is read, so that one run finds all of them.
pub(crate) fn typed<T: DeserializeOwned>(source: &Source, errors: &mut Errors) -> Option<T> {
    let mut value = source.root().to_value();
    let mut wrong: Vec<Vec<Step>> = Vec::new();
    let mut quantities = 0;
    loop {
        let unknown = RefCell::new(Vec::new());
        let mut ignored = |path: serde_ignored::Path<'_>| unknown.borrow_mut().push(ignored_steps(&path));
        let result =
            serde_path_to_error::deserialize::<_, T>(serde_ignored::Deserializer::new(&value, &mut ignored));
        let error = match result {
            Ok(typed) => {
                let unknown = unknown.take();
                errors.0.extend(
                    unknown.iter().map(|path| unknown_field::<T>(source, &through_enums(path, &value))),
                );
                return wrong.is_empty().then_some(typed);
            }
            Err(error) => error,
        };
        let path = steps(error.path(), &value);
        let is_new = !wrong.contains(&path) && wrong.len() < MAX_TYPE_ERRORS;
        if !is_new || value.pointer(&pointer(&path)).is_none() {
            // What was unknown up to here is worth saying even when the type error hides the rest.
            let unknown = unknown.take();
            errors
                .0
                .extend(unknown.iter().map(|path| unknown_field::<T>(source, &through_enums(path, &value))));
            if !wrong.contains(&path) {
                errors.0.push(wrong_type::<T>(source, &path, &error.inner().to_string()));
            }
            return None;
        }
        let at = value.pointer_mut(&pointer(&path)).expect("it was there a line ago");
        // A quantity is text in the API's types, and people write numbers.
        if at.is_number() && quantities < MAX_QUANTITIES && shape::of::<T>(&path).newtype == Some("Quantity")
        {
            quantities += 1;
            *at = Value::String(at.to_string());
            continue;
        }
        let message = error.inner().to_string();
        errors.0.push(wrong_type::<T>(source, &path, &message));
        *at = stand_in(&message);
        wrong.push(path);
    }
}

/// Something of the type that was expected, so that the rest can be read.
fn stand_in(message: &str) -> Value {
    let expected = message.rsplit("expected ").next().unwrap_or_default();
    match expected {
        "a string" => Value::String(String::new()),
        "i32" | "i64" | "u8" | "u16" | "u32" | "u64" | "f64" => Value::from(0),
        "a boolean" => Value::Bool(false),
        "a sequence" => Value::Array(Vec::new()),
        "a map" => Value::Object(serde_json::Map::new()),
        _ => Value::Null,
    }
}

/// An enum's variant stands in the file as the only key of a mapping, and serde's path leaves it out.
fn through_enums(path: &[Step], value: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = Some(value);
    for step in path {
        if let (Step::Key(key), Some(Value::Object(map))) = (step, at)
            && !map.contains_key(key)
            && let (1, Some((variant, inner))) = (map.len(), map.iter().next())
        {
            steps.push(Step::Key(variant.clone()));
            at = Some(inner);
        }
        at = match step {
            Step::Key(key) => at.and_then(|at| at.get(key)),
            Step::Index(index) => at.and_then(|at| at.get(index)),
        };
        steps.push(step.clone());
    }
    steps
}

fn ignored_steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    match path {
        Path::Root => Vec::new(),
        Path::Seq { parent, index } => [ignored_steps(parent), vec![Step::Index(*index)]].concat(),
        Path::Map { parent, key } => [ignored_steps(parent), vec![Step::Key(key.clone())]].concat(),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_steps(parent)
        }
    }
}

/// The steps that lead somewhere in the value: serde adds some for enums that are not written.
fn steps(path: &serde_path_to_error::Path, value: &Value) -> Vec<Step> {
    use serde_path_to_error::Segment;
    let mut steps = Vec::new();
    let mut at = Some(value);
    for segment in path {
        let step = match segment {
            Segment::Seq { index } => Step::Index(*index),
            Segment::Map { key } | Segment::Enum { variant: key } => Step::Key(key.clone()),
            Segment::Unknown => continue,
        };
        let next = match &step {
            Step::Index(index) => at.and_then(|at| at.get(index)),
            Step::Key(key) => at.and_then(|at| at.get(key)),
        };
        if next.is_some() {
            at = next;
            steps.push(step);
        }
    }
    steps
}

fn pointer(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Step::Index(index) => format!("/{index}"),
    };
    path.iter().map(step).collect()
}

/// `spec.ingress[0].ports`.
fn display(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Key(key) => join_key(&text, key),
        Step::Index(index) => format!("{text}[{index}]"),
    })
}

fn unknown_field<T: DeserializeOwned>(source: &Source, path: &[Step]) -> Error {
    let text = display(path);
    let error = Error::at(source.at(&text), "unknown field").field(text);
    let Some((Step::Key(name), parent)) = path.split_last() else { return error };
    error.help(spelling(name, shape::of::<T>(parent).fields.unwrap_or_default()))
}

fn wrong_type<T: DeserializeOwned>(source: &Source, path: &[Step], message: &str) -> Error {
    // `deny_unknown_fields` and unknown variants bring their own list of names.
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if let Some((name, known)) = names.split_first() {
            let there = path.last() == Some(&Step::Key((*name).to_owned()));
            let text = if there { display(path) } else { join_key(&display(path), name) };
            let (text, location) = match source.has(&text) {
                true => (text.clone(), source.at(&text)),
                false => (display(path), source.value_at(&display(path))),
            };
            let what = if message.starts_with("unknown field") { "unknown field" } else { "unknown value" };
            let message = if text.ends_with(name) { what.to_owned() } else { format!("{what} `{name}`") };
            return Error::at(location, message).field(text).help(spelling(name, known));
        }
    }
    let text = display(path);
    let error = source.error(&text, humane(message));
    if message.contains("expected a string") && message.contains("boolean") {
        return error.help("YAML reads yes, no, on, off, y and n as booleans: put the text in quotes");
    }
    if message.contains("expected a string") && message.contains("invalid type: ") {
        return error.help("put the text in quotes");
    }
    match shape::of::<T>(path).fields {
        Some(fields) if !fields.is_empty() && !message.starts_with("missing") => {
            error.help(format!("here stands a mapping with {}", list(fields)))
        }
        _ => error,
    }
}

/// serde's words in those of YAML.
fn humane(message: &str) -> String {
    [
        ("expected i32", "expected an integer"),
        ("expected i64", "expected an integer"),
        ("expected u16", "expected an integer from 0 to 65535"),
        ("expected u32", "expected an integer"),
        ("expected u64", "expected an integer"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected a mapping"),
        ("invalid type: sequence", "wrong type: a list"),
        ("invalid type: map", "wrong type: a mapping"),
        ("invalid type: unit value", "wrong type: nothing"),
        ("invalid type: null", "wrong type: nothing"),
        ("invalid type: ", "wrong type: "),
        ("IntOrString", "a number or a name"),
        ("expected struct ", "expected a "),
        ("expected struct", "expected a mapping"),
    ]
    .iter()
    .fold(message.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn list(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    shown.join(", ") + more
}

/// What to write instead of a name that is not known.
pub(crate) fn spelling(name: &str, known: &[&str]) -> String {
    let lower = name.to_lowercase();
    let nearest = known.iter().map(|known| (distance(&lower, &known.to_lowercase()), *known)).min();
    match nearest {
        Some((far, known)) if far <= (name.chars().count() / 3).max(1) => format!("did you mean `{known}`?"),
        Some(_) => format!("what may stand here: {}", list(known)),
        None => "remove it: nothing may stand here under this name".to_owned(),
    }
}

/// The number of letters to insert, delete, replace or swap with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let one = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { one.min(rows[i - 2][j - 2] + 1) } else { one }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only read by serde")]
    struct Scenario {
        name: String,
        #[serde(default)]
        steps: Vec<Step>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase")]
    #[expect(dead_code, reason = "only read by serde")]
    enum Step {
        Http { from: String, port: u16 },
        Ping(Ping),
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Ping {
        to: String,
        count: Option<u32>,
    }

    fn errors(text: &str) -> Vec<String> {
        let errors = from_str::<Scenario>("s.yaml", text).expect_err("the text is wrong");
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_document_has_its_places() {
        let text = "name: x\nsteps:\n  - http: {from: a, port: 80}\n  - ping:\n      to: b\n";
        let (scenario, source) = from_str::<Scenario>("s.yaml", text).unwrap();
        assert_eq!(scenario.steps.len(), 2);
        assert_eq!(source.at("steps[1].ping.to").to_string(), "s.yaml:5:7");
        assert_eq!(source.at("steps[1].ping.count.x").to_string(), "s.yaml:4:5");
        assert_eq!(source.value_at("steps[0].http.port").to_string(), "s.yaml:3:27");
        assert_eq!(source.snippet(5), Some("      to: b"));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_place() {
        assert_eq!(
            errors("name: 3\nstep: []\nsteps:\n  - http: {from: a, port: x}\n"),
            [
                "s.yaml:1:7: name: wrong type: integer `3`, expected a string\n  help: put the text in quotes",
                "s.yaml:2:1: step: unknown field\n  help: did you mean `steps`?",
                "s.yaml:4:27: steps[0].http.port: wrong type: string \"x\", expected an integer from 0 to 65535",
            ]
        );
        assert_eq!(
            errors("name: x\nstep: []\n"),
            ["s.yaml:2:1: step: unknown field\n  help: did you mean `steps`?"]
        );
    }

    #[test]
    fn unknown_fields_and_steps_are_found_in_enums() {
        assert_eq!(
            errors("name: x\nsteps:\n  - http: {from: a, port: 1, form: b}\n"),
            ["s.yaml:3:30: steps[0].http.form: unknown field\n  help: did you mean `from`?"]
        );
        assert_eq!(
            errors("name: x\nsteps:\n  - ping: {to: a, cuont: 1}\n"),
            ["s.yaml:3:19: steps[0].ping.cuont: unknown field\n  help: did you mean `count`?"]
        );
        assert_eq!(
            errors("name: x\nsteps:\n  - htpp: {}\n"),
            ["s.yaml:3:5: steps[0].htpp: unknown value\n  help: did you mean `http`?"]
        );
        assert_eq!(errors("steps: []\n"), ["s.yaml:1:1: missing field `name`"]);
    }

    #[test]
    fn one_document_is_wanted() {
        assert_eq!(
            errors("name: x\n---\nname: y\n"),
            [
                "s.yaml:3:1: a second document\n  help: this file holds one document: remove what follows `---`"
            ]
        );
        assert_eq!(errors("# nothing\n"), ["s.yaml: the file is empty"]);
    }

    #[test]
    fn spelling_counts_letters() {
        assert_eq!(spelling("podSelecter", &["podSelector", "ports"]), "did you mean `podSelector`?");
        assert_eq!(spelling("PodSelector", &["podSelector", "ports"]), "did you mean `podSelector`?");
        assert_eq!(spelling("zzz", &["a"]), "what may stand here: `a`");
        assert_eq!(distance("ab", "ba"), 1);
    }
}
