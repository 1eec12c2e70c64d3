//! Kubernetes YAML: read, patch, write.
