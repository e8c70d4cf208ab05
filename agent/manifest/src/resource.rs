//! The kinds that mean something to container networking, as k8s-openapi types. Parses only: what a missing field
//! stands for is for agent/core and the oracle to say.

use std::fmt;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::source::Source;

/// The namespace of a namespaced object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What names an object in a cluster. `namespace` is empty for kinds of the whole cluster, else never.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Key {
    /// The kind, as `NetworkPolicy`.
    pub kind: &'static str,
    /// The namespace; empty for Namespace and Node.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The object, checked.
    pub resource: Resource,
    /// Its file and the place of each of its fields.
    pub source: Source,
}

impl Loaded {
    /// What names it.
    pub fn key(&self) -> Key {
        self.resource.key()
    }
}

macro_rules! resources {
    ($($kind:ident $namespaced:literal),* $(,)?) => {
        /// An object of a kind that is used.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Resource {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind(Box<$kind>),)*
        }

        impl Resource {
            /// The kinds that are used.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($kind)),*];

            /// The kind, as `NetworkPolicy`.
            pub fn kind(&self) -> &'static str {
                match self { $(Resource::$kind(_) => stringify!($kind),)* }
            }

            /// Whether objects of this kind stand in a namespace.
            pub fn is_namespaced(&self) -> bool {
                match self { $(Resource::$kind(_) => $namespaced,)* }
            }

            /// The object's metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Resource::$kind(object) => &object.metadata,)* }
            }
        }

        $(impl From<$kind> for Resource {
            fn from(object: $kind) -> Resource {
                Resource::$kind(Box::new(object))
            }
        })*
    };
}

resources! {
    Namespace false,
    Node false,
    Pod true,
    Deployment true,
    ReplicaSet true,
    ReplicationController true,
    StatefulSet true,
    DaemonSet true,
    Job true,
    CronJob true,
    NetworkPolicy true,
}

impl Resource {
    /// `metadata.name`, which a loaded object has.
    pub fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }

    /// The namespace, `default` where none is given; empty for kinds of the whole cluster.
    pub fn namespace(&self) -> &str {
        if !self.is_namespaced() {
            return "";
        }
        self.metadata().namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
    }

    /// What names the object.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }

    /// The pod template of a workload, and its path in the object; none for other kinds.
    pub fn template(&self) -> Option<(&'static str, &PodTemplateSpec)> {
        const PATH: &str = "spec.template";
        Some(match self {
            Resource::Deployment(w) => (PATH, &w.spec.as_ref()?.template),
            Resource::ReplicaSet(w) => (PATH, w.spec.as_ref()?.template.as_ref()?),
            Resource::ReplicationController(w) => (PATH, w.spec.as_ref()?.template.as_ref()?),
            Resource::StatefulSet(w) => (PATH, &w.spec.as_ref()?.template),
            Resource::DaemonSet(w) => (PATH, &w.spec.as_ref()?.template),
            Resource::Job(w) => (PATH, &w.spec.as_ref()?.template),
            Resource::CronJob(w) => {
                ("spec.jobTemplate.spec.template", &w.spec.as_ref()?.job_template.spec.as_ref()?.template)
            }
            _ => return None,
        })
    }
}
