use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::{algorithm::Hash, failure::Failure, operation::Operation};

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Key {
        operation: Operation,
        name: String,
        hash: Option<Hash>,
    },
    ReadKey {
        name: String,
    },
    Random {
        bytes: Option<String>,
    },
    Hash {
        algorithm: Option<String>,
    },
    Health,
    SealStatus,
    LookupSelf,
    RenewSelf,
    OpenApi,
}

/// Sources of random bytes in Vault; here all are the same.
const SOURCES: [&str; 3] = ["platform", "seal", "all"];

impl Route {
    /// Reads a path. The names of keys are workload secret ids, which may contain slashes; `own` is that of the client, which tells a name
    /// from a name with an algorithm behind it.
    pub(super) fn of(path: &str, own: Option<&str>) -> Result<Self, Failure> {
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Failure::NoPath)?;
        if path == "/openapi.json" {
            return Ok(Self::OpenApi);
        }
        let path = path.strip_prefix("/v1/").ok_or(Failure::NoPath)?;
        match path {
            "sys/health" => return Ok(Self::Health),
            "sys/seal-status" => return Ok(Self::SealStatus),
            "auth/token/lookup-self" => return Ok(Self::LookupSelf),
            "auth/token/renew-self" => return Ok(Self::RenewSelf),
            _ => {}
        }
        let path = path.strip_prefix("transit/").ok_or(Failure::NoPath)?;
        let (first, rest) = match path.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        match (first, rest) {
            ("random", rest) => {
                return Self::random(rest).ok_or(Failure::NoPath);
            }
            ("hash", rest) => {
                return Ok(Self::Hash {
                    algorithm: rest.map(str::to_owned),
                });
            }
            _ => {}
        }
        let rest = rest
            .filter(|rest| !rest.is_empty())
            .ok_or(Failure::NoPath)?;
        let plain = |operation| {
            Ok(Self::Key {
                operation,
                name: rest.to_owned(),
                hash: None,
            })
        };
        match first {
            "encrypt" => plain(Operation::Encrypt),
            "decrypt" => plain(Operation::Decrypt),
            "rewrap" => plain(Operation::Rewrap),
            "keys" => Ok(Self::ReadKey {
                name: rest.to_owned(),
            }),
            "datakey" => match rest.split_once('/') {
                Some((kind @ ("plaintext" | "wrapped"), name)) if !name.is_empty() => {
                    Ok(Self::Key {
                        operation: Operation::DataKey {
                            wrapped: kind == "wrapped",
                        },
                        name: name.to_owned(),
                        hash: None,
                    })
                }
                _ => Err(Failure::NoPath),
            },
            "hmac" => Ok(Self::hashing(Operation::Hmac, rest, own)),
            "sign" => Ok(Self::hashing(Operation::Sign, rest, own)),
            "verify" => Ok(Self::hashing(Operation::Verify, rest, own)),
            _ => Err(Failure::NoPath),
        }
    }

    fn hashing(operation: Operation, rest: &str, own: Option<&str>) -> Self {
        let split = rest
            .rsplit_once('/')
            .and_then(|(name, last)| Some((name, Hash::named(last)?)))
            .filter(|_| own != Some(rest));
        let (name, hash) = match split {
            Some((name, hash)) => (name, Some(hash)),
            None => (rest, None),
        };
        Self::Key {
            operation,
            name: name.to_owned(),
            hash,
        }
    }

    fn random(rest: Option<&str>) -> Option<Self> {
        let bytes = |text: &str| Self::Random {
            bytes: Some(text.to_owned()),
        };
        match rest {
            None => Some(Self::Random { bytes: None }),
            Some(source) if SOURCES.contains(&source) => Some(Self::Random { bytes: None }),
            Some(rest) => match rest.split_once('/') {
                Some((source, number)) => SOURCES.contains(&source).then(|| bytes(number)),
                None => Some(bytes(rest)),
            },
        }
    }

    /// The methods that it takes.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Failure> {
        let (allowed, allow): (&[Method], _) = match self {
            Self::Key { .. } | Self::Random { .. } | Self::Hash { .. } | Self::RenewSelf => {
                (&[Method::POST, Method::PUT], "POST, PUT")
            }
            Self::ReadKey { .. } | Self::SealStatus | Self::LookupSelf | Self::OpenApi => {
                (&[Method::GET], "GET")
            }
            Self::Health => (&[Method::GET, Method::HEAD], "GET, HEAD"),
        };
        match allowed.contains(method) {
            true => Ok(()),
            false => Err(Failure::Method { allow }),
        }
    }

    /// For metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Key { operation, .. } => operation.name(),
            Self::ReadKey { .. } => "read",
            Self::Random { .. } => "random",
            Self::Hash { .. } => "hash",
            Self::Health | Self::SealStatus => "status",
            Self::LookupSelf | Self::RenewSelf => "token",
            Self::OpenApi => "openapi",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(operation: Operation, name: &str, hash: Option<Hash>) -> Route {
        let name = name.to_owned();
        Route::Key {
            operation,
            name,
            hash,
        }
    }

    #[test]
    fn names_may_have_slashes() {
        let own = Some("apps/v1/Deployment/default/web");
        let web = "apps/v1/Deployment/default/web";
        let wrapped = Operation::DataKey { wrapped: true };
        for (path, expected) in [
            (
                "encrypt/apps/v1/Deployment/default/web",
                key(Operation::Encrypt, web, None),
            ),
            (
                "encrypt/apps%2Fv1%2FDeployment%2Fdefault%2Fweb",
                key(Operation::Encrypt, web, None),
            ),
            (
                "hmac/apps/v1/Deployment/default/web",
                key(Operation::Hmac, web, None),
            ),
            (
                "hmac/apps/v1/Deployment/default/web/sha2-512",
                key(Operation::Hmac, web, Some(Hash::Sha512)),
            ),
            (
                "datakey/wrapped/apps/v1/Deployment/default/web",
                key(wrapped, web, None),
            ),
        ] {
            let read = Route::of(&format!("/v1/transit/{path}"), own);
            assert_eq!(read.expect(path), expected, "{path}");
        }
    }

    #[test]
    fn name_that_ends_like_an_algorithm_is_its_owners() {
        let path = "/v1/transit/hmac/a/sha2-256";
        let own = Route::of(path, Some("a/sha2-256")).expect("a route");
        assert_eq!(own, key(Operation::Hmac, "a/sha2-256", None));
        let other = Route::of(path, Some("a")).expect("a route");
        assert_eq!(other, key(Operation::Hmac, "a", Some(Hash::Sha256)));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "/",
            "/v1",
            "/v1/",
            "/v2/transit/encrypt/a",
            "/v1/transit",
            "/v1/transit/encrypt",
            "/v1/transit/encrypt/",
            "/v1/transit/datakey/a",
            "/v1/transit/datakey/other/a",
            "/v1/transit/datakey/plaintext/",
            "/v1/transit/export/encryption-key/a",
            "/v1/transit/random/moon/32",
            "/v1/secret/data/a",
            "/v1/transit/encrypt/%ff",
        ] {
            assert!(
                matches!(Route::of(path, Some("a")), Err(Failure::NoPath)),
                "{path}"
            );
        }
    }
}
