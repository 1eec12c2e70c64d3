use std::time::Duration;

/// Bounds of one handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Deadline of everything before the first application byte: TLS, issuing, appraisal and verdicts. For a
    /// [`Connector`](crate::Connector) it includes dialling.
    pub handshake: Duration,
    /// Largest evidence frame body that is read, in bytes; values above [`Limits::EVIDENCE_FRAME_BYTES_MAX`] count as that.
    pub evidence_frame_bytes: u32,
}

impl Limits {
    /// Hard cap of a frame body, 256 KiB: twice what the largest SNP evidence takes, and room for TDX collateral.
    pub const EVIDENCE_FRAME_BYTES_MAX: u32 = 256 * 1024;

    /// Cap of the `Hello` frame's body, in bytes.
    pub const HELLO_FRAME_BYTES_MAX: u32 = 64;

    /// Longest reason in a `Verdict`, in bytes of UTF-8; longer ones are cut at a character boundary.
    pub const REASON_BYTES_MAX: usize = 8 * 1024;

    /// Cap of the `Verdict` frame's body, in bytes: the longest reason and 64 bytes for the other fields.
    pub const VERDICT_FRAME_BYTES_MAX: u32 = 8 * 1024 + 64;

    /// For clients: 30 s.
    pub const fn client() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            evidence_frame_bytes: Self::EVIDENCE_FRAME_BYTES_MAX,
        }
    }

    /// For servers: 25 s, less than a client's, so that the side with the log of all peers reports first.
    pub const fn server() -> Self {
        Self {
            handshake: Duration::from_secs(25),
            evidence_frame_bytes: Self::EVIDENCE_FRAME_BYTES_MAX,
        }
    }
}

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Handshakes that run at the same time; further connections wait in the kernel's backlog. At least 1. Together with
    /// [`Limits::evidence_frame_bytes`] it bounds the memory that peers who proved nothing can occupy.
    pub handshakes: usize,
    /// Connections that are open at the same time, those in their handshake included; further ones wait in the kernel's
    /// backlog. At least 1.
    pub connections: usize,
}

impl Default for AcceptLimits {
    /// 128 handshakes (at most 32 MiB of frames) and 4096 connections.
    fn default() -> Self {
        Self {
            handshakes: 128,
            connections: 4096,
        }
    }
}
