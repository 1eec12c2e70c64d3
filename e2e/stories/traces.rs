//! One trace of two programs: what the owner's `contrast set` and a pod's enrolment made the Coordinator do, as an OTLP collector sees it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a story that meets the unexpected has to stop there"
)]

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use contrast_e2e::harness::{Cluster, CoordinatorPod, program};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const DEADLINE: Duration = Duration::from_secs(30);

/// Everything that a span of ours may say.
const ATTRIBUTES: [&str; 2] = ["rpc.grpc.status", "reason"];

/// Spans that arrived, each with the program that sent it.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_program in request.into_inner().resource_spans {
            let resource = of_program.resource.unwrap_or_default();
            let program = text(&resource.attributes, "service.name").unwrap_or_default();
            let spans = of_program.scope_spans.into_iter();
            let spans = spans.flat_map(|scope| scope.spans);
            let mut all = self.0.lock().expect("locks");
            all.extend(spans.map(|span| (program.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves while the runtime lives; the address is in the form of the variable.
    fn start(runtime: &Runtime) -> (Self, String) {
        let collector = Self::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("binds");
        let address = listener.local_addr().expect("an address");
        let service = TraceServiceServer::new(collector.clone());
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        (collector, format!("http://{address}"))
    }

    fn all(&self) -> Vec<(String, Span)> {
        self.0.lock().expect("locks").clone()
    }

    /// The first span with this name of this program, which may still be on its way.
    fn span(&self, program: &str, name: &str) -> Span {
        let start = Instant::now();
        loop {
            let all = self.all();
            let mut found = all.iter().filter(|(by, _)| by == program);
            if let Some((_, span)) = found.find(|(_, span)| span.name == name) {
                return span.clone();
            }
            let seen: Vec<_> = all.iter().map(|(by, span)| (by, &span.name)).collect();
            assert!(
                start.elapsed() < DEADLINE,
                "no {name} of {program}: {seen:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn set(cluster: &Cluster, coordinator: &CoordinatorPod, variables: &[(&str, &str)]) -> i32 {
    let status = Command::new(program("contrast").expect("built"))
        .args(["set", "-c", &coordinator.user_api(), "resources"])
        .current_dir(cluster.owner().file(""))
        .envs(variables.iter().copied())
        .status();
    status.expect("runs").code().expect("no signal")
}

/// Runs only the Initializer of the workload `name`, to the end of its enrolment.
fn enrol(
    cluster: &Cluster,
    coordinator: &CoordinatorPod,
    name: &str,
    variables: &[(&str, &str)],
) -> bool {
    let spec = cluster.workloads().expect("workloads").remove(name);
    let spec = spec.expect("the workload");
    let directory = cluster.directory().join(format!("traced-{name}"));
    fs::create_dir_all(&directory).expect("creates");
    let initdata = directory.join("initdata.toml");
    fs::write(&initdata, &spec.initdata).expect("writes");
    let status = Command::new(program("initializer").expect("built"))
        .arg("--once")
        .env_clear()
        .env("CONTRAST_INSECURE_SOFTWARE_TEE", cluster.tee())
        .env("CONTRAST_INSECURE_INITDATA", initdata)
        .env("CONTRAST_BASE_DIR", &directory)
        .env("COORDINATOR_HOST", coordinator.mesh_api.to_string())
        .envs(variables.iter().copied())
        .status();
    status.expect("runs").success()
}

#[test]
fn set_and_enrolment_are_parents_of_what_the_coordinator_did() {
    let runtime = Runtime::new().expect("runtime");
    let (collector, endpoint) = Collector::start(&runtime);
    let variables = [
        (ENDPOINT, endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 97).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator_with(&variables).expect("starts");

    // Nothing is sent by whom nobody told to.
    assert_eq!(set(&cluster, &coordinator, &[]), 0);
    let untraced = collector.span("contrast-coordinator", "SetManifest");
    assert!(untraced.parent_span_id.is_empty(), "{untraced:?}");
    let others = |(by, _): &(String, Span)| by != "contrast-coordinator";
    assert!(!collector.all().iter().any(others));
    collector.0.lock().expect("locks").clear();

    assert_eq!(set(&cluster, &coordinator, &variables), 0);
    let asked = collector.span("contrast", "contrast set");
    let done = collector.span("contrast-coordinator", "SetManifest");
    assert_eq!(done.trace_id, asked.trace_id);
    assert_eq!(done.parent_span_id, asked.span_id);
    assert_eq!(
        text(&done.attributes, "rpc.grpc.status").as_deref(),
        Some("OK")
    );

    assert!(enrol(&cluster, &coordinator, "store", &variables));
    let asked = collector.span("contrast-initializer", "enrol");
    let done = collector.span("contrast-coordinator", "NewMeshCert");
    assert_eq!(done.trace_id, asked.trace_id);
    assert_eq!(done.parent_span_id, asked.span_id);

    // Names of methods and codes, and nothing that is anybody's business.
    let mut attributes: BTreeMap<String, usize> = BTreeMap::new();
    for (_, span) in collector.all() {
        assert!(span.events.is_empty(), "{span:?}");
        for attribute in &span.attributes {
            *attributes.entry(attribute.key.clone()).or_default() += 1;
        }
    }
    let known = |key: &String| ATTRIBUTES.contains(&key.as_str());
    assert!(attributes.keys().all(known), "{attributes:?}");
}
