//! Structured logs on standard error, configured by flags or environment.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterExt as _,
    fmt::{self, MakeWriter, format},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::{
    exposure::{Bare, Exposure, Marked, PublicOnly, hush_panics},
    traces::{Traces, TracesError},
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object a line for collectors.
    Json,
}

/// Options that every service shares.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Least severe level that is logged, or a list of `target=level` directives: error, warn, info, debug, trace. With info alone, the
    /// Raft library is quiet up to warnings: what it does is logged as events of the cluster.
    #[arg(
        long,
        env = "CONTRAST_LOG_LEVEL",
        default_value = "info",
        value_name = "DIRECTIVES"
    )]
    pub log_level: String,

    /// Shape of log lines.
    #[arg(long, env = "CONTRAST_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: Format,

    /// Which events are logged: all, or only those that may leave the confidential VM.
    #[arg(long, env = "CONTRAST_LOG_EXPOSURE", default_value = "all", value_enum)]
    pub log_exposure: Exposure,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The level is none and no list of directives either.
    #[error(
        "log level `{found}` is not understood; expected error, warn, info, debug, trace or target=level directives"
    )]
    Directives {
        /// What was given.
        found: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Traces are to be sent and cannot be.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// A global subscriber is installed already.
    #[error("logging was set up twice in one process")]
    Twice,
}

/// What `info` alone means: openraft says at this level what it waits for, fifty times a second without a quorum.
const INFO: &str = "info,openraft=warn";

/// Installs the process-wide subscriber. Call once, first thing in `main`.
///
/// # Errors
/// When the level cannot be parsed or a subscriber is installed already.
pub fn init(options: &Options) -> Result<(), LoggingError> {
    install(options, &Traces::default())
}

/// As [`init`], and sends traces of the program `service` where the environment says, while the result exists.
///
/// # Errors
/// As there, and when a collector of traces is named that cannot be used.
pub fn init_traced(options: &Options, service: &'static str) -> Result<Traces, LoggingError> {
    let traces = Traces::start(service)?;
    install(options, &traces)?;
    Ok(traces)
}

fn install(options: &Options, traces: &Traces) -> Result<(), LoggingError> {
    let directives = match options.log_level.as_str() {
        "info" => INFO,
        directives => directives,
    };
    let filter =
        EnvFilter::builder()
            .parse(directives)
            .map_err(|source| LoggingError::Directives {
                found: options.log_level.clone(),
                source,
            })?;
    let ansi = std::io::stderr().is_terminal();
    let logged = Registry::default().with(lines(options, filter, std::io::stderr, ansi));
    logged
        .with(traces.layer())
        .try_init()
        .map_err(|_| LoggingError::Twice)?;
    if options.log_exposure == Exposure::Public {
        hush_panics();
    }
    Ok(())
}

/// The log alone: what it does not take may still be part of a trace.
fn lines<S, W>(
    options: &Options,
    filter: EnvFilter,
    writer: W,
    ansi: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = formatted(options, writer, ansi);
    match options.log_exposure {
        Exposure::All => lines.with_filter(filter).boxed(),
        Exposure::Public => lines.with_filter(filter.and(PublicOnly)).boxed(),
    }
}

fn formatted<S, W>(options: &Options, writer: W, ansi: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(ansi).with_writer(writer);
    match (options.log_format, options.log_exposure) {
        (Format::Text, Exposure::All) => lines.boxed(),
        (Format::Text, Exposure::Public) => lines.event_format(Bare).boxed(),
        (Format::Json, exposure) => {
            let spans = exposure == Exposure::All;
            let format = format()
                .json()
                .flatten_event(true)
                .with_current_span(spans)
                .with_span_list(spans);
            lines
                .fmt_fields(format::JsonFields::new())
                .event_format(Marked(format))
                .boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing::subscriber::with_default;

    use super::*;
    use crate::exposure::PUBLIC;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("locks").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of one public event, several private ones, and spans around them.
    fn logged(log_format: Format, log_exposure: Exposure) -> String {
        let options = Options {
            log_level: "trace".to_owned(),
            log_format,
            log_exposure,
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let filter = EnvFilter::new("trace");
        let lines_layer = super::lines(&options, filter, move || writer.clone(), false);
        let subscriber = Registry::default().with(lines_layer);
        with_default(subscriber, || {
            let span = tracing::info_span!("request", peer = "10.0.0.1:99");
            let _entered = span.enter();
            tracing::info!(policy = "abc", exposure = PUBLIC, "issued");
            tracing::info!(peer = "10.0.0.2:99", "silent: no field");
            tracing::error!(exposure = "private", "silent: another value");
            tracing::warn!(exposure = ?PUBLIC, "silent: not a text");
            tracing::debug!(exposed = PUBLIC, "silent: another field");
        });
        let bytes = lines.0.lock().expect("locks").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn private_event_never_appears_where_only_public_ones_may() {
        for format in [Format::Text, Format::Json] {
            let text = logged(format, Exposure::Public);
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains("issued") && text.contains("abc"), "{text}");
            for private in ["silent", "10.0.0", "peer", "request"] {
                assert!(!text.contains(private), "{private}: {text}");
            }
            let all = logged(format, Exposure::All);
            assert_eq!(all.lines().count(), 5, "{all}");
            assert!(
                all.contains("10.0.0.1:99") && all.contains("10.0.0.2:99"),
                "{all}"
            );
        }
    }

    #[test]
    fn every_json_line_says_whether_it_may_leave() {
        let text = logged(Format::Json, Exposure::All);
        let exposures: Vec<String> = text
            .lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert_eq!(line["span"]["peer"], "10.0.0.1:99");
                line["exposure"].as_str().expect("a text").to_owned()
            })
            .collect();
        let expected = ["public", "private", "private", "\"public\"", "private"];
        assert_eq!(exposures, expected);
        let text = logged(Format::Json, Exposure::Public);
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line");
        assert_eq!(
            (&line["exposure"], &line["message"]),
            (&"public".into(), &"issued".into())
        );
        assert!(
            line.get("span").is_none() && line.get("spans").is_none(),
            "{line}"
        );
    }

    #[test]
    fn line_of_text_has_time_level_target_and_fields() {
        let text = logged(Format::Text, Exposure::Public);
        let (time, rest) = text.split_once(' ').expect("a time");
        assert!(time.ends_with('Z'), "{text}");
        let expected =
            " INFO contrast_telemetry::logging::tests: issued policy=\"abc\" exposure=\"public\"\n";
        assert_eq!(rest, expected);
    }
}
