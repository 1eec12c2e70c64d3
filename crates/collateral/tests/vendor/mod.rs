//! Vendors' services on loopback.

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri},
};
use contrast_collateral::{Collateral, Endpoints, HttpTransport, Limits};
use tokio::runtime::Runtime;

/// What a service answers to one path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Statuses of the first answers, before it answers with the body.
    pub(crate) failures: Vec<u16>,
    pub(crate) delay: Duration,
}

/// A service that knows some pages and answers 404 to everything else.
#[derive(Debug)]
pub(crate) struct Vendor {
    pub(crate) base: String,
    requests: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Vendor {
    pub(crate) fn serving(pages: impl IntoIterator<Item = (String, Page)>) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let pages: HashMap<_, _> = pages.into_iter().collect();
        let pages = Arc::new(Mutex::new(pages));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        let router = Router::new().fallback(move |uri: Uri| {
            let path = uri.to_string();
            log.lock().expect("not poisoned").push(path.clone());
            let mut pages = pages.lock().expect("not poisoned");
            let page = pages.get_mut(&path);
            let failure =
                page.and_then(|page| (!page.failures.is_empty()).then(|| page.failures.remove(0)));
            let page = pages.get(&path).cloned();
            async move {
                let Some(page) = page else {
                    return (StatusCode::NOT_FOUND, HeaderMap::new(), Vec::new());
                };
                tokio::time::sleep(page.delay).await;
                if let Some(status) = failure {
                    let status = StatusCode::from_u16(status).expect("a status");
                    return (status, HeaderMap::new(), Vec::new());
                }
                let header = |(name, value): (&'static str, String)| {
                    let value = HeaderValue::from_str(&value).expect("a header value");
                    (
                        HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                        value,
                    )
                };
                let headers = page.headers.into_iter().map(header).collect();
                (StatusCode::OK, headers, page.body)
            }
        });
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            base,
            requests,
            _runtime: runtime,
        }
    }

    /// The paths that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    pub(crate) fn collateral(&self) -> Collateral {
        asking(&self.base)
    }
}

pub(crate) fn asking(base: &str) -> Collateral {
    let endpoints = Endpoints::at(base).expect("a URL");
    Collateral::offline()
        .with_vendors(endpoints, Box::<HttpTransport>::default())
        .with_limits(Limits {
            first_pause: Duration::from_millis(1),
            ..Limits::default()
        })
}

/// A service that accepts connections and never says anything.
#[derive(Debug)]
pub(crate) struct Silence {
    pub(crate) base: String,
    connections: Arc<AtomicUsize>,
}

impl Silence {
    pub(crate) fn listening() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // Ends with the test's process.
        thread::spawn(move || {
            let mut open = Vec::new();
            for connection in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                open.push(connection);
            }
        });
        Self { base, connections }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads collected evidence; `None`, with a message, on machines that do not have it.
pub(crate) fn real(name: &str) -> Option<Vec<u8>> {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/evidence");
    let dir =
        std::env::var_os("CONTRAST_EVIDENCE_DIR").map_or_else(|| workspace.into(), PathBuf::from);
    let path = dir.join(name);
    let bytes = fs::read(&path);
    if let Err(error) = &bytes {
        println!(
            "skipped: {} is not there ({error}); set CONTRAST_EVIDENCE_DIR",
            path.display()
        );
    }
    bytes.ok()
}
