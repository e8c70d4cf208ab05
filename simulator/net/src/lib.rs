//! The world around a program: frame, device, node, fabric, clock, faults.
