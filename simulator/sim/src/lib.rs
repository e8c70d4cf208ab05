//! The World made of vm and net.
pub mod capture;
