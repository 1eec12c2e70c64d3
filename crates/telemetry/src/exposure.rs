//! Which log events may leave the confidential VM.
//!
//! Whoever runs the host reads what a pod prints, if the pod's policy lets them. An event says of itself that it is for their eyes, by a
//! field `exposure` with the value [`PUBLIC`]; every other event is private. With [`Exposure::Public`] private events are dropped before
//! they are formatted, the spans around public ones are not shown, and of a panic only its place is.
//!
//! A public event names what the host knows anyway or may know: hashes, identities of replicas, names of the manifest, numbers, words of
//! a fixed list. It never has a peer's address, a workload secret id, an error with its causes, or anything that a
//! peer sent.

use std::{fmt, panic};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::{Context, Filter},
    registry::LookupSpan,
};

/// Value of the field `exposure` of an event that may leave.
pub const PUBLIC: &str = "public";

const FIELD: &str = "exposure";

/// Which events are logged at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Exposure {
    /// Public and private ones.
    #[default]
    All,
    /// Only those that may leave the confidential VM.
    Public,
}

/// Whether `event` says that it may leave.
fn is_public(event: &Event<'_>) -> bool {
    let mut visitor = Visitor(false);
    if event.metadata().fields().field(FIELD).is_some() {
        event.record(&mut visitor);
    }
    visitor.0
}

struct Visitor(bool);

impl Visit for Visitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == FIELD {
            self.0 = value == PUBLIC;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Drops private events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublicOnly;

impl<S> Filter<S> for PublicOnly {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_span() || metadata.fields().field(FIELD).is_some()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        is_public(event)
    }
}

/// Lines of JSON that all have the field.
#[derive(Debug)]
pub(crate) struct Marked<F>(pub(crate) F);

impl<S, N, F> FormatEvent<S, N> for Marked<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        if event.metadata().fields().field(FIELD).is_none() {
            let open = line.trim_end().strip_suffix('}').ok_or(fmt::Error)?;
            return writeln!(writer, "{open},\"{FIELD}\":\"private\"}}");
        }
        writer.write_str(&line)
    }
}

/// Lines of text without the spans around an event, whose fields nobody declared public.
#[derive(Debug)]
pub(crate) struct Bare;

impl<S, N> FormatEvent<S, N> for Bare
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let metadata = event.metadata();
        write!(writer, " {:>5} {}: ", metadata.level(), metadata.target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// From now on panics say where they are to everybody, and the rest to private events, instead of all of it to standard error.
pub(crate) fn hush_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, exposure = PUBLIC, "a thread panicked");
        tracing::error!("{panic}");
    }));
}
