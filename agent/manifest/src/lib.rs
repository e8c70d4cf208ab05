//! Files to typed Kubernetes resources, each field with its file and line.
