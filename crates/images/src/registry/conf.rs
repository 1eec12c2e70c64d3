use serde::Deserialize;

use super::{Endpoint, RegistryError};
use crate::{ImageName, reference::DEFAULT_REGISTRY};

/// Host of Docker Hub's API.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Mirrors and exceptions, in the format that Podman, Skopeo and CRI-O read: version 2 of `containers-registries.conf(5)`.
///
/// `insecure = true` means HTTP without TLS; certificates are always checked where there is TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    registries: Vec<RegistryRule>,
}

/// A text that is no such file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistriesConfError {
    /// Not TOML of this shape.
    #[error("expected registries.conf, version 2 (`[[registry]]` tables)")]
    Toml(#[source] Box<toml::de::Error>),
    /// A table that says nothing.
    #[error("a `[[registry]]` table has neither `prefix` nor `location`")]
    Empty,
    /// Something that is understood by others, but not here.
    #[error("`{found}`: wildcards are not supported; write a `[[registry]]` for each host")]
    Wildcard {
        /// The prefix.
        found: String,
    },
    /// Not a place.
    #[error("`{found}` is no location; expected `host[:port][/path]`, without a scheme")]
    Location {
        /// What was found.
        found: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RegistryRule {
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFromMirror,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// Other tables and keys of the file are for other purposes.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<RegistryRule>,
    /// Version 1.
    registries: Option<toml::Value>,
}

impl RegistriesConf {
    /// Parses the file's text.
    ///
    /// # Errors
    /// When it is no such file, or asks for something that is not supported.
    pub fn parse(text: &str) -> Result<Self, RegistriesConfError> {
        let file: File =
            toml::from_str(text).map_err(|error| RegistriesConfError::Toml(Box::new(error)))?;
        if file.registries.is_some() {
            let version_1 = serde::de::Error::custom("`[registries.…]` is version 1");
            return Err(RegistriesConfError::Toml(Box::new(version_1)));
        }
        for rule in &file.registry {
            let prefix = rule.prefix().ok_or(RegistriesConfError::Empty)?;
            if prefix.starts_with('*') {
                return Err(RegistriesConfError::Wildcard {
                    found: prefix.to_owned(),
                });
            }
            let mirrors = rule.mirror.iter().map(|mirror| &mirror.location);
            for location in rule.location.iter().chain(mirrors) {
                if location.is_empty() || location.contains("//") || location.contains('@') {
                    return Err(RegistriesConfError::Location {
                        found: location.clone(),
                    });
                }
            }
        }
        Ok(Self {
            registries: file.registry,
        })
    }

    /// Where to ask for an image, in this order: mirrors, then the place itself.
    pub(super) fn endpoints(&self, name: &ImageName) -> Result<Vec<Endpoint>, RegistryError> {
        let repository = name.repository();
        let applies = |rule: &&RegistryRule| {
            let rest = rule
                .prefix()
                .and_then(|prefix| repository.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let rules = self.registries.iter().filter(applies);
        let Some(rule) = rules.max_by_key(|rule| rule.prefix().map_or(0, str::len)) else {
            return Ok(vec![Endpoint::new(repository, false)]);
        };
        let prefix = rule.prefix().unwrap_or_default();
        if rule.blocked {
            return Err(RegistryError::Blocked {
                prefix: prefix.to_owned(),
            });
        }
        let rest = repository.strip_prefix(prefix).unwrap_or_default();
        let by_digest = name.digest().is_some();
        let used = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFromMirror::All => by_digest || !rule.mirror_by_digest_only,
            PullFromMirror::DigestOnly => by_digest,
            PullFromMirror::TagOnly => !by_digest,
        };
        let mirrors = rule.mirror.iter().filter(used);
        let mirrors = mirrors
            .map(|mirror| Endpoint::new(&format!("{}{rest}", mirror.location), mirror.insecure));
        let location = rule.location.as_deref().unwrap_or(prefix);
        let itself = Endpoint::new(&format!("{location}{rest}"), rule.insecure);
        Ok(mirrors.chain([itself]).collect())
    }
}

impl RegistryRule {
    fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref().or(self.location.as_deref())
    }
}

impl Endpoint {
    fn new(location: &str, insecure: bool) -> Self {
        let (registry, repository) = location.split_once('/').unwrap_or((location, ""));
        let host = match registry {
            DEFAULT_REGISTRY => DOCKER_HUB_HOST,
            other => other,
        };
        let scheme = if insecure { "http" } else { "https" };
        Self {
            registry: registry.to_owned(),
            base: format!("{scheme}://{host}"),
            repository: repository.to_owned(),
            insecure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.corp:5000/hub"
[[registry.mirror]]
location = "tags.corp"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/secret"
blocked = true

[[registry]]
location = "127.0.0.1:5000"
insecure = true
"#;

    fn endpoints(image: &str) -> Vec<String> {
        let conf = RegistriesConf::parse(CONF).expect("parses");
        let name = ImageName::parse(image).expect("image");
        let endpoints = conf.endpoints(&name).expect("endpoints");
        endpoints
            .iter()
            .map(|endpoint| format!("{}/v2/{}", endpoint.base, endpoint.repository))
            .collect()
    }

    #[test]
    fn longest_prefix_decides_and_mirrors_come_first() {
        let digest = format!("nginx@sha256:{}", "0".repeat(64));
        assert_eq!(
            endpoints(&digest),
            [
                "https://mirror.corp:5000/v2/hub/library/nginx",
                "https://registry-1.docker.io/v2/library/nginx"
            ]
        );
        assert_eq!(
            endpoints("nginx:1"),
            [
                "https://tags.corp/v2/library/nginx",
                "https://registry-1.docker.io/v2/library/nginx"
            ]
        );
        assert_eq!(
            endpoints("127.0.0.1:5000/a/b"),
            ["http://127.0.0.1:5000/v2/a/b"]
        );
        assert_eq!(endpoints("ghcr.io/a/b"), ["https://ghcr.io/v2/a/b"]);
        let conf = RegistriesConf::parse(CONF).expect("parses");
        let blocked = conf.endpoints(&ImageName::parse("secret/app").expect("image"));
        assert!(matches!(blocked, Err(RegistryError::Blocked { .. })));
    }

    #[test]
    fn unusable_files_are_refused() {
        for text in [
            "[registries.search]\nregistries = []",
            "[[registry]]\ninsecure = true",
            "[[registry]]\nprefix = \"*.corp\"",
            "[[registry]]\nlocation = \"https://a.corp\"",
            "[[registry]]\nlocation = \"a.corp\"\ninsecur = true",
            "{",
        ] {
            assert!(RegistriesConf::parse(text).is_err(), "{text}");
        }
    }
}
