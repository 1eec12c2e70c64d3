//! The parts of entries. Each is read from a piece of text, and says at which byte of it something is wrong.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use crate::{
    Host, Listen, MAX_NAME_LENGTH, Name, Protocol, RESERVED_NAMES, Reason, Remote, TRANSPARENT,
    Workload,
};

/// What is wrong, and at which byte of the text.
pub(crate) type Misplaced = (usize, Reason);

/// Longest name of an object in Kubernetes.
const OBJECT_NAME_MAX: usize = 253;
/// Longest label (RFC 1123 section 2.1, RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;

pub(crate) fn name(text: &str) -> Result<Name, Misplaced> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let found = || text.to_owned();
    if text.is_empty() {
        return Err((0, Reason::Name { found: found() }));
    }
    // In front of the first byte that is not allowed all are ASCII, so it starts a character.
    let wrong = text.bytes().position(|byte| !allowed(byte));
    let too_long = (text.len() > MAX_NAME_LENGTH).then_some(MAX_NAME_LENGTH);
    if let Some(at) = wrong.or(too_long) {
        return Err((at, Reason::Name { found: found() }));
    }
    match RESERVED_NAMES.contains(&text) {
        true => Err((0, Reason::ReservedName { found: found() })),
        false => Ok(Name(found())),
    }
}

/// Digits only, because `u16::from_str` would also take a sign.
pub(crate) fn port(text: &str) -> Result<u16, Misplaced> {
    let wrong = text.bytes().position(|byte| !byte.is_ascii_digit());
    match (wrong, text.parse::<u16>()) {
        (None, Ok(port)) if port != 0 => Ok(port),
        _ => Err((
            wrong.unwrap_or_default(),
            Reason::Port {
                found: text.to_owned(),
            },
        )),
    }
}

pub(crate) fn disable_tls(text: &str) -> Result<bool, Misplaced> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err((
            0,
            Reason::DisableTls {
                found: text.to_owned(),
            },
        )),
    }
}

pub(crate) fn listen(text: &str) -> Result<Listen, Misplaced> {
    if text == TRANSPARENT {
        return Ok(Listen::Transparent);
    }
    let wrong = || {
        let found = text.to_owned();
        (0, Reason::ListenAddress { found })
    };
    let (ip, number) = text.rsplit_once(':').ok_or_else(wrong)?;
    let ip = match address(ip) {
        Some(ip) if ip.is_loopback() => ip,
        _ => return Err(wrong()),
    };
    let port = behind(text, number, port(number))?;
    Ok(Listen::Address(SocketAddr::new(ip, port)))
}

pub(crate) fn remote(text: &str) -> Result<Remote, Misplaced> {
    let (name, number) = text.rsplit_once(':').ok_or_else(|| {
        let found = text.to_owned();
        (text.len(), Reason::Remote { found })
    })?;
    Ok(Remote {
        host: host(name)?,
        port: behind(text, number, port(number))?,
    })
}

/// Moves a place in `tail`, the end of `text`, to its place in `text`.
fn behind<T>(text: &str, tail: &str, parsed: Result<T, Misplaced>) -> Result<T, Misplaced> {
    let start = text.len().saturating_sub(tail.len());
    parsed.map_err(|(at, reason)| (start + at, reason))
}

/// IPv6 addresses stand in brackets, because a port follows.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn host(text: &str) -> Result<Host, Misplaced> {
    let wrong = |at: usize| {
        let found = text.to_owned();
        (at, Reason::Host { found })
    };
    if let Some(ip) = address(text) {
        return Ok(Host::Ip(ip));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if let Some(at) = name.bytes().position(|byte| !allowed(byte)) {
        return Err(wrong(at));
    }
    let mut start = 0;
    for label in name.split('.') {
        let fits = !label.is_empty()
            && label.len() <= LABEL_MAX
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !fits {
            return Err(wrong(start));
        }
        start += label.len() + 1;
    }
    // A name whose last label is a number is a mistyped address; resolvers disagree on what it means.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    match name.len() > 253 || is_number {
        true => Err(wrong(0)),
        false => Ok(Host::Dns(name.to_ascii_lowercase())),
    }
}

pub(crate) fn protocol(text: &str) -> Result<Protocol, Misplaced> {
    let found = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.as_str() == text);
    found.ok_or_else(|| {
        let found = text.to_owned();
        (0, Reason::Protocol { found })
    })
}

/// Workloads separated by commas, at least one.
pub(crate) fn workloads(text: &str) -> Result<Vec<Workload>, Misplaced> {
    let mut start = 0;
    let mut workloads = Vec::new();
    for part in text.split(',') {
        let workload = workload(part).map_err(|(at, reason)| (start + at, reason))?;
        workloads.push(workload);
        start += part.len() + 1;
    }
    Ok(workloads)
}

fn workload(text: &str) -> Result<Workload, Misplaced> {
    let wrong = |at: usize| {
        let found = text.to_owned();
        (at, Reason::Workload { found })
    };
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, kind, name) = match *parts.as_slice() {
        [name] => (None, None, name),
        [namespace, name] => (Some(namespace), None, name),
        [namespace, kind, name] => (Some(namespace), Some(kind), name),
        _ => return Err(wrong(0)),
    };
    let starts = [namespace, kind].into_iter().flatten();
    let name_start = starts.map(|part| part.len() + 1).sum();
    if let Some(namespace) = namespace
        && !is_label(namespace)
    {
        return Err(wrong(0));
    }
    if let Some(kind) = kind
        && (!is_label(kind) || kind.contains('-'))
    {
        return Err(wrong(namespace.map_or(0, |namespace| namespace.len() + 1)));
    }
    match name.len() <= OBJECT_NAME_MAX && name.split('.').all(is_label_of_name) {
        true => Ok(Workload {
            namespace: namespace.map(str::to_owned),
            kind: kind.map(str::to_owned),
            name: name.to_owned(),
        }),
        false => Err(wrong(name_start)),
    }
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && is_label_of_name(text)
}

/// Part of an RFC 1123 subdomain as Kubernetes takes it.
fn is_label_of_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

impl FromStr for Name {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        name(text).map_err(|(_, reason)| reason)
    }
}

impl FromStr for Remote {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        remote(text).map_err(|(_, reason)| reason)
    }
}

impl FromStr for Workload {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        workload(text).map_err(|(_, reason)| reason)
    }
}
