//! The way to a remote: name, connection, handshake, certificate, and what the server says of ours.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpStream},
    time::SystemTime,
};

use rustls::AlertDescription;
use rustls_pki_types::CertificateDer;

use crate::{
    certificate::{Facts, Moment, Validity, leads_to, short, validity},
    connection,
    handshake::{self, End, Outcome, Seen, Waits},
    own::Material,
    report::{Reason, Rows},
    target::{Expected, Patience, Target},
};

/// Bytes of an answer that is no TLS which are shown.
const SHOWN_MAX: usize = 24;

const OPEN: &str = "connection";
const OPEN_EXPECTED: &str = "stays open";

/// Who connects.
pub(crate) struct Origin<'a> {
    pub(crate) material: &'a Material,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) patience: Patience,
    pub(crate) now: SystemTime,
}

impl Origin<'_> {
    pub(crate) fn check(&self, target: &Target, rows: &mut Rows) {
        let expected = Expected {
            target,
            namespace: self.namespace,
        };
        let entry = target.entry.as_ref().map_or_else(
            || "no egress entry".to_owned(),
            |name| format!("egress entry {name}"),
        );
        rows.ok(
            "target",
            target.remote.to_string(),
            format!("{} ({entry})", target.remote),
        );
        let Some((stream, address)) = self.connect(target, rows) else {
            return;
        };
        let waits = Waits {
            handshake: self.patience.handshake,
            refusal: self.patience.refusal,
        };
        let host = target.remote.host.to_string();
        let identity = self.material.identity.clone();
        let (seen, outcome) = handshake::run(stream, &host, address.ip(), identity, waits);
        let spoke = tls(&outcome, &seen, rows);
        if !seen.chain.is_empty() {
            self.certificate(&seen.chain, &expected, rows);
        }
        if spoke {
            self.acceptance(&seen, &outcome, rows);
        }
    }

    fn connect(&self, target: &Target, rows: &mut Rows) -> Option<(TcpStream, SocketAddr)> {
        let addresses = match connection::resolve(&target.remote) {
            Ok(addresses) if !addresses.is_empty() => addresses,
            other => {
                let found = other
                    .err()
                    .map_or_else(|| "no address".to_owned(), |error| error.to_string());
                rows.failed(
                    "name",
                    "at least one address",
                    found,
                    Reason::NoAddress,
                    "is there a Service of that name, in this namespace, and does it have endpoints?",
                );
                return None;
            }
        };
        let ips: Vec<String> = addresses
            .iter()
            .map(|address| address.ip().to_string())
            .collect();
        rows.ok("name", "at least one address", ips.join(", "));
        let (check, expected) = ("TCP", "a connection to the remote itself");
        let mut refusals = String::new();
        for address in addresses {
            let attempt = connection::prepare(address).and_then(|prepared| {
                let marked = prepared.marked;
                if target.captured && !marked && !connection::is_local(address.ip()) {
                    return Ok(None);
                }
                let stream = prepared.connect(self.patience.connect)?;
                Ok(Some((stream, marked)))
            });
            match attempt {
                Ok(Some((stream, marked))) => {
                    let around = if marked {
                        ", around the pod's Envoy"
                    } else {
                        ""
                    };
                    rows.ok(check, expected, format!("connected to {address}{around}"));
                    return Some((stream, address));
                }
                Ok(None) => {
                    rows.unknown(
                        check,
                        expected,
                        "the kernel would lead it to the pod's own Envoy",
                        Reason::Captured,
                        "run the check in the container contrast-service-mesh, which has NET_ADMIN and marks its connections",
                    );
                    return None;
                }
                Err(error) => {
                    let separator = if refusals.is_empty() { "" } else { "; " };
                    // Writing to a String cannot fail.
                    let _ = write!(refusals, "{separator}{address}: {error}");
                }
            }
        }
        rows.failed(
            check,
            expected,
            refusals,
            Reason::NoConnection,
            "refused: nothing listens there; no answer: the pod is not ready and denies what is new, it does not serve that port, or a \
             NetworkPolicy is in the way",
        );
        None
    }

    fn certificate(
        &self,
        chain: &[CertificateDer<'static>],
        expected: &Expected<'_>,
        rows: &mut Rows,
    ) {
        let facts = chain.first().map(Facts::of);
        let facts = match facts {
            Some(Ok(facts)) => facts,
            other => {
                let found = match other {
                    Some(Err(error)) => format!("it cannot be read: {error}"),
                    _ => "none".to_owned(),
                };
                rows.failed(
                    "server certificate",
                    "a certificate of the mesh",
                    found,
                    Reason::ServerCertificateUnusable,
                    "the server is not a pod of the mesh",
                );
                return;
            }
        };
        self.issuer(chain, &facts, rows);
        self.validity(&facts, rows);
        let (check, wanted) = ("server identity", expected.to_string());
        match expected.accepts(&facts) {
            Some(true) => rows.ok(check, wanted, facts.names()),
            Some(false) => rows.failed(
                check,
                wanted,
                facts.names(),
                Reason::WrongIdentity,
                "another workload answers: compare the Service's selector, and the names in the manifest; or name who may answer with \
                 `identity=` in the egress entry",
            ),
            None => rows.unknown(
                check,
                wanted,
                facts.names(),
                Reason::NamespaceUnknown,
                "set CONTRAST_NAMESPACE, or write the namespace into the egress entry",
            ),
        }
    }

    fn issuer(&self, chain: &[CertificateDer<'static>], facts: &Facts, rows: &mut Rows) {
        let check = "server issuer";
        let keys: Vec<String> = self
            .material
            .mesh_keys
            .iter()
            .map(|key| short(Some(key)))
            .collect();
        let expected = format!("a trusted mesh CA, key {}", keys.join(" or "));
        let Err(error) = leads_to(chain, facts, &self.material.mesh) else {
            rows.ok(check, expected, facts.issuer_text());
            return;
        };
        let ours = facts
            .issuer_key
            .as_ref()
            .is_some_and(|key| self.material.mesh_keys.contains(key));
        let (reason, hint) = if !facts.is_of_a_mesh() {
            (
                Reason::NotInMesh,
                "the server is no pod of the mesh, or serves TLS of its own: does its pod have the annotation servicemesh-ingress, and does \
                 the request go to the port that the mesh serves?",
            )
        } else if ours {
            (
                Reason::ServerCertificateUnusable,
                "the certificate names a trusted mesh CA and is not signed by it, or lacks what a server's certificate needs: do not trust it",
            )
        } else if leads_to(chain, facts, &self.material.root).is_ok() {
            (
                Reason::OtherGeneration,
                "both pods belong to this deployment, and their certificates are of different manifests: one of them has not renewed since \
                 the last change; read both Initializers' logs, or give the manifest a longer MeshCAOverlap",
            )
        } else {
            (
                Reason::OtherMesh,
                "the server belongs to another Contrast deployment; when the root CA's file is missing here, it may be another generation of this one",
            )
        };
        let found = format!("{} ({error})", facts.issuer_text());
        rows.failed(check, expected, found, reason, hint);
    }

    fn validity(&self, facts: &Facts, rows: &mut Rows) {
        let (check, expected) = ("server validity", "valid now");
        let moment = |at| Moment { at, now: self.now };
        match validity(facts, self.now) {
            Validity::Now => rows.ok(
                check,
                expected,
                format!("valid until {}", moment(facts.not_after)),
            ),
            Validity::Expired => rows.failed(
                check,
                expected,
                format!("expired at {}", moment(facts.not_after)),
                Reason::ServerExpired,
                "the server's Initializer does not renew it: read its log; or this guest's clock is ahead",
            ),
            Validity::NotYet => rows.failed(
                check,
                expected,
                format!("valid from {}", moment(facts.not_before)),
                Reason::ServerNotYetValid,
                "this guest's clock is behind the Coordinator's: set the clocks of the hosts",
            ),
        }
    }

    fn acceptance(&self, seen: &Seen, outcome: &Outcome, rows: &mut Rows) {
        let check = "own certificate";
        let expected = "the server takes it";
        if let Outcome::Refused(End::Alert(alert)) | Outcome::RefusedData(End::Alert(alert)) =
            outcome
        {
            let (reason, hint) = self.refusal(*alert);
            rows.failed(
                check,
                expected,
                format!("refused with the alert {}", alert_name(*alert)),
                reason,
                hint,
            );
            return;
        }
        let presented = match (seen.asked, &self.material.identity) {
            (false, _) => "the server asks for none",
            (true, Some(_)) => "presented, and not refused",
            (true, None) => "the server asks for one, there is none, and it does without",
        };
        rows.ok(check, expected, presented);
        match outcome {
            Outcome::Open => rows.ok(OPEN, OPEN_EXPECTED, "stays open"),
            Outcome::Refused(end) => rows.failed(
                OPEN,
                OPEN_EXPECTED,
                format!("{} behind the handshake", end_text(end)),
                Reason::ClosedAtOnce,
                "the server's application does not listen, or the server does not let this pod in: compare `allow=` in its ingress entry with \
                 the names of this pod",
            ),
            Outcome::RefusedData(end) => rows.failed(
                OPEN,
                OPEN_EXPECTED,
                format!("{} at the first data", end_text(end)),
                Reason::ClosedOnData,
                "most likely this pod is not in `allow=` of the server's ingress entry: compare it with the names of this pod; or the \
                 application does not take an empty line",
            ),
            // The row about TLS says it.
            Outcome::Handshake(_) => {}
        }
    }

    fn refusal(&self, alert: AlertDescription) -> (Reason, &'static str) {
        match alert {
            AlertDescription::CertificateRequired => (
                Reason::CertificateRequired,
                "the server demands a certificate of the mesh, and this pod presented none: see the rows about its files",
            ),
            // All mesh CAs have one name, so some libraries try the wrong key and find a wrong signature.
            AlertDescription::UnknownCA | AlertDescription::DecryptError => (
                Reason::PeerUnknownCa,
                "the server trusts another generation of the mesh CA, or another deployment's: one of the two pods has not renewed since the \
                 last change of the manifest; read both Initializers' logs",
            ),
            AlertDescription::CertificateExpired => (
                Reason::PeerSaysExpired,
                "see the validity of this pod's certificate; if it is valid here, the clock of the server's guest is ahead or behind",
            ),
            // What Envoy sends when the chain is good and no name fits.
            AlertDescription::CertificateUnknown => (
                Reason::NotAllowed,
                "this pod is not in `allow=` of the server's ingress entry: compare it with the SPIFFE ID in the row about this pod's names",
            ),
            _ => (
                Reason::PeerRefusesCertificate,
                "read the log of contrast-service-mesh in the server's pod",
            ),
        }
    }
}

/// The row about the handshake; returns whether it was finished.
fn tls(outcome: &Outcome, seen: &Seen, rows: &mut Rows) -> bool {
    let (check, expected) = ("TLS", "a TLS 1.3 handshake");
    let Outcome::Handshake(end) = outcome else {
        let asked = match seen.asked {
            true => "done; the server asks for a certificate",
            false => "done; the server asks for no certificate",
        };
        rows.ok(check, expected, asked);
        return true;
    };
    let (reason, hint) = match end {
        End::Plain(_) => (
            Reason::NotTls,
            "the port is served without TLS: it is not in the mesh, or its ingress entry says disable-tls `true`",
        ),
        End::Closed | End::Silent => (
            Reason::NoAnswer,
            "what listens there probably does not speak TLS: is the port in the mesh?",
        ),
        End::Alert(_) | End::Broken(_) | End::Io(_) => (
            Reason::HandshakeRefused,
            "the server speaks another TLS than the mesh does: it is probably no pod of the mesh",
        ),
    };
    rows.failed(check, expected, end_text(end), reason, hint);
    false
}

fn end_text(end: &End) -> String {
    match end {
        End::Alert(alert) => format!("the server sent the alert {}", alert_name(*alert)),
        End::Closed => "the server closed the connection".to_owned(),
        End::Plain(bytes) => format!(
            "an answer that is no TLS: `{}`",
            bytes
                .get(..SHOWN_MAX.min(bytes.len()))
                .unwrap_or_default()
                .escape_ascii()
        ),
        End::Silent => "no answer in time".to_owned(),
        End::Broken(error) => error.to_string(),
        End::Io(error) => format!("the connection failed: {error}"),
    }
}

/// The name of an alert as RFC 8446, section 6 writes it.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    let text = format!("{alert:?}");
    let characters: Vec<char> = text.chars().collect();
    for (position, character) in characters.iter().enumerate() {
        let after_lower = position > 0 && characters[position - 1].is_ascii_lowercase();
        if character.is_ascii_uppercase() && after_lower {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}
