//! What the Coordinator says about an encrypted volume, signed as the answer with a certificate is.

use crate::answer::AnswerMessage;

/// Begins what is signed; no other signature of the root CA begins so.
const LABEL: &[u8] = b"contrast volume answer v1";

/// What the root CA signs of an answer about a volume: the answer, and what makes it the answer to this question of this pod.
///
/// The pod has no means to judge a Coordinator, so that an impostor could tell it that a volume is new. It cannot sign, because
/// only the seed gives the key that enrolled the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeAnswer<'a> {
    /// Random bytes of the request.
    pub nonce: &'a [u8],
    /// Key that the pod proved to have, `SubjectPublicKeyInfo` DER.
    pub public_key_spki: &'a [u8],
    /// The volume that was asked about.
    pub volume_id: &'a [u8],
    /// The generation that the pod reported; 0 when it only asked.
    pub reported: u64,
    /// Whether a generation of the volume is recorded.
    pub known: bool,
    /// The highest generation that is recorded; 0 when none is.
    pub generation: u64,
    /// Whether what the pod reported is recorded as its own.
    pub accepted: bool,
}

impl VolumeAnswer<'_> {
    /// What is signed: the fields in the order above. Numbers are 8 bytes, big-endian, and truth values one byte, 0 or 1.
    pub fn message(&self) -> AnswerMessage {
        AnswerMessage::new(
            LABEL,
            &[
                self.nonce,
                self.public_key_spki,
                self.volume_id,
                &self.reported.to_be_bytes(),
                &[u8::from(self.known)],
                &self.generation.to_be_bytes(),
                &[u8::from(self.accepted)],
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::{assert_all_count, assert_message};

    const ANSWER: VolumeAnswer<'_> = VolumeAnswer {
        nonce: &[1; 32],
        public_key_spki: &[2; 91],
        volume_id: &[3; 16],
        reported: 4,
        known: true,
        generation: 5,
        accepted: false,
    };

    #[test]
    fn what_is_signed_stays_the_same() {
        assert_message(
            &ANSWER.message(),
            "contrast volume answer v1",
            "bea7135c66e03bdc59a8a0fad655a752c52ad4c10abdfbccb9efe6881c460ab7",
        );
    }

    #[test]
    fn every_field_and_the_key_count() {
        let changed = [
            VolumeAnswer {
                nonce: &[],
                ..ANSWER
            },
            VolumeAnswer {
                public_key_spki: &[2; 90],
                ..ANSWER
            },
            VolumeAnswer {
                volume_id: &[4; 16],
                ..ANSWER
            },
            VolumeAnswer {
                reported: 5,
                ..ANSWER
            },
            VolumeAnswer {
                known: false,
                ..ANSWER
            },
            VolumeAnswer {
                generation: 4,
                ..ANSWER
            },
            VolumeAnswer {
                accepted: true,
                ..ANSWER
            },
        ];
        assert_all_count(&ANSWER.message(), changed.map(|answer| answer.message()));
    }
}
