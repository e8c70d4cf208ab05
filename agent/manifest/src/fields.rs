//! The tables of fields: of each field of a used kind, whether it is used, without effect on networking, or refused.
//!
//! A row covers the field and all below it, until a longer row says otherwise. A field that is written and in no row
//! is an error: nobody has said yet what it means to networking. Tests hold the tables against the types.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Errors;
use crate::source::{Data, Node, Source, join_key};

/// What a field means to container networking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// agent/core and the oracle read it, or its validity is checked here.
    Used,
    /// It may stand there and changes nothing.
    Indifferent,
    /// An error that says why.
    Refused(&'static str),
}

use Effect::{Indifferent, Refused, Used};

/// Paths from the object's root, `[]` for each item of a list.
type Rows = &'static [(&'static str, Effect)];

const META: Rows = &[
    ("name", Used),
    ("namespace", Used),
    ("labels", Used),
    ("annotations", Indifferent),
    ("generateName", Indifferent),
    ("uid", Indifferent),
    ("resourceVersion", Indifferent),
    ("generation", Indifferent),
    ("creationTimestamp", Indifferent),
    ("deletionTimestamp", Indifferent),
    ("deletionGracePeriodSeconds", Indifferent),
    ("finalizers", Indifferent),
    ("managedFields", Indifferent),
    ("ownerReferences", Used),
    ("selfLink", Indifferent),
];

const POD_SPEC: Rows = &[
    ("containers", Indifferent),
    ("containers[].name", Used),
    ("containers[].ports", Used),
    ("initContainers", Indifferent),
    ("ephemeralContainers", Indifferent),
    ("hostNetwork", Used),
    ("nodeName", Used),
    // Placement. What stands in for the scheduler spreads pods over the nodes in order, unless nodeName says.
    ("affinity", Indifferent),
    ("nodeSelector", Indifferent),
    ("tolerations", Indifferent),
    ("topologySpreadConstraints", Indifferent),
    ("schedulerName", Indifferent),
    ("schedulingGates", Indifferent),
    ("preemptionPolicy", Indifferent),
    ("priority", Indifferent),
    ("priorityClassName", Indifferent),
    ("workloadRef", Indifferent),
    // Names: there is no DNS in the datapath.
    ("dnsConfig", Indifferent),
    ("dnsPolicy", Indifferent),
    ("hostAliases", Indifferent),
    ("hostname", Indifferent),
    ("hostnameOverride", Indifferent),
    ("setHostnameAsFQDN", Indifferent),
    ("subdomain", Indifferent),
    // What runs, with which rights and for how long.
    ("activeDeadlineSeconds", Indifferent),
    ("automountServiceAccountToken", Indifferent),
    ("enableServiceLinks", Indifferent),
    ("hostIPC", Indifferent),
    ("hostPID", Indifferent),
    ("hostUsers", Indifferent),
    ("imagePullSecrets", Indifferent),
    ("os", Indifferent),
    ("overhead", Indifferent),
    ("readinessGates", Indifferent),
    ("resourceClaims", Indifferent),
    ("resources", Indifferent),
    ("restartPolicy", Indifferent),
    ("runtimeClassName", Indifferent),
    ("securityContext", Indifferent),
    ("serviceAccount", Indifferent),
    ("serviceAccountName", Indifferent),
    ("shareProcessNamespace", Indifferent),
    ("terminationGracePeriodSeconds", Indifferent),
    ("volumes", Indifferent),
];

const NAMESPACE: Rows = &[("spec", Indifferent), ("status", Indifferent)];

const NODE: Rows = &[
    ("spec", Indifferent),
    ("spec.podCIDR", Used),
    ("spec.podCIDRs", Used),
    ("status", Indifferent),
    ("status.addresses", Used),
];

const POD: Rows =
    &[("status", Indifferent), ("status.phase", Used), ("status.podIP", Used), ("status.podIPs", Used)];

const DEPLOYMENT: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.minReadySeconds", Indifferent),
    ("spec.paused", Indifferent),
    ("spec.progressDeadlineSeconds", Indifferent),
    ("spec.revisionHistoryLimit", Indifferent),
    ("spec.strategy", Indifferent),
    ("status", Indifferent),
];

