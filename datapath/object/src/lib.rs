//! The built eBPF objects and their manifest.
