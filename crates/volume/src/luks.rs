//! The one LUKS2 header that this program makes and opens (LUKS2 On-Disk Format Specification 1.1.1).
//!
//! LUKS2 does not authenticate its header, and `cryptsetup` opens whatever it describes: a segment with a null cipher or a plain one would
//! be opened without a word, and written to in clear text (CVE-2025-59054, CVE-2025-58356). So every field is compared with the one
//! value that it has here; only salts, digest and keyslot differ from volume to volume.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use uuid::Uuid;

use crate::layout::{HEADER_BYTES, KEYSLOTS_BYTES, LUKS_BYTES, METADATA_BYTES, SECTOR_BYTES};

/// Cipher of the data. XTS hides, HMAC authenticates each sector together with its number.
pub const CIPHER: &str = "aes-xts-plain64";
/// Bits of the two AES-256 keys of XTS.
pub const CIPHER_KEY_BITS: u32 = 512;
/// As `cryptsetup` is given it.
pub const INTEGRITY: &str = "hmac-sha256";
/// Iterations of PBKDF2 for keyslot and digest: the fewest that LUKS2 allows, because the key is not a passphrase.
pub const ITERATIONS: u32 = 1000;

const INTEGRITY_TYPE: &str = "hmac(sha256)";
/// XTS with two AES-256 keys, and a key of 256 bits for HMAC.
const VOLUME_KEY_BYTES: u32 = 96;
const STRIPES: u32 = 4000;
const DIGEST_BYTES: usize = 32;
const BINARY_BYTES: usize = 4096;
const JSON_BYTES: usize = METADATA_BYTES - BINARY_BYTES;
/// Offset and length of the header's checksum.
const CHECKSUM: (usize, usize) = (448, 64);
const MAGICS: [&[u8]; 2] = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"];