const REPLICA_SET: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.minReadySeconds", Indifferent),
    ("status", Indifferent),
];

const STATEFUL_SET: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.ordinals", Refused("pods are numbered from 0 here: leave spec.ordinals out")),
    ("spec.minReadySeconds", Indifferent),
    ("spec.persistentVolumeClaimRetentionPolicy", Indifferent),
    ("spec.podManagementPolicy", Indifferent),
    ("spec.revisionHistoryLimit", Indifferent),
    ("spec.serviceName", Indifferent),
    ("spec.updateStrategy", Indifferent),
    ("spec.volumeClaimTemplates", Indifferent),
    ("status", Indifferent),
];

const DAEMON_SET: Rows = &[
    ("spec.selector", Used),
    ("spec.minReadySeconds", Indifferent),
    ("spec.revisionHistoryLimit", Indifferent),
    ("spec.updateStrategy", Indifferent),
    ("status", Indifferent),
];

/// Of a Job's spec, wherever it stands.
const JOB_SPEC: Rows = &[
    ("parallelism", Used),
    ("completions", Used),
    ("suspend", Used),
    ("selector", Used),
    ("activeDeadlineSeconds", Indifferent),
    ("backoffLimit", Indifferent),
    ("backoffLimitPerIndex", Indifferent),
    ("completionMode", Indifferent),
    ("managedBy", Indifferent),
    ("manualSelector", Indifferent),
    ("maxFailedIndexes", Indifferent),
    ("podFailurePolicy", Indifferent),
    ("podReplacementPolicy", Indifferent),
    ("successPolicy", Indifferent),
    ("ttlSecondsAfterFinished", Indifferent),
];

const JOB: Rows = &[("status", Indifferent)];

const CRON_JOB: Rows = &[
    ("spec.suspend", Used),
    ("spec.concurrencyPolicy", Indifferent),
    ("spec.failedJobsHistoryLimit", Indifferent),
    ("spec.schedule", Indifferent),
    ("spec.startingDeadlineSeconds", Indifferent),
    ("spec.successfulJobsHistoryLimit", Indifferent),
    ("spec.timeZone", Indifferent),
    ("status", Indifferent),
];

const NETWORK_POLICY: Rows =
    &[("spec.podSelector", Used), ("spec.policyTypes", Used), ("spec.ingress", Used), ("spec.egress", Used)];

/// A kind's table, put together from parts that stand at different places of different kinds.
pub(crate) fn table(kind: &str) -> BTreeMap<String, Effect> {
    let template: &[(&str, Rows)] = &[("spec.template.metadata", META), ("spec.template.spec", POD_SPEC)];
    let (own, parts): (Rows, Vec<(&str, Rows)>) = match kind {
        "Namespace" => (NAMESPACE, vec![]),
        "Node" => (NODE, vec![]),
        "Pod" => (POD, vec![("spec", POD_SPEC)]),
        "Deployment" => (DEPLOYMENT, template.to_vec()),
        "ReplicaSet" | "ReplicationController" => (REPLICA_SET, template.to_vec()),
        "StatefulSet" => (STATEFUL_SET, template.to_vec()),
        "DaemonSet" => (DAEMON_SET, template.to_vec()),
        "Job" => (JOB, [template, &[("spec", JOB_SPEC)]].concat()),
        "CronJob" => (
            CRON_JOB,
            vec![
                ("spec.jobTemplate.metadata", META),
                ("spec.jobTemplate.spec", JOB_SPEC),
                ("spec.jobTemplate.spec.template.metadata", META),
                ("spec.jobTemplate.spec.template.spec", POD_SPEC),
            ],
        ),
        "NetworkPolicy" => (NETWORK_POLICY, vec![]),
        _ => (&[], vec![]),
    };
    let whole = [("", &[("apiVersion", Used), ("kind", Used)] as Rows), ("", own), ("metadata", META)];
    let rows = whole.into_iter().chain(parts).flat_map(|(prefix, rows)| {
        rows.iter().map(move |(path, effect)| match prefix {
            "" => ((*path).to_owned(), *effect),
            prefix => (format!("{prefix}.{path}"), *effect),
        })
    });
    rows.collect()
}

