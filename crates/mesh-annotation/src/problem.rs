//! What is wrong with a value, and where.

use std::{error::Error, fmt};

use crate::{MAX_LENGTH, MAX_NAME_LENGTH, MESH_API_PORT};

/// Problems that an [`AnnotationError`] shows one by one.
const SHOWN_MAX: usize = 20;
/// Characters of an entry that are shown on each side of the place.
const SHOWN_AROUND: usize = 40;

/// A value does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationError {
    /// Annotation key without its prefix: `servicemesh-ingress` or `servicemesh-egress`.
    pub annotation: &'static str,
    /// Everything that is wrong, in the order of the entries; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry as it was written, without surrounding white space.
    pub entry: String,
    /// Where in the entry, in bytes from its start; on the boundary of a character, at most the entry's length.
    pub at: usize,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with an entry; `found` is the offending part as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "`found` is described on the enum")]
pub enum Reason {
    /// The entry at which the value gets longer than [`MAX_LENGTH`]; the length of the whole value in bytes.
    TooLong { found: usize },
    /// Fewer than three fields.
    Fields { found: usize },
    /// Not a name.
    Name { found: String },
    /// One of [`RESERVED_NAMES`](crate::RESERVED_NAMES).
    ReservedName { found: String },
    /// An earlier entry has this name.
    RepeatedName { found: String },
    /// An earlier entry listens there.
    RepeatedListen { found: String },
    /// An earlier transparent entry has this port.
    RepeatedTransparent { found: u16 },
    /// A transparent entry for [`MESH_API_PORT`].
    TransparentMeshApi,
    /// Not a port.
    Port { found: String },
    /// Not a truth value.
    DisableTls { found: String },
    /// Neither a loopback address with a port nor `transparent`.
    ListenAddress { found: String },
    /// Not host and port.
    Remote { found: String },
    /// Neither a DNS name nor an IP address.
    Host { found: String },
    /// Not an option of this annotation.
    Option {
        found: String,
        /// The options that there are.
        known: &'static [&'static str],
    },
    /// The option stands there already.
    RepeatedOption { found: String },
    /// The option has no effect without TLS.
    NeedsTls { found: String },
    /// UDP with TLS.
    UdpWithTls,
    /// UDP with a further option.
    UdpWithOption { found: String },
    /// Not a workload.
    Workload { found: String },
    /// Not a protocol.
    Protocol { found: String },
}

impl Problem {
    /// The entry and, below it, a mark under the character: two lines, each indented by `indent` spaces. Characters that move the
    /// cursor are escaped; of a long entry only the surroundings are shown.
    pub fn pointed(&self, indent: usize) -> String {
        let (before, after) = self
            .entry
            .split_at_checked(self.at)
            .unwrap_or((&self.entry, ""));
        let skipped = before.chars().count().saturating_sub(SHOWN_AROUND);
        let left: String = before.chars().skip(skipped).collect();
        let right: String = after.chars().take(SHOWN_AROUND).collect();
        let start = if skipped > 0 { "..." } else { "" };
        let end = match after.chars().count() > SHOWN_AROUND {
            true => "...",
            false => "",
        };
        let left = format!("{start}{}", shown(&left));
        let column = indent + left.chars().count();
        format!(
            "{:indent$}{left}{}{end}\n{:column$}^",
            "",
            shown(&right),
            ""
        )
    }

    /// Place of the problem in the entry, in characters from 1.
    pub fn character(&self) -> usize {
        let before = self.entry.get(..self.at).unwrap_or(&self.entry);
        before.chars().count() + 1
    }
}

/// The text without characters that would move the cursor.
fn shown(text: &str) -> String {
    let escape = |character: char| match character.is_ascii_graphic() || character == ' ' {
        true => character.to_string(),
        false => character.escape_default().to_string(),
    };
    text.chars().map(escape).collect()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { found } => write!(
                f,
                "expected at most {MAX_LENGTH} bytes, which is what fits into a variable of the sidecar's environment, found {found}; \
                 remove entries from this one on, or shorten them"
            ),
            Self::Fields { found } => {
                write!(
                    f,
                    "expected at least three fields separated by `#`, found {found}"
                )
            }
            Self::Name { found } => write!(
                f,
                "expected a name of 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 . _ -, found {}",
                quoted(found)
            ),
            Self::ReservedName { found } => write!(
                f,
                "the name {found:?} is used by the service mesh itself; choose another"
            ),
            Self::RepeatedName { found } => write!(
                f,
                "the name {found:?} is taken by an earlier entry; names must differ"
            ),
            Self::RepeatedListen { found } => write!(
                f,
                "an earlier entry is for {found} already; choose another or join the two"
            ),
            Self::RepeatedTransparent { found } => write!(
                f,
                "an earlier transparent entry has port {found} already, and the port is all that tells them apart; \
                 give one of them a loopback address, like 127.137.0.1:{found}"
            ),
            Self::TransparentMeshApi => write!(
                f,
                "a transparent entry for port {MESH_API_PORT} would capture the Initializer's own connections to the Coordinator, \
                 and the pod's certificate would not be renewed; give the entry a loopback address, like 127.137.0.1:{MESH_API_PORT}"
            ),
            Self::Port { found } => write!(
                f,
                "expected a port from 1 to 65535, found {}",
                quoted(found)
            ),
            Self::DisableTls { found } => write!(
                f,
                "expected `true` or `false` for disabling TLS, found {}",
                quoted(found)
            ),
            Self::ListenAddress { found } => write!(
                f,
                "expected `transparent`, or an address in 127.0.0.0/8 or [::1] with a port, like 127.137.0.1:8081, found {}",
                quoted(found)
            ),
            Self::Remote { found } => {
                write!(f, "expected a remote as host:port, found {}", quoted(found))
            }
            Self::Host { found } => write!(
                f,
                "expected a DNS name, an IPv4 address or an IPv6 address in brackets, found {}",
                quoted(found)
            ),
            Self::Option { found, known } => write!(
                f,
                "expected one of the options {}, found {}",
                known.join(", "),
                quoted(found)
            ),
            Self::RepeatedOption { found } => {
                write!(f, "the option `{found}` stands there twice; keep one")
            }
            Self::NeedsTls { found } => write!(
                f,
                "the option `{found}` needs TLS, and this entry disables it; write `false` in the third field, or remove the option"
            ),
            Self::UdpWithTls => write!(
                f,
                "UDP passes without TLS; write `true` in the third field to say that you know"
            ),
            Self::UdpWithOption { found } => write!(
                f,
                "the option `{found}` does not go with `udp`; remove one of them"
            ),
            Self::Workload { found } => write!(
                f,
                "expected a workload as name, namespace/name or namespace/kind/name in lower case, found {}",
                quoted(found)
            ),
            Self::Protocol { found } => write!(
                f,
                "expected tcp, http1, http2 or grpc, found {}",
                quoted(found)
            ),
        }
    }
}

/// Quoted and escaped, and shortened when it is long.
fn quoted(found: &str) -> String {
    match found.char_indices().nth(2 * SHOWN_AROUND) {
        Some((end, _)) => format!("{:?}...", found.get(..end).unwrap_or_default()),
        None => format!("{found:?}"),
    }
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not valid:", self.annotation)?;
        for problem in self.problems.iter().take(SHOWN_MAX) {
            write!(f, "\n  {}\n{}", problem.reason, problem.pointed(4))?;
        }
        match self.problems.len().checked_sub(SHOWN_MAX) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  and {more} more problems"),
        }
    }
}

impl Error for AnnotationError {}
impl Error for Reason {}
