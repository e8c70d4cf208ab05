//! What a node calls things: itself, its pods' network namespaces, and the device that bears its address.

use skep_agent_core::{NodeInfo, PodKey};
use skep_agent_linux::{FoundDevice, Netlink};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Which namespace a file stands for: device and inode. Another namespace under the same name is another pod's.
pub(crate) type NamespaceId = (u64, u64);

/// The host's name, without its domain.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

/// The file of a pod's network namespace. No name of Kubernetes has an underscore.
pub(crate) fn namespace(folder: &Path, pod: &PodKey) -> PathBuf {
    folder.join(format!("{}_{}", pod.namespace, pod.name))
}

/// The namespace that stands there; none if there is none, or a file that is not one yet.
pub(crate) fn namespace_id(path: &Path) -> Option<NamespaceId> {
    let metadata = std::fs::metadata(path).ok()?;
    // A file that `ip netns add` has made and not yet mounted upon is on another device than a namespace.
    let own = std::fs::metadata("/proc/self/ns/net").ok()?;
    (metadata.dev() == own.dev()).then(|| (metadata.dev(), metadata.ino()))
}

/// The device that bears a node's address.
///
/// # Errors
///
/// What to do if there is none.
pub(crate) fn uplink(node: &NodeInfo) -> Result<FoundDevice, String> {
    let devices = Netlink::open().and_then(|mut n| n.devices()).map_err(|e| e.to_string())?;
    let bears = |d: &FoundDevice| d.addresses.iter().any(|net| net.addr() == node.address);
    devices.into_iter().find(bears).ok_or_else(|| {
        format!(
            "no device of this host has the address {} of node {}\n  help: is this that node? --node says which it is",
            node.address, node.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_its_inode_and_a_plain_file_is_none() {
        let place = tempfile::tempdir().unwrap();
        let path = namespace(place.path(), &PodKey::new("shop", "web-0"));
        assert!(path.ends_with("shop_web-0"));
        assert_eq!(namespace_id(&path), None);
        std::fs::write(&path, "").unwrap();
        assert_eq!(namespace_id(&path), None);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/ns/net", &path).unwrap();
        assert_eq!(namespace_id(&path), namespace_id(Path::new("/proc/self/ns/net")));
        assert!(namespace_id(&path).is_some());
    }
}