/// Refuses what the kind's table refuses or does not know.
pub(crate) fn check(kind: &str, source: &Source, errors: &mut Errors) {
    let table = table(kind);
    // What the type does not know has been said.
    let said = errors.iter().filter_map(|error| error.field.clone()).collect();
    Check { table: &table, source, errors, said }.node(source.root(), String::new(), String::new(), None);
}

struct Check<'a> {
    table: &'a BTreeMap<String, Effect>,
    source: &'a Source,
    errors: &'a mut Errors,
    said: BTreeSet<String>,
}

impl Check<'_> {
    /// `path` is where the node stands, `pattern` the same with `[]` for each index, `above` what the rows say so far.
    fn node(&mut self, node: &Node, path: String, pattern: String, above: Option<Effect>) {
        let effect = self.table.get(&pattern).copied().or(above);
        if self.said.contains(&path) {
            return;
        }
        if let Some(Refused(why)) = effect {
            if !node.is_null() {
                self.errors.0.push(self.source.error(&path, "this field is not supported").help(why));
            }
            return;
        }
        match &node.data {
            Data::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    let below = (join_key(&path, &entry.key), join_key(&pattern, &entry.key));
                    self.node(&entry.value, below.0, below.1, effect);
                }
            }
            Data::List(items) if !items.is_empty() => {
                for (n, item) in items.iter().enumerate() {
                    self.node(item, format!("{path}[{n}]"), format!("{pattern}[]"), effect);
                }
            }
            // An empty mapping above the rows says nothing yet: `spec: {}`.
            _ if effect.is_none() && !node.is_null() && !self.is_above_a_row(&pattern) => {
                let error =
                    self.source.error(&path, "this field is in no table of what matters to networking");
                self.errors
                    .0
                    .push(error.help("leave it out; if it matters, it must be taught to skep first"));
            }
            _ => {}
        }
    }

    fn is_above_a_row(&self, pattern: &str) -> bool {
        let below = format!("{pattern}.");
        pattern.is_empty() || self.table.keys().any(|row| row.starts_with(&below))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1 as apps, batch::v1 as batch, core::v1 as core, networking::v1 as networking,
    };
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::Resource;
    use crate::shape::{self, Step};

    fn steps(pattern: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        for part in pattern.split('.').filter(|part| !part.is_empty()) {
            steps.push(Step::Key(part.trim_end_matches("[]").to_owned()));
            if part.ends_with("[]") {
                steps.push(Step::Index(0));
            }
        }
        steps
    }

    /// Every field of the type that lies above the rows has a row, and every row a field.
    fn hold<T: DeserializeOwned>(kind: &str) {
        let table = table(kind);
        for row in table.keys() {
            let (parent, name) = row.rsplit_once('.').unwrap_or(("", row));
            let fields = shape::of::<T>(&steps(parent)).fields.unwrap_or_default();
            assert!(fields.contains(&name), "{kind}: the type has no {row}");
            let mut above = parent;
            while !above.is_empty() && !table.contains_key(above.trim_end_matches("[]")) {
                above = above.rsplit_once('.').map_or("", |(above, _)| above);
            }
            if above.is_empty() {
                for field in fields {
                    let field = join_key(parent, field);
                    let below = format!("{field}.");
                    let known = table.contains_key(&field) || table.keys().any(|row| row.starts_with(&below));
                    assert!(known, "{kind}: no row for {field}");
                }
            }
        }
    }

    #[test]
    fn the_tables_and_the_types_name_the_same_fields() {
        hold::<core::Namespace>("Namespace");
        hold::<core::Node>("Node");
        hold::<core::Pod>("Pod");
        hold::<core::ReplicationController>("ReplicationController");
        hold::<apps::Deployment>("Deployment");
        hold::<apps::ReplicaSet>("ReplicaSet");
        hold::<apps::StatefulSet>("StatefulSet");
        hold::<apps::DaemonSet>("DaemonSet");
        hold::<batch::Job>("Job");
        hold::<batch::CronJob>("CronJob");
        hold::<networking::NetworkPolicy>("NetworkPolicy");
        assert_eq!(Resource::KINDS.len(), 11, "a new kind is held here too");
    }
}
