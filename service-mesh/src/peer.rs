//! Who may be at the other end of a connection.

use std::net::IpAddr;

use contrast_mesh_annotation::{Host, Identity, Workload};

/// A workload whose namespace is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPattern {
    namespace: String,
    kind: Option<String>,
    name: String,
}

/// Who must answer on an egress connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A member of the mesh whose certificate carries this DNS name, or a wildcard for its first label.
    Dns(String),
    /// A member of the mesh whose certificate carries this address.
    Ip(IpAddr),
    /// Any member of the mesh.
    AnyMember,
    /// One of these workloads; never empty.
    Workloads(Vec<WorkloadPattern>),
}

/// A workload was named without its namespace, and the pod's own is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the workload `{workload}` is named without a namespace, and the pod's own is not known; set CONTRAST_NAMESPACE, or write namespace/{workload}"
)]
pub struct NamespaceUnknown {
    /// The workload as it was written.
    pub workload: String,
}

impl WorkloadPattern {
    /// The pattern for `workload` as a pod in the namespace `own` means it.
    ///
    /// # Errors
    /// When neither says the namespace.
    pub fn resolve(workload: &Workload, own: Option<&str>) -> Result<Self, NamespaceUnknown> {
        let namespace = workload.namespace.as_deref().or(own);
        let namespace = namespace.ok_or_else(|| NamespaceUnknown {
            workload: workload.to_string(),
        })?;
        Ok(Self {
            namespace: namespace.to_owned(),
            kind: workload.kind.clone(),
            name: workload.name.clone(),
        })
    }

    /// A regular expression (RE2) that the whole SPIFFE ID of such a workload matches. Any trust domain will do: only certificates under the
    /// pod's own mesh CA are compared, and that CA issues for one trust domain.
    pub fn spiffe_regex(&self) -> String {
        let kind = self
            .kind
            .as_deref()
            .map_or_else(|| "[^/]+".to_owned(), escaped);
        format!(
            "spiffe://[^/]+/ns/{}/{kind}/{}",
            escaped(&self.namespace),
            escaped(&self.name)
        )
    }
}

/// Of the characters in names of Kubernetes, only the dot means something in a regular expression; the namespace may come from elsewhere.
fn escaped(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let mut escaped = String::new();
    for character in text.chars() {
        if !plain(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

impl Peer {
    /// Who must answer for the remote `host`.
    ///
    /// # Errors
    /// When a workload is named without a namespace and `own` does not say it.
    pub fn of(
        identity: &Identity,
        host: &Host,
        own: Option<&str>,
    ) -> Result<Self, NamespaceUnknown> {
        Ok(match (identity, host) {
            (Identity::AnyMember, _) => Self::AnyMember,
            (Identity::Target, Host::Dns(name)) => Self::Dns(name.clone()),
            (Identity::Target, Host::Ip(ip)) => Self::Ip(*ip),
            (Identity::Workloads(workloads), _) => {
                let resolve = |workload| WorkloadPattern::resolve(workload, own);
                Self::Workloads(workloads.iter().map(resolve).collect::<Result<_, _>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(workload: &str, own: Option<&str>) -> Result<String, NamespaceUnknown> {
        let workload = workload.parse().expect("workload");
        WorkloadPattern::resolve(&workload, own).map(|pattern| pattern.spiffe_regex())
    }

    #[test]
    fn patterns_say_as_much_as_was_written() {
        let own = Some("votes");
        assert_eq!(
            regex("api", own).expect("own"),
            "spiffe://[^/]+/ns/votes/[^/]+/api"
        );
        assert_eq!(
            regex("shop/api", None).expect("named"),
            "spiffe://[^/]+/ns/shop/[^/]+/api"
        );
        assert_eq!(
            regex("shop/deployment/pay.v2", own).expect("named"),
            r"spiffe://[^/]+/ns/shop/deployment/pay\.v2"
        );
        let error = regex("api", None).expect_err("no namespace");
        assert!(error.to_string().contains("CONTRAST_NAMESPACE"), "{error}");
    }

    #[test]
    fn a_hostile_namespace_stays_a_text() {
        assert_eq!(
            regex("api", Some("a|.*")).expect("own"),
            r"spiffe://[^/]+/ns/a\|\.\*/[^/]+/api"
        );
    }

    #[test]
    fn a_remote_without_identity_is_the_name_that_is_dialled() {
        let peer = |identity: &Identity, host: &Host| Peer::of(identity, host, None).expect("peer");
        let dns = Host::Dns("api".into());
        let ip: IpAddr = "10.0.0.7".parse().expect("address");
        assert_eq!(peer(&Identity::Target, &dns), Peer::Dns("api".into()));
        assert_eq!(peer(&Identity::Target, &Host::Ip(ip)), Peer::Ip(ip));
        assert_eq!(peer(&Identity::AnyMember, &dns), Peer::AnyMember);
    }
}
