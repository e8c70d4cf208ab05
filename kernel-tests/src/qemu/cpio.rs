//! An initramfs in the kernel's own format (Documentation/driver-api/early-userspace/buffer-format.rst): "newc" headers
//! of hexadecimal fields, names and contents each padded to four bytes.
//!
//! Knows files, folders and character devices, owned by root. Same entries, same bytes.

/// An archive that is being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// File types of `st_mode`.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// A folder. What stands in it comes after it.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file that may be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, (0, 0), content);
    }

    /// A character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// The bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let size = u32::try_from(content.len()).expect("a file of an initramfs is smaller than 4 GiB");
        let fields =
            [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_paddings_are_where_the_kernel_looks() {
        let mut archive = Archive::default();
        archive.folder("/dev");
        archive.device("/dev/console", 5, 1);
        archive.file("/a", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|s| s % 4 == 0), "{starts:?}");
        let field = |entry: usize, n: usize| {
            let at = starts[entry] + 6 + 8 * n;
            u32::from_str_radix(&text[at..at + 8], 16).unwrap()
        };
        assert_eq!((field(1, 1), field(1, 9), field(1, 10)), (0o020_600, 5, 1));
        assert_eq!((field(2, 6), field(2, 11)), (5, 2));
        // 110 bytes of header and two of name are 112; then the file.
        assert_eq!(&bytes[starts[2] + 112..starts[2] + 120], b"12345\0\0\0");
    }
}
