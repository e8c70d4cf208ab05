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
    NoEffect,
    /// An error that says why.
    Refused(&'static str),
}

use Effect::{NoEffect, Refused, Used};

/// Paths from the object's root, `[]` for each item of a list.
type Rows = &'static [(&'static str, Effect)];

const META: Rows = &[
    ("name", Used),
    ("namespace", Used),
    ("labels", Used),
    ("annotations", NoEffect),
    ("generateName", NoEffect),
    ("uid", NoEffect),
    ("resourceVersion", NoEffect),
    ("generation", NoEffect),
    ("creationTimestamp", NoEffect),
    ("deletionTimestamp", NoEffect),
    ("deletionGracePeriodSeconds", NoEffect),
    ("finalizers", NoEffect),
    ("managedFields", NoEffect),
    ("ownerReferences", Used),
    ("selfLink", NoEffect),
];

const POD_SPEC: Rows = &[
    ("containers", NoEffect),
    ("containers[].name", Used),
    ("containers[].ports", Used),
    ("initContainers", NoEffect),
    ("ephemeralContainers", NoEffect),
    ("hostNetwork", Used),
    ("nodeName", Used),
    // Placement. What stands in for the scheduler spreads pods over the nodes in order, unless nodeName says.
    ("affinity", NoEffect),
    ("nodeSelector", NoEffect),
    ("tolerations", NoEffect),
    ("topologySpreadConstraints", NoEffect),
    ("schedulerName", NoEffect),
    ("schedulingGates", NoEffect),
    ("preemptionPolicy", NoEffect),
    ("priority", NoEffect),
    ("priorityClassName", NoEffect),
    ("workloadRef", NoEffect),
    // Names: there is no DNS in the datapath.
    ("dnsConfig", NoEffect),
    ("dnsPolicy", NoEffect),
    ("hostAliases", NoEffect),
    ("hostname", NoEffect),
    ("hostnameOverride", NoEffect),
    ("setHostnameAsFQDN", NoEffect),
    ("subdomain", NoEffect),
    // What runs, with which rights and for how long.
    ("activeDeadlineSeconds", NoEffect),
    ("automountServiceAccountToken", NoEffect),
    ("enableServiceLinks", NoEffect),
    ("hostIPC", NoEffect),
    ("hostPID", NoEffect),
    ("hostUsers", NoEffect),
    ("imagePullSecrets", NoEffect),
    ("os", NoEffect),
    ("overhead", NoEffect),
    ("readinessGates", NoEffect),
    ("resourceClaims", NoEffect),
    ("resources", NoEffect),
    ("restartPolicy", NoEffect),
    ("runtimeClassName", NoEffect),
    ("securityContext", NoEffect),
    ("serviceAccount", NoEffect),
    ("serviceAccountName", NoEffect),
    ("shareProcessNamespace", NoEffect),
    ("terminationGracePeriodSeconds", NoEffect),
    ("volumes", NoEffect),
];

const NAMESPACE: Rows = &[("spec", NoEffect), ("status", NoEffect)];

const NODE: Rows = &[
    ("spec", NoEffect),
    ("spec.podCIDR", Used),
    ("spec.podCIDRs", Used),
    ("status", NoEffect),
    ("status.addresses", Used),
];

const POD: Rows =
    &[("status", NoEffect), ("status.phase", Used), ("status.podIP", Used), ("status.podIPs", Used)];

const DEPLOYMENT: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.minReadySeconds", NoEffect),
    ("spec.paused", NoEffect),
    ("spec.progressDeadlineSeconds", NoEffect),
    ("spec.revisionHistoryLimit", NoEffect),
    ("spec.strategy", NoEffect),
    ("status", NoEffect),
];

const REPLICA_SET: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.minReadySeconds", NoEffect),
    ("status", NoEffect),
];

const STATEFUL_SET: Rows = &[
    ("spec.replicas", Used),
    ("spec.selector", Used),
    ("spec.ordinals", Refused("pods are numbered from 0 here: leave spec.ordinals out")),
    ("spec.minReadySeconds", NoEffect),
    ("spec.persistentVolumeClaimRetentionPolicy", NoEffect),
    ("spec.podManagementPolicy", NoEffect),
    ("spec.revisionHistoryLimit", NoEffect),
    ("spec.serviceName", NoEffect),
    ("spec.updateStrategy", NoEffect),
    ("spec.volumeClaimTemplates", NoEffect),
    ("status", NoEffect),
];

const DAEMON_SET: Rows = &[
    ("spec.selector", Used),
    ("spec.minReadySeconds", NoEffect),
    ("spec.revisionHistoryLimit", NoEffect),
    ("spec.updateStrategy", NoEffect),
    ("status", NoEffect),
];

/// Of a Job's spec, wherever it stands.
const JOB_SPEC: Rows = &[
    ("parallelism", Used),
    ("completions", Used),
    ("suspend", Used),
    ("selector", Used),
    ("activeDeadlineSeconds", NoEffect),
    ("backoffLimit", NoEffect),
    ("backoffLimitPerIndex", NoEffect),
    ("completionMode", NoEffect),
    ("managedBy", NoEffect),
    ("manualSelector", NoEffect),
    ("maxFailedIndexes", NoEffect),
    ("podFailurePolicy", NoEffect),
    ("podReplacementPolicy", NoEffect),
    ("successPolicy", NoEffect),
    ("ttlSecondsAfterFinished", NoEffect),
];

const JOB: Rows = &[("status", NoEffect)];

const CRON_JOB: Rows = &[
    ("spec.suspend", Used),
    ("spec.concurrencyPolicy", NoEffect),
    ("spec.failedJobsHistoryLimit", NoEffect),
    ("spec.schedule", NoEffect),
    ("spec.startingDeadlineSeconds", NoEffect),
    ("spec.successfulJobsHistoryLimit", NoEffect),
    ("spec.timeZone", NoEffect),
    ("status", NoEffect),
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
