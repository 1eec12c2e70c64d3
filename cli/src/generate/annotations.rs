//! Annotations that users write on workloads: one table, from which `docs/reference/annotations.md` is made.
//!
//! A key behind the prefix that is not in the table, a value of another form, and a key in a place where nobody reads it are
//! refused: each of them would otherwise be a wish that is silently not granted. `lint` reports the same problems from the same table.

use std::fmt;

use axum::http::{Uri, uri::Scheme};
use contrast_mesh_annotation::{AnnotationError, Egress, Ingress};
use contrast_quantity::Quantity;
use serde_json::Value;
use similar::get_close_matches;

/// Annotations of Contrast stand behind this prefix.
pub(crate) const PREFIX: &str = "contrast.edgeless.systems/";
/// How alike two names have to be for one to be proposed for the other, from 0 to 1.
const ALIKE: f32 = 0.6;

/// An annotation that users may write.
#[derive(Debug)]
pub(crate) struct Annotation {
    /// Its key behind [`PREFIX`].
    pub(crate) name: &'static str,
    /// Where it is read.
    pub(crate) place: Place,
    /// What it may say.
    pub(crate) value: Form,
    /// What it does.
    pub(crate) meaning: &'static str,
    /// What holds without it.
    pub(crate) default: &'static str,
    /// Whether it does something on the Coordinator, too.
    pub(crate) coordinator: bool,
}

/// Where an annotation is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the pod template, or else on the workload.
    Workload,
    /// As above; a label of the pod template counts as well.
    WorkloadOrLabel,
    /// On the pod template only.
    PodTemplate,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// This one word.
    Word(&'static str),
    /// `true` or `false`.
    Flag,
    /// Any text, also none.
    Text,
    /// Entries of `servicemesh-ingress`.
    Ingress,
    /// Entries of `servicemesh-egress`.
    Egress,
    /// A TCP port.
    Port,
    /// `http://HOST:PORT`.
    Endpoint,
    /// `device:mount`.
    DeviceAndMount,
    /// A Kubernetes quantity of bytes.
    Quantity,
    /// A Kubernetes quantity of bytes that an encrypted volume can have.
    VolumeSize,
    /// Names of volumes.
    Volumes,
    /// Names of sealed secrets.
    Secrets,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words.
    SomeOf(&'static [&'static str]),
    /// `read`, `write`, or both.
    Streams,
}

