//! What was given to pods and must stay theirs: places, addresses, endpoints' ids and identities' numbers.
//!
//! A cluster keeps it as long as it lives. Who reads the same objects anew after a crash hands it back, or flows would
//! be judged by other numbers than those that stand in the node's maps.

use super::{PodInfo, State};
use crate::change::{Identity, PodKey};
use serde::{Deserialize, Serialize};
use skep_abi::identity::{CLUSTER_MAX, CLUSTER_MIN};
use skep_abi::map::CALL_POLICY;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What a cluster has given.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Given {
    /// To pods with an endpoint, by name.
    pub pods: Vec<GivenPod>,
    /// To sets of labels, by number.
    pub identities: Vec<Identity>,
    /// How many pods were spread over the nodes in turn.
    pub spread: usize,
}

/// What a pod was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GivenPod {
    /// Its name.
    pub key: PodKey,
    /// The node that it runs on.
    pub node: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its endpoint's id, unique on its node.
    pub endpoint: u16,
}

impl From<&State> for Given {
    fn from(state: &State) -> Self {
        let connected = state.pods.values().filter(|p| !p.host_network);
        let pod = |p: &PodInfo| GivenPod {
            key: p.key.clone(),
            node: p.node.clone(),
            ip: p.ip,
            endpoint: p.endpoint,
        };
        let identities = state.identities.iter();
        Self {
            pods: connected.map(pod).collect(),
            identities: identities.map(|(&id, labels)| Identity { id, labels: labels.clone() }).collect(),
            spread: state.spread,
        }
    }
}

impl Given {
    /// The state in which this was given. What cannot have been given, such as one endpoint to two pods, is left out.
    pub(super) fn state(&self) -> State {
        let mut state = State { spread: self.spread, ..State::default() };
        let (mut endpoints, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for pod in &self.pods {
            let possible = pod.endpoint != 0 && u32::from(pod.endpoint) < CALL_POLICY.max_entries;
            if possible && endpoints.insert((&pod.node, pod.endpoint)) && addresses.insert(pod.ip) {
                let info = PodInfo {
                    key: pod.key.clone(),
                    node: pod.node.clone(),
                    ip: pod.ip,
                    host_network: false,
                    endpoint: pod.endpoint,
                    identity: 0,
                    labels: Default::default(),
                    ports: Vec::new(),
                };
                state.pods.insert(pod.key.clone(), info);
            }
        }
        let possible = self.identities.iter().filter(|i| (CLUSTER_MIN..=CLUSTER_MAX).contains(&i.id));
        state.identities = possible.map(|i| (i.id, i.labels.clone())).collect();
        state
    }
}
