//! Entries and their fields, with the place of each.

use std::{collections::BTreeSet, str::FromStr};

use crate::{
    ALLOW, ANY, AnnotationError, DISABLED, ENTRY_SEPARATOR, Egress, EgressEntry, IDENTITY,
    Identity, Ingress, IngressEntry, IngressService, Listen, MAX_LENGTH, MESH_API_PORT, Name,
    POD_ADDRESS, PROTOCOL, Problem, Protocol, Reason, UDP, Workload,
    parts::{self, Misplaced},
};

const FIELD_SEPARATOR: char = '#';
const INGRESS_OPTIONS: &[&str] = &["allow=...", "protocol=...", POD_ADDRESS, UDP];
const EGRESS_OPTIONS: &[&str] = &["identity=...", "protocol=..."];

/// A piece of an entry, and where it starts in it.
#[derive(Debug, Clone, Copy)]
struct Field<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Field<'a> {
    /// Option name, and the value behind `=` if there is one.
    fn option(self) -> (&'a str, Option<Self>) {
        match self.text.split_once('=') {
            None => (self.text, None),
            Some((name, text)) => {
                let at = self.at + name.len() + 1;
                (name, Some(Field { text, at }))
            }
        }
    }
}

/// What is wrong with one entry, with places in it.
#[derive(Default)]
struct Reasons(Vec<Misplaced>);

impl Reasons {
    fn push(&mut self, at: usize, reason: Reason) {
        self.0.push((at, reason));
    }

    /// Keeps an error, so that the other fields of the entry are still looked at.
    fn read<T>(
        &mut self,
        field: Field<'_>,
        parse: impl FnOnce(&str) -> Result<T, Misplaced>,
    ) -> Option<T> {
        match parse(field.text) {
            Ok(value) => Some(value),
            Err((at, reason)) => {
                self.push(field.at + at, reason);
                None
            }
        }
    }
}

impl FromStr for Ingress {
    type Err = AnnotationError;

    fn from_str(text: &str) -> Result<Self, AnnotationError> {
        if text.trim() == DISABLED {
            return Ok(Self::Disabled);
        }
        let mut names = BTreeSet::new();
        let mut ports = BTreeSet::new();
        parse_entries("servicemesh-ingress", text, |fields, options, reasons| {
            let [name_field, port_field, tls_field] = fields;
            let name = reasons.read(name_field, parts::name);
            let name = unique_name(&mut names, name, name_field, reasons);
            let port = reasons.read(port_field, parts::port);
            let disable_tls = reasons.read(tls_field, parts::disable_tls);
            let options = IngressOptions::read(options, reasons);
            let service = disable_tls.map(|disable| options.service(!disable, tls_field, reasons));
            let is_udp = options.udp.is_some();
            if let Some(port) = port
                && !ports.insert((port, is_udp))
            {
                let transport = if is_udp { "UDP" } else { "TCP" };
                let found = format!("{transport} port {port}");
                reasons.push(port_field.at, Reason::RepeatedListen { found });
            }
            Some(IngressEntry {
                name: name?,
                port: port?,
                service: service?,
            })
        })
        .map(Self::Ports)
    }
}

impl FromStr for Egress {
    type Err = AnnotationError;

    fn from_str(text: &str) -> Result<Self, AnnotationError> {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut transparent = BTreeSet::new();
        parse_entries("servicemesh-egress", text, |fields, options, reasons| {
            let [name_field, listen_field, remote_field] = fields;
            let name = reasons.read(name_field, parts::name);
            let name = unique_name(&mut names, name, name_field, reasons);
            let listen = reasons.read(listen_field, parts::listen);
            let remote = reasons.read(remote_field, parts::remote);
            let (identity, protocol) = egress_options(options, reasons);
            match (listen, &remote) {
                (Some(Listen::Address(address)), _) if !addresses.insert(address) => {
                    let found = address.to_string();
                    reasons.push(listen_field.at, Reason::RepeatedListen { found });
                }
                (Some(Listen::Transparent), Some(remote)) if remote.port == MESH_API_PORT => {
                    // The port is the end of what was read as a remote.
                    let before = remote_field.text.rfind(':').map_or(0, |colon| colon + 1);
                    reasons.push(remote_field.at + before, Reason::TransparentMeshApi);
                }
                (Some(Listen::Transparent), Some(remote)) if !transparent.insert(remote.port) => {
                    let found = remote.port;
                    reasons.push(listen_field.at, Reason::RepeatedTransparent { found });
                }
                _ => {}
            }
            Some(EgressEntry {
                name: name?,
                listen: listen?,
                remote: remote?,
                identity,
                protocol,
            })
        })
        .map(Self)
    }
}

/// Splits `text` into entries, hands the fields of each to `parse` (the first three, and the options), and collects entries or problems.
/// An entry counts only when no reason against it was given.
fn parse_entries<T>(
    annotation: &'static str,
    text: &str,
    mut parse: impl FnMut([Field<'_>; 3], &[Field<'_>], &mut Reasons) -> Option<T>,
) -> Result<Vec<T>, AnnotationError> {
    if text.len() > MAX_LENGTH {
        return Err(AnnotationError {
            annotation,
            problems: vec![too_long(text)],
        });
    }
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    let written = text.split(ENTRY_SEPARATOR).map(str::trim);
    for entry in written.filter(|entry| !entry.is_empty()) {
        let mut at = 0;
        let fields: Vec<Field<'_>> = entry
            .split(FIELD_SEPARATOR)
            .map(|text| {
                let field = Field { text, at };
                at += text.len() + FIELD_SEPARATOR.len_utf8();
                field
            })
            .collect();
        let mut reasons = Reasons::default();
        let parsed = match fields.as_slice() {
            [first, second, third, options @ ..] => {
                parse([*first, *second, *third], options, &mut reasons)
            }
            few => {
                let found = few.len();
                reasons.push(entry.len(), Reason::Fields { found });
                None
            }
        };
        entries.extend(parsed.filter(|_| reasons.0.is_empty()));
        problems.extend(reasons.0.into_iter().map(|(at, reason)| Problem {
            entry: entry.to_owned(),
            at,
            reason,
        }));
    }
    match problems.is_empty() {
        true => Ok(entries),
        false => Err(AnnotationError {
            annotation,
            problems,
        }),
    }
}

