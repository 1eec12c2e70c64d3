use std::time::Duration;

use contrast_clock::SeededEntropy;
use der::{
    Sequence,
    asn1::{AnyRef, BitStringRef},
};

use super::*;
use crate::{LeafExtension, MeshCa, RootCa, SigningKey, profile};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

const YEAR: Duration = Duration::from_secs(31_536_000);

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&SeededEntropy::new(seed)).expect("key")
}

/// A leaf request whose parts live as long as the test.
struct Fixture {
    mesh: SigningKey,
    subject: SigningKey,
    sans: Vec<String>,
    extensions: Vec<LeafExtension>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            mesh: key(2),
            subject: key(3),
            sans: ["web", "spiffe://x/web", "192.0.2.7"]
                .map(str::to_owned)
                .to_vec(),
            extensions: vec![LeafExtension {
                oid: "1.3.9901.2.1.22".into(),
                value: vec![0x04, 2, 9, 8],
            }],
        }
    }

    fn request(&self) -> LeafRequest<'_> {
        LeafRequest {
            public_key_spki: self.subject.public_key_spki(),
            sans: &self.sans,
            peer_ip: Some("10.1.2.3".parse().expect("address")),
            workload_secret_id: Some("apps/web"),
            extensions: &self.extensions,
            spiffe_id: None,
            lifetime: YEAR,
        }
    }

    fn leaf(&self, request: &LeafRequest<'_>, now: SystemTime) -> Vec<u8> {
        let issuer = profile::Issuer {
            key: &self.mesh,
            name: MESH_CA_NAME,
        };
        profile::leaf(&issuer, request, &[0x55; 16], now).expect("builds")
    }

    fn check_leaf(&self, der: &[u8]) -> Result<(), CertificateError> {
        let request = self.request();
        let expected = Expected {
            issuer_spki: self.mesh.public_key_spki(),
            issuer_name: MESH_CA_NAME,
            subject_spki: self.subject.public_key_spki(),
            kind: Kind::Leaf { request: &request },
            now: now(),
            start: Start::Now,
        };
        check(der, &expected)
    }
}

fn broken_rule(verdict: Result<(), CertificateError>) -> &'static str {
    match verdict.expect_err("does not conform") {
        CertificateError::NotConforming { rule } => rule,
        other => panic!("{other:?}"),
    }
}

#[derive(Sequence)]
struct Parts<'a> {
    tbs: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

/// Replaces bytes in what a certificate says and signs it again, so that only the replaced bytes are wrong.
fn forged(der: &[u8], signer: &SigningKey, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let parts = Parts::from_der(der).expect("certificate");
    let mut tbs = parts.tbs.to_der().expect("DER");
    let places: Vec<usize> = (0..=tbs.len() - from.len())
        .filter(|&at| tbs[at..].starts_with(from))
        .collect();
    let [at] = places[..] else {
        panic!("{} is at {places:?}, expected one place", hex::encode(from));
    };
    tbs[at..at + to.len()].copy_from_slice(to);
    let signature = signer.sign_sha384(&tbs).expect("signs");
    let forged = Parts {
        tbs: AnyRef::from_der(&tbs).expect("DER"),
        algorithm: parts.algorithm,
        signature: BitStringRef::from_bytes(&signature).expect("bits"),
    };
    forged.to_der().expect("DER")
}

#[test]
fn leaf_that_differs_in_one_place_breaks_the_rule_of_that_place() {
    let fixture = Fixture::new();
    let leaf = fixture.leaf(&fixture.request(), now());
    fixture.check_leaf(&leaf).expect("conforms");
    let cases: [(&[u8], &[u8], &str); 14] = [
        (&[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1], "version 3"),
        // Serial number with the sign bit set.
        (
            &[0x02, 0x10, 0x55, 0x55],
            &[0x02, 0x10, 0xd5, 0x55],
            "a positive serial number of 16 bytes",
        ),
        (b":intermediate", b":Intermediate", "the issuer's name"),
        // Common name as UTF8String of three bytes.
        (&[0x0c, 3, b'w'], &[0x0c, 3, b'W'], "the subject's name"),
        // The same as PrintableString.
        (&[0x0c, 3, b'w'], &[0x13, 3, b'w'], "the subject's name"),
        // Key usage: digital signature becomes certificate signing.
        (
            &[0x03, 2, 7, 0x80],
            &[0x03, 2, 2, 0x04],
            "key usage for signatures only",
        ),
        // Key usage (2.5.29.15) critical: FALSE must not be written in DER, so the extension's identifier is changed instead.
        (
            &[0x55, 0x1d, 15, 1, 1],
            &[0x55, 0x1d, 99, 1, 1],
            "all extensions of its kind",
        ),
        // Client authentication becomes code signing.
        (
            &[0x2b, 6, 1, 5, 5, 7, 3, 2],
            &[0x2b, 6, 1, 5, 5, 7, 3, 3],
            "server and client authentication only",
        ),
        // Purposes (2.5.29.37) become a second subject key identifier (2.5.29.14).
        (&[0x55, 0x1d, 37], &[0x55, 0x1d, 14], "each extension once"),
        (&[0x82, 3, b'w'], &[0x82, 3, b'W'], "the requested names"),
        // dNSName becomes rfc822Name.
        (&[0x82, 3, b'w'], &[0x81, 3, b'w'], "the requested names"),
        (&[0x87, 4, 10, 1], &[0x87, 4, 11, 1], "the requested names"),
        (b"apps/web", b"apps/api", "the workload secret id"),
        (
            &[0x04, 2, 9, 8],
            &[0x04, 2, 9, 9],
            "the requested extension values",
        ),
    ];
    for (from, to, rule) in cases {
        let forged = forged(&leaf, &fixture.mesh, from, to);
        let found = broken_rule(fixture.check_leaf(&forged));
        assert_eq!(found, rule, "{} to {}", hex::encode(from), hex::encode(to));
    }
}

