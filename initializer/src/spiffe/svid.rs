use std::{fmt, sync::Arc};

use bytes::Bytes;
use contrast_atls::Identity;
use der::Encode as _;
use x509_cert::{
    Certificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
};
use zeroize::Zeroizing;

use crate::Credentials;

const SCHEME: &str = "spiffe://";

/// What the pod presents and trusts, in the forms in which it is asked for.
pub struct Svid {
    /// Absent when the manifest gives the pod no SPIFFE path.
    pub(super) id: Option<SpiffeId>,
    pub(super) chain_der: Bytes,
    pub(super) bundle_der: Bytes,
    pub(super) chain_pem: String,
    pub(super) bundle_pem: String,
    identity: Arc<Identity>,
    private_key_pem: Arc<Zeroizing<String>>,
}

/// `spiffe://<trust domain>/<path>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpiffeId {
    pub(super) uri: String,
    /// `spiffe://<trust domain>`.
    pub(super) trust_domain: String,
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The pod's certificates cannot be given to programs.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be read as X.509, so programs that ask for it keep the one before")]
pub struct SvidError {
    /// Which certificates.
    pub what: &'static str,
    /// What is wrong.
    #[source]
    pub source: der::Error,
}

impl Svid {
    /// From what is installed, and the key that belongs to it, also as PEM.
    ///
    /// # Errors
    /// When a certificate cannot be parsed.
    pub fn new(
        credentials: &Credentials,
        identity: Arc<Identity>,
        private_key_pem: Arc<Zeroizing<String>>,
    ) -> Result<Self, SvidError> {
        let broken = |what| move |source| SvidError { what, source };
        let chain = Certificate::load_pem_chain(credentials.certificate_chain.as_bytes())
            .map_err(broken("the certificate chain"))?;
        let bundle_pem = credentials.bundle();
        let bundle = Certificate::load_pem_chain(bundle_pem.as_bytes())
            .map_err(broken("the mesh CA bundle"))?;
        let id = match chain.first() {
            Some(leaf) => spiffe_id(leaf).map_err(broken("the leaf certificate"))?,
            None => None,
        };
        Ok(Self {
            id,
            chain_der: concatenated(&chain).map_err(broken("the certificate chain"))?,
            bundle_der: concatenated(&bundle).map_err(broken("the mesh CA bundle"))?,
            chain_pem: credentials.certificate_chain.clone(),
            bundle_pem,
            identity,
            private_key_pem,
        })
    }

    /// PKCS#8 DER. This copy is wiped when the message that carries it is dropped; what the transport buffers of it is not.
    pub(super) fn private_key_der(&self) -> Bytes {
        Bytes::from_owner(Zeroizing::new(self.identity.private_key_pkcs8().to_vec()))
    }

    /// PKCS#8 PEM, as [`Svid::private_key_der`].
    pub(super) fn private_key_pem(&self) -> Bytes {
        Bytes::from_owner(Zeroizing::new(self.private_key_pem.as_bytes().to_vec()))
    }
}

fn concatenated(certificates: &[Certificate]) -> Result<Bytes, der::Error> {
    let mut all = Vec::new();
    for certificate in certificates {
        certificate.encode_to_vec(&mut all)?;
    }
    Ok(all.into())
}

fn spiffe_id(leaf: &Certificate) -> Result<Option<SpiffeId>, der::Error> {
    let names = leaf.tbs_certificate().get_extension::<SubjectAltName>()?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    Ok(names.iter().find_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => parsed(uri.as_str()),
        _ => None,
    }))
}

fn parsed(uri: &str) -> Option<SpiffeId> {
    let (trust_domain, _) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some(SpiffeId {
        uri: uri.to_owned(),
        trust_domain: format!("{SCHEME}{trust_domain}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domain_is_the_part_before_the_path() {
        let id = parsed("spiffe://shop.example/ns/votes/deployment/api").expect("an ID");
        assert_eq!(id.trust_domain, "spiffe://shop.example");
        assert_eq!(parsed("https://shop.example/ns"), None);
        assert_eq!(parsed("spiffe://shop.example"), None);
    }
}
