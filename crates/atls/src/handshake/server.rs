//! The server's order: both say Hello, the server proves itself, then the client does.
//!
//! Nothing expensive happens before the client's Hello was read: no evidence is issued for a peer that cannot even frame a
//! message of eight bytes.

use std::sync::Arc;

use super::{AfterAcceptance, AwaitEvidence, Established, Prove, Terms, hello_frame, requirement};
use crate::{
    AtlsError, AttestedPeer, Misbehaviour,
    binding::{Channel, Role},
};

/// The server's Hello is due to be sent; it waits for the client's.
pub(crate) struct AwaitHello {
    terms: Terms,
    channel: Channel,
}

/// Begins the handshake. Returns the state and the frame to send.
pub(crate) fn start(terms: Terms, channel: Channel) -> (AwaitHello, Vec<u8>) {
    let frame = hello_frame(&terms);
    (AwaitHello { terms, channel }, frame)
}

/// What follows the client's Hello.
#[derive(Debug)]
pub(crate) enum AfterHello {
    /// The server proves itself first.
    Prove(Prove<AfterProof>),
    /// The client needs no proof; it has to prove itself.
    Challenge(AwaitEvidence<Last>),
    /// Neither side requires a proof, and both permit that.
    Done(Established),
}

/// What follows the client's acceptance of the server.
#[derive(Debug)]
pub(crate) enum AfterProof {
    Challenge(AwaitEvidence<Last>),
    Done(Established),
}

impl AwaitHello {
    /// Takes the body of the client's Hello.
    pub(crate) fn receive(self, body: &[u8]) -> Result<AfterHello, AtlsError> {
        let Self { terms, channel } = self;
        let client_requires = requirement(&terms, body)?;
        let challenge = match terms.verifier {
            None => None,
            Some(verifier) => Some(AwaitEvidence {
                verifier,
                expected: channel
                    .peer_report_data(Role::Client)
                    .ok_or(Misbehaviour::NoCertificate)?,
                limits: terms.limits,
                next: Last,
            }),
        };
        let after_proof = match (client_requires, challenge) {
            (false, Some(challenge)) => return Ok(AfterHello::Challenge(challenge)),
            // `requirement` has refused it unless the terms permit it.
            (false, None) => return Ok(AfterHello::Done(Established { attested: None })),
            (true, Some(challenge)) => AfterProof::Challenge(challenge),
            (true, None) => AfterProof::Done(Established { attested: None }),
        };
        Ok(AfterHello::Prove(Prove {
            issuer: terms.issuer.ok_or(AtlsError::NoIssuer)?,
            report_data: channel.own_report_data(Role::Server),
            limits: terms.limits,
            next: after_proof,
        }))
    }
}

/// The client's proof is the last step.
#[derive(Debug)]
pub(crate) struct Last;

impl AfterAcceptance for Last {
    type Next = Established;

    fn peer_accepted(self, peer: Arc<AttestedPeer>) -> Established {
        Established {
            attested: Some(peer),
        }
    }
}
