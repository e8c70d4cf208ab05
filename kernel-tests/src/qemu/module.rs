//! A kernel's modules: which are needed, in which order, and their bytes.
//!
//! Dependencies are read from each file's .modinfo, as depmod reads them: the packages have no modules.dep.

use super::{Doing as _, Problem, Result};
use object::{Object as _, ObjectSection as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module that is ready for finit_module(2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its name, with `_` where a file name may have `-`.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
}

/// The wanted modules and all that they depend on, each after what it depends on. What is built in is left out.
///
/// # Errors
///
/// Names a module that the kernel does not have, and a file that cannot be read.
pub fn ordered(folder: &Path, wanted: &[String]) -> Result<Vec<Module>> {
    let tree = Tree::read(folder)?;
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in wanted {
        tree.visit(&canonical(name), &mut seen, &mut order)?;
    }
    Ok(order)
}

struct Tree {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Tree {
    fn read(folder: &Path) -> Result<Self> {
        let list = folder.join("modules.builtin");
        let list = std::fs::read_to_string(&list).doing(list.display())?;
        let mut files = BTreeMap::new();
        find(&folder.join("kernel"), &mut files)?;
        Ok(Self { files, built_in: list.lines().filter_map(|l| module_name(Path::new(l))).collect() })
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        if self.built_in.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.files.get(name).ok_or_else(|| {
            Problem(format!("this kernel has no module {name}, neither built in nor as a file"))
        })?;
        let bytes = decompressed(path)?;
        for dependency in depends(&bytes).doing(path.display())? {
            self.visit(&dependency, seen, order)?;
        }
        order.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).doing(folder.display())? {
        let path = entry.doing(folder.display())?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `drivers/net/a-b.ko.xz` is the module `a_b`.
fn module_name(path: &Path) -> Option<String> {
    let (name, compression) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| canonical(name))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).doing(path.display())?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut out = Vec::new();
            lzma_rs::xz_decompress(&mut bytes.as_slice(), &mut out)
                .map_err(|e| Problem(format!("{}: {e:?}", path.display())))?;
            Ok(out)
        }
        _ => Err(Problem(format!("{}: no decompressor for this here; only .ko and .ko.xz", path.display()))),
    }
}

/// The field `depends=a,b` of .modinfo, whose fields end in zero bytes.
fn depends(module: &[u8]) -> std::result::Result<Vec<String>, object::Error> {
    let file = object::File::parse(module)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    Ok(depends_of(section.data()?))
}

fn depends_of(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|b| *b == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_dependencies_are_read_as_depmod_reads_them() {
        assert_eq!(
            module_name(Path::new("net/ipv6/ip6-udp_tunnel.ko.xz")).as_deref(),
            Some("ip6_udp_tunnel")
        );
        assert_eq!(module_name(Path::new("modules.order")), None);
        let modinfo = b"license=GPL\0depends=udp-tunnel,ip6_udp_tunnel\0name=vxlan\0";
        assert_eq!(depends_of(modinfo), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert!(depends_of(b"depends=\0").is_empty());
    }

    #[test]
    fn a_module_that_is_nowhere_is_named_and_a_built_in_one_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("kernel")).unwrap();
        std::fs::write(folder.path().join("modules.builtin"), "kernel/drivers/net/veth.ko\n").unwrap();
        assert_eq!(ordered(folder.path(), &["veth".to_owned()]).unwrap(), []);
        let said = ordered(folder.path(), &["vxlan".to_owned()]).unwrap_err().to_string();
        assert!(said.contains("no module vxlan"), "{said}");
    }
}
