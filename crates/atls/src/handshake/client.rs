//! The client's order: both say Hello, the server proves itself, then the client does.
//!
//! The server goes first so that a confidential VM shows its evidence only to a server that it accepted.

use std::sync::Arc;

use super::{AfterAcceptance, AwaitEvidence, Established, Prove, Terms, hello_frame, requirement};
use crate::{
    AtlsError, AttestedPeer, Misbehaviour,
    binding::{Channel, Role},
};

/// The client's Hello is due to be sent; it waits for the server's.
pub(crate) struct AwaitHello {
    terms: Terms,
    channel: Channel,
}

/// Begins the handshake. Returns the state and the frame to send.
pub(crate) fn start(terms: Terms, channel: Channel) -> (AwaitHello, Vec<u8>) {
    let frame = hello_frame(&terms);
    (AwaitHello { terms, channel }, frame)
}

/// What follows the server's Hello.
#[derive(Debug)]
pub(crate) enum AfterHello {
    /// The server has to prove itself first.
    Challenge(AwaitEvidence<OwnProof>),
    /// The client needs no proof; it proves itself.
    Prove(Prove<Established>),
    /// Neither side requires a proof, and both permit that.
    Done(Established),
}

impl AwaitHello {
    /// Takes the body of the server's Hello.
    pub(crate) fn receive(self, body: &[u8]) -> Result<AfterHello, AtlsError> {
        let Self { terms, channel } = self;
        let own_proof = match requirement(&terms, body)? {
            false => OwnProof(None),
            true => OwnProof(Some(Prove {
                issuer: terms.issuer.ok_or(AtlsError::NoIssuer)?,
                report_data: channel.own_report_data(Role::Client),
                limits: terms.limits,
                next: (),
            })),
        };
        match (terms.verifier, own_proof) {
            (Some(verifier), own_proof) => Ok(AfterHello::Challenge(AwaitEvidence {
                verifier,
                expected: channel
                    .peer_report_data(Role::Server)
                    .ok_or(Misbehaviour::NoCertificate)?,
                limits: terms.limits,
                next: own_proof,
            })),
            (None, OwnProof(Some(prove))) => Ok(AfterHello::Prove(
                prove.followed_by(Established { attested: None }),
            )),
            // `requirement` has refused it unless the terms permit it.
            (None, OwnProof(None)) => Ok(AfterHello::Done(Established { attested: None })),
        }
    }
}

/// The client's own proof, when the server requires one; due after the server was accepted.
#[derive(Debug)]
pub(crate) struct OwnProof(Option<Prove<()>>);

/// What follows the acceptance of the server.
#[derive(Debug)]
pub(crate) enum AfterChallenge {
    Prove(Prove<Established>),
    Done(Established),
}

impl AfterAcceptance for OwnProof {
    type Next = AfterChallenge;

    fn peer_accepted(self, peer: Arc<AttestedPeer>) -> AfterChallenge {
        let established = Established {
            attested: Some(peer),
        };
        match self.0 {
            Some(prove) => AfterChallenge::Prove(prove.followed_by(established)),
            None => AfterChallenge::Done(established),
        }
    }
}

impl Prove<()> {
    fn followed_by<N>(self, next: N) -> Prove<N> {
        let Self {
            issuer,
            report_data,
            limits,
            next: (),
        } = self;
        Prove {
            issuer,
            report_data,
            limits,
            next,
        }
    }
}
