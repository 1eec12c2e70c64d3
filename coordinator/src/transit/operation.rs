use axum::http::StatusCode;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    algorithm::Hash,
    ciphertext::{Versioned, from_base64, to_base64},
    failure::Failure,
    fields::{Fields, Input, required},
    keys::{Keys, LATEST_VERSION, version_for_new},
};

/// What is done with the keys of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Encrypt,
    Decrypt,
    Rewrap,
    DataKey { wrapped: bool },
    Hmac,
    Sign,
    Verify,
}

impl Operation {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
            Self::DataKey { .. } => "datakey",
            Self::Hmac => "hmac",
            Self::Sign => "sign",
            Self::Verify => "verify",
        }
    }

    /// Runs it for one request, which may be a batch: the data of the answer, and its status.
    pub(super) fn run(
        &self,
        keys: &Keys<'_>,
        input: &Input,
        hash_in_path: Option<Hash>,
    ) -> Result<(StatusCode, Value), Failure> {
        let fields = &input.fields;
        let Some(items) = input.batch() else {
            let data = self.one(keys, fields, (fields, hash_in_path))?;
            return Ok((StatusCode::OK, data));
        };
        if matches!(self, Self::DataKey { .. }) {
            return Err(Failure::bad("batch_input: data keys are made one by one"));
        }
        let mut status = Ok(());
        let mut successes = false;
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let mut result = match self.one(keys, item, (fields, hash_in_path)) {
                Ok(data) => {
                    successes = true;
                    data
                }
                Err(failure) => {
                    // One that is not the caller's fault must not hide behind one that is.
                    let found = failure.status();
                    status = Err(status
                        .err()
                        .map_or(found, |before: StatusCode| before.max(found)));
                    json!({ "error": failure.to_string() })
                }
            };
            if let Some(reference) = item.reference.as_deref().filter(|text| !text.is_empty()) {
                result["reference"] = reference.into();
            }
            results.push(result);
        }
        let status = match status {
            Ok(()) => StatusCode::OK,
            Err(failed) => match fields.partial_failure_response_code {
                0 => failed,
                _ if !successes => failed,
                code => status_of(code)?,
            },
        };
        Ok((status, json!({ "batch_results": results })))
    }

    /// One item; algorithms belong to the whole request.
    fn one(
        &self,
        keys: &Keys<'_>,
        item: &Fields,
        (request, hash_in_path): (&Fields, Option<Hash>),
    ) -> Result<Value, Failure> {
        item.refuse_derivation()?;
        let hash = || match hash_in_path {
            Some(hash) => Ok(hash),
            None => Hash::asked(
                request
                    .hash_algorithm
                    .as_deref()
                    .or(request.algorithm.as_deref()),
            ),
        };
        match self {
            Self::Encrypt => {
                let text = required("plaintext", item.plaintext.as_deref(), "base64")?;
                let plaintext = Zeroizing::new(from_base64("plaintext", text)?);
                encrypted(keys, item, &plaintext)
            }
            Self::Decrypt => {
                let plaintext = decrypted(keys, item)?;
                Ok(json!({ "plaintext": to_base64(&plaintext) }))
            }
            Self::Rewrap => {
                let plaintext = decrypted(keys, item)?;
                encrypted(keys, item, &plaintext)
            }
            Self::DataKey { wrapped } => {
                let bits = match item.bits {
                    0 => 256,
                    bits @ (128 | 256 | 512) => bits,
                    other => {
                        return Err(Failure::bad(format!(
                            "bits: expected 128, 256 or 512, found {other}"
                        )));
                    }
                };
                let bytes = usize::try_from(bits / 8).unwrap_or_default();
                let mut key = Zeroizing::new(vec![0; bytes]);
                let filled = keys.entropy.fill(&mut key);
                filled.map_err(|error| Failure::internal("data key", error))?;
                let mut data = encrypted(keys, item, &key)?;
                if !wrapped {
                    data["plaintext"] = to_base64(&key).into();
                }
                Ok(data)
            }
            Self::Hmac => {
                let version = version_for_new(request.key_version)?;
                let bytes = keys.hmac(version, hash()?, &item.input()?)?;
                Ok(json!({ "hmac": Versioned { version, bytes }.to_text() }))
            }
            Self::Sign => {
                check_signature_format(request)?;
                let version = version_for_new(request.key_version)?;
                let (bytes, public_key) = keys.sign(version, hash()?, &item.input()?)?;
                let signature = Versioned { version, bytes }.to_text();
                let public_key = to_base64(&public_key);
                Ok(
                    json!({ "signature": signature, "key_version": version, "publickey": public_key }),
                )
            }
            Self::Verify => {
                let input = item.input()?;
                let valid = match (&item.hmac, &item.signature) {
                    (Some(text), None) => {
                        let given = Versioned::parse("hmac", text)?;
                        keys.hmac_is_right(hash()?, &input, &given)?
                    }
                    (None, Some(text)) => {
                        check_signature_format(request)?;
                        let given = Versioned::parse("signature", text)?;
                        keys.signature_is_right(hash()?, &input, &given)?
                    }
                    _ => {
                        return Err(Failure::bad("expected one of `hmac` and `signature`"));
                    }
                };
                Ok(json!({ "valid": valid }))
            }
        }
    }
}

fn encrypted(keys: &Keys<'_>, item: &Fields, plaintext: &[u8]) -> Result<Value, Failure> {
    let version = version_for_new(item.key_version)?;
    let ciphertext = keys.encrypt(version, plaintext, &item.associated_data()?)?;
    Ok(json!({ "ciphertext": ciphertext.to_text(), "key_version": version }))
}

fn decrypted(keys: &Keys<'_>, item: &Fields) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let expected = "vault:v<version>:<base64>";
    let text = required("ciphertext", item.ciphertext.as_deref(), expected)?;
    let ciphertext = Versioned::parse("ciphertext", text)?;
    keys.decrypt(&ciphertext, &item.associated_data()?)
}

fn check_signature_format(request: &Fields) -> Result<(), Failure> {
    if request.prehashed {
        return Err(Failure::bad(
            "prehashed: not offered; send the message itself as input",
        ));
    }
    match request.marshaling_algorithm.as_deref() {
        None | Some("" | "asn1") => Ok(()),
        Some(_) => Err(Failure::bad("marshaling_algorithm: expected asn1")),
    }
}

/// A status that a caller chose.
pub(super) fn status_of(code: u32) -> Result<StatusCode, Failure> {
    u16::try_from(code)
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| {
            Failure::bad(format!(
                "expected an HTTP status from 200 to 599, found {code}"
            ))
        })
}

/// The answer to a question about the key itself.
pub(super) fn describe(keys: &Keys<'_>) -> Result<Value, Failure> {
    // Creation times are not known: a key exists as long as the seed. Vault's clients want a number for each version.
    let versions = json!({ LATEST_VERSION.to_string(): 0 });
    Ok(json!({
        "name": keys.name,
        "type": "aes256-gcm96",
        "keys": versions,
        "latest_version": LATEST_VERSION,
        "min_available_version": 0,
        "min_decryption_version": 0,
        "min_encryption_version": 0,
        "supports_encryption": true,
        "supports_decryption": true,
        "supports_derivation": false,
        "supports_signing": true,
        "derived": false,
        "exportable": false,
        "allow_plaintext_backup": false,
        "deletion_allowed": false,
        "auto_rotate_period": 0,
        "imported_key": false,
    }))
}
