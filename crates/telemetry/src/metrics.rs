//! Prometheus text exposition of a registry, and the numbers that every program has.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Upper bounds, in seconds, of latency histograms: 0.1 ms to 5 s.
pub const LATENCY_BUCKETS_S: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Media type of OpenMetrics, as a scraper names it that reads it.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A text form of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format 0.0.4, which everybody reads.
    Prometheus,
}

impl Format {
    /// The form for whoever sent this `Accept` header: OpenMetrics only for those who name it.
    pub fn for_accept(accept: Option<&str>) -> Self {
        let named = accept.unwrap_or_default().split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|media| media.eq_ignore_ascii_case(OPEN_METRICS));
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let refused =
                quality.is_some_and(|quality| quality.parse::<f32>().is_ok_and(|q| q <= 0.0));
            is_it && !refused
        });
        match named {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Every metric of `registry` in this form.
    pub fn render(self, registry: &Registry) -> String {
        let text = render(registry);
        match self {
            Self::OpenMetrics => text,
            Self::Prometheus => to_prometheus(&text),
        }
    }
}

/// Every metric of `registry`, as OpenMetrics.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = encode(&mut text, registry);
    text
}

/// OpenMetrics names a counter without the suffix of its samples, has units, and an end.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::new();
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let suffix = match kind {
                "counter" => "_total",
                _ => "",
            };
            if let Some((_, help)) = help.take().filter(|(named, _)| *named == name) {
                text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    program: &'static str,
    version: &'static str,
}

/// What every program tells of itself: which build it is, since when it runs, and what time it thinks it is.
#[derive(Debug, Default)]
pub struct Process {
    clock: Gauge<u64, AtomicU64>,
}

impl Process {
    /// Adds the numbers of `program` in `version`, which started at `started`.
    pub fn register(
        registry: &mut Registry,
        program: &'static str,
        version: &'static str,
        started: SystemTime,
    ) -> Self {
        let build = Family::<BuildLabels, Gauge>::default();
        build
            .get_or_create(&BuildLabels { program, version })
            .set(1);
        registry.register(
            "contrast_build_info",
            "1, with the program and its version as labels",
            build,
        );
        let start = Gauge::<u64, AtomicU64>::default();
        start.set(unix_seconds(started));
        registry.register_with_unit(
            "process_start_time",
            "When the program started, since 1970-01-01",
            Unit::Seconds,
            start,
        );
        let process = Self::default();
        registry.register_with_unit(
            "contrast_clock_timestamp",
            "What time the program thinks it is, since 1970-01-01",
            Unit::Seconds,
            process.clock.clone(),
        );
        process
    }

    /// Sets the clock, before each exposition.
    pub fn set_clock(&self, now: SystemTime) {
        self.clock.set(unix_seconds(now));
    }
}

/// Whole seconds since 1970-01-01; 0 for what was before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::for_accept(Some(prometheus)), Format::OpenMetrics);
        for accept in [
            None,
            Some(""),
            Some("*/*"),
            Some("text/plain"),
            Some("application/openmetrics-text;q=0, text/plain"),
            Some("application/openmetrics-texts"),
        ] {
            assert_eq!(Format::for_accept(accept), Format::Prometheus, "{accept:?}");
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        let mut registry = Registry::default();
        let started = UNIX_EPOCH + Duration::from_millis(1_800_000_000_900);
        let process = Process::register(&mut registry, "test", "1.2.3", started);
        process.set_clock(started + Duration::from_secs(5));
        let bytes = Counter::<u64>::default();
        bytes.inc_by(7);
        registry.register_with_unit("received", "Bytes that came", Unit::Bytes, bytes);
        let open_metrics = Format::OpenMetrics.render(&registry);
        assert_eq!(
            open_metrics,
            "# HELP contrast_build_info 1, with the program and its version as labels.\n\
             # TYPE contrast_build_info gauge\n\
             contrast_build_info{program=\"test\",version=\"1.2.3\"} 1\n\
             # HELP process_start_time_seconds When the program started, since 1970-01-01.\n\
             # TYPE process_start_time_seconds gauge\n\
             # UNIT process_start_time_seconds seconds\n\
             process_start_time_seconds 1800000000\n\
             # HELP contrast_clock_timestamp_seconds What time the program thinks it is, since 1970-01-01.\n\
             # TYPE contrast_clock_timestamp_seconds gauge\n\
             # UNIT contrast_clock_timestamp_seconds seconds\n\
             contrast_clock_timestamp_seconds 1800000005\n\
             # HELP received_bytes Bytes that came.\n\
             # TYPE received_bytes counter\n\
             # UNIT received_bytes bytes\n\
             received_bytes_total 7\n\
             # EOF\n"
        );
        let expected = open_metrics
            .replace("# HELP received_bytes ", "# HELP received_bytes_total ")
            .replace("# TYPE received_bytes ", "# TYPE received_bytes_total ");
        let expected: String = expected
            .lines()
            .filter(|line| !line.starts_with("# UNIT") && *line != "# EOF")
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(Format::Prometheus.render(&registry), expected);
    }
}
