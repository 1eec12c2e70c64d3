use std::time::Duration;

use contrast_clock::SeededEntropy;
use der::Encode as _;
use proptest::prelude::*;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, aws_lc_rs::ECDSA_P384_SHA384};

use super::*;
use crate::{LeafFacts, openssl::openssl};

const NOW_S: u64 = 1_795_000_000;
const WEEK: Duration = Duration::from_hours(168);

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
            spiffe_id: None,
            lifetime: WEEK,
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
fn root_made_again_at_the_same_time_says_the_same() {
    let said = |now| {
        let root = RootCa::new(key(1), now).expect("root");
        let certificate = Certificate::from_der(root.certificate_der()).expect("parses");
        certificate.tbs_certificate().to_der().expect("DER")
    };
    assert_eq!(said(now()), said(now()));
    // Another time means another serial number too.
    let serial = |der: &[u8]| {
        let tbs = x509_cert::TbsCertificate::from_der(der).expect("parses");
        tbs.serial_number().clone()
    };
    let later = said(now() + Duration::from_secs(1));
    assert_ne!(serial(&said(now())), serial(&later));
}

#[test]
fn leaf_of_before_chains_to_a_root_that_was_made_again() {
    let fixture = Fixture::new();
    let issued = fixture.issue(&["web"]).expect("issues");
    let again = RootCa::new(key(1), now() + Duration::from_secs(60)).expect("root");
    let intermediate = fixture.mesh.intermediate_pem();
    assert!(chains(
        &issued.der,
        Some(&intermediate),
        &again.certificate_pem(),
        "web"
    ));
}

#[test]
fn mesh_ca_from_a_peers_key_is_the_same_ca() {
    let fixture = Fixture::new();
    let pkcs8 = fixture.mesh.private_key_pkcs8().expect("encodes");
    let key = SigningKey::from_private_key_der(&pkcs8).expect("decodes");
    let replica = MeshCa::from_key(key, &fixture.root, now()).expect("mesh CA");
    assert_eq!(replica.public_key_spki(), fixture.mesh.public_key_spki());
    let issued = fixture.issue(&["web"]).expect("issues");
    assert!(chains(&issued.der, None, &replica.self_signed_pem(), "web"));
}

#[test]
fn mesh_ca_says_when_it_ends() {
    let mesh = Fixture::new().mesh;
    for pem in [mesh.intermediate_pem(), mesh.self_signed_pem()] {
        let certificate =
            <Certificate as der::DecodePem>::from_pem(pem.as_bytes()).expect("parses");
        let validity = certificate.tbs_certificate().validity();
        assert_eq!(validity.not_after.to_system_time(), mesh.not_after());
    }
}

#[test]
fn leaf_lasts_as_long_as_requested_from_an_hour_ago() {
    let issued = Fixture::new().issue(&["web"]).expect("issues");
    assert_eq!(issued.not_after, now() + WEEK);
    let leaf = Certificate::from_der(&issued.der).expect("parses");
    let not_before = leaf.tbs_certificate().validity().not_before;
    assert_eq!(
        not_before.to_system_time(),
        now() - Duration::from_secs(3600)
    );
}