/// Smallest encrypted volume in a file, as the Initializer has it.
const VOLUME_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// All annotations, by name.
pub(crate) const ANNOTATIONS: &[Annotation] = &[
    Annotation {
        name: "image-store-size",
        place: Place::Workload,
        value: Form::Quantity,
        meaning: "size of the encrypted disk for the pod's images, or `0` for none; with `generate --inject-image-store`",
        default: "`10Gi`",
        coordinator: true,
    },
    Annotation {
        name: "log-exposure",
        place: Place::Workload,
        value: Form::OneOf(&["all", "public"]),
        meaning: "what the injected Initializer and service mesh log: everything, or only what may leave the confidential VM",
        default: "`all`",
        coordinator: false,
    },
    Annotation {
        name: "mutable-volumes",
        place: Place::PodTemplate,
        value: Form::Volumes,
        meaning: "ConfigMap, Secret and projected volumes whose content the policy leaves open",
        default: "all content is bound",
        coordinator: true,
    },
    Annotation {
        name: "pod-role",
        place: Place::WorkloadOrLabel,
        value: Form::Word("coordinator"),
        meaning: "this workload is the Coordinator; exactly one has it",
        default: "a workload",
        coordinator: true,
    },
    Annotation {
        name: "sealed-secrets",
        place: Place::Workload,
        value: Form::Secrets,
        meaning: "sealed secrets of the manifest that the pods get; `contrast seal` writes it",
        default: "none",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv",
        place: Place::Workload,
        value: Form::DeviceAndMount,
        meaning: "the Initializer encrypts the block device, or with `secure-pv-size` a file, and mounts it into the emptyDir",
        default: "no encrypted volume",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv-filesystem",
        place: Place::Workload,
        value: Form::OneOf(&["ext4", "xfs"]),
        meaning: "what a new encrypted volume is formatted with",
        default: "`ext4`",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv-format",
        place: Place::Workload,
        value: Form::OneOf(&["blank", "never", "discard"]),
        meaning: "when the Initializer formats the device: if it is blank; never, so that a blank disk in the volume's place is refused; or also if it holds something else, which is lost",
        default: "`blank`",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv-mount-options",
        place: Place::Workload,
        value: Form::SomeOf(&[
            "noatime",
            "nodiratime",
            "relatime",
            "strictatime",
            "lazytime",
            "noexec",
            "ro",
            "sync",
        ]),
        meaning: "how the encrypted volume is mounted, besides `nodev` and `nosuid`",
        default: "none",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv-rollback",
        place: Place::Workload,
        value: Form::OneOf(&["strict", "warn", "off"]),
        meaning: "what happens when the disk is older than the Coordinator remembers: it is refused, or opened with a warning, or nobody is asked",
        default: "`strict`",
        coordinator: false,
    },
    Annotation {
        name: "secure-pv-size",
        place: Place::Workload,
        value: Form::VolumeSize,
        meaning: "the encrypted volume is a file of this size on a claim with `volumeMode: Filesystem`",
        default: "it is a block device",
        coordinator: false,
    },
    Annotation {
        name: "servicemesh-admin-interface-port",
        place: Place::Workload,
        value: Form::Port,
        meaning: "injects the service mesh, with Envoy's admin interface on this port of loopback",
        default: "no admin interface",
        coordinator: false,
    },
    Annotation {
        name: "servicemesh-egress",
        place: Place::Workload,
        value: Form::Egress,
        meaning: "injects the service mesh, which connects these addresses, or ports on any address, to other workloads",
        default: "no egress",
        coordinator: false,
    },
    Annotation {
        name: "servicemesh-ingress",
        place: Place::Workload,
        value: Form::Ingress,
        meaning: "injects the service mesh, which demands a mesh certificate on every TCP port and lets no UDP in, except as said here",
        default: "no ingress",
        coordinator: false,
    },
    Annotation {
        name: "servicemesh-metrics-port",
        place: Place::Workload,
        value: Form::Port,
        meaning: "injects the service mesh, with metrics for Prometheus on this port: without TLS, for everybody",
        default: "no metrics",
        coordinator: false,
    },
    Annotation {
        name: "skip-initializer",
        place: Place::Workload,
        value: Form::Flag,
        meaning: "no Initializer is injected: the application attests by itself",
        default: "`false`",
        coordinator: false,
    },
    Annotation {
        name: "streams",
        place: Place::PodTemplate,
        value: Form::Streams,
        meaning: "what the host may do with the containers' streams: read their output, write their input",
        default: "nothing",
        coordinator: true,
    },
    Annotation {
        name: "traces-endpoint",
        place: Place::Workload,
        value: Form::Endpoint,
        meaning: "where the injected Initializer sends its spans: a collector of OpenTelemetry, by OTLP over gRPC without TLS",
        default: "nothing is sent",
        coordinator: false,
    },
    Annotation {
        name: "untrusted-volumes",
        place: Place::PodTemplate,
        value: Form::Volumes,
        meaning: "file systems of the host that the application itself expects nothing of",
        default: "such volumes are refused",
        coordinator: true,
    },
    Annotation {
        name: "workload-secret-id",
        place: Place::Workload,
        value: Form::Text,
        meaning: "id of the workload secret; workloads with the same id have the same secret",
        default: "`group/version/kind/namespace/name`",
        coordinator: true,
    },
];

impl Place {
    /// For the reference.
    #[cfg(test)]
    fn text(self) -> &'static str {
        match self {
            Self::Workload => "pod template, or else the workload",
            Self::WorkloadOrLabel => {
                "pod template, or else the workload; or a label of the pod template"
            }
            Self::PodTemplate => "pod template",
        }
    }
}

