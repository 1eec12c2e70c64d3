use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use contrast_attestation::{Claim, ClaimValue, Tee};
use contrast_clock::Entropy;
use contrast_pki::{CertificateError, IssuedLeaf, LeafExtension, LeafRequest, MeshCa};
use der::{Encode, asn1::OctetStringRef};

use super::Admission;

/// Arc under which SNP facts are.
const SNP_CLAIMS: &str = "1.3.9901.2.1";
/// Arc under which TDX facts are.
const TDX_CLAIMS: &str = "1.3.9901.2.2";

/// A certificate could not be issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IssueError {
    #[error("the evidence is of a TEE that certificates cannot express: {0}")]
    UnknownTee(Tee),
    #[error("a verified fact cannot be encoded")]
    Claim(#[source] der::Error),
    #[error("the mesh CA could not issue the certificate")]
    Certificate(#[source] CertificateError),
}

/// Who issues, and what holds for every certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Authority<'a> {
    pub(crate) mesh_ca: &'a MeshCa,
    pub(crate) trust_domain: &'a str,
    pub(crate) lifetime: Duration,
}

/// Issues a certificate for `public_key_spki`, the key that the pod's evidence vouches for.
pub(crate) fn issue(
    authority: Authority<'_>,
    admission: Admission<'_>,
    public_key_spki: &[u8],
    peer_ip: Option<IpAddr>,
    entropy: &dyn Entropy,
    now: SystemTime,
) -> Result<IssuedLeaf, IssueError> {
    let tee = admission.evidence.tee();
    let arc = match tee {
        Tee::Snp => SNP_CLAIMS,
        Tee::Tdx => TDX_CLAIMS,
        other => return Err(IssueError::UnknownTee(other)),
    };
    let extensions = admission
        .evidence
        .claims()
        .iter()
        .map(|claim| extension(arc, claim))
        .collect::<Result<Vec<_>, _>>()
        .map_err(IssueError::Claim)?;
    let id = admission.entry.workload_secret_id.as_str();
    let domain = authority.trust_domain;
    let path = admission.entry.spiffe_path.as_deref();
    let spiffe_id = path.map(|path| format!("spiffe://{domain}/{path}"));
    let request = LeafRequest {
        public_key_spki,
        sans: &admission.entry.sans,
        spiffe_id: spiffe_id.as_deref(),
        peer_ip,
        workload_secret_id: (!id.is_empty()).then_some(id),
        extensions: &extensions,
        lifetime: authority.lifetime,
    };
    authority
        .mesh_ca
        .issue_leaf(&request, entropy, now)
        .map_err(IssueError::Certificate)
}

fn extension(arc: &str, claim: &Claim) -> Result<LeafExtension, der::Error> {
    let value = match &claim.value {
        ClaimValue::Integer(number) => number.to_der()?,
        ClaimValue::Boolean(flag) => flag.to_der()?,
        ClaimValue::Bytes(bytes) => OctetStringRef::new(bytes)?.to_der()?,
    };
    Ok(LeafExtension {
        oid: format!("{arc}.{}", claim.arc),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_become_the_asn1_type_of_the_same_name() {
        let der = |value| {
            let extension = extension(SNP_CLAIMS, &Claim { arc: 7, value }).expect("encodes");
            assert_eq!(extension.oid, "1.3.9901.2.1.7");
            extension.value
        };
        assert_eq!(der(ClaimValue::Integer(128)), [0x02, 0x02, 0x00, 0x80]);
        assert_eq!(der(ClaimValue::Boolean(true)), [0x01, 0x01, 0xff]);
        assert_eq!(der(ClaimValue::Bytes(vec![9, 8])), [0x04, 0x02, 9, 8]);
    }
}
