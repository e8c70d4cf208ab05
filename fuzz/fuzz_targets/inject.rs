//! Any frame at the uplink of a node that routes between pods, or from a pod's socket. Every frame has one end, at the
//! latest when fragments are given up.
#![no_main]

#[path = "../../simulator/net/tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [seed, frame @ ..] = bytes else { return };
    let mut cluster = common::routed(u64::from(*seed));
    // Too short for a header is an error and not a frame.
    let _ = cluster.net.inject_received(cluster.node, cluster.uplink, frame);
    let _ = cluster.net.inject(cluster.node, cluster.lxc[0], frame);
    let _ = cluster.net.send_ip(cluster.pods[0], frame);
    cluster.net.run_for(&mut cluster.world, 60 * common::SECOND);
    cluster.world.assert_accounted(&cluster.net);
});
