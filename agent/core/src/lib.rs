//! Desired state to what to do: no I/O, no clock, no threads.