impl Form {
    /// What to write.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Word(word) => format!("`{word}`"),
            Self::Flag => "`true` or `false`".into(),
            Self::Text => "any text".into(),
            Self::Ingress => {
                "`name#port#disable-tls`, options behind a further `#` (`allow=`, `protocol=`, `pod-address`, `udp`), several separated by `##`; or none; or `DISABLED`".into()
            }
            Self::Egress => "`name#127.x.y.z:port#host:port` or `name#transparent#host:port`, options behind a further `#` (`identity=`, `protocol=`), several separated by `##`".into(),
            Self::Port => "a TCP port, from 1 to 65535".into(),
            Self::Endpoint => "`http://HOST:PORT`".into(),
            Self::DeviceAndMount => {
                "`device:mount`, the names of a persistent volume and of an emptyDir".into()
            }
            Self::Quantity => "a Kubernetes quantity in bytes, for example `10Gi`; or `0`".into(),
            Self::VolumeSize => {
                "a Kubernetes quantity in bytes, of at least `64Mi`, for example `10Gi`".into()
            }
            Self::Volumes => "names of volumes, separated by commas".into(),
            Self::Secrets => "names of sealed secrets, separated by commas".into(),
            Self::OneOf(words) => format!("one of `{}`", words.join("`, `")),
            Self::SomeOf(words) => {
                format!("some of `{}`, separated by commas", words.join("`, `"))
            }
            Self::Streams => "`read`, `write` or `read,write`".into(),
        }
    }

    /// What exactly is wrong, where more can be said than the form.
    fn details(self, value: &str) -> String {
        match self {
            Self::Ingress => entries(value.parse::<Ingress>().err()),
            Self::Egress => entries(value.parse::<Egress>().err()),
            _ => String::new(),
        }
    }

    fn takes(self, value: &str) -> bool {
        let mut words = value.split(',').map(str::trim);
        match self {
            Self::Word(word) => value == word,
            Self::Flag => matches!(value, "true" | "false"),
            Self::Text => true,
            Self::Ingress => value.parse::<Ingress>().is_ok(),
            Self::Egress => !value.is_empty() && value.parse::<Egress>().is_ok(),
            Self::Port => value.parse::<u16>().is_ok_and(|port| port > 0),
            Self::Endpoint => value.parse::<Uri>().is_ok_and(|endpoint| {
                endpoint.scheme() == Some(&Scheme::HTTP)
                    && endpoint.host().is_some_and(|host| !host.is_empty())
                    && endpoint.port_u16().is_some_and(|port| port > 0)
                    && endpoint.path_and_query().is_none_or(|rest| rest == "/")
                    // Kubernetes would put a variable of its own there.
                    && !value.contains(['@', '$'])
            }),
            Self::DeviceAndMount => device_and_mount(value).is_some(),
            Self::Quantity => value
                .parse::<Quantity>()
                .is_ok_and(|size| size.whole().is_some()),
            Self::VolumeSize => volume_bytes(value).is_some(),
            Self::Volumes => words.all(|word| !word.is_empty()),
            Self::Secrets => words.all(contrast_manifest::is_sealed_name),
            Self::OneOf(known) => known.contains(&value),
            Self::SomeOf(known) => words.all(|word| known.contains(&word)),
            Self::Streams => words.all(|word| matches!(word, "read" | "write")),
        }
    }
}

/// With a leading colon, or nothing.
fn entries(error: Option<AnnotationError>) -> String {
    let problems = error.into_iter().flat_map(|error| error.problems);
    let problems: Vec<String> = problems
        .map(|problem| {
            format!(
                "entry `{}`, character {}: {}",
                problem.entry,
                problem.character(),
                problem.reason
            )
        })
        .collect();
    match problems.is_empty() {
        true => String::new(),
        false => format!(": {}", problems.join(", ")),
    }
}

/// The two names of a `secure-pv`.
pub(super) fn device_and_mount(value: &str) -> Option<(&str, &str)> {
    let (device, mount) = value.split_once(':')?;
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|character| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
            })
    };
    (is_name(device) && is_name(mount)).then_some((device, mount))
}

/// The bytes of a `secure-pv-size`.
pub(super) fn volume_bytes(value: &str) -> Option<u64> {
    let bytes = value.parse::<Quantity>().ok()?.whole()?;
    (bytes >= VOLUME_BYTES_MIN).then_some(bytes)
}

/// Something that is wrong with an annotation, or with a label that looks like one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem<'a> {
    /// What it is about.
    pub(crate) kind: ProblemKind,
    /// Whether it stands on the pod template, and not on the workload.
    pub(crate) on_template: bool,
    /// Field of the metadata.
    pub(crate) field: Field,
    /// The key behind [`PREFIX`].
    pub(crate) name: &'a str,
    /// What is wrong.
    pub(crate) found: String,
    /// What to write.
    pub(crate) advice: String,
}

