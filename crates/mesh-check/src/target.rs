//! What is connected to, and who must answer there.

use std::{fmt, time::Duration};

use contrast_mesh_annotation::{Egress, EgressEntry, Host, Identity, Listen, Remote, Workload};

use crate::certificate::Facts;

/// A remote, as an egress entry or the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The egress entry that names it.
    pub entry: Option<String>,
    /// Where it is.
    pub remote: Remote,
    /// Who must answer.
    pub identity: Identity,
    /// Whether the kernel leads the application's connections to this port to Envoy.
    pub captured: bool,
}

/// The text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no target; expected host:port, or the name of an egress entry ({known})",
    found.escape_debug()
)]
pub struct TargetError {
    /// The text.
    pub found: String,
    /// Names of the entries there are.
    pub known: String,
}

impl Target {
    /// The target that `text` names: an entry of `egress` by its name, else an entry's remote `host:port`, else any `host:port`, whose
    /// certificate must then carry that host.
    ///
    /// # Errors
    /// When it is neither.
    pub fn find(text: &str, egress: &Egress) -> Result<Self, TargetError> {
        let entries = &egress.0;
        let transparent = |port| {
            let captures = |entry: &&EgressEntry| entry.listen == Listen::Transparent;
            entries
                .iter()
                .filter(captures)
                .any(|entry| entry.remote.port == port)
        };
        let of = |entry: &EgressEntry| Self {
            entry: Some(entry.name.to_string()),
            remote: entry.remote.clone(),
            identity: entry.identity.clone(),
            captured: transparent(entry.remote.port),
        };
        if let Some(entry) = entries.iter().find(|entry| entry.name.as_str() == text) {
            return Ok(of(entry));
        }
        // The grammar of annotations is the only one for `host:port`.
        let parsed: Result<Egress, _> = format!("target#127.0.0.1:1#{text}").parse();
        let simple = !text.contains('#') && !text.contains(char::is_whitespace);
        match parsed.map(|egress| egress.0) {
            Ok(parsed) if simple && parsed.len() == 1 => {
                let remote = &parsed[0].remote;
                let known = entries.iter().find(|entry| entry.remote == *remote);
                Ok(known.map_or_else(
                    || Self {
                        entry: None,
                        remote: remote.clone(),
                        identity: Identity::Target,
                        captured: transparent(remote.port),
                    },
                    of,
                ))
            }
            _ => {
                let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
                Err(TargetError {
                    found: text.to_owned(),
                    known: match names.is_empty() {
                        true => "there is none".to_owned(),
                        false => names.join(", "),
                    },
                })
            }
        }
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a TCP connection, per address.
    pub connect: Duration,
    /// For each answer within the handshake.
    pub handshake: Duration,
    /// For a refusal behind the handshake, before and after the first data.
    pub refusal: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            refusal: Duration::from_secs(1),
        }
    }
}

/// Who must answer, in words.
pub(crate) struct Expected<'a> {
    pub(crate) target: &'a Target,
    pub(crate) namespace: Option<&'a str>,
}

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target.identity {
            Identity::Target => match &self.target.remote.host {
                Host::Dns(name) => write!(f, "a certificate with the DNS name {name}"),
                Host::Ip(ip) => write!(f, "a certificate with the address {ip}"),
            },
            Identity::AnyMember => f.write_str("any member of the mesh"),
            Identity::Workloads(workloads) => {
                for (position, workload) in workloads.iter().enumerate() {
                    let separator = if position > 0 { " or " } else { "" };
                    let namespace = self.namespace_of(workload).unwrap_or("?");
                    let kind = workload.kind.as_deref().unwrap_or("*");
                    let name = &workload.name;
                    write!(f, "{separator}spiffe://*/ns/{namespace}/{kind}/{name}")?;
                }
                Ok(())
            }
        }
    }
}

impl Expected<'_> {
    fn namespace_of<'b>(&'b self, workload: &'b Workload) -> Option<&'b str> {
        workload.namespace.as_deref().or(self.namespace)
    }

    /// Whether `facts` are those of who must answer; `None` when a namespace that decides is not known.
    pub(crate) fn accepts(&self, facts: &Facts) -> Option<bool> {
        match (&self.target.identity, &self.target.remote.host) {
            (Identity::AnyMember, _) => Some(true),
            (Identity::Target, Host::Dns(host)) => {
                Some(facts.dns.iter().any(|name| covers(name, host)))
            }
            (Identity::Target, Host::Ip(ip)) => Some(facts.ips.contains(ip)),
            (Identity::Workloads(workloads), _) => {
                let mut undecided = false;
                for workload in workloads {
                    let Some(namespace) = self.namespace_of(workload) else {
                        undecided = true;
                        continue;
                    };
                    if facts.uris.iter().any(|uri| is(uri, workload, namespace)) {
                        return Some(true);
                    }
                }
                (!undecided).then_some(false)
            }
        }
    }
}

/// Whether a certificate's DNS name covers `host`, as Envoy has it: it is the same, or its first label is a wildcard and the rest is the same.
fn covers(name: &str, host: &str) -> bool {
    let rest = |name: &str| Some(name.split_once('.')?.1.to_ascii_lowercase());
    name.eq_ignore_ascii_case(host) || (name.starts_with("*.") && rest(name) == rest(host))
}

fn is(uri: &str, workload: &Workload, namespace: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://") else {
        return false;
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let [trust_domain, ns, of, kind, name] = parts.as_slice() else {
        return false;
    };
    !trust_domain.is_empty()
        && *ns == "ns"
        && *of == namespace
        && workload
            .kind
            .as_deref()
            .is_none_or(|wanted| wanted == *kind)
        && *name == workload.name
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (name, host, covered) in [
            ("api", "API", true),
            ("*.shop", "api.shop", true),
            ("*.shop.example", "a.b.shop.example", false),
            ("*.shop", "shop", false),
            ("*", "api", false),
            ("*.", "api", false),
            ("api.shop", "*.shop", false),
        ] {
            assert_eq!(covers(name, host), covered, "{name} {host}");
        }
    }
}