/// A header that is not the one that this program makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the LUKS2 header has {found} in {field}, expected {expected}")]
pub struct LuksError {
    /// Which field.
    pub field: String,
    /// Its only permitted value.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl LuksError {
    fn new(field: &str, expected: impl ToString, found: impl ToString) -> Self {
        Self {
            field: field.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// Compares a whole header, read from the beginning of a device, with the one that this program makes for the volume `uuid`.
///
/// # Errors
/// The first field that differs.
pub fn check(header: &[u8], uuid: Uuid) -> Result<(), LuksError> {
    let copies = [
        header.get(..METADATA_BYTES),
        header.get(METADATA_BYTES..2 * METADATA_BYTES),
    ];
    let [Some(primary), Some(secondary)] = copies else {
        return Err(LuksError::new("its length", HEADER_BYTES, header.len()));
    };
    let seqids = [
        check_copy(primary, uuid, 0)?,
        check_copy(secondary, uuid, 1)?,
    ];
    expect("sequence ids of both copies", seqids[0], seqids[1])?;
    // One text, so that no reader can take another one than was looked at.
    if primary.get(BINARY_BYTES..) != secondary.get(BINARY_BYTES..) {
        return Err(LuksError::new(
            "the JSON of its second copy",
            "that of the first",
            "another one",
        ));
    }
    check_json(primary.get(BINARY_BYTES..).unwrap_or_default())
}

/// The binary header: section 2.1.
fn check_copy(copy: &[u8], uuid: Uuid, position: usize) -> Result<u64, LuksError> {
    let of = |field: &str| format!("{field} of copy {}", position + 1);
    let text = |field: &str, start: usize, length: usize, expected: &str| {
        let found = copy.get(start..start.saturating_add(length));
        let found = found.unwrap_or_default();
        let mut padded = expected.as_bytes().to_vec();
        padded.resize(length, 0);
        match found == padded {
            true => Ok(()),
            false => Err(LuksError::new(
                &of(field),
                format!("`{expected}`"),
                shown(found),
            )),
        }
    };
    let magic = MAGICS.get(position).copied().unwrap_or_default();
    expect(
        &of("the magic"),
        shown(magic),
        shown(copy.get(..6).unwrap_or_default()),
    )?;
    expect(&of("the version"), 2, integer(copy, 6, 2))?;
    expect(
        &of("the length"),
        METADATA_BYTES as u64,
        integer(copy, 8, 8),
    )?;
    let seqid = integer(copy, 16, 8);
    text("the label", 24, 48, "")?;
    text("the checksum's algorithm", 72, 32, "sha256")?;
    // The salt of the checksum stands at 104 and is any.
    text("the UUID", 168, 40, &uuid.hyphenated().to_string())?;
    text("the subsystem", 208, 48, "")?;
    let offset = position.saturating_mul(METADATA_BYTES) as u64;
    expect(&of("the offset"), offset, integer(copy, 256, 8))?;
    text("the padding", 264, 184, "")?;
    check_checksum(copy, &of("the checksum"))?;
    text(
        "the padding behind the checksum",
        512,
        BINARY_BYTES - 512,
        "",
    )?;
    Ok(seqid)
}

fn check_checksum(copy: &[u8], field: &str) -> Result<(), LuksError> {
    let (start, length) = CHECKSUM;
    let mut blanked = copy.to_vec();
    let place = blanked.get_mut(start..start.saturating_add(length));
    let found = place.as_deref().unwrap_or_default().to_vec();
    if let Some(place) = place {
        place.fill(0);
    }
    let mut expected = digest(&SHA256, &blanked).as_ref().to_vec();
    expected.resize(length, 0);
    match found == expected {
        true => Ok(()),
        false => Err(LuksError::new(
            field,
            "the SHA-256 of the copy",
            "another value",
        )),
    }
}

fn check_json(area: &[u8]) -> Result<(), LuksError> {
    let end = area.iter().position(|byte| *byte == 0);
    let (text, rest) = area.split_at(end.unwrap_or(area.len()));
    if rest.is_empty() || rest.iter().any(|byte| *byte != 0) {
        return Err(LuksError::new(
            "what follows its JSON",
            "zeros",
            "other bytes",
        ));
    }
    let json: Json = serde_json::from_slice(text)
        .map_err(|error| LuksError::new("its JSON", "the fields that belong there", error))?;
    json.check()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    keyslots: Only<Keyslot>,
    tokens: Nothing,
    segments: Only<Segment>,
    digests: Only<Digest>,
    config: Config,
}

/// An object with the one member `0`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Only<T> {
    #[serde(rename = "0")]
    only: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyslot {
    r#type: String,
    key_size: u32,
    af: AntiForensic,
    area: Area,
    kdf: Kdf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AntiForensic {
    r#type: String,
    stripes: u32,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    r#type: String,
    offset: String,
    size: String,
    encryption: String,
    key_size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kdf {
    r#type: String,
    hash: String,
    iterations: u32,
    salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Segment {
    r#type: String,
    offset: String,
    size: String,
    iv_tweak: String,
    encryption: String,
    sector_size: u32,
    integrity: Integrity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Integrity {
    r#type: String,
    journal_encryption: String,
    journal_integrity: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digest {
    r#type: String,
    keyslots: [String; 1],
    segments: [String; 1],
    hash: String,
    iterations: u32,
    salt: String,
    digest: String,
}

/// `flags` and `requirements` (re-encryption among them) are no fields here, so that a header with any is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    json_size: String,
    keyslots_size: String,
}

impl Json {
    fn check(&self) -> Result<(), LuksError> {
        let Nothing {} = self.tokens;
        self.keyslots.only.check()?;
        self.segments.only.check()?;
        self.digests.only.check()?;
        expect(
            "config.json_size",
            &JSON_BYTES.to_string(),
            &self.config.json_size,
        )?;
        let keyslots = KEYSLOTS_BYTES.to_string();
        expect(
            "config.keyslots_size",
            &keyslots,
            &self.config.keyslots_size,
        )
    }
}

impl Keyslot {
    fn check(&self) -> Result<(), LuksError> {
        expect("the keyslot's type", "luks2", self.r#type.as_str())?;
        expect("the keyslot's key_size", VOLUME_KEY_BYTES, self.key_size)?;
        expect("af.type", "luks1", self.af.r#type.as_str())?;
        expect("af.stripes", STRIPES, self.af.stripes)?;
        expect("af.hash", "sha256", self.af.hash.as_str())?;
        expect("area.type", "raw", self.area.r#type.as_str())?;
        let offset = (2 * METADATA_BYTES).to_string();
        expect("area.offset", &offset, &self.area.offset)?;
        let size = VOLUME_KEY_BYTES
            .saturating_mul(STRIPES)
            .next_multiple_of(4096);
        expect("area.size", &size.to_string(), &self.area.size)?;
        expect("area.encryption", CIPHER, self.area.encryption.as_str())?;
        expect("area.key_size", CIPHER_KEY_BITS / 8, self.area.key_size)?;
        expect("kdf.type", "pbkdf2", self.kdf.r#type.as_str())?;
        expect("kdf.hash", "sha256", self.kdf.hash.as_str())?;
        expect("kdf.iterations", ITERATIONS, self.kdf.iterations)?;
        expect_bytes("kdf.salt", &self.kdf.salt)
    }
}

impl Segment {
    fn check(&self) -> Result<(), LuksError> {
        expect("the segment's type", "crypt", self.r#type.as_str())?;
        expect(
            "the segment's offset",
            &HEADER_BYTES.to_string(),
            &self.offset,
        )?;
        expect("the segment's size", "dynamic", self.size.as_str())?;
        expect("the segment's iv_tweak", "0", self.iv_tweak.as_str())?;
        expect("the segment's encryption", CIPHER, self.encryption.as_str())?;
        expect("the segment's sector_size", SECTOR_BYTES, self.sector_size)?;
        let integrity = &self.integrity;
        expect("integrity.type", INTEGRITY_TYPE, integrity.r#type.as_str())?;
        let journal = integrity.journal_encryption.as_str();
        expect("integrity.journal_encryption", "none", journal)?;
        let journal = integrity.journal_integrity.as_str();
        expect("integrity.journal_integrity", "none", journal)
    }
}

impl Digest {
    fn check(&self) -> Result<(), LuksError> {
        expect("the digest's type", "pbkdf2", self.r#type.as_str())?;
        expect("the digest's keyslot", "0", self.keyslots[0].as_str())?;
        expect("the digest's segment", "0", self.segments[0].as_str())?;
        expect("the digest's hash", "sha256", self.hash.as_str())?;
        expect("the digest's iterations", ITERATIONS, self.iterations)?;
        expect_bytes("the digest's salt", &self.salt)?;
        expect_bytes("the digest", &self.digest)
    }
}

fn expect<T: PartialEq + ToString>(field: &str, expected: T, found: T) -> Result<(), LuksError> {
    match expected == found {
        true => Ok(()),
        false => Err(LuksError::new(field, expected, found)),
    }
}

fn expect_bytes(field: &str, base64: &str) -> Result<(), LuksError> {
    match STANDARD.decode(base64) {
        Ok(bytes) if bytes.len() == DIGEST_BYTES => Ok(()),
        _ => Err(LuksError::new(
            field,
            format!("base64 of {DIGEST_BYTES} bytes"),
            base64,
        )),
    }
}

/// A big-endian integer of at most 8 bytes.
fn integer(bytes: &[u8], start: usize, length: usize) -> u64 {
    let field = bytes.get(start..start.saturating_add(length));
    let field = field.unwrap_or_default().iter();
    field.fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn shown(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    let text = bytes
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default();
    format!("`{}`", text.escape_ascii())
}

#[cfg(test)]
#[path = "luks_tests.rs"]
mod tests;

const _: () = assert!(LUKS_BYTES == 2 * METADATA_BYTES + KEYSLOTS_BYTES);
