use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// SHA-256 of a transition or of a manifest; all zero for the transition before the first. Hex in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Base of the first transition.
    pub const NONE: Self = Self([0; 32]);

    /// A hash from the wire; `None` unless it has 32 bytes.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..6]))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hex::encode(hash.0)
    }
}

impl TryFrom<String> for Hash {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map(|()| Self(hash))
    }
}

/// One transition of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The transition.
    pub transition: Hash,
    /// Its manifest.
    pub manifest: Hash,
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// `SetManifest`. All repetitions of one request are one operation.
    Set {
        /// Expected head.
        base: Hash,
        /// The new manifest.
        manifest: Hash,
    },
    /// `Recover`; appends a transition with the manifest of the head.
    Recover,
    /// `GetManifests`.
    Read,
    /// `NewMeshCert`.
    Issue,
}

impl Question {
    /// `set`, `recover`, `read` or `issue`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Set { .. } => "set",
            Self::Recover => "recover",
            Self::Read => "read",
            Self::Issue => "issue",
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To a set or a recovery: it is done.
    Done {
        /// The transition that it made.
        transition: Hash,
    },
    /// To a set: its base is not the head.
    StaleBase,
    /// To a read.
    Chain {
        /// All transitions, oldest first.
        links: Vec<Link>,
    },
    /// To an issuance.
    Issued {
        /// The transition that the certificate was issued under.
        transition: Hash,
    },
    /// No answer, or one that does not tell whether it took effect.
    Unknown,
    /// An error that says nothing about the chain and had no effect.
    Failed,
}

impl Answer {
    /// Whether it is what the client wanted.
    pub fn is_success(&self) -> bool {
        matches!(
            self,
            Self::Done { .. } | Self::Chain { .. } | Self::Issued { .. }
        )
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// Which replica answered or was asked last.
    pub replica: u32,
    /// When the question left, since the log's epoch. Monotonic, one clock for all clients.
    pub start: Duration,
    /// When the answer was there.
    pub end: Duration,
    /// What was asked.
    pub question: Question,
    /// What was answered.
    pub answer: Answer,
}

/// A log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system refuses.
    #[error("cannot read or write the log")]
    File(#[from] io::Error),
    /// A line is no operation.
    #[error("line {line} of the log is no operation")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What all clients did, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log(pub Vec<Operation>);

impl Log {
    /// Writes one JSON object a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), LogError> {
        let mut file = io::BufWriter::new(fs::File::create(path)?);
        for operation in &self.0 {
            serde_json::to_writer(&mut file, operation).map_err(io::Error::from)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    /// The latest transition that anybody was told of, as acknowledged or in a chain: what owners name as the guard of a recovery.
    pub fn latest(&self) -> Hash {
        let mut numbers = BTreeMap::from([(Hash::NONE, 0)]);
        for operation in &self.0 {
            if let Answer::Chain { links } = &operation.answer {
                numbers.extend(links.iter().map(|link| link.transition).zip(1..));
            }
        }
        // An acknowledgement says what comes after its base, whose own number may follow from another one.
        let mut known = 0;
        while known < numbers.len() {
            known = numbers.len();
            for operation in &self.0 {
                if let (Question::Set { base, .. }, Answer::Done { transition }) =
                    (&operation.question, &operation.answer)
                    && let Some(number) = numbers.get(base).copied()
                {
                    numbers.insert(*transition, number + 1);
                }
            }
        }
        let latest = numbers.into_iter().max_by_key(|(_, number)| *number);
        latest.map_or(Hash::NONE, |(transition, _)| transition)
    }

    /// The longest time in which nobody got the answer that `question` wants, between the first and the last operation; `question` is
    /// as in [`Load::await_success`](crate::load::Load::await_success).
    pub fn longest_gap(&self, question: &str) -> Duration {
        let mut times: Vec<Duration> = self
            .0
            .iter()
            .filter(|operation| {
                operation.question.name() == question && operation.answer.is_success()
            })
            .map(|operation| operation.end)
            .collect();
        times.extend(self.0.iter().map(|operation| operation.start).min());
        times.extend(self.0.iter().map(|operation| operation.end).max());
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        gaps.max().unwrap_or_default()
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is no operation.
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let text = fs::read_to_string(path)?;
        let operations = text.lines().zip(1..).map(|(text, line)| {
            serde_json::from_str(text).map_err(|source| LogError::Line { line, source })
        });
        operations.collect::<Result<_, _>>().map(Self)
    }
}
