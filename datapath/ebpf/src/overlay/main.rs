//! The object of the tunnel device (Cilium's bpf_overlay).
#![no_std]
#![no_main]

mod from_overlay;
mod to_overlay;
