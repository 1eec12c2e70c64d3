//! Traces: which request of one program made which request of another, and how long each took.
//!
//! Nothing is sent unless `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector, and then only to that
//! one. Only spans of this module are sent, with the attributes that are written here: names of methods, gRPC codes and reason codes, all
//! of them words of a fixed list. Events of the log, other spans, and whatever else is in a request stay inside.
//!
//! Between programs the trace goes as the header `traceparent` of W3C Trace Context, inside attested TLS. It is a number that joins spans;
//! nothing is decided by it.

use std::{collections::HashMap, env, fmt, io, time::Duration};

use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{TraceContextExt as _, TracerProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Request, Status, metadata::MetadataValue, service::interceptor::InterceptedService,
    transport::Channel,
};
use tracing::{Span, Subscriber, field::Empty, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// Spans with this target are sent, and no others.
const TARGET: &str = "contrast::traces";

/// Header of W3C Trace Context.
const HEADER: &str = "traceparent";

/// Variables that name a collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// How long the last spans may take to be sent.
const STOP: Duration = Duration::from_secs(2);

/// Traces cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracesError {
    /// The endpoint, or another variable of OTLP, cannot be used.
    #[error(
        "traces cannot be sent to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names; expected http://HOST:PORT of OTLP over gRPC"
    )]
    Exporter(#[source] ExporterBuildError),
    /// Nothing can send them.
    #[error("the thread that sends traces cannot be started")]
    Thread(#[source] io::Error),
}

/// Sends spans while it exists; when it is dropped, it sends the last ones, for at most two seconds.
#[derive(Default)]
#[must_use = "spans are sent while it exists"]
pub struct Traces(Option<Sending>);

struct Sending {
    provider: SdkTracerProvider,
    /// The exporter's connection lives here, whatever the program runs on.
    runtime: Option<Runtime>,
}

impl Traces {
    /// For the program `service`; nothing is sent unless the environment names a collector.
    ///
    /// # Errors
    /// When a collector is named and cannot be used.
    pub fn start(service: &'static str) -> Result<Self, TracesError> {
        let named = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
        if !ENDPOINTS.into_iter().any(named) {
            return Ok(Self::default());
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(TracesError::Thread)?;
        let exporter = {
            let _within = runtime.enter();
            SpanExporter::builder().with_tonic().build()
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter.map_err(TracesError::Exporter)?)
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        Ok(Self(Some(Sending {
            provider,
            runtime: Some(runtime),
        })))
    }

    /// What takes spans from a subscriber; `None` when nothing is sent.
    pub fn layer<S>(&self) -> Option<impl Layer<S> + Send + Sync + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let sending = self.0.as_ref()?;
        let layer = tracing_opentelemetry::layer()
            .with_tracer(sending.provider.tracer("contrast"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_level(false);
        let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        Some(layer.with_filter(ours))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // A collector that does not answer is no reason to fail: the program has done its work.
        let _ = self.provider.shutdown_with_timeout(STOP);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traces(sending: {})", self.0.is_some())
    }
}

/// Something that this program does by itself, which may ask others: its name is a word of a fixed list.
///
/// The level is the lowest one, so that no line of the log changes by it.
pub fn root(name: &'static str) -> Span {
    trace_span!(target: TARGET, "work", otel.name = name, otel.kind = "client")
}

/// A request that came in with these metadata; [`answered`] gives it its name.
pub fn request(headers: Option<&str>) -> Span {
    let span = trace_span!(
        target: TARGET,
        "request",
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.grpc.status = Empty,
        reason = Empty
    );
    if let Some(header) = headers {
        let carrier = HashMap::from([(HEADER.to_owned(), header.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        // It fails only for a span that nobody takes.
        let _ = span.set_parent(parent);
    }
    span
}

/// Says what the request of the current span was and came to. `reason` is machine-readable, and absent when all is well.
pub fn answered(method: &'static str, code: &'static str, reason: Option<&'static str>) {
    let span = Span::current();
    // The name of a span that has begun is no field any more.
    span.context().span().update_name(method);
    span.record("rpc.grpc.status", code);
    if let Some(reason) = reason {
        span.record("reason", reason);
        span.record("otel.status_code", "error");
    }
}

/// A channel whose requests name the span that makes them.
pub type Traced = InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>;

/// Requests over `channel` name the span that makes them, if there is one that is sent.
pub fn traced(channel: Channel) -> Traced {
    InterceptedService::new(channel, name_span)
}

#[expect(clippy::unnecessary_wraps, reason = "the signature of an interceptor")]
fn name_span(mut request: Request<()>) -> Result<Request<()>, Status> {
    let mut carrier = HashMap::new();
    let context = Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    let value = carrier.get(HEADER).map(MetadataValue::try_from);
    if let Some(Ok(value)) = value {
        request.metadata_mut().insert(HEADER, value);
    }
    Ok(request)
}
