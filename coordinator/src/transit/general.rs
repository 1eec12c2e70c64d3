//! What needs no key of a workload: random bytes, hashes, and what clients of Vault ask about the server and their token.

use std::time::SystemTime;

use axum::http::StatusCode;
use contrast_clock::Entropy;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    algorithm::Hash, ciphertext::to_base64, failure::Failure, fields::Fields, operation::status_of,
};

/// Most random bytes of one answer, as in Vault.
const RANDOM_BYTES_MAX: u32 = 128 * 1024;
const RANDOM_BYTES: u32 = 32;

enum Format {
    Base64,
    Hex,
}

impl Format {
    fn asked(fields: &Fields, default: Self) -> Result<Self, Failure> {
        match fields.format.as_deref() {
            None | Some("") => Ok(default),
            Some("base64") => Ok(Self::Base64),
            Some("hex") => Ok(Self::Hex),
            Some(_) => Err(Failure::bad("format: expected base64 or hex")),
        }
    }

    fn write(&self, bytes: &[u8]) -> String {
        match self {
            Self::Base64 => to_base64(bytes),
            Self::Hex => hex::encode(bytes),
        }
    }
}

pub(super) fn random(
    in_path: Option<&str>,
    fields: &Fields,
    entropy: &dyn Entropy,
) -> Result<Value, Failure> {
    let asked = match in_path {
        Some(text) => text.parse().ok(),
        None => Some(fields.bytes).map(|bytes| if bytes == 0 { RANDOM_BYTES } else { bytes }),
    };
    let asked = asked.filter(|bytes| (1..=RANDOM_BYTES_MAX).contains(bytes));
    let bytes = asked
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| {
            Failure::bad(format!(
                "bytes: expected a whole number from 1 to {RANDOM_BYTES_MAX}"
            ))
        })?;
    let format = Format::asked(fields, Format::Base64)?;
    let mut random = Zeroizing::new(vec![0; bytes]);
    let filled = entropy.fill(&mut random);
    filled.map_err(|error| Failure::internal("random bytes", error))?;
    Ok(json!({ "random_bytes": format.write(&random) }))
}

pub(super) fn hash(in_path: Option<&str>, fields: &Fields) -> Result<Value, Failure> {
    let hash = Hash::asked(in_path.or(fields.algorithm.as_deref()))?;
    let format = Format::asked(fields, Format::Hex)?;
    Ok(json!({ "sum": format.write(&hash.digest(&fields.input()?)) }))
}

/// Status and body of `/v1/sys/health`. Whoever is answered has completed a handshake, which needs an active state; so there are two cases.
pub(super) fn health(
    query: Option<&str>,
    sealed: bool,
    now: SystemTime,
) -> Result<(StatusCode, Value), Failure> {
    let (parameter, default) = match sealed {
        true => ("sealedcode", 503),
        false => ("activecode", 200),
    };
    let asked = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|one| one.split_once('='))
        .find(|(name, _)| *name == parameter);
    let code = match asked {
        None => default,
        Some((_, text)) => text.parse().unwrap_or_default(),
    };
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH);
    let body = json!({
        "initialized": true,
        "sealed": sealed,
        "standby": false,
        "performance_standby": false,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": seconds.unwrap_or_default().as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok((status_of(code)?, body))
}

pub(super) fn seal_status(sealed: bool) -> Value {
    json!({
        "type": "contrast",
        "initialized": true,
        "sealed": sealed,
        "t": 0,
        "n": 0,
        "progress": 0,
        "nonce": "",
        "version": env!("CARGO_PKG_VERSION"),
        "migration": false,
        "recovery_seal": false,
    })
}

/// A token is not what authenticates here; clients that look theirs up see one that never expires.
pub(super) fn token(name: Option<&str>) -> Value {
    json!({
        "display_name": name.unwrap_or_default(),
        "policies": [],
        "ttl": 0,
        "creation_ttl": 0,
        "expire_time": null,
        "renewable": false,
        "type": "service",
    })
}

/// What Vault answers for a token that does not expire. Clients then stop renewing it.
pub(super) fn renew() -> Failure {
    Failure::bad("lease is not renewable: the client certificate authenticates, not the token")
}

#[cfg(test)]
mod tests {
    use contrast_clock::SeededEntropy;

    use super::*;
    use crate::transit::fields::Input;

    #[test]
    fn health_has_the_code_that_was_asked_for() {
        let code = |query, sealed| {
            health(query, sealed, SystemTime::UNIX_EPOCH).map(|(status, _)| status.as_u16())
        };
        for (query, sealed, expected) in [
            (None, false, 200),
            (None, true, 503),
            (Some("standbyok=true"), false, 200),
            (Some("sealedcode=299&activecode=204"), true, 299),
            (Some("sealedcode=299&activecode=204"), false, 204),
        ] {
            assert_eq!(code(query, sealed).expect("a code"), expected);
        }
        for query in ["activecode=no", "activecode=100", "activecode=99999"] {
            code(Some(query), false).expect_err(query);
        }
    }

    #[test]
    fn random_bytes_are_as_many_as_asked() {
        let entropy = SeededEntropy::new(1);
        let length = |path, body: &str| {
            let fields = Input::read(body.as_bytes())?.fields;
            let data = random(path, &fields, &entropy)?;
            Ok::<_, Failure>(data["random_bytes"].as_str().map(str::len))
        };
        for (path, body, expected) in [
            (None, "", 44),
            (Some("3"), "", 4),
            (None, r#"{"bytes": 6, "format": "hex"}"#, 12),
        ] {
            assert_eq!(length(path, body).expect(body), Some(expected));
        }
        for (path, body) in [
            (Some("0"), ""),
            (Some("x"), ""),
            (Some("131073"), ""),
            (None, r#"{"format": "text"}"#),
        ] {
            length(path, body).expect_err(body);
        }
    }

    #[test]
    fn hash_agrees_with_a_known_value() {
        // FIPS 180-4, "abc".
        let fields = Input::read(br#"{"input": "YWJj"}"#).expect("fields").fields;
        let sum = hash(None, &fields).expect("hashes");
        assert_eq!(
            sum["sum"],
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        hash(Some("md5"), &fields).expect_err("unknown");
    }
}
