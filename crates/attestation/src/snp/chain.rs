//! From the pinned ARK to the key that signed a report.

use std::time::SystemTime;

use der::Encode;

use crate::{CheckList, SnpEvidence};

use super::{
    certificate::{EndorsementKey, SignedCertificate, SignedCrl, Window, serial, timestamp},
    roots::PinnedArk,
};

/// A chain as it was read. It is worth something only when none of the checks that [`verify`] recorded failed.
#[derive(Debug)]
pub(super) struct Chain {
    /// The key that signs reports.
    pub(super) endorsement: EndorsementKey,
    /// When every certificate, and the CRL if there was one, is valid.
    pub(super) window: Window,
}

/// Verifies ARK, ASK and VEK (or ARK, ASVK and VLEK) and the CRL at the time `now`. The ARK must be pinned already, see
/// [`super::appraise`]. A chain that can be read is returned even if a check failed, so that the checks of the report can
/// still be made and listed.
pub(super) fn verify(
    evidence: &SnpEvidence,
    ark_pin: &PinnedArk,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<Chain> {
    let ark = parse("ARK", &evidence.ark, checks);
    let ask = parse("ASK", &evidence.ask, checks);
    let vek = parse("VEK", &evidence.vek, checks);
    let (ark, ask, vek) = (ark?, ask?, vek?);

    let ark_key = &ark_pin.name;
    check_signature(
        "ARK",
        &format!("a signature by {ark_key} itself"),
        ark.is_signed_by(&ark),
        checks,
    );
    check_signature(
        "ASK",
        &format!("a signature by {ark_key}"),
        ask.is_signed_by(&ark),
        checks,
    );
    check_signature(
        "VEK",
        "a signature by the ASK",
        vek.is_signed_by(&ask),
        checks,
    );
    check_authority("ARK", &ark, checks);
    check_authority("ASK", &ask, checks);
    check_end_entity("VEK", &vek, checks);
    let mut window = Window {
        from: SystemTime::UNIX_EPOCH,
        to: ark.window().to,
    };
    for (name, certificate) in [("ARK", &ark), ("ASK", &ask), ("VEK", &vek)] {
        check_criticals(name, &certificate.unknown_critical_extensions(), checks);
        check_window(
            &certificate_name(name, certificate),
            certificate.window(),
            now,
            checks,
        );
        window = window.intersection(certificate.window());
    }
    if !evidence.crl.is_empty() {
        window = window.intersection(check_crl(&evidence.crl, &ark, &ask, now, checks)?);
    }
    match EndorsementKey::read(&vek) {
        Ok(endorsement) => Some(Chain {
            endorsement,
            window,
        }),
        Err(error) => {
            checks.fail(
                "VEK certificate",
                "the extensions of a VCEK or VLEK",
                error.to_string(),
            );
            None
        }
    }
}

fn parse<'a>(name: &str, der: &'a [u8], checks: &mut CheckList) -> Option<SignedCertificate<'a>> {
    let found = match SignedCertificate::parse(der) {
        Ok(certificate) => return Some(certificate),
        Err(_) if der.is_empty() => "none".to_owned(),
        Err(error) => format!("{} bytes that are not: {error}", der.len()),
    };
    checks.fail(
        &format!("{name} certificate"),
        "an X.509 certificate in DER",
        found,
    );
    None
}

fn check_signature(
    name: &str,
    expected: &str,
    outcome: Result<(), &'static str>,
    checks: &mut CheckList,
) {
    let found = outcome.err().unwrap_or("one that holds");
    checks.record(
        format!("{name} signature"),
        expected,
        found,
        outcome.is_ok(),
    );
}

fn check_authority(name: &str, certificate: &SignedCertificate<'_>, checks: &mut CheckList) {
    let (found, passed) = match (certificate.is_ca(), certificate.key_usage()) {
        (Err(error), _) | (_, Err(error)) => (format!("malformed extensions: {error}"), false),
        (Ok(false), Ok(_)) => ("no CA".to_owned(), false),
        (Ok(true), Ok(Some(usage))) if !usage.key_cert_sign() => {
            ("a CA whose key usage does not include it".to_owned(), false)
        }
        (Ok(true), Ok(_)) => ("a CA that may".to_owned(), true),
    };
    checks.record(
        format!("{name} role"),
        "a CA that may sign certificates",
        found,
        passed,
    );
}

fn check_end_entity(name: &str, certificate: &SignedCertificate<'_>, checks: &mut CheckList) {
    let (found, passed) = match certificate.is_ca() {
        Err(error) => (format!("malformed extensions: {error}"), false),
        Ok(true) => ("a CA".to_owned(), false),
        Ok(false) => ("no CA".to_owned(), true),
    };
    checks.record(
        format!("{name} role"),
        "an endorsement key, no CA",
        found,
        passed,
    );
}

fn check_criticals(name: &str, unknown: &[der::asn1::ObjectIdentifier], checks: &mut CheckList) {
    let found: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    let found = if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    };
    let field = format!("{name} extensions");
    checks.record(
        field,
        "no critical extension beyond the known ones",
        found,
        unknown.is_empty(),
    );
}

fn check_window(name: &str, window: Window, now: SystemTime, checks: &mut CheckList) {
    let expected = format!(
        "a time from {} to {}",
        timestamp(window.from),
        timestamp(window.to)
    );
    let verdict = match now {
        now if now < window.from => " (not yet valid)",
        now if now > window.to => " (expired)",
        _ => "",
    };
    let found = format!("now = {}{verdict}", timestamp(now));
    checks.record(
        format!("{name} validity"),
        expected,
        found,
        window.contains(now),
    );
}

fn certificate_name(name: &str, certificate: &SignedCertificate<'_>) -> String {
    match certificate.tbs().subject().common_name() {
        Ok(Some(common_name)) => format!("{name} certificate ({})", common_name.value()),
        _ => format!("{name} certificate"),
    }
}

/// The list's window, or nothing when it is unusable.
fn check_crl(
    der: &[u8],
    ark: &SignedCertificate<'_>,
    ask: &SignedCertificate<'_>,
    now: SystemTime,
    checks: &mut CheckList,
) -> Option<Window> {
    let crl = match SignedCrl::parse(der) {
        Ok(crl) => crl,
        Err(error) => {
            let found = format!("{} bytes that are not: {error}", der.len());
            checks.fail("CRL", "a certificate revocation list in DER", found);
            return None;
        }
    };
    check_signature(
        "CRL",
        "a signature by the ARK",
        crl.is_signed_by(ark),
        checks,
    );
    check_criticals("CRL", &crl.unknown_critical_extensions(), checks);
    let window = crl.window();
    match window {
        Some(window) => check_window("CRL", window, now, checks),
        None => checks.fail("CRL validity", "a nextUpdate", "none"),
    }
    let revoked = crl
        .parsed
        .tbs_cert_list
        .revoked_certificates
        .iter()
        .flatten();
    let ask_is_revoked = revoked
        .filter_map(|entry| entry.serial_number.to_der().ok())
        .any(|entry| {
            ask.tbs()
                .serial_number()
                .to_der()
                .is_ok_and(|serial| serial == entry)
        });
    let found = match ask_is_revoked {
        true => format!("revoked (serial {})", serial(ask)),
        false => "not revoked".to_owned(),
    };
    checks.record("ASK revocation", "not revoked", found, !ask_is_revoked);
    window
}
