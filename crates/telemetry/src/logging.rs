//! Structured logs on standard error, configured by flags or environment.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

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
    let lines = fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match options.log_format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LoggingError::Twice)
}
