use std::time::Duration;

use contrast_clock::SeededEntropy;
use der::{DecodePem as _, Encode as _};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs::ECDSA_P384_SHA384};

use super::*;

const NOW_S: u64 = 1_795_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
}

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&SeededEntropy::new(seed)).expect("key")
}

struct Fixture {
    root: RootCa,
    mesh: MeshCa,
    subject: SigningKey,
}

impl Fixture {
    fn new() -> Self {
        let root = RootCa::new(key(1), now()).expect("root");
        let mesh = MeshCa::generate(&SeededEntropy::new(2), &root, now()).expect("mesh");
        Self {
            root,
            mesh,
            subject: key(3),
        }
    }

    fn issue(&self, sans: &[&str]) -> Result<IssuedLeaf, CertificateError> {
        let sans: Vec<String> = sans.iter().map(ToString::to_string).collect();
        let extension = LeafExtension {
            oid: "1.3.9901.2.1.1".into(),
            value: vec![0x02, 1, 3],
        };
        let request = LeafRequest {
            public_key_spki: self.subject.public_key_spki(),
            sans: &sans,
            peer_ip: Some("10.1.2.3".parse().expect("address")),
            workload_secret_id: Some("apps/v1/Deployment/default/web"),
            extensions: &[extension],
        };
        self.mesh
            .issue_leaf(&request, &SeededEntropy::new(4), now())
    }
}

/// Path validation as clients do it, by a library that is not ours.
fn chains(leaf: &[u8], intermediate: Option<&str>, anchor: &str, name: &str) -> bool {
    let der =
        |pem_text: &str| CertificateDer::from(pem::parse(pem_text).expect("PEM").into_contents());
    let (leaf, anchor) = (CertificateDer::from(leaf), der(anchor));
    let intermediates: Vec<_> = intermediate.into_iter().map(der).collect();
    let leaf = EndEntityCert::try_from(&leaf).expect("leaf parses");
    let anchors = [anchor_from_trusted_cert(&anchor).expect("anchor")];
    let path = leaf.verify_for_usage(
        &[ECDSA_P384_SHA384],
        &anchors,
        &intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(NOW_S)),
        KeyUsage::server_auth(),
        None,
        None,
    );
    let name = ServerName::try_from(name).expect("name");
    path.is_ok() && leaf.verify_is_valid_for_subject_name(&name).is_ok()
}

#[test]
fn leaf_chains_to_root_and_to_mesh_ca_under_each_of_its_names() {
    let fixture = Fixture::new();
    let issued = fixture
        .issue(&["web", "spiffe://x/web", "192.0.2.7", "*"])
        .expect("issues");
    let root = fixture.root.certificate_pem();
    let (mesh, intermediate) = (
        fixture.mesh.self_signed_pem(),
        fixture.mesh.intermediate_pem(),
    );
    for name in ["web", "192.0.2.7", "10.1.2.3"] {
        assert!(
            chains(&issued.der, Some(&intermediate), &root, name),
            "{name} to root"
        );
        assert!(chains(&issued.der, None, &mesh, name), "{name} to mesh CA");
    }
    assert!(!chains(&issued.der, Some(&intermediate), &root, "api"));
    let other = RootCa::new(key(9), now()).expect("root").certificate_pem();
    assert!(!chains(&issued.der, Some(&intermediate), &other, "web"));
}

#[test]
fn chain_is_leaf_then_intermediate() {
    let fixture = Fixture::new();
    let issued = fixture.issue(&["web"]).expect("issues");
    let chain = pem::parse_many(&issued.chain_pem).expect("PEM");
    assert_eq!(chain[0].contents(), issued.der);
    let intermediate = pem::parse(fixture.mesh.intermediate_pem()).expect("PEM");
    assert_eq!(chain[1].contents(), intermediate.contents());
    assert_eq!(chain.len(), 2);
}

#[test]
fn leaf_carries_secret_id_and_facts() {
    let issued = Fixture::new().issue(&["web"]).expect("issues");
    let leaf = Certificate::from_der(&issued.der).expect("parses");
    let extensions = leaf.tbs_certificate().extensions().expect("extensions");
    let value = |oid: &str| {
        let found = extensions
            .iter()
            .find(|extension| extension.extn_id.to_string() == oid);
        found.expect("there").extn_value.as_bytes().to_vec()
    };
    assert_eq!(
        value("1.3.9901.3.1"),
        b"\x0c\x1eapps/v1/Deployment/default/web"
    );
    assert_eq!(value("1.3.9901.2.1.1"), [0x02, 1, 3]);
}

#[test]
fn name_cannot_smuggle_attributes_into_the_subject() {
    let issued = Fixture::new().issue(&["web,O=Evil+OU=x"]).expect("issues");
    let leaf = Certificate::from_der(&issued.der).expect("parses");
    assert_eq!(leaf.tbs_certificate().subject().iter_rdn().count(), 1);
}

#[test]
fn name_outside_ascii_is_named() {
    let error = Fixture::new()
        .issue(&["wéb"])
        .expect_err("not ASCII")
        .to_string();
    assert!(
        error.starts_with("`wéb` cannot be a subject alternative name"),
        "{error}"
    );
}

#[test]
fn root_resumes_only_with_its_own_certificate() {
    let root = RootCa::new(key(1), now()).expect("root");
    let certificate = root.certificate_der().to_vec();
    let later = now() + Duration::from_secs(3600);
    let resumed = RootCa::resume(key(1), certificate.clone(), later).expect("resumes");
    assert_eq!(resumed.certificate_pem(), root.certificate_pem());
    assert!(RootCa::resume(key(2), certificate.clone(), later).is_err());
    let decades_later = now() + Duration::from_secs(11 * 365 * 24 * 3600);
    assert!(RootCa::resume(key(1), certificate, decades_later).is_err());
}

#[test]
fn conformance_check_refuses_a_ca_certificate_as_leaf_and_a_foreign_signature() {
    let fixture = Fixture::new();
    let mesh = Certificate::from_pem(fixture.mesh.self_signed_pem().as_bytes()).expect("PEM");
    let der = mesh.to_der().expect("DER");
    let expected = |issuer_spki, kind| Expected {
        issuer_spki,
        issuer_name: MESH_CA_NAME,
        subject_spki: fixture.mesh.public_key_spki(),
        kind,
        now: now(),
    };
    let own = fixture.mesh.public_key_spki();
    let as_leaf = conform::check(&der, &expected(own, Kind::Leaf { names: &[] }));
    assert!(matches!(
        as_leaf,
        Err(CertificateError::NotConforming { rule: "not a CA" })
    ));
    let ca = || Kind::Ca {
        path_length: Some(0),
    };
    conform::check(&der, &expected(own, ca())).expect("conforms");
    let foreign = conform::check(&der, &expected(fixture.subject.public_key_spki(), ca()));
    assert!(matches!(
        foreign,
        Err(CertificateError::NotConforming {
            rule: "a signature by the issuer"
        })
    ));
}
