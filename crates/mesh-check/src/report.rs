//! Every check as a row, and one verdict.

use serde::{Deserialize, Serialize};

/// What a check found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is as it should be.
    Ok,
    /// It is wrong, and connections are refused because of it.
    Failed,
    /// It could not be looked at, or only the peer knows.
    Unknown,
}

/// Why a check failed or is unknown. The words are stable, for programs and for the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A certificate file is missing, unreadable or no PEM.
    FilesUnusable,
    /// The private key is another certificate's.
    KeyMismatch,
    /// The pod's own certificate has expired.
    OwnExpired,
    /// The pod's own certificate is not valid yet.
    OwnNotYetValid,
    /// The pod's own certificate was issued by a mesh CA that is not in the bundle.
    OwnOtherGeneration,
    /// New incoming connections are denied by the kernel's rules.
    InboundDenied,
    /// No rules redirect connections to Envoy.
    NotRedirected,
    /// The kernel's rules cannot be looked at.
    RulesHidden,
    /// Envoy is not ready.
    EnvoyNotReady,
    /// The name has no address.
    NoAddress,
    /// The connection would be led to the pod's own Envoy.
    Captured,
    /// No TCP connection.
    NoConnection,
    /// What answers does not speak TLS.
    NotTls,
    /// Nothing answers the start of the handshake.
    NoAnswer,
    /// The server ends the handshake for a reason that is not the certificate.
    HandshakeRefused,
    /// The server's certificate is of no Contrast mesh.
    NotInMesh,
    /// The server's certificate is of another mesh CA of this deployment.
    OtherGeneration,
    /// The server's certificate is of another deployment's mesh CA, or the deployment cannot be told.
    OtherMesh,
    /// The server's certificate cannot be used at all.
    ServerCertificateUnusable,
    /// The server's certificate has expired.
    ServerExpired,
    /// The server's certificate is not valid yet.
    ServerNotYetValid,
    /// The server's certificate has none of the expected names.
    WrongIdentity,
    /// The workload's namespace is not known here.
    NamespaceUnknown,
    /// The server demands a certificate, and the pod has none that can be used.
    CertificateRequired,
    /// The server does not know the CA of the pod's certificate.
    PeerUnknownCa,
    /// The server holds the pod's certificate for expired.
    PeerSaysExpired,
    /// The server does not let in whoever carries the names of the pod's certificate.
    NotAllowed,
    /// The server refuses the pod's certificate for another reason.
    PeerRefusesCertificate,
    /// The server closes the connection before any data.
    ClosedAtOnce,
    /// The server closes the connection at the first data.
    ClosedOnData,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What was looked at.
    pub check: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
    /// The outcome.
    pub state: State,
    /// Why it is not ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No check failed.
    Passed,
    /// At least one check failed.
    Failed,
}

/// All checks of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The one answer.
    pub verdict: Verdict,
    /// What was connected to, `host:port`; none when only the pod itself was checked.
    pub target: Option<String>,
    /// In the order in which they were made.
    pub checks: Vec<Row>,
}

impl Report {
    /// Concludes from the rows.
    pub(crate) fn new(target: Option<String>, rows: Rows) -> Self {
        let failed = rows.0.iter().any(|row| row.state == State::Failed);
        Self {
            verdict: match failed {
                true => Verdict::Failed,
                false => Verdict::Passed,
            },
            target,
            checks: rows.0,
        }
    }

    /// The rows with this state.
    pub fn with_state(&self, state: State) -> impl Iterator<Item = &Row> {
        self.checks.iter().filter(move |row| row.state == state)
    }
}

/// Rows while they are made.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn ok(
        &mut self,
        check: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.push(check, expected, found, State::Ok, None);
    }

    pub(crate) fn failed(
        &mut self,
        check: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        reason: Reason,
        hint: &str,
    ) {
        self.push(check, expected, found, State::Failed, Some((reason, hint)));
    }

    pub(crate) fn unknown(
        &mut self,
        check: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        reason: Reason,
        hint: &str,
    ) {
        self.push(check, expected, found, State::Unknown, Some((reason, hint)));
    }

    fn push(
        &mut self,
        check: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        state: State,
        why: Option<(Reason, &str)>,
    ) {
        self.0.push(Row {
            check: check.to_owned(),
            found: found.into(),
            expected: expected.into(),
            state,
            reason: why.map(|(reason, _)| reason),
            hint: why.map(|(_, hint)| hint.to_owned()),
        });
    }
}
