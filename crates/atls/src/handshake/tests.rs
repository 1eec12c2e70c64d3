//! The core without sockets: frames are handed from one state to the next.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use contrast_attestation::{
    Evidence, EvidenceVerifier, IssueError, Issuer, PolicyHash, ReportData, SnpEvidence, Tee,
    VerifiedEvidence, Verifier, VerifyError, software::SoftwareTee,
};
use zeroize::Zeroizing;

use super::*;
use crate::binding::{Channel, Role};

const POLICY: PolicyHash = PolicyHash([7; 32]);

/// Some time at which the software TEE's certificates are valid; the core never reads a clock.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[derive(Clone)]
struct Party {
    issuer: Arc<dyn Issuer>,
    verifier: Arc<dyn EvidenceVerifier>,
}

/// Guests of one software TEE; it is made once, because its RSA keys take a while.
fn party() -> Party {
    static PARTY: LazyLock<Party> = LazyLock::new(stranger);
    PARTY.clone()
}

/// Guests of a software TEE that nobody else knows.
fn stranger() -> Party {
    let tee = SoftwareTee::generate(now()).expect("software TEE");
    let verifier = Verifier::new(vec![tee.reference_value(Tee::Snp)], [POLICY]);
    Party {
        issuer: Arc::new(tee.snp_guest(POLICY)),
        verifier: Arc::new(verifier),
    }
}

impl Party {
    fn terms(&self, proves: bool, requires: bool) -> Terms {
        Terms {
            unattested: false,
            issuer: proves.then(|| Arc::clone(&self.issuer)),
            verifier: requires.then(|| Arc::clone(&self.verifier)),
            limits: Limits::server(),
        }
    }
}

/// The two ends of one connection.
fn channels() -> (Channel, Channel) {
    let end = |own: &[u8], peer: &[u8]| {
        Channel::new(Zeroizing::new([9; 64]), own.to_vec(), Some(peer.to_vec()))
    };
    (
        end(b"client key", b"server key"),
        end(b"server key", b"client key"),
    )
}

fn body(frame: &[u8]) -> &[u8] {
    &frame[frame::HEADER_BYTES..]
}

fn accepted<N>(judged: Judged<N>) -> (Vec<u8>, N) {
    match judged {
        Judged::Accepted { verdict, next } => (verdict, next),
        Judged::Refused { error, .. } => panic!("refused: {}", error.causes()),
    }
}

#[test]
fn mutual_handshake_attests_both_sides() {
    let party = party();
    let (client_channel, server_channel) = channels();
    let (client, client_hello) = client::start(party.terms(true, true), client_channel);
    let (server, server_hello) = server::start(party.terms(true, true), server_channel);
    let client = client.receive(body(&server_hello)).expect("hello");
    let server = server.receive(body(&client_hello)).expect("hello");

    // The server proves itself first.
    let (client::AfterHello::Challenge(client), server::AfterHello::Prove(server)) =
        (client, server)
    else {
        panic!("both know that the server is due")
    };
    let (evidence, server) = server.issue().expect("evidence");
    let (verdict, client) = accepted(
        client
            .receive(body(&evidence))
            .expect("readable")
            .appraise(now()),
    );
    let server::AfterProof::Challenge(server) = server.receive(body(&verdict)).expect("accepted")
    else {
        panic!("the server requires evidence, too")
    };

    let client::AfterChallenge::Prove(client) = client else {
        panic!("the client is due")
    };
    let (evidence, client) = client.issue().expect("evidence");
    let (verdict, server) = accepted(
        server
            .receive(body(&evidence))
            .expect("readable")
            .appraise(now()),
    );
    let client = client.receive(body(&verdict)).expect("accepted");

    let (client_view, server_view) = (client.into_attested(), server.into_attested());
    let (of_server, of_client) = (client_view.expect("server"), server_view.expect("client"));
    assert_eq!(of_server.verified.policy_hash(), POLICY);
    assert_ne!(
        of_server.report_data, of_client.report_data,
        "roles and keys differ"
    );
}

#[test]
fn one_sided_handshake_needs_a_proof_of_the_server_only() {
    let party = party();
    let (client_channel, server_channel) = channels();
    let (client, client_hello) = client::start(party.terms(false, true), client_channel);
    let (server, server_hello) = server::start(party.terms(true, false), server_channel);
    let client::AfterHello::Challenge(client) = client.receive(body(&server_hello)).expect("hello")
    else {
        panic!("the client requires evidence")
    };
    let server::AfterHello::Prove(server) = server.receive(body(&client_hello)).expect("hello")
    else {
        panic!("the server is due")
    };
    let (evidence, server) = server.issue().expect("evidence");
    let (verdict, client) = accepted(
        client
            .receive(body(&evidence))
            .expect("readable")
            .appraise(now()),
    );
    assert!(matches!(client, client::AfterChallenge::Done(_)));
    let server = server.receive(body(&verdict)).expect("accepted");
    let server::AfterProof::Done(server) = server else {
        panic!("nothing is left to do")
    };
    assert!(server.into_attested().is_none());
}

