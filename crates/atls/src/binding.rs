//! Binding of evidence to one connection, one role and one TLS key.

use aws_lc_rs::digest::{Context, SHA512};
use contrast_attestation::ReportData;
use zeroize::Zeroizing;

/// First field of the hashed text: separates these hashes from any other use of SHA-512 and from later versions.
const LABEL: &[u8] = b"contrast-atls-v1 report data";

/// Label of the TLS exporter (RFC 8446, section 7.5), used without a context.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-contrast-atls-v1";

/// Size of the exporter value, in bytes.
pub(crate) const EXPORTER_BYTES: usize = 64;

/// Who proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Server => b"server",
        }
    }
}

/// What the TLS handshake left behind: the connection's exporter value and both sides' keys.
pub(crate) struct Channel {
    exporter: Zeroizing<[u8; EXPORTER_BYTES]>,
    own_spki: Vec<u8>,
    peer_spki: Option<Vec<u8>>,
}

impl Channel {
    /// `peer_spki` is `None` for a client that presented no certificate.
    pub(crate) fn new(
        exporter: Zeroizing<[u8; EXPORTER_BYTES]>,
        own_spki: Vec<u8>,
        peer_spki: Option<Vec<u8>>,
    ) -> Self {
        Self {
            exporter,
            own_spki,
            peer_spki,
        }
    }

    /// Report data that this side's evidence must carry.
    pub(crate) fn own_report_data(&self, own_role: Role) -> ReportData {
        report_data(own_role, &self.own_spki, &self.exporter)
    }

    /// Report data that the peer's evidence must carry; `None` when the peer has shown no key that it could bind.
    pub(crate) fn peer_report_data(&self, peer_role: Role) -> Option<ReportData> {
        let spki = self.peer_spki.as_deref()?;
        Some(report_data(peer_role, spki, &self.exporter))
    }
}

/// SHA-512 over label, role, SubjectPublicKeyInfo and exporter value, each preceded by its length as four bytes
/// (big-endian), so that no two different inputs hash the same text.
fn report_data(prover: Role, spki: &[u8], exporter: &[u8; EXPORTER_BYTES]) -> ReportData {
    let mut context = Context::new(&SHA512);
    for field in [LABEL, prover.label(), spki, exporter] {
        // A key comes from a certificate in one TLS message, which is far below 4 GiB.
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        context.update(&length.to_be_bytes());
        context.update(field);
    }
    let mut hash = [0; 64];
    hash.copy_from_slice(context.finish().as_ref());
    ReportData(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_data_equals_the_vector_of_the_protocol_document() {
        let exporter: [u8; 64] = std::array::from_fn(|i| i as u8);
        let data = |role| hex::encode(report_data(role, b"example key", &exporter).0);
        let document = include_str!("../docs/protocol.md");
        for (role, expected) in [(Role::Client, VECTOR_CLIENT), (Role::Server, VECTOR_SERVER)] {
            assert_eq!(data(role), expected);
            assert!(
                document.contains(expected),
                "docs/protocol.md lists the vector of {role:?}"
            );
        }
    }

    // Computed with Python's hashlib from the text of docs/protocol.md.
    const VECTOR_CLIENT: &str = "fa4c86d9583182176c736edde22e0b9707c1d8a6218abd85e1b27efc6294bdb4e15e752df01e4b1f14058e5b48907393a35cc1b129401c9a5ff8e82685ffb28b";
    const VECTOR_SERVER: &str = "4c6b954c85d78c8cb28b296e20236735070a5db5dca3ae3721aea20e617336cc8cada047068f773184853a6588740aeb15fb7b23077c8641ce4a5e8b4045d7e5";

    #[test]
    fn every_input_changes_the_report_data() {
        let base = report_data(Role::Client, b"key", &[0; 64]);
        assert_ne!(base, report_data(Role::Server, b"key", &[0; 64]));
        assert_ne!(base, report_data(Role::Client, b"kez", &[0; 64]));
        assert_ne!(base, report_data(Role::Client, b"key", &[1; 64]));
        assert_ne!(base, report_data(Role::Client, b"ke", &[0; 64]));
    }

    #[test]
    fn client_without_a_key_has_no_report_data() {
        let channel = Channel::new(Zeroizing::new([0; 64]), b"own".to_vec(), None);
        assert!(channel.peer_report_data(Role::Client).is_none());
    }
}
