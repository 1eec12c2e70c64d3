use std::fmt;

/// Bytes of a message for people.
const MESSAGE_BYTES: usize = 4096;

/// Why a call has no result (`google.rpc.Code`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// The request can never be fulfilled.
    InvalidArgument = 3,
    /// Not in time.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// Somebody does not allow it.
    PermissionDenied = 7,
    /// Too much was asked for, or too much at once.
    ResourceExhausted = 8,
    /// Something has to change first.
    FailedPrecondition = 9,
    /// There is no such method.
    Unimplemented = 12,
    /// A bug, or the system refuses something.
    Internal = 13,
    /// May work later.
    Unavailable = 14,
    /// What was found is not what it should be.
    DataLoss = 15,
}

/// A call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What kind of a reason.
    pub code: Code,
    /// The reason, for people.
    message: String,
}

impl Status {
    /// With a message for people, of which the first 4096 bytes are kept.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        Self { code, message }
    }

    /// The reason, for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}
