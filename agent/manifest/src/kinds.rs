//! The table of kinds: which mean something to container networking, which do not, and which are refused.
//!
//! A kind in no row is an error: a policy of a kind that is read past would be a hole in a firewall.

/// What becomes of objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read and used.
    Used,
    /// Without effect on networking: counted and read past.
    NoEffect,
    /// Without effect yet: counted and read past, and the reader is told what will not happen.
    NotYet(&'static str),
    /// An error that says what to do.
    Refused(&'static str),
}

/// A row: API group (empty for core), the version that is read (empty for any), kind, use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindRow {
    /// The API group, empty for the core group.
    pub group: &'static str,
    /// The one version whose objects are read, or empty.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// What becomes of it.
    pub usage: Use,
}

const SERVICES: &str = "services have no datapath yet: traffic to a service's address is not translated";
const INGRESSES: &str = "nothing answers for ingresses and gateways: traffic through them is not simulated";
const CILIUM: &str = "Cilium's own policies are not supported yet: write a NetworkPolicy, or leave it out with \
                      --ignore-kind cilium.io/KIND if nothing depends on it";
const ADMIN: &str = "cluster-wide policies are not supported: write a NetworkPolicy for each namespace";
const CALICO: &str = "Calico's own policies are not supported: write a NetworkPolicy";
const MULTUS: &str = "pods have one interface here: secondary networks are not supported";
const KUSTOMIZE: &str =
    "this is an input of kustomize: give the output of `kubectl kustomize FOLDER` instead";

const fn row(group: &'static str, version: &'static str, kind: &'static str, usage: Use) -> KindRow {
    KindRow { group, version, kind, usage }
}

macro_rules! kinds {
    ($($usage:expr => $group:literal $version:literal [$($kind:ident)*];)*) => {
        &[$($(row($group, $version, stringify!($kind), $usage),)*)*]
    };
}

/// Every kind that is known.
pub const KINDS: &[KindRow] = kinds! {
    Use::Used => "" "v1" [Namespace Node Pod ReplicationController];
    Use::Used => "apps" "v1" [Deployment ReplicaSet StatefulSet DaemonSet];
    Use::Used => "batch" "v1" [Job CronJob];
    Use::Used => "networking.k8s.io" "v1" [NetworkPolicy];
    Use::NotYet(SERVICES) => "" "v1" [Service Endpoints];
    Use::NotYet(SERVICES) => "discovery.k8s.io" "v1" [EndpointSlice];
    Use::NotYet(SERVICES) => "networking.k8s.io" "" [ServiceCIDR IPAddress];
    Use::NotYet(INGRESSES) => "networking.k8s.io" "v1" [Ingress IngressClass];
    Use::NotYet(INGRESSES) => "gateway.networking.k8s.io" "" [
        Gateway GatewayClass HTTPRoute GRPCRoute TCPRoute TLSRoute UDPRoute ReferenceGrant BackendTLSPolicy];
    Use::NoEffect => "" "" [
        ConfigMap Secret ServiceAccount PersistentVolume PersistentVolumeClaim Event LimitRange ResourceQuota
        PodTemplate ComponentStatus Binding];
    Use::NoEffect => "rbac.authorization.k8s.io" "" [Role RoleBinding ClusterRole ClusterRoleBinding];
    Use::NoEffect => "apps" "" [ControllerRevision];
    Use::NoEffect => "autoscaling" "" [HorizontalPodAutoscaler];
    Use::NoEffect => "policy" "" [PodDisruptionBudget PodSecurityPolicy];
    Use::NoEffect => "scheduling.k8s.io" "" [PriorityClass];
    Use::NoEffect => "storage.k8s.io" "" [
        StorageClass CSIDriver CSINode CSIStorageCapacity VolumeAttachment VolumeAttributesClass];
    Use::NoEffect => "coordination.k8s.io" "" [Lease LeaseCandidate];
    Use::NoEffect => "node.k8s.io" "" [RuntimeClass];
    Use::NoEffect => "admissionregistration.k8s.io" "" [
        MutatingWebhookConfiguration ValidatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding MutatingAdmissionPolicy MutatingAdmissionPolicyBinding];
    Use::NoEffect => "apiextensions.k8s.io" "" [CustomResourceDefinition];
    Use::NoEffect => "apiregistration.k8s.io" "" [APIService];
    Use::NoEffect => "certificates.k8s.io" "" [CertificateSigningRequest ClusterTrustBundle];
    Use::NoEffect => "flowcontrol.apiserver.k8s.io" "" [FlowSchema PriorityLevelConfiguration];
    Use::NoEffect => "events.k8s.io" "" [Event];
    Use::NoEffect => "metrics.k8s.io" "" [NodeMetrics PodMetrics];
    Use::NoEffect => "skep.dev" "" [Scenario];
    Use::Refused(CILIUM) => "cilium.io" "" [
        CiliumNetworkPolicy CiliumClusterwideNetworkPolicy CiliumCIDRGroup CiliumEgressGatewayPolicy
        CiliumLocalRedirectPolicy CiliumEnvoyConfig CiliumClusterwideEnvoyConfig];
    Use::Refused(ADMIN) => "policy.networking.k8s.io" "" [
        AdminNetworkPolicy BaselineAdminNetworkPolicy ClusterNetworkPolicy];
    Use::Refused(CALICO) => "crd.projectcalico.org" "" [
        NetworkPolicy GlobalNetworkPolicy NetworkSet GlobalNetworkSet];
    Use::Refused(CALICO) => "projectcalico.org" "" [NetworkPolicy GlobalNetworkPolicy NetworkSet GlobalNetworkSet];
    Use::Refused(MULTUS) => "k8s.cni.cncf.io" "" [NetworkAttachmentDefinition];
    Use::Refused(MULTUS) => "resource.k8s.io" "" [ResourceClaim ResourceClaimTemplate DeviceClass ResourceSlice];
    Use::Refused(KUSTOMIZE) => "kustomize.config.k8s.io" "" [Kustomization Component];
};

/// The row of a kind.
pub(crate) fn find(group: &str, kind: &str) -> Option<&'static KindRow> {
    KINDS.iter().find(|row| row.group == group && row.kind == kind)
}

/// What the reader should be told when objects of this kind were read past; none for kinds that never matter.
pub fn note(kind: &str) -> Option<&'static str> {
    KINDS.iter().find_map(|row| match row.usage {
        Use::NotYet(note) if row.kind == kind => Some(note),
        _ => None,
    })
}

/// `GROUP/KIND` as people write it.
pub(crate) fn group_kind(group: &str, kind: &str) -> String {
    if group.is_empty() { format!("core/{kind}") } else { format!("{group}/{kind}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    #[test]
    fn a_kind_has_one_row_and_every_used_kind_a_type() {
        for (n, row) in KINDS.iter().enumerate() {
            let same = |other: &KindRow| (other.group, other.kind) == (row.group, row.kind);
            assert_eq!(KINDS.iter().position(same), Some(n), "{}", row.kind);
            assert_eq!(
                row.usage == Use::Used,
                Resource::KINDS.contains(&row.kind) && !row.group.contains("calico")
            );
        }
    }
}