/// What a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    /// Nothing has this name.
    Unknown,
    /// The value is of another form.
    Value,
    /// Nobody reads it where it stands.
    Place,
}

/// Where in the metadata a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Annotations,
    Labels,
}

impl Field {
    /// Its key in the metadata.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Annotations => "annotations",
            Self::Labels => "labels",
        }
    }

    /// One of its entries.
    fn one(self) -> &'static str {
        match self {
            Self::Annotations => "annotation",
            Self::Labels => "label",
        }
    }
}

/// One line.
impl fmt::Display for Problem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found, self.advice)
    }
}

impl Annotation {
    /// What is wrong with a value, and what to write.
    fn value_problem(&self, field: Field, value: &Value) -> Option<(ProblemKind, String, String)> {
        let what = field.one();
        let (found, advice) = match value.as_str() {
            Some(text) if self.value.takes(text) => return None,
            Some(text) => (
                format!(
                    "{what} {PREFIX}{}: expected {}, found `{text}`{}",
                    self.name,
                    self.value.text(),
                    self.value.details(text)
                ),
                format!("correct or remove it; without it: {}", self.default),
            ),
            None => (
                format!("{what} {PREFIX}{}: expected text, found {value}", self.name),
                "put it in quotes".to_owned(),
            ),
        };
        Some((ProblemKind::Value, found, advice))
    }
}

/// The annotation of this name.
pub(crate) fn find(name: &str) -> Option<&'static Annotation> {
    ANNOTATIONS
        .iter()
        .find(|annotation| annotation.name == name)
}

/// The known name that a name is probably meant to be.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let names: Vec<&'static str> = ANNOTATIONS.iter().map(|known| known.name).collect();
    get_close_matches(name, &names, 1, ALIKE).first().copied()
}

/// Everything that is wrong with the annotations and labels of a workload and its pod template.
pub(crate) fn problems<'a>(object: &'a Value, template: &'a Value) -> Vec<Problem<'a>> {
    let of_template = &template["metadata"];
    let of_workload = &object["metadata"];
    let mut problems = Vec::new();
    // The metadata of a Pod is that of its template.
    let places = match of_workload == of_template {
        true => vec![(of_template, true)],
        false => vec![(of_template, true), (of_workload, false)],
    };
    for (metadata, on_template) in places {
        for field in [Field::Annotations, Field::Labels] {
            for (name, value) in contrast_keys(&metadata[field.key()]) {
                let problem = judge(on_template, field, name, value);
                problems.extend(problem.map(|(kind, found, advice)| Problem {
                    kind,
                    on_template,
                    field,
                    name,
                    found,
                    advice,
                }));
            }
        }
    }
    problems
}

fn judge(
    on_template: bool,
    field: Field,
    name: &str,
    value: &Value,
) -> Option<(ProblemKind, String, String)> {
    let Some(known) = find(name) else {
        return Some(unknown(field, name));
    };
    let misplaced = |why: &str| {
        Some((
            ProblemKind::Place,
            format!("{} {PREFIX}{name}: {why}", field.one()),
            "move it to `metadata.annotations` of the pod template".to_owned(),
        ))
    };
    match (field, on_template) {
        // Known ones may stand there: people give a workload the labels of its pods.
        (Field::Labels, false) => None,
        (Field::Labels, true) if known.place != Place::WorkloadOrLabel => {
            misplaced("it is an annotation")
        }
        (Field::Annotations, false) if known.place == Place::PodTemplate => {
            misplaced("it is on the workload, where nothing reads it")
        }
        _ => known.value_problem(field, value),
    }
}

/// Keys without the prefix.
fn contrast_keys(map: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value)))
}

fn unknown(field: Field, name: &str) -> (ProblemKind, String, String) {
    let known = || {
        let names: Vec<&str> = ANNOTATIONS.iter().map(|known| known.name).collect();
        format!("expected one of {}", names.join(", "))
    };
    let near = nearest(name).and_then(find);
    let advice = near.map_or_else(known, |near| {
        format!("did you mean `{}` ({})?", near.name, near.meaning)
    });
    let found = format!("{} {PREFIX}{name} is not known", field.one());
    (ProblemKind::Unknown, found, advice)
}

#[cfg(test)]
mod tests;
