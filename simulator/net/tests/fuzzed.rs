//! What the fuzzer has found, each as the smallest case that shows it.

mod common;
use common::*;

/// Injects bytes as the fuzz target `inject` does; every frame has one end, in the end.
fn inject(bytes: &[u8], seconds: u64) {
    let (seed, frame) = bytes.split_first().expect("a seed and a frame");
    let mut cluster = routed(u64::from(*seed));
    let _ = cluster.net.inject_received(cluster.node, cluster.uplink, frame);
    let _ = cluster.net.inject(cluster.node, cluster.lxc[0], frame);
    let _ = cluster.net.send_ip(cluster.pods[0], frame);
    cluster.net.run_for(&mut cluster.world, seconds * SECOND);
    cluster.world.assert_accounted(&cluster.net);
}

#[test]
fn a_frame_that_waits_for_a_neighbour_or_its_other_fragments_has_an_end() {
    inject(
        &[
            0x01, 0x49, 0x92, 0x24, 0x49, 0x92, 0x24, 0x49, 0xff, 0x49, 0x92, 0x24, 0x49, 0x92, 0x24, 0x49,
            0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x49, 0x92, 0x24, 0x49, 0x02, 0xff, 0x24,
            0x49, 0x92, 0x24, 0x49, 0x02, 0x02, 0x02, 0x00, 0x00,
        ],
        60,
    );
}