#[test]
fn key_identifiers_of_other_keys_are_found() {
    let fixture = Fixture::new();
    let leaf = fixture.leaf(&fixture.request(), now());
    for (owner, rule) in [
        (&fixture.subject, "the subject's key identifier"),
        (
            &fixture.mesh,
            "the issuer's key identifier and nothing beside it",
        ),
    ] {
        let id = key_id(owner.public_key_spki()).expect("identifier");
        let forged = forged(&leaf, &fixture.mesh, id.as_bytes(), &[7; 20]);
        assert_eq!(broken_rule(fixture.check_leaf(&forged)), rule);
    }
}

#[test]
fn leaf_of_another_request_is_refused() {
    let fixture = Fixture::new();
    let other_key = key(4);
    let more_names = ["web", "spiffe://x/web", "192.0.2.7", "db"].map(str::to_owned);
    let cases = [
        (
            LeafRequest {
                public_key_spki: other_key.public_key_spki(),
                ..fixture.request()
            },
            "the requested public key",
        ),
        (
            LeafRequest {
                sans: &more_names,
                ..fixture.request()
            },
            "each requested name once",
        ),
        (
            LeafRequest {
                peer_ip: None,
                ..fixture.request()
            },
            "each requested name once",
        ),
        (
            LeafRequest {
                workload_secret_id: None,
                ..fixture.request()
            },
            "all extensions of its kind",
        ),
        (
            LeafRequest {
                extensions: &[],
                ..fixture.request()
            },
            "all extensions of its kind",
        ),
    ];
    for (request, rule) in cases {
        let leaf = fixture.leaf(&request, now());
        assert_eq!(broken_rule(fixture.check_leaf(&leaf)), rule);
    }
    // More than was asked for.
    let leaf = fixture.leaf(&fixture.request(), now());
    let request = LeafRequest {
        extensions: &[],
        ..fixture.request()
    };
    let expected = Expected {
        issuer_spki: fixture.mesh.public_key_spki(),
        issuer_name: MESH_CA_NAME,
        subject_spki: fixture.subject.public_key_spki(),
        kind: Kind::Leaf { request: &request },
        now: now(),
        start: Start::Now,
    };
    assert_eq!(broken_rule(check(&leaf, &expected)), "no further extension");
}

#[test]
fn spiffe_id_must_be_there_alone_and_to_the_letter() {
    let fixture = Fixture::new();
    let sans = ["web".to_owned()];
    let id = "spiffe://x/ns/a/pod/web";
    let request = LeafRequest {
        sans: &sans,
        spiffe_id: Some(id),
        ..fixture.request()
    };
    let verdict = |der: &[u8], request: &LeafRequest<'_>| {
        let expected = Expected {
            issuer_spki: fixture.mesh.public_key_spki(),
            issuer_name: MESH_CA_NAME,
            subject_spki: fixture.subject.public_key_spki(),
            kind: Kind::Leaf { request },
            now: now(),
            start: Start::Now,
        };
        check(der, &expected)
    };
    let leaf = fixture.leaf(&request, now());
    verdict(&leaf, &request).expect("conforms");

    let other = forged(&leaf, &fixture.mesh, b"pod/web", b"pod/api");
    let only = "the SPIFFE ID and no other URI";
    assert_eq!(broken_rule(verdict(&other, &request)), only);
    // The name becomes a second URI.
    let second = forged(&leaf, &fixture.mesh, &[0x82, 3, b'w'], &[0x86, 3, b'w']);
    assert_eq!(broken_rule(verdict(&second, &request)), only);
    let without = LeafRequest {
        spiffe_id: None,
        ..request
    };
    assert_eq!(
        broken_rule(verdict(&leaf, &without)),
        "each requested name once"
    );
    let leaf = fixture.leaf(&without, now());
    assert_eq!(
        broken_rule(verdict(&leaf, &request)),
        "each requested name once"
    );
}