#[test]
fn spiffe_id_is_the_only_uri_of_its_certificate() {
    let fixture = Fixture::new();
    let sans = ["web".to_owned(), "10.0.0.1".to_owned()];
    let id = "spiffe://example.org/ns/default/deployment/web";
    let request = |sans, spiffe_id| LeafRequest {
        public_key_spki: fixture.subject.public_key_spki(),
        sans,
        spiffe_id: Some(spiffe_id),
        peer_ip: Some("10.1.2.3".parse().expect("address")),
        workload_secret_id: None,
        extensions: &[],
        lifetime: Duration::from_mins(1),
    };
    let issue = |request: LeafRequest<'_>| {
        fixture
            .mesh
            .issue_leaf(&request, &SeededEntropy::new(4), now())
    };
    let issued = issue(request(&sans, id)).expect("issues");
    assert_eq!(issued.not_after, now() + Duration::from_mins(1));
    // What another implementation reads.
    let der = CertificateDer::from(issued.der.as_slice());
    let leaf = EndEntityCert::try_from(&der).expect("parses");
    assert_eq!(leaf.valid_uri_names().collect::<Vec<_>>(), [id]);
    assert_eq!(leaf.valid_dns_names().collect::<Vec<_>>(), ["web"]);
    assert!(chains(
        &issued.der,
        None,
        &fixture.mesh.self_signed_pem(),
        "10.1.2.3"
    ));

    let with_uri = ["web".to_owned(), "spiffe://example/web".to_owned()];
    let error = issue(request(&with_uri, id)).expect_err("two URIs");
    assert!(
        matches!(&error, CertificateError::UriBesideSpiffeId { found } if *found == with_uri[1]),
        "{error}"
    );
    for wrong in [
        "",
        "web",
        "https://example.org/web",
        "spiffe://",
        "spiffe:///web",
        "spiffe://x",
        "spiffe://x/",
        "spiffe://x/a b",
    ] {
        let error = issue(request(&sans, wrong)).expect_err(wrong);
        assert!(
            matches!(&error, CertificateError::SpiffeId { found } if found == wrong),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn leaf_for_a_p256_key_and_an_address_only_has_an_empty_subject() {
    let fixture = Fixture::new();
    let p256 = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = aws_lc_rs::signature::EcdsaKeyPair::generate(p256).expect("key");
    let spki = {
        use aws_lc_rs::{encoding::AsDer as _, signature::KeyPair as _};
        pair.public_key().as_der().expect("DER").as_ref().to_vec()
    };
    let request = LeafRequest {
        public_key_spki: &spki,
        sans: &[],
        peer_ip: Some("::ffff:10.1.2.3".parse().expect("address")),
        workload_secret_id: None,
        extensions: &[],
        spiffe_id: None,
        lifetime: WEEK,
    };
    let issued = fixture
        .mesh
        .issue_leaf(&request, &SeededEntropy::new(4), now())
        .expect("issues");
    let leaf = Certificate::from_der(&issued.der).expect("parses");
    let tbs = leaf.tbs_certificate();
    assert_eq!(tbs.subject_public_key_info().to_der().expect("DER"), spki);
    assert_eq!(tbs.subject().iter_rdn().count(), 0);
    let mesh = fixture.mesh.self_signed_pem();
    assert!(chains(&issued.der, None, &mesh, "10.1.2.3"));
}

#[test]
fn request_that_no_certificate_can_express_is_refused() {
    let fixture = Fixture::new();
    let fact = |oid: &str| LeafExtension {
        oid: oid.into(),
        value: vec![5, 0],
    };
    let spki = fixture.subject.public_key_spki();
    let issue = |spki: &[u8], sans: &[&str], extensions: &[LeafExtension]| {
        let sans: Vec<String> = sans.iter().map(ToString::to_string).collect();
        let request = LeafRequest {
            public_key_spki: spki,
            sans: &sans,
            peer_ip: None,
            workload_secret_id: None,
            extensions,
            spiffe_id: None,
            lifetime: WEEK,
        };
        let issued = fixture
            .mesh
            .issue_leaf(&request, &SeededEntropy::new(4), now());
        issued.expect_err("refused")
    };
    assert!(matches!(issue(spki, &[], &[]), CertificateError::NoName));
    assert!(matches!(
        issue(b"junk", &["web"], &[]),
        CertificateError::SubjectKey(_)
    ));
    assert!(matches!(
        issue(spki, &["web"], &[fact("one.two")]),
        CertificateError::Oid { .. }
    ));
    // A CA bit from outside, the secret of another workload, the same fact twice.
    for oids in [
        &["2.5.29.19"][..],
        &["1.3.9901.3.1"],
        &["1.3.9901.2.1.1", "1.3.9901.2.1.1"],
    ] {
        let extensions: Vec<_> = oids.iter().map(|oid| fact(oid)).collect();
        assert!(matches!(
            issue(spki, &["web"], &extensions),
            CertificateError::ForeignExtension { .. }
        ));
    }
    for san in ["", "web shop", "web\0", "web\n"] {
        assert!(matches!(
            issue(spki, &[san], &[]),
            CertificateError::San { .. }
        ));
    }
}

#[test]
fn openssl_accepts_the_chains() {
    let fixture = Fixture::new();
    let issued = fixture
        .issue(&["web", "spiffe://x/web", "*"])
        .expect("issues");
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, contents: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (root, mesh) = (
        file("root.pem", &fixture.root.certificate_pem()),
        file("mesh.pem", &fixture.mesh.self_signed_pem()),
    );
    let intermediate = file("intermediate.pem", &fixture.mesh.intermediate_pem());
    let chain = file("chain.pem", &issued.chain_pem);
    let at = NOW_S.to_string();
    let verify = |purpose: &str, rest: &[&str]| {
        let common = [
            "verify",
            "-x509_strict",
            "-attime",
            &at,
            "-purpose",
            purpose,
            "-verify_ip",
            "10.1.2.3",
        ];
        openssl(&[&common[..], rest].concat())
    };
    for purpose in ["sslserver", "sslclient"] {
        for rest in [
            &["-CAfile", &root, "-untrusted", &intermediate, &chain][..],
            &["-CAfile", &mesh, &chain],
        ] {
            let Some(output) = verify(purpose, rest) else {
                return;
            };
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{purpose} {rest:?}: {complaint}");
        }
    }
    let other = RootCa::new(key(9), now()).expect("root").certificate_pem();
    let other = file("other.pem", &other);
    let rest = ["-CAfile", &other, "-untrusted", &intermediate, &chain];
    let refused = verify("sslserver", &rest).expect("ran before");
    assert!(!refused.status.success());
}

#[test]
fn debug_shows_no_private_key() {
    let fixture = Fixture::new();
    let pkcs8 = fixture.mesh.private_key_pkcs8().expect("encodes");
    let shown = format!("{:?} {:?}", fixture.mesh, fixture.root);
    // The scalar is the OCTET STRING of 48 bytes behind the version of `ECPrivateKey`.
    let head = [0x02, 1, 1, 0x04, 48];
    let at = pkcs8.windows(head.len()).position(|bytes| bytes == head);
    let at = at.expect("scalar") + head.len();
    let scalar = &pkcs8[at..at + 48];
    assert!(!shown.contains(&hex::encode(scalar)));
    assert!(!shown.contains(&format!("{scalar:?}")));
    assert!(shown.contains("SigningKey(public "));
}

proptest! {
    /// Whatever names a policy entry carries: a certificate with exactly them, or a refusal that names one.
    #[test]
    fn any_names_are_issued_exactly_or_refused(
        sans in proptest::collection::vec("[!-~]{1,70}|\\PC{0,8}|spiffe://[a-z/]{1,20}|\\*", 1..5),
        ip in any::<Option<IpAddr>>(),
        id in proptest::option::of("\\PC{1,40}"),
    ) {
        let fixture = shared_fixture();
        let request = LeafRequest {
            public_key_spki: fixture.subject.public_key_spki(),
            sans: &sans,
            peer_ip: ip,
            workload_secret_id: id.as_deref(),
            extensions: &[],
spiffe_id: None,
lifetime: WEEK,
        };
        let issued = fixture.mesh.issue_leaf(&request, &SeededEntropy::new(4), now());
        let refusable = sans
            .iter()
            .any(|san| san.is_empty() || !san.chars().all(|c| c.is_ascii_graphic()));
        match issued {
            Ok(_) => prop_assert!(!refusable),
            Err(CertificateError::San { found }) => prop_assert!(refusable && sans.contains(&found)),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn no_bytes_make_resuming_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(RootCa::resume(key(1), bytes, now()).is_err());
    }
}

fn shared_fixture() -> &'static Fixture {
    static FIXTURE: std::sync::OnceLock<Fixture> = std::sync::OnceLock::new();
    FIXTURE.get_or_init(Fixture::new)
}

#[test]
fn leaf_facts_are_what_was_issued() {
    let fixture = Fixture::new();
    let leaf = fixture.issue(&["web"]).expect("issues");
    let facts = LeafFacts::read(&leaf.der).expect("reads");
    assert_eq!(
        facts.workload_secret_id.as_deref(),
        Some("apps/v1/Deployment/default/web")
    );
    assert_eq!(facts.not_after, leaf.not_after);
    let root = LeafFacts::read(fixture.root.certificate_der()).expect("reads");
    assert_eq!(root.workload_secret_id, None);
    LeafFacts::read(b"not a certificate").expect_err("refused");
}
