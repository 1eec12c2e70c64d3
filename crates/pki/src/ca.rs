use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use contrast_clock::{Entropy, EntropyError};
use der::{
    Decode as _,
    pem::{LineEnding, encode_string},
};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use crate::{
    KeyError, SigningKey,
    conform::{self, Expected, Kind, Start},
    profile::{self, Issuer, MESH_CA_NAME, ROOT_NAME},
};

const SERIAL_BYTES: usize = 16;

/// A certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A name that cannot be in a certificate.
    #[error(
        "`{}` cannot be a subject alternative name; expected an IP address, a URI or a DNS name in visible ASCII",
        found.escape_debug()
    )]
    San {
        /// The name.
        found: String,
    },
    /// Not an object identifier.
    #[error("`{found}` is no object identifier")]
    Oid {
        /// The text.
        found: String,
    },
    /// A URI beside a SPIFFE ID.
    #[error(
        "`{}` is a URI beside a SPIFFE ID, which must be the only one in an X509-SVID; remove it from the SANs",
        found.escape_debug()
    )]
    UriBesideSpiffeId {
        /// The name.
        found: String,
    },
    /// No SPIFFE ID.
    #[error(
        "`{}` cannot be a SPIFFE ID; expected `spiffe://<trust domain>/<path>` of visible ASCII characters",
        found.escape_debug()
    )]
    SpiffeId {
        /// The text.
        found: String,
    },
    /// A subject without any name.
    #[error(
        "the request names neither an alternative name nor an address; a leaf needs at least one"
    )]
    NoName,
    /// An extension that is not the caller's to set.
    #[error(
        "extension {found} cannot be requested; expected an object identifier under 1.3.9901, given once"
    )]
    ForeignExtension {
        /// Its object identifier.
        found: String,
    },
    /// The subject's key is unusable.
    #[error("the subject's public key is no SubjectPublicKeyInfo")]
    SubjectKey(#[source] der::Error),
    /// A moment outside what certificates can express.
    #[error("the time is outside what a certificate can express")]
    Time,
    /// DER.
    #[error("the certificate cannot be encoded or decoded")]
    Der(#[from] der::Error),
    /// Signing failed.
    #[error("the certificate cannot be signed")]
    Key(#[from] KeyError),
    /// No serial number.
    #[error("cannot draw a serial number")]
    Entropy(#[from] EntropyError),
    /// The certificate breaks a rule of its profile.
    #[error("the certificate breaks a rule of its profile: expected {rule}")]
    NotConforming {
        /// The rule.
        rule: &'static str,
    },
}

/// The deployment's root CA: its key follows from the seed and lives as long as the deployment.
///
/// What the certificate says follows from the key and the time it is made at, to the byte; its signature does not, because
/// ECDSA is randomised. Who must present the same bytes for the deployment's whole life therefore stores the certificate
/// ([`certificate_der`](Self::certificate_der)) and comes back with [`resume`](Self::resume). A certificate that was lost
/// may be made again with [`new`](Self::new): the same key means that whoever trusts the old one accepts the chain.
#[derive(Debug)]
pub struct RootCa {
    key: SigningKey,
    certificate: Vec<u8>,
    pem: String,
}

impl RootCa {
    /// A root CA with a new certificate, valid from an hour before `now`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn new(key: SigningKey, now: SystemTime) -> Result<Self, CertificateError> {
        let certificate = profile::root(&key, now)?;
        Self::checked(key, certificate, now, Start::Now)
    }

    /// A root CA with the certificate that it had before (DER), for instance after a recovery.
    ///
    /// # Errors
    /// When the certificate is not the root certificate of this key, or not valid at `now`.
    pub fn resume(
        key: SigningKey,
        certificate: Vec<u8>,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        Self::checked(key, certificate, now, Start::Earlier)
    }

    fn checked(
        key: SigningKey,
        certificate: Vec<u8>,
        now: SystemTime,
        start: Start,
    ) -> Result<Self, CertificateError> {
        let expected = Expected {
            issuer_spki: key.public_key_spki(),
            issuer_name: ROOT_NAME,
            subject_spki: key.public_key_spki(),
            kind: Kind::Root,
            now,
            start,
        };
        conform::check(&certificate, &expected)?;
        let pem = to_pem(&certificate)?;
        Ok(Self {
            key,
            certificate,
            pem,
        })
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key.sign_sha384(message)
    }

    /// Public key, `SubjectPublicKeyInfo` DER.
    pub fn public_key_spki(&self) -> &[u8] {
        self.key.public_key_spki()
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        self.pem.clone()
    }
}

/// The CA that signs leaf certificates under one transition.
pub struct MeshCa {
    key: SigningKey,
    intermediate_pem: String,
    self_signed_pem: String,
    not_after: SystemTime,
}

impl MeshCa {
    /// Draws a mesh CA key and certifies it, under `root` and by itself.
    ///
    /// # Errors
    /// When `entropy` or the library fails.
    pub fn generate(
        entropy: &dyn Entropy,
        root: &RootCa,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        Self::from_key(SigningKey::generate(entropy)?, root, now)
    }

    /// Certifies an existing mesh CA key, as a replica does that received it from a peer.
    ///
    /// # Errors
    /// When the library fails.
    pub fn from_key(
        key: SigningKey,
        root: &RootCa,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let spki = key.public_key_spki();
        let under_root = Issuer {
            key: &root.key,
            name: ROOT_NAME,
        };
        let intermediate = profile::mesh_ca(&under_root, spki, now)?;
        let own = Issuer {
            key: &key,
            name: MESH_CA_NAME,
        };
        let self_signed = profile::mesh_ca(&own, spki, now)?;
        for (certificate, issuer) in [(&intermediate, &under_root), (&self_signed, &own)] {
            let expected = Expected {
                issuer_spki: issuer.key.public_key_spki(),
                issuer_name: issuer.name,
                subject_spki: spki,
                kind: Kind::MeshCa,
                now,
                start: Start::Now,
            };
            conform::check(certificate, &expected)?;
        }
        Ok(Self {
            intermediate_pem: to_pem(&intermediate)?,
            self_signed_pem: to_pem(&self_signed)?,
            not_after: not_after(&intermediate)?,
            key,
        })
    }

    /// Public key, `SubjectPublicKeyInfo` DER.
    pub fn public_key_spki(&self) -> &[u8] {
        self.key.public_key_spki()
    }

    /// Private key, PKCS#8 DER, for attested peer Coordinators only.
    ///
    /// # Errors
    /// When the library cannot encode it.
    pub fn private_key_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
        Ok(self.key.to_pkcs8_der()?)
    }

    /// Self-signed form, PEM: what a workload trusts that talks to this transition's mesh only.
    pub fn self_signed_pem(&self) -> String {
        self.self_signed_pem.clone()
    }

    /// Form under the root, PEM: the link between leafs and the root CA.
    pub fn intermediate_pem(&self) -> String {
        self.intermediate_pem.clone()
    }

    /// End of the validity of both forms.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Issues a leaf certificate; the serial number comes from `entropy`.
    ///
    /// # Errors
    /// When a name, the key or an extension of the request cannot be in a certificate, there is no name at all, or the
    /// library fails.
    pub fn issue_leaf(
        &self,
        request: &LeafRequest<'_>,
        entropy: &dyn Entropy,
        now: SystemTime,
    ) -> Result<IssuedLeaf, CertificateError> {
        let mut serial = [0; SERIAL_BYTES];
        entropy.fill(&mut serial)?;
        let issuer = Issuer {
            key: &self.key,
            name: MESH_CA_NAME,
        };
        let der = profile::leaf(&issuer, request, &serial, now)?;
        let expected = Expected {
            issuer_spki: self.key.public_key_spki(),
            issuer_name: MESH_CA_NAME,
            subject_spki: request.public_key_spki,
            kind: Kind::Leaf { request },
            now,
            start: Start::Now,
        };
        conform::check(&der, &expected)?;
        let certificate = Certificate::from_der(&der)?;
        let tbs = certificate.tbs_certificate();
        let not_after = tbs.validity().not_after.to_system_time();
        let serial = tbs.serial_number().as_bytes().to_vec();
        let chain_pem = to_pem(&der)? + &self.intermediate_pem;
        Ok(IssuedLeaf {
            der,
            serial,
            chain_pem,
            not_after,
        })
    }
}

impl fmt::Debug for MeshCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshCa")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What a leaf certificate is to say.
#[derive(Debug, Clone, Copy)]
pub struct LeafRequest<'a> {
    /// Subject's public key, `SubjectPublicKeyInfo` DER.
    pub public_key_spki: &'a [u8],
    /// Names from the policy entry: IP addresses, URIs or DNS names.
    pub sans: &'a [String],
    /// SPIFFE ID of the subject, `spiffe://<trust domain>/<path>`. It is then the only URI of the certificate, which makes it an
    /// X509-SVID; a URI in `sans` is refused.
    pub spiffe_id: Option<&'a str>,
    /// Address that the subject connected from, added to the names; IPv4 if it is IPv4 mapped into IPv6.
    pub peer_ip: Option<IpAddr>,
    /// Workload secret id from the policy entry, for the extension 1.3.9901.3.1.
    pub workload_secret_id: Option<&'a str>,
    /// Further extensions: verified facts about the subject, each with its own object identifier under 1.3.9901.
    pub extensions: &'a [LeafExtension],
    /// How long the certificate is valid from now on, in whole seconds.
    pub lifetime: Duration,
}

/// One non-critical extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafExtension {
    /// Object identifier in dotted form.
    pub oid: String,
    /// Value, DER.
    pub value: Vec<u8>,
}

/// A leaf certificate, ready to hand out.
#[derive(Debug, Clone)]
pub struct IssuedLeaf {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its serial number, as in the certificate.
    pub serial: Vec<u8>,
    /// The certificate and the intermediate, PEM, leaf first.
    pub chain_pem: String,
    /// End of validity.
    pub not_after: SystemTime,
}

fn not_after(certificate: &[u8]) -> Result<SystemTime, CertificateError> {
    let certificate = Certificate::from_der(certificate)?;
    let validity = certificate.tbs_certificate().validity();
    Ok(validity.not_after.to_system_time())
}

fn to_pem(der: &[u8]) -> Result<String, CertificateError> {
    let text = encode_string("CERTIFICATE", LineEnding::LF, der);
    text.map_err(|error| CertificateError::Der(error.into()))
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
