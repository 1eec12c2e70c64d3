//! What Kubernetes names pods.

/// Characters of generated suffixes (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX: &str = "[bcdfghjklmnpqrstvwxz2456789]";
/// Longest generated suffix: the hash of a pod template. The random ones have 5 characters.
const SUFFIX_MAX: usize = 10;
/// Longest prefix of a generated name (`k8s.io/apiserver/pkg/storage/names`).
const PREFIX_MAX: usize = 58;

/// A workload's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodName<'a> {
    /// `metadata.name`.
    Fixed(&'a str),
    /// `metadata.generateName`: Kubernetes appends a suffix.
    Generated(&'a str),
}

impl PodName<'_> {
    /// The name, or its beginning.
    pub fn text(&self) -> &str {
        match self {
            Self::Fixed(name) | Self::Generated(name) => name,
        }
    }

    /// Anchored regular expression of the names of a `kind`'s pods.
    pub(super) fn pattern(&self, kind: &str) -> String {
        let suffix = format!("{SUFFIX}{{1,{SUFFIX_MAX}}}");
        let own = match self {
            Self::Fixed(name) => escaped(name),
            Self::Generated(prefix) => format!("{}{suffix}", escaped(prefix)),
        };
        match kind {
            "Pod" => format!("^{own}$"),
            "StatefulSet" => format!("^{own}-[0-9]{{1,9}}$"),
            _ => {
                let (middle, length) = match kind {
                    "Deployment" => (format!("-{suffix}"), SUFFIX_MAX.saturating_add(1)),
                    "Job" => ("(-[0-9]{1,9})?".to_owned(), 10),
                    "CronJob" => ("-[0-9]{1,20}(-[0-9]{1,9})?".to_owned(), 31),
                    "DaemonSet" | "ReplicaSet" | "ReplicationController" => (String::new(), 0),
                    // Kinds of others have their own ways; most go through a ReplicaSet, or make pods themselves.
                    _ => (format!("(-{suffix})?"), SUFFIX_MAX.saturating_add(1)),
                };
                let whole = format!("{own}{middle}-{suffix}");
                let name = self.text();
                let longest = name.len().saturating_add(length).saturating_add(1);
                match name.get(..PREFIX_MAX) {
                    _ if longest <= PREFIX_MAX => format!("^{whole}$"),
                    // What Kubernetes cuts off is no longer there to be compared.
                    Some(head) => format!("^({whole}|{}{suffix})$", escaped(head)),
                    None => {
                        let rest = PREFIX_MAX.saturating_sub(name.len());
                        format!("^({whole}|{own}[a-z0-9-]{{{rest}}}{suffix})$")
                    }
                }
            }
        }
    }
}

/// A DNS label, or exactly this namespace.
pub(super) fn namespace_pattern(namespace: Option<&str>) -> String {
    match namespace {
        Some(name) => format!("^{}$", escaped(name)),
        None => "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if !character.is_ascii_alphanumeric() && character != '-' {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
