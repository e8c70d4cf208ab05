//! Each file of `bad/` says in its comments what must be wrong with it: adding a case is adding a file.
//!
//! `# expect: LINE:COLUMN: TEXT` is the beginning of an error, `# help: TEXT` the help of the one before. Errors that
//! are not expected fail the test as well. The files of `good/` have no errors.

use std::path::{Path, PathBuf};

use skep_manifest::{Errors, Manifests, Options, Resource, load, parse};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).expect("the folder of cases is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry of it").path()).collect();
    files.sort();
    files
}

fn read(path: &Path) -> (String, Result<Manifests, Errors>) {
    let text = std::fs::read_to_string(path).expect("a case is text");
    let name = path.file_name().expect("a case is a file").to_string_lossy();
    let result = parse(&format!("bad/{name}"), &text, &Options::default());
    (text, result)
}

/// What is wrong with the case itself, if its errors are not the expected ones.
fn differs(path: &Path) -> Option<String> {
    let (text, result) = read(path);
    let errors = result.err().unwrap_or_default();
    let mut left: Vec<_> = errors.iter().collect();
    let mut said = Vec::new();
    let mut last = None;
    for line in text.lines() {
        if let Some(expected) = line.trim_start().strip_prefix("# expect: ") {
            let found = left.iter().position(|error| {
                let full = error.to_string();
                full.strip_prefix(&format!("{}:", error.file)).is_some_and(|e| e.starts_with(expected))
            });
            match found {
                Some(n) => last = Some(left.remove(n)),
                None => said.push(format!("missing: {expected}")),
            }
        } else if let Some(expected) = line.trim_start().strip_prefix("# help: ") {
            let help = last.and_then(|error| error.help.as_deref()).unwrap_or_default();
            if help != expected {
                said.push(format!("help is `{help}`, not `{expected}`"));
            }
        }
    }
    said.extend(left.iter().map(|error| format!("not expected: {error}")));
    (!said.is_empty()).then(|| format!("{}:\n  {}", path.display(), said.join("\n  ")))
}

#[test]
fn every_bad_file_says_what_is_wrong_and_where() {
    let failures: Vec<_> = files("bad").iter().filter_map(|path| differs(path)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_error_has_file_line_and_column() {
    for path in files("bad") {
        for error in read(&path).1.unwrap_err() {
            assert!(error.line > 0 && error.column > 0 && error.file.starts_with("bad/"), "{error:?}");
        }
    }
}

#[test]
fn unmodified_manifests_are_read() {
    let manifests = load(&[folder("good")], &Options::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let keys: Vec<_> = manifests.resources.iter().map(|loaded| loaded.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Namespace shop",
            "Deployment shop/web",
            "CronJob shop/clean",
            "NetworkPolicy shop/web",
            "Pod default/curl"
        ]
    );
    let read_past: Vec<_> = manifests.read_past.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(read_past, [("ConfigMap", 1), ("Service", 1), ("ServiceAccount", 1)]);
    assert!(skep_manifest::note("Service").unwrap().contains("not translated"));

    let policy = &manifests.resources[3];
    assert_eq!(policy.source.at("spec.ingress[0].ports[1].endPort").line, 91);
    let Resource::Deployment(web) = &manifests.resources[1].resource else { panic!("a Deployment") };
    let container = &web.spec.as_ref().unwrap().template.spec.as_ref().unwrap().containers[0];
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!(limits["cpu"].0, "1");
    let pod = &manifests.resources[4];
    assert_eq!(pod.source.at("metadata.labels.app.kubernetes.io/name").line, 8);
    assert_eq!(pod.source.at("metadata.labels[app.kubernetes.io/name]").line, 8);
}

#[test]
fn what_cannot_be_read_names_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::default();
    let error = |path: &Path| load(&[path.to_owned()], &options).unwrap_err().0.remove(0);

    let missing = error(&folder.path().join("no.yaml"));
    assert!(missing.file.ends_with("no.yaml"));
    assert_eq!(missing.message, "there is no such file");
    assert!(missing.help.is_some());

    let empty = error(folder.path());
    assert_eq!(empty.message, "no manifests in this folder");

    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, b"a: b\n\xff\xfe").unwrap();
    let error = error(&binary);
    assert_eq!((error.line, error.message.as_str()), (2, "not text in UTF-8"));
}

#[test]
fn errors_of_all_files_come_together() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    std::fs::write(folder.path().join("a.yaml"), "kind: Widget\napiVersion: e/v1\n").unwrap();
    std::fs::write(folder.path().join("sub/b.yml"), "x: [\n").unwrap();
    std::fs::write(folder.path().join("sub/c.json"), "[]").unwrap();
    std::fs::write(folder.path().join("README.md"), "no manifest").unwrap();
    let errors = load(&[folder.path().to_owned()], &Options::default()).unwrap_err();
    let files: Vec<_> = errors.iter().map(|e| e.file.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(files, ["a.yaml", "b.yml", "c.json"]);
}

#[test]
fn a_kind_can_be_ignored_by_name() {
    let text = "apiVersion: example.com/v1\nkind: Widget\n---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n";
    let ignore_kinds = ["example.com/Widget".to_owned(), "cilium.io/CiliumNetworkPolicy".to_owned()].into();
    let manifests = parse("t", text, &Options { ignore_kinds }).unwrap();
    assert_eq!(manifests.read_past.len(), 2);
    assert!(manifests.resources.is_empty());
}

#[test]
fn duplicates_are_found_across_files() {
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    std::fs::write(folder.path().join("1.yaml"), text).unwrap();
    std::fs::write(folder.path().join("2.yaml"), text).unwrap();
    let error = load(&[folder.path().to_owned()], &Options::default()).unwrap_err().0.remove(0);
    assert!(error.file.ends_with("2.yaml"));
    assert!(error.help.unwrap().contains("1.yaml:3:12"));
}
