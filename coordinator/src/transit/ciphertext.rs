use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::failure::Failure;

/// What Vault's clients expect before everything that depends on a key version.
const PREFIX: &str = "vault:v";

/// `vault:v<version>:<base64>`: a ciphertext, HMAC or signature, and the version of the key it was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Versioned {
    pub(super) version: u32,
    pub(super) bytes: Vec<u8>,
}

impl Versioned {
    /// Reads the text form; `what` names it in errors. Version 0 is read, for it is a key like others; the text of a version is canonical,
    /// so that nobody can write one ciphertext in two ways.
    pub(super) fn parse(what: &str, text: &str) -> Result<Self, Failure> {
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| {
            Failure::bad(format!(
                "{what}: expected vault:v<version>:<base64>, found no prefix `{PREFIX}`"
            ))
        })?;
        let (version, base64) = rest.split_once(':').ok_or_else(|| {
            Failure::bad(format!("{what}: expected a colon after the key version"))
        })?;
        let number = version.parse::<u32>().ok();
        let number = number.filter(|number| number.to_string() == version);
        let version = number.ok_or_else(|| {
            Failure::bad(format!(
                "{what}: the key version is no number from 0 to {}",
                u32::MAX
            ))
        })?;
        let bytes = from_base64(what, base64)?;
        Ok(Self { version, bytes })
    }

    pub(super) fn to_text(&self) -> String {
        format!("{PREFIX}{}:{}", self.version, STANDARD.encode(&self.bytes))
    }
}

/// Standard base64 with padding.
pub(super) fn from_base64(what: &str, text: &str) -> Result<Vec<u8>, Failure> {
    STANDARD
        .decode(text)
        .map_err(|error| Failure::bad(format!("{what}: expected standard base64: {error}")))
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_canonical() {
        for text in [
            "",
            "vault:",
            "vault:v1",
            "vault:v1:A",
            "vault:v:AAAA",
            "vault:v01:AAAA",
            "vault:v+1:AAAA",
            "vault:v-1:AAAA",
            "vault:v4294967296:AAAA",
            "vault:1:AAAA",
            "VAULT:v1:AAAA",
            "vault:v1:AAA",
            "vault:v1:A-_A",
            "vault:v1:AAAA:",
            " vault:v1:AAAA",
        ] {
            Versioned::parse("ciphertext", text).expect_err(text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(vault:v[0-9]{0,12}:)?.{0,80}") {
            if let Ok(read) = Versioned::parse("ciphertext", &text) {
                prop_assert_eq!(read.to_text(), text);
            }
        }

        #[test]
        fn what_is_written_is_read(version: u32, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let written = Versioned { version, bytes };
            let read = Versioned::parse("ciphertext", &written.to_text());
            prop_assert_eq!(read.ok(), Some(written));
        }
    }
}
