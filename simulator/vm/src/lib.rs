//! Runs one BPF program as the kernel would: no root, no kernel.