/// Points into the entry that is the first not to fit.
fn too_long(text: &str) -> Problem {
    let fits = text.floor_char_boundary(MAX_LENGTH);
    let start = text
        .get(..fits)
        .and_then(|before| before.rfind(ENTRY_SEPARATOR))
        .map_or(0, |separator| separator + ENTRY_SEPARATOR.len());
    let rest = text.get(start..).unwrap_or_default();
    let entry = rest.split(ENTRY_SEPARATOR).next().unwrap_or_default();
    Problem {
        entry: entry.trim().to_owned(),
        at: 0,
        reason: Reason::TooLong { found: text.len() },
    }
}

fn unique_name(
    seen: &mut BTreeSet<Name>,
    name: Option<Name>,
    field: Field<'_>,
    reasons: &mut Reasons,
) -> Option<Name> {
    let name = name?;
    if !seen.insert(name.clone()) {
        let found = name.as_str().to_owned();
        reasons.push(field.at, Reason::RepeatedName { found });
    }
    Some(name)
}

/// Options of an ingress entry, each with its place.
#[derive(Default)]
struct IngressOptions<'a> {
    allow: Option<(Field<'a>, Vec<Workload>)>,
    protocol: Option<(Field<'a>, Protocol)>,
    pod_address: Option<Field<'a>>,
    udp: Option<Field<'a>>,
}

impl<'a> IngressOptions<'a> {
    fn read(fields: &[Field<'a>], reasons: &mut Reasons) -> Self {
        let mut options = Self::default();
        for &field in fields {
            let repeated = match field.option() {
                (ALLOW, Some(value)) => {
                    // A list that cannot be read is as good as none: the entry is refused anyway.
                    let list = reasons.read(value, parts::workloads).unwrap_or_default();
                    options.allow.replace((field, list)).is_some()
                }
                (PROTOCOL, Some(value)) => {
                    let protocol = reasons.read(value, parts::protocol).unwrap_or_default();
                    options.protocol.replace((field, protocol)).is_some()
                }
                (POD_ADDRESS, None) => options.pod_address.replace(field).is_some(),
                (UDP, None) => options.udp.replace(field).is_some(),
                _ => {
                    unknown_option(field, INGRESS_OPTIONS, reasons);
                    false
                }
            };
            if repeated {
                repeated_option(field, reasons);
            }
        }
        options
    }

    fn service(&self, tls: bool, tls_field: Field<'_>, reasons: &mut Reasons) -> IngressService {
        let others = [
            self.allow.as_ref().map(|(field, _)| *field),
            self.protocol.map(|(field, _)| field),
            self.pod_address,
        ];
        let others = || others.into_iter().flatten();
        let named = |field: Field<'_>| field.option().0.to_owned();
        if self.udp.is_some() {
            if tls {
                reasons.push(tls_field.at, Reason::UdpWithTls);
            }
            for field in others() {
                let found = named(field);
                reasons.push(field.at, Reason::UdpWithOption { found });
            }
            return IngressService::Udp;
        }
        if !tls {
            for field in others() {
                let found = named(field);
                reasons.push(field.at, Reason::NeedsTls { found });
            }
        }
        IngressService::Tcp {
            tls,
            allow: self
                .allow
                .as_ref()
                .map(|(_, list)| list.clone())
                .unwrap_or_default(),
            protocol: self
                .protocol
                .map_or(Protocol::Tcp, |(_, protocol)| protocol),
            pod_address: self.pod_address.is_some(),
        }
    }
}

fn egress_options(fields: &[Field<'_>], reasons: &mut Reasons) -> (Identity, Protocol) {
    let mut identity = None;
    let mut protocol = None;
    for &field in fields {
        let repeated = match field.option() {
            (IDENTITY, Some(value)) => {
                let read = match value.text {
                    ANY => Identity::AnyMember,
                    _ => match reasons.read(value, parts::workloads) {
                        Some(list) => Identity::Workloads(list),
                        None => Identity::Target,
                    },
                };
                identity.replace(read).is_some()
            }
            (PROTOCOL, Some(value)) => {
                let read = reasons.read(value, parts::protocol).unwrap_or_default();
                protocol.replace(read).is_some()
            }
            _ => {
                unknown_option(field, EGRESS_OPTIONS, reasons);
                false
            }
        };
        if repeated {
            repeated_option(field, reasons);
        }
    }
    (
        identity.unwrap_or(Identity::Target),
        protocol.unwrap_or_default(),
    )
}

fn unknown_option(field: Field<'_>, known: &'static [&'static str], reasons: &mut Reasons) {
    let found = field.text.to_owned();
    reasons.push(field.at, Reason::Option { found, known });
}

fn repeated_option(field: Field<'_>, reasons: &mut Reasons) {
    let found = field.option().0.to_owned();
    reasons.push(field.at, Reason::RepeatedOption { found });
}
