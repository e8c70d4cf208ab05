//! The walkthrough's cluster: what two agents ask their nodes for, and what stands there then.
mod common;

use common::{CURL_AND_HTTPBIN, World, two_nodes};
use skep_abi::map::{EndpointInfo, EndpointKey, IpcacheKey, RemoteEndpointInfo};
use skep_abi::{Be32, map};
use skep_agent_core::{Action, Datapath, Link, Performed, PodKey, desired::pod_device};

fn lookup(datapath: &Datapath, map: &str, key: &[u8]) -> Vec<u8> {
    datapath.maps[map].entries[key].bytes.clone()
}

fn ipcache(datapath: &Datapath, ip: [u8; 4], bits: u32) -> RemoteEndpointInfo {
    let key = IpcacheKey::ipv4(Be32::from_octets(ip), bits).to_bytes();
    RemoteEndpointInfo::from_bytes(&lookup(datapath, map::IPCACHE.name, &key)).expect("it is right")
}

#[test]
fn two_nodes_and_two_pods() {
    let (world, done) = World::new(&two_nodes(), CURL_AND_HTTPBIN);
    for performed in done.values().flatten() {
        assert!(performed.result.is_ok(), "{performed:?}");
    }
    let d = world.datapath("ubuntu-dev2");
    let lxc = pod_device(&PodKey::new("default", "curl"));
    let index = d.links[&Link::root(lxc.as_str())];
    let info = lookup(d, map::LXC.name, &EndpointKey::ipv4(Be32::from_octets([10, 42, 1, 80])).to_bytes());
    let info = EndpointInfo::from_bytes(&info).expect("it is right");
    assert_eq!((info.ifindex, info.lxc_id, info.sec_id, info.flags), (index, 1, 256, 0));
    for host in [[192, 168, 1, 12], [10, 42, 1, 1]] {
        let info = lookup(d, map::LXC.name, &EndpointKey::ipv4(Be32::from_octets(host)).to_bytes());
        assert_eq!(EndpointInfo::from_bytes(&info).expect("it is right").flags, map::ENDPOINT_F_HOST);
    }
    let httpbin = ipcache(d, [10, 42, 0, 51], 32);
    assert_eq!((httpbin.sec_identity, httpbin.tunnel_endpoint.octets()), (257, [192, 168, 1, 13]));
    let curl = ipcache(d, [10, 42, 1, 80], 32);
    assert_eq!((curl.sec_identity, curl.tunnel_endpoint.octets()), (256, [0; 4]));
    assert_eq!(ipcache(d, [192, 168, 1, 12], 32).sec_identity, 1);
    assert_eq!(ipcache(d, [192, 168, 1, 13], 32).sec_identity, 6);
    let router = ipcache(d, [10, 42, 0, 1], 32);
    assert_eq!((router.sec_identity, router.tunnel_endpoint.octets()), (6, [192, 168, 1, 13]));
    assert_eq!(ipcache(d, [0; 4], 0).sec_identity, 2);
    assert_eq!(d.published.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(d.attachments.len(), 2 + 1 + 2 + 2 + 1, "skep_host, skep_net, eth0, skep_vxlan, the pod");
    assert_eq!(d.maps["skep_policy_v2_00001"].entries.len(), 3, "host, and all both ways");

    for node in ["ubuntu-dev2", "ubuntu-dev3"] {
        world.assert_converged(node);
    }
    let agent = world.agent("ubuntu-dev2");
    assert_eq!(agent.pod_of(1), Some(&PodKey::new("default", "curl")));
    assert_eq!(agent.pod_at([10, 42, 0, 51].into()), Some(&PodKey::new("default", "httpbin")));
    assert_eq!(agent.identity_of([10, 42, 0, 51].into()), 257);
    assert_eq!(agent.identity_of([8, 8, 8, 8].into()), 2);
    assert!(agent.identity_text(256).contains(&"k8s:app=curl".to_owned()), "{:?}", agent.identity_text(256));
    assert_eq!(agent.identity_text(1), ["reserved:host"]);
}

/// Where an action stands in the order of a pod's first programming.
fn stage(action: &Action) -> Option<usize> {
    Some(match action {
        Action::CreateDevice { .. } => 0,
        Action::SetRoute { .. } => 1,
        Action::CreateMap { .. } => 2,
        Action::MapUpdate { map, .. } if map.starts_with("skep_policy") => 3,
        Action::Load { .. } => 4,
        Action::Publish { .. } => 5,
        Action::MapUpdate { map, .. } if map == "skep_lxc" => 6,
        Action::Attach { .. } => 7,
        Action::MapUpdate { map, .. } if map == "skep_ipcache" => 8,
        Action::EndpointReady { .. } => 9,
        _ => return None,
    })
}

#[test]
fn a_pod_is_programmed_in_the_order_of_the_contract() {
    let (_, done) = World::new(&two_nodes(), CURL_AND_HTTPBIN);
    for performed in done.values() {
        let stages: Vec<usize> = performed.iter().filter_map(|p: &Performed| stage(&p.action)).collect();
        assert!(stages.is_sorted(), "{stages:?}");
        assert_eq!(stages.iter().max(), Some(&9));
        let prefixes: Vec<u8> = performed
            .iter()
            .filter_map(|p| match &p.action {
                Action::MapUpdate { map, key, .. } if map == "skep_ipcache" => Some(key[0]),
                _ => None,
            })
            .collect();
        assert!(prefixes.is_sorted_by(|a, b| a >= b), "longer prefixes first: {prefixes:?}");
    }
}
