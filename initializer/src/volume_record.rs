//! What the Coordinator knows of an encrypted volume: the highest generation that was ever reported.
//!
//! The pod cannot judge a Coordinator, so the attested connection alone proves nothing about who answers. What counts is the
//! signature of the root CA that enrolled this pod. The secret that opens the volume came with that very signature: a Coordinator that is
//! not the deployment's has neither.

use std::{sync::Arc, time::Duration};

use contrast_atls::ClientConfig;
use contrast_pki::{KeyError, RootKey, VolumeAnswer};
use contrast_proto::mesh::{
    AdvanceVolumeRequest, GetVolumeRequest, Volume, mesh_api_client::MeshApiClient,
};
use contrast_telemetry::traces::Traced;
use tonic::Code;

use crate::enroll::{EnrollError, connect};

/// Longest time for one answer: a quorum agrees on it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// UUID of a volume, as its header has it.
pub type VolumeId = [u8; 16];

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// It is recorded, and nobody else reported this generation.
    Accepted,
    /// As high a generation was reported before: this is an older image of the volume, or somebody else opened it.
    Refused {
        /// The generation that is recorded.
        recorded: u64,
    },
}

/// Nothing is known of the volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeRecordError {
    /// No connection, or no randomness.
    #[error("cannot ask the Coordinator about the encrypted volume")]
    Connection(#[from] EnrollError),
    /// The Coordinator answered with an error.
    #[error("the Coordinator refused a question about the encrypted volume ({code}): {message}")]
    Refused {
        /// gRPC status code.
        code: Code,
        /// The Coordinator's words.
        message: String,
    },
    /// Somebody else's answer.
    #[error(
        "the answer about the encrypted volume is not signed by the root CA that enrolled this pod (key with SHA-256 {expected}): somebody \
         leads the pod to a Coordinator that is not its own, or the deployment was founded anew; the volume stays closed"
    )]
    Signature {
        /// The root CA key of this pod's deployment.
        expected: RootKey,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The answer contradicts itself.
    #[error(
        "the Coordinator's answer about the encrypted volume makes no sense: {what}; it is of another version, or damaged"
    )]
    Answer {
        /// What is wrong.
        what: String,
    },
}

impl VolumeRecordError {
    /// Whether asking again may help, without any other change.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::ResourceExhausted
                    | Code::FailedPrecondition
                    | Code::Internal
            ),
            // An impostor goes away when the host wants it to; the genuine Coordinator answers then.
            Self::Signature { .. } => true,
            Self::Answer { .. } => false,
        }
    }
}

/// Asks the Coordinator about the volumes of this pod's workload secret id.
#[derive(Debug, Clone)]
pub struct VolumeRecord {
    address: String,
    config: Arc<ClientConfig>,
    deployment: RootKey,
}

impl VolumeRecord {
    /// Asks at `address` (`HOST:PORT`) with the identity that `config` attests. `deployment` is the root CA key that enrolled the pod
    /// ([`Enrolled::root_key`](crate::Enrolled::root_key)). The identity should be the one of the pod's whole life: a report that is repeated on
    /// it is accepted again.
    pub fn new(address: String, config: Arc<ClientConfig>, deployment: RootKey) -> Self {
        Self {
            address,
            config,
            deployment,
        }
    }

    /// The highest generation that was ever reported; `None` when none was.
    ///
    /// # Errors
    /// When nobody answers, or not the Coordinator of this deployment.
    pub async fn get(&self, volume: VolumeId) -> Result<Option<u64>, VolumeRecordError> {
        let nonce = draw()?;
        let request = GetVolumeRequest {
            nonce: nonce.to_vec().into(),
            volume_id: volume.to_vec().into(),
        };
        let answer = self.client().await?.get_volume(request).await;
        let answer = self.checked(answer, &nonce, volume, 0)?;
        match (answer.known, answer.generation) {
            (false, 0) => Ok(None),
            (true, generation @ 1..) => Ok(Some(generation)),
            (known, generation) => Err(senseless(known, generation)),
        }
    }

    /// Reports `generation`, at least 1, which must be on the device before. A caller that got no answer repeats it.
    ///
    /// # Errors
    /// When nobody answers, or not the Coordinator of this deployment. It may be recorded all the same.
    pub async fn advance(
        &self,
        volume: VolumeId,
        generation: u64,
    ) -> Result<Advance, VolumeRecordError> {
        let nonce = draw()?;
        let request = AdvanceVolumeRequest {
            nonce: nonce.to_vec().into(),
            volume_id: volume.to_vec().into(),
            generation,
        };
        let answer = self.client().await?.advance_volume(request).await;
        let answer = self.checked(answer, &nonce, volume, generation)?;
        match (answer.accepted, answer.known, answer.generation) {
            (true, true, recorded) if recorded == generation => Ok(Advance::Accepted),
            (false, true, recorded) if recorded >= generation => Ok(Advance::Refused { recorded }),
            (_, known, recorded) => Err(senseless(known, recorded)),
        }
    }

    async fn client(&self) -> Result<MeshApiClient<Traced>, VolumeRecordError> {
        Ok(connect(&self.address, &self.config, ANSWER_TIMEOUT).await?)
    }

    /// Nothing of an answer counts before its signature.
    fn checked(
        &self,
        answer: Result<tonic::Response<Volume>, tonic::Status>,
        nonce: &[u8],
        volume: VolumeId,
        reported: u64,
    ) -> Result<Volume, VolumeRecordError> {
        let answer = answer.map_err(|status| VolumeRecordError::Refused {
            code: status.code(),
            message: status.message().to_owned(),
        })?;
        let answer = answer.into_inner();
        let signed = VolumeAnswer {
            nonce,
            public_key_spki: self.config.identity.spki(),
            volume_id: &volume,
            reported,
            known: answer.known,
            generation: answer.generation,
            accepted: answer.accepted,
        };
        let verified = signed.message().verify(&self.deployment, &answer.signature);
        match verified {
            Ok(()) => Ok(answer),
            Err(source) => Err(VolumeRecordError::Signature {
                expected: self.deployment.clone(),
                source,
            }),
        }
    }
}

fn draw() -> Result<[u8; 32], EnrollError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(EnrollError::Nonce)?;
    Ok(nonce)
}

fn senseless(known: bool, generation: u64) -> VolumeRecordError {
    VolumeRecordError::Answer {
        what: format!("known: {known}, generation {generation}"),
    }
}
