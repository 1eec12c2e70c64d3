//! Where replicas may be. All of it is untrusted: names and addresses prove nothing.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::timeout;

use crate::replica::{message::Place, peers::BoxFuture};

/// Most places; what a name server says beyond them is left out.
pub const PLACES_MAX: usize = 64;
/// Longest wait for a name server.
const LOOKUP: Duration = Duration::from_secs(5);

/// One item of `--peers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One replica.
    Place(Place),
    /// A replica at every address of a name.
    Dns {
        /// The name.
        name: String,
        /// Port of all their peer APIs.
        port: u16,
    },
}

/// An item of `--peers` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No name, or no port.
    #[error("expected HOST:PORT or dns:NAME:PORT, with an IPv6 address in brackets and a port from 1 on, found `{}`", found.escape_default())]
    Malformed {
        /// The item.
        found: String,
    },
    /// Too many.
    #[error("expected at most {PLACES_MAX} items, found {found}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let malformed = || SourceError::Malformed {
            found: text.to_owned(),
        };
        let (dns, item) = match text.strip_prefix("dns:") {
            Some(item) => (true, item),
            None => (false, text),
        };
        let (host, port) = item.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().map_err(|_| malformed())?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = match bracketed {
            Some(inner) => !dns && matches!(inner.parse(), Ok(IpAddr::V6(_))),
            None => is_name(host),
        };
        if port == 0 || !is_host {
            return Err(malformed());
        }
        Ok(match dns {
            true => Self::Dns {
                name: host.to_owned(),
                port,
            },
            false => Self::Place(Place::new(item)),
        })
    }
}

/// A DNS name or an IPv4 address, as far as its characters go (RFC 1123, section 2.1, and the underscores of real zones).
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

/// Addresses of a name.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// All addresses of `name`, with `port`.
    ///
    /// # Errors
    /// When there are none, or nobody knows.
    fn resolve(&self, name: String, port: u16) -> BoxFuture<io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: String, port: u16) -> BoxFuture<io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name, port)).await?;
            Ok(addresses.take(PLACES_MAX).collect())
        })
    }
}

/// Finds out where replicas may be. Clones share what they logged.
#[derive(Debug, Clone)]
pub struct Discovery {
    sources: Arc<[Source]>,
    resolver: Arc<dyn Resolver>,
    /// For each source the failure that was logged last.
    failures: Arc<Mutex<Vec<Option<String>>>>,
}

impl Discovery {
    /// With the system's resolver.
    pub fn new(sources: Vec<Source>) -> Self {
        Self::with_resolver(sources, Arc::new(SystemResolver))
    }

    /// With another resolver.
    pub fn with_resolver(sources: Vec<Source>, resolver: Arc<dyn Resolver>) -> Self {
        Self {
            failures: Arc::new(Mutex::new(vec![None; sources.len()])),
            sources: sources.into(),
            resolver,
        }
    }

    /// Each place once, sorted, at most [`PLACES_MAX`]. Takes at most some seconds. A name that cannot be resolved is logged, once for
    /// each change of the reason, and contributes nothing.
    pub async fn places(&self) -> Vec<Place> {
        let sources = self.sources.iter().enumerate();
        let found = join_all(sources.map(|(index, source)| self.find(index, source))).await;
        let all: BTreeSet<Place> = found.into_iter().flatten().collect();
        all.into_iter().take(PLACES_MAX).collect()
    }

    async fn find(&self, index: usize, source: &Source) -> Vec<Place> {
        let (name, port) = match source {
            Source::Place(place) => return vec![place.clone()],
            Source::Dns { name, port } => (name, *port),
        };
        let resolved = timeout(LOOKUP, self.resolver.resolve(name.clone(), port)).await;
        let failure = match resolved {
            Ok(Ok(addresses)) => {
                self.report(index, name, None);
                let places = addresses.iter().map(|address| {
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    Place::new(&address.to_string())
                });
                return places.collect();
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOKUP:?}"),
        };
        self.report(index, name, Some(failure));
        Vec::new()
    }

    /// Logs a change, and returns whether it was one.
    fn report(&self, index: usize, name: &str, failure: Option<String>) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = failures.get_mut(index) else {
            return false;
        };
        if *last == failure {
            return false;
        }
        match &failure {
            Some(reason) => tracing::warn!(
                name,
                "cannot find other replicas: {reason}; check --peers and that the headless Service publishes addresses that are not \
                 ready"
            ),
            None => tracing::info!(name, "other replicas can be found again"),
        }
        *last = failure;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the numbers as addresses 10.0.0.N, or fails.
    #[derive(Debug)]
    struct Zone(Mutex<io::Result<Vec<u8>>>);

    impl Resolver for Zone {
        fn resolve(&self, name: String, port: u16) -> BoxFuture<io::Result<Vec<SocketAddr>>> {
            assert_eq!(name, "peers");
            let answer = match &*self.0.lock().expect("not poisoned") {
                Ok(numbers) => Ok(numbers
                    .iter()
                    .map(|n| SocketAddr::from(([10, 0, 0, *n], port)))
                    .collect()),
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            Box::pin(async move { answer })
        }
    }

    fn discovery(items: &[&str], zone: Vec<u8>) -> (Discovery, Arc<Zone>) {
        let zone = Arc::new(Zone(Mutex::new(Ok(zone))));
        let sources = items.iter().map(|item| item.parse().expect("valid"));
        let resolver = Arc::clone(&zone) as Arc<dyn Resolver>;
        (Discovery::with_resolver(sources.collect(), resolver), zone)
    }

    #[tokio::test]
    async fn every_place_is_listed_once_and_no_more_than_the_bound() {
        let (discovery, zone) =
            discovery(&["dns:peers:7", "10.0.0.2:7", "a:1", "a:1"], vec![1, 2, 1]);
        let places = discovery.places().await;
        let texts: Vec<_> = places.iter().map(Place::as_str).collect();
        assert_eq!(texts, ["10.0.0.1:7", "10.0.0.2:7", "a:1"]);
        *zone.0.lock().expect("not poisoned") = Ok((0..200).collect());
        assert_eq!(discovery.places().await.len(), PLACES_MAX);
    }

    #[tokio::test]
    async fn failing_name_server_hides_only_its_own_places_and_is_reported_once() {
        let (discovery, zone) = discovery(&["dns:peers:7", "a:1"], vec![]);
        let fail = |reason: &str| {
            *zone.0.lock().expect("not poisoned") = Err(io::Error::other(reason.to_owned()));
        };
        let reported = || discovery.failures.lock().expect("not poisoned")[0].clone();
        assert_eq!(reported(), None);
        fail("SERVFAIL");
        assert_eq!(discovery.places().await, [Place::new("a:1")]);
        assert_eq!(reported().as_deref(), Some("SERVFAIL"));
        assert!(!discovery.report(0, "peers", Some("SERVFAIL".to_owned())));
        assert!(discovery.report(0, "peers", Some("REFUSED".to_owned())));
        assert!(discovery.report(0, "peers", None));
        assert!(!discovery.report(0, "peers", None));
    }
}
