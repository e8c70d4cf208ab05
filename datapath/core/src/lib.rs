//! The datapath's decisions, on values: no packet, no map.
