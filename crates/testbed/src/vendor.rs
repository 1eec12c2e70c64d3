use std::{
    collections::HashMap,
    net::TcpListener,
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
use tokio::runtime::Runtime;

/// What a service answers to one path.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The body.
    pub body: Vec<u8>,
    /// Headers: name and value.
    pub headers: Vec<(&'static str, String)>,
    /// Statuses of the first answers, before it answers with the body.
    pub failures: Vec<u16>,
    /// How long every answer takes.
    pub delay: Duration,
}

/// A service that knows some pages and answers 404 to everything else.
#[derive(Debug)]
pub struct Vendor {
    /// Its URL, without a slash at the end.
    pub base: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    /// A service with these pages, by path and query.
    pub fn serving(pages: impl IntoIterator<Item = (String, Page)>) -> Self {
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        listener.set_nonblocking(true).expect("non-blocking");
        // A runtime of its own, since tests may or may not have one. Ends with the test's process.
        thread::spawn(move || {
            let runtime = Runtime::new().expect("runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await
            })
        });
        Self { base, requests }
    }

    /// The paths that were asked for.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

/// A service that accepts connections and never says anything.
#[derive(Debug)]
pub struct Silence {
    /// Its URL, without a slash at the end.
    pub base: String,
    connections: Arc<AtomicUsize>,
}

impl Silence {
    /// Listens until the process ends.
    pub fn listening() -> Self {
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

    /// How many there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
