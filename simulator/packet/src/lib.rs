//! SkBuff: a packet as the kernel carries it. Knows no BPF and no topology.