#[test]
fn leaf_of_another_lifetime_is_refused() {
    let fixture = Fixture::new();
    for lifetime in [YEAR + Duration::from_secs(1), YEAR - Duration::from_secs(1)] {
        let request = LeafRequest {
            lifetime,
            ..fixture.request()
        };
        let leaf = fixture.leaf(&request, now());
        assert_eq!(
            broken_rule(fixture.check_leaf(&leaf)),
            "the lifetime of its kind"
        );
    }
}

#[test]
fn leaf_of_another_time_is_refused() {
    let fixture = Fixture::new();
    let second = Duration::from_secs(1);
    for (made, rule) in [
        (now() + second, "a validity from one hour before now"),
        (now() - second, "a validity from one hour before now"),
        (now() + 3601 * second, "a validity that has begun"),
        (now() - 31_536_000 * second, "a validity that has not ended"),
    ] {
        let leaf = fixture.leaf(&fixture.request(), made);
        assert_eq!(broken_rule(fixture.check_leaf(&leaf)), rule);
    }
}

#[test]
fn foreign_signature_and_sloppy_der_are_refused() {
    let fixture = Fixture::new();
    let leaf = fixture.leaf(&fixture.request(), now());
    let resigned = forged(&leaf, &key(5), b"apps/web", b"apps/web");
    assert_eq!(
        broken_rule(fixture.check_leaf(&resigned)),
        "a signature by the issuer"
    );
    let longer = [&leaf[..], &[0]].concat();
    assert!(matches!(
        fixture.check_leaf(&longer),
        Err(CertificateError::Der(_))
    ));
}

#[test]
fn kinds_are_not_taken_for_each_other() {
    let root_key = key(1);
    let root = RootCa::new(key(1), now()).expect("root");
    let mesh = MeshCa::generate(&SeededEntropy::new(2), &root, now()).expect("mesh CA");
    let self_signed = pem::parse(mesh.self_signed_pem())
        .expect("PEM")
        .into_contents();
    let fixture = Fixture::new();
    let request = LeafRequest {
        public_key_spki: mesh.public_key_spki(),
        ..fixture.request()
    };
    let verdict = |der: &[u8], spki: &[u8], name, kind| {
        let expected = Expected {
            issuer_spki: spki,
            issuer_name: name,
            subject_spki: spki,
            kind,
            now: now(),
            start: Start::Now,
        };
        check(der, &expected)
    };
    let mesh_spki = mesh.public_key_spki();
    let root_spki = root_key.public_key_spki();
    verdict(&self_signed, mesh_spki, MESH_CA_NAME, Kind::MeshCa).expect("conforms");
    verdict(root.certificate_der(), root_spki, ROOT_NAME, Kind::Root).expect("conforms");
    let as_leaf = Kind::Leaf { request: &request };
    assert_eq!(
        broken_rule(verdict(&self_signed, mesh_spki, MESH_CA_NAME, as_leaf)),
        "the subject's name"
    );
    assert_eq!(
        broken_rule(verdict(&self_signed, mesh_spki, MESH_CA_NAME, Kind::Root)),
        "the subject's name"
    );
}

#[test]
fn ca_that_differs_in_one_place_breaks_the_rule_of_that_place() {
    let root_key = key(1);
    let root = profile::root(&root_key, now()).expect("builds");
    let mesh_key = key(2);
    let issuer = profile::Issuer {
        key: &root_key,
        name: ROOT_NAME,
    };
    let mesh = profile::mesh_ca(&issuer, mesh_key.public_key_spki(), now()).expect("builds");
    let verdict = |der: &[u8], subject: &SigningKey, kind| {
        let expected = Expected {
            issuer_spki: root_key.public_key_spki(),
            issuer_name: ROOT_NAME,
            subject_spki: subject.public_key_spki(),
            kind,
            now: now(),
            start: Start::Now,
        };
        check(der, &expected)
    };
    verdict(&root, &root_key, Kind::Root).expect("conforms");
    verdict(&mesh, &mesh_key, Kind::MeshCa).expect("conforms");
    // Path length 0 becomes 1.
    let longer = forged(
        &mesh,
        &root_key,
        &[1, 1, 0xff, 2, 1, 0],
        &[1, 1, 0xff, 2, 1, 1],
    );
    assert_eq!(
        broken_rule(verdict(&longer, &mesh_key, Kind::MeshCa)),
        "the path length of its kind"
    );
    // Certificate and CRL signing become digital signature and CRL signing.
    for (der, subject, kind) in [
        (&root, &root_key, Kind::Root),
        (&mesh, &mesh_key, Kind::MeshCa),
    ] {
        let other = forged(der, &root_key, &[0x03, 2, 1, 0x06], &[0x03, 2, 1, 0x82]);
        assert_eq!(
            broken_rule(verdict(&other, subject, kind)),
            "key usage for certificates and CRLs only"
        );
    }
}
