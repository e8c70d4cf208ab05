//! The World made of vm and net.