#[test]
fn refused_evidence_gives_a_verdict_with_the_reason_and_no_further_state() {
    let (honest, stranger) = (party(), stranger());
    let (client_channel, server_channel) = channels();
    let (client, client_hello) = client::start(honest.terms(false, true), client_channel);
    let (server, server_hello) = server::start(stranger.terms(true, false), server_channel);
    let client::AfterHello::Challenge(client) = client.receive(body(&server_hello)).expect("hello")
    else {
        panic!("the client requires evidence")
    };
    let server::AfterHello::Prove(server) = server.receive(body(&client_hello)).expect("hello")
    else {
        panic!("the server is due")
    };
    let (evidence, server) = server.issue().expect("evidence");
    let Judged::Refused { verdict, error } = client
        .receive(body(&evidence))
        .expect("readable")
        .appraise(now())
    else {
        panic!("another TEE's evidence must not pass")
    };
    let AtlsError::RefusedPeer(cause) = &error else {
        panic!("{error:?}")
    };
    assert!(error.is_attestation_failure());
    match server.receive(body(&verdict)) {
        Err(AtlsError::RefusedByPeer { reason }) => assert_eq!(reason, cause.to_string()),
        other => panic!("expected the reason, found {other:?}"),
    }
}

#[test]
fn other_version_is_incompatible_on_both_sides() {
    let party = party();
    let (client_channel, server_channel) = channels();
    let hello = Hello {
        version: 2,
        requires_evidence: true,
    }
    .encode_to_vec();
    let (client, _) = client::start(party.terms(true, true), client_channel);
    let (server, _) = server::start(party.terms(true, true), server_channel);
    for error in [client.receive(&hello).err(), server.receive(&hello).err()] {
        let expected = Incompatibility::Version {
            expected: 1,
            found: 2,
        };
        let Some(AtlsError::PeerIncompatible(found)) = error else {
            panic!("{error:?}")
        };
        assert_eq!(found.to_string(), expected.to_string());
    }
}

#[test]
fn handshake_in_which_nobody_would_be_attested_is_refused_on_both_sides() {
    let party = party();
    let (client_channel, server_channel) = channels();
    let (client, client_hello) = client::start(party.terms(true, false), client_channel);
    let (server, server_hello) = server::start(party.terms(true, false), server_channel);
    let errors = [
        client.receive(body(&server_hello)).err(),
        server.receive(body(&client_hello)).err(),
    ];
    for error in errors {
        assert!(matches!(
            error,
            Some(AtlsError::PeerIncompatible(
                Incompatibility::NobodyRequiresEvidence
            ))
        ));
    }
}

#[test]
fn side_without_a_tee_says_so_when_evidence_is_required() {
    let party = party();
    let (client_channel, server_channel) = channels();
    let hello = Hello {
        version: 1,
        requires_evidence: true,
    }
    .encode_to_vec();
    let (client, _) = client::start(party.terms(false, true), client_channel);
    let (server, _) = server::start(party.terms(false, true), server_channel);
    assert!(matches!(
        client.receive(&hello).err(),
        Some(AtlsError::NoIssuer)
    ));
    assert!(matches!(
        server.receive(&hello).err(),
        Some(AtlsError::NoIssuer)
    ));
}

#[test]
fn server_requires_a_key_of_a_client_that_must_prove_itself() {
    let channel = Channel::new(Zeroizing::new([9; 64]), b"server key".to_vec(), None);
    let (server, _) = server::start(party().terms(true, true), channel);
    let hello = Hello {
        version: 1,
        requires_evidence: false,
    }
    .encode_to_vec();
    assert!(matches!(
        server.receive(&hello).err(),
        Some(AtlsError::PeerMisbehaved(Misbehaviour::NoCertificate))
    ));
}

fn await_evidence(channel: Channel) -> AwaitEvidence<server::Last> {
    let (server, _) = server::start(party().terms(false, true), channel);
    let hello = Hello {
        version: 1,
        requires_evidence: false,
    }
    .encode_to_vec();
    match server.receive(&hello).expect("hello") {
        server::AfterHello::Challenge(challenge) => challenge,
        server::AfterHello::Prove(_) | server::AfterHello::Done(_) => {
            panic!("the client requires nothing")
        }
    }
}

