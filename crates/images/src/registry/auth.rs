//! Who may ask: `WWW-Authenticate` (RFC 9110), Basic (RFC 7617), and the tokens of "Docker Registry v2 authentication".

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_auth::{ChallengeParser, ChallengeRef};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::{
    Agent,
    http::{HeaderMap, header::WWW_AUTHENTICATE},
};
use zeroize::Zeroizing;

use super::{Endpoint, RegistryError, client::read_small};
use crate::{CredentialFile, credentials::Credential};

const CLIENT_ID: &str = "contrast";

/// Value of the header `Authorization`.
type Authorization = Arc<Zeroizing<String>>;

/// Authorizations by registry and repository. None outlives the process.
pub(super) struct Authorizations {
    file: Option<CredentialFile>,
    known: Mutex<BTreeMap<(String, String), Authorization>>,
}

impl fmt::Debug for Authorizations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizations")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Authorizations {
    pub(super) fn new(file: Option<CredentialFile>) -> Self {
        Self {
            file,
            known: Mutex::default(),
        }
    }

    pub(super) fn known(&self, endpoint: &Endpoint) -> Option<Authorization> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&endpoint.key()).cloned()
    }

    pub(super) fn has_credentials(&self, endpoint: &Endpoint) -> bool {
        self.credential(endpoint)
            .is_ok_and(|credential| credential.is_some())
    }

    /// Does what a registry's challenge asks for.
    pub(super) fn obtain(
        &self,
        agent: &Agent,
        endpoint: &Endpoint,
        headers: &HeaderMap,
    ) -> Result<Authorization, RegistryError> {
        let credential = self.credential(endpoint)?;
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        let challenges: Vec<ChallengeRef<'_>> = values
            .iter()
            .flat_map(|value| ChallengeParser::new(value))
            .filter_map(Result::ok)
            .collect();
        let of = |scheme: &str| {
            let mut challenges = challenges.iter();
            challenges.find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        let value = if let Some(bearer) = of("Bearer") {
            token(agent, endpoint, bearer, credential)?
        } else if of("Basic").is_some() {
            match credential {
                Some(Credential::Password { user, password }) => basic(&user, &password),
                _ => {
                    return Err(RegistryError::Denied {
                        registry: endpoint.registry.clone(),
                        repository: endpoint.repository.clone(),
                        with_credentials: false,
                    });
                }
            }
        } else {
            return Err(endpoint.challenge(format!(
                "expected Bearer or Basic, found `{}`",
                values.join(", ")
            )));
        };
        let value = Arc::new(value);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(endpoint.key(), Arc::clone(&value));
        Ok(value)
    }

    fn credential(&self, endpoint: &Endpoint) -> Result<Option<Credential>, RegistryError> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let credential = file.get(&endpoint.registry);
        credential.map_err(|error| RegistryError::Credentials(Arc::new(error)))
    }
}

impl Endpoint {
    fn key(&self) -> (String, String) {
        (self.base.clone(), self.repository.clone())
    }

    fn challenge(&self, reason: String) -> RegistryError {
        RegistryError::Challenge {
            registry: self.registry.clone(),
            reason,
        }
    }
}

/// Gets a token for pulling.
fn token(
    agent: &Agent,
    endpoint: &Endpoint,
    challenge: &ChallengeRef<'_>,
    credential: Option<Credential>,
) -> Result<Zeroizing<String>, RegistryError> {
    let parameter = |name: &str| {
        let mut params = challenge.params.iter();
        let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    let realm = parameter("realm")
        .ok_or_else(|| endpoint.challenge("its Bearer challenge has no realm".to_owned()))?;
    if !endpoint.insecure && !realm.starts_with("https://") {
        return Err(endpoint.challenge(format!(
            "it sends to `{realm}` for a token, which is not HTTPS"
        )));
    }
    // Only what pulling needs, whatever the registry suggests.
    let scope = format!("repository:{}:pull", endpoint.repository);
    let service = parameter("service").unwrap_or_default();
    let with_credentials = credential.is_some();
    let sent = match credential {
        Some(Credential::IdentityToken(refresh)) => {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("service", &service),
                ("scope", &scope),
                ("refresh_token", &refresh),
            ];
            agent.post(&realm).send_form(form)
        }
        other => {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let url = format!(
                "{realm}{separator}service={}&scope={}",
                utf8_percent_encode(&service, NON_ALPHANUMERIC),
                utf8_percent_encode(&scope, NON_ALPHANUMERIC)
            );
            let request = agent.get(&url);
            match other {
                Some(Credential::Password { user, password }) => request
                    .header("Authorization", basic(&user, &password).as_str())
                    .call(),
                _ => request.call(),
            }
        }
    };
    let unreachable = |error: ureq::Error| RegistryError::Unreachable {
        url: realm.clone(),
        reason: error.to_string(),
    };
    let answer = sent.map_err(unreachable)?;
    match answer.status().as_u16() {
        200 => {}
        400 | 401 | 403 => {
            return Err(RegistryError::Denied {
                registry: endpoint.registry.clone(),
                repository: endpoint.repository.clone(),
                with_credentials,
            });
        }
        status => {
            return Err(RegistryError::Status {
                url: realm,
                status,
                message: String::new(),
            });
        }
    }
    #[derive(Deserialize)]
    struct Tokens {
        token: Option<Zeroizing<String>>,
        access_token: Option<Zeroizing<String>>,
    }
    let text = Zeroizing::new(read_small(answer).map_err(unreachable)?);
    let tokens: Result<Tokens, _> = serde_json::from_slice(&text);
    let token = tokens
        .ok()
        .and_then(|tokens| tokens.token.or(tokens.access_token));
    match token {
        Some(token) => Ok(Zeroizing::new(format!("Bearer {}", *token))),
        None => Err(endpoint.challenge(format!("`{realm}` answered without a token"))),
    }
}

fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let both = Zeroizing::new(format!("{user}:{password}"));
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(both.as_bytes()));
    Zeroizing::new(format!("Basic {}", *encoded))
}