#[test]
fn bodies_that_are_no_evidence_are_named() {
    let error = |body: &[u8]| match await_evidence(channels().1).receive(body) {
        Err(AtlsError::PeerMisbehaved(error)) => error,
        other => panic!("expected misbehaviour, found {other:?}"),
    };
    assert!(matches!(error(&[]), Misbehaviour::EvidenceMissing));
    assert!(matches!(
        error(&[0xff; 20]),
        Misbehaviour::NotProtobuf {
            frame: "EvidenceFrame",
            ..
        }
    ));
    // Field 1 with three bytes that are no Evidence.
    assert!(matches!(
        error(&[0x0a, 3, 0xff, 0xff, 0xff]),
        Misbehaviour::EvidenceFormat(_)
    ));
}

#[test]
fn hello_that_is_no_protobuf_is_named() {
    let (server, _) = server::start(party().terms(true, true), channels().1);
    assert!(matches!(
        server.receive(&[0xff; 9]).err(),
        Some(AtlsError::PeerMisbehaved(Misbehaviour::NotProtobuf {
            frame: "Hello",
            ..
        }))
    ));
}

/// Gives evidence of any size, to reach this side's own limits.
#[derive(Debug)]
struct BulkyIssuer;

impl Issuer for BulkyIssuer {
    fn issue(&self, _: &ReportData) -> Result<Evidence, IssueError> {
        let crl = vec![0; Limits::EVIDENCE_FRAME_BYTES_MAX as usize];
        Ok(Evidence::Snp(SnpEvidence {
            crl,
            ..SnpEvidence::default()
        }))
    }
}

#[derive(Debug)]
struct BrokenIssuer;

impl Issuer for BrokenIssuer {
    fn issue(&self, _: &ReportData) -> Result<Evidence, IssueError> {
        Err(IssueError {
            tee: "SEV-SNP",
            reason: "no such device".into(),
        })
    }
}

fn prove(issuer: Arc<dyn Issuer>) -> Prove<()> {
    let report_data = channels().0.own_report_data(Role::Client);
    Prove {
        issuer,
        report_data,
        limits: Limits::client(),
        next: (),
    }
}

#[test]
fn failing_and_oversized_issuers_are_local_errors() {
    assert!(matches!(
        prove(Arc::new(BulkyIssuer)).issue().err(),
        Some(AtlsError::EvidenceTooLarge { .. })
    ));
    let error = prove(Arc::new(BrokenIssuer)).issue().expect_err("fails");
    assert_eq!(
        error.causes().to_string(),
        "this side could not show evidence: the SEV-SNP could not issue evidence: no such device"
    );
    assert!(!error.is_attestation_failure());
}

/// Refuses with a reason longer than a verdict may carry, whose limit falls inside a character.
#[derive(Debug)]
struct VerboseVerifier;

impl EvidenceVerifier for VerboseVerifier {
    fn verify(
        &self,
        evidence: &Evidence,
        _: &ReportData,
        _: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        let available = "ä€".repeat(4000);
        Err(VerifyError::NoReferenceValue {
            found: evidence.tee(),
            available,
        })
    }
}

#[test]
fn long_reason_is_cut_at_a_character_and_still_arrives() {
    let challenge = AwaitEvidence {
        verifier: Arc::new(VerboseVerifier),
        expected: ReportData([0; 64]),
        limits: Limits::server(),
        next: server::Last,
    };
    let (evidence, client) = prove(party().issuer).issue().expect("evidence");
    let Judged::Refused { verdict, .. } = challenge
        .receive(body(&evidence))
        .expect("readable")
        .appraise(now())
    else {
        panic!("this verifier refuses")
    };
    let Err(AtlsError::RefusedByPeer { reason }) = client.receive(body(&verdict)) else {
        panic!("the client hears of it")
    };
    let bytes = reason.len();
    assert!(
        (Limits::REASON_BYTES_MAX - 2..=Limits::REASON_BYTES_MAX).contains(&bytes),
        "{bytes}"
    );
}

#[test]
fn control_characters_of_a_peer_never_reach_the_terminal() {
    let reason = "line one\nred\u{1b}[31m\r\u{7}\u{9b}2J".to_owned();
    let verdict = Verdict {
        accepted: false,
        reason,
    }
    .encode_to_vec();
    let (_, state) = prove(party().issuer).issue().expect("evidence");
    let Err(AtlsError::RefusedByPeer { reason }) = state.receive(&verdict) else {
        panic!("refused")
    };
    assert_eq!(
        reason,
        "line one\nred\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}2J"
    );
}
