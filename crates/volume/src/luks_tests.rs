use super::*;

const UUID: Uuid = Uuid::from_u128(0x986d_45ab_f5d5_4ccf_a38a_2765_1f56_93d6);
const JSON: &str = include_str!("../tests/header.json");

/// A header as `cryptsetup` makes it, with this JSON in both copies.
fn header(json: &str) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    for (position, magic) in MAGICS.into_iter().enumerate() {
        let start = position * METADATA_BYTES;
        let copy = &mut header[start..start + METADATA_BYTES];
        copy[..6].copy_from_slice(magic);
        copy[6..8].copy_from_slice(&2_u16.to_be_bytes());
        copy[8..16].copy_from_slice(&(METADATA_BYTES as u64).to_be_bytes());
        copy[16..24].copy_from_slice(&3_u64.to_be_bytes());
        copy[72..78].copy_from_slice(b"sha256");
        copy[104..168].fill(0x5a + position as u8);
        copy[168..204].copy_from_slice(UUID.hyphenated().to_string().as_bytes());
        copy[256..264].copy_from_slice(&(start as u64).to_be_bytes());
        copy[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        seal(copy);
    }
    header
}

/// The checksum of a copy, which anybody can make.
fn seal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let checksum = digest(&SHA256, copy);
    copy[448..480].copy_from_slice(checksum.as_ref());
}

fn refused(header: &[u8]) -> String {
    check(header, UUID).expect_err("refused").to_string()
}

#[test]
fn header_of_this_program_is_accepted() {
    assert_eq!(check(&header(JSON), UUID), Ok(()));
}

#[test]
fn what_an_attacker_would_write_is_refused() {
    for (name, from, to, said) in [
        (
            "null cipher",
            r#""encryption":"aes-xts-plain64","sector_size""#,
            r#""encryption":"cipher_null-ecb","sector_size""#,
            "cipher_null-ecb in the segment's encryption, expected aes-xts-plain64",
        ),
        (
            "null keyslot",
            r#""encryption":"aes-xts-plain64","key_size":64"#,
            r#""encryption":"cipher_null-ecb","key_size":64"#,
            "area.encryption",
        ),
        (
            "plain segment",
            r#""segments":{"0":{"type":"crypt""#,
            r#""segments":{"0":{"type":"linear""#,
            "linear in the segment's type",
        ),
        (
            "no integrity",
            r#","integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}"#,
            "",
            "missing field `integrity`",
        ),
        (
            "weaker integrity",
            r#""type":"hmac(sha256)""#,
            r#""type":"none""#,
            "none in integrity.type",
        ),
        (
            "changed key size",
            r#""key_size":96"#,
            r#""key_size":32"#,
            "32 in the keyslot's key_size",
        ),
        (
            "changed offset",
            r#""offset":"1048576""#,
            r#""offset":"0""#,
            "the segment's offset",
        ),
        (
            "changed size",
            r#""size":"dynamic""#,
            r#""size":"4096""#,
            "the segment's size",
        ),
        (
            "changed tweak",
            r#""iv_tweak":"0""#,
            r#""iv_tweak":"8""#,
            "iv_tweak",
        ),
        (
            "changed sector",
            r#""sector_size":4096"#,
            r#""sector_size":512"#,
            "sector_size",
        ),
        (
            "extra segment",
            r#""segments":{"#,
            r#""segments":{"1":{"type":"linear","offset":"0","size":"dynamic"},"#,
            "unknown field `1`",
        ),
        (
            "two segments of one name",
            r#""segments":{"#,
            r#""segments":{"0":{"type":"linear","offset":"0","size":"dynamic"},"#,
            "missing field",
        ),
        (
            "extra keyslot",
            r#""keyslots":{"0":{"#,
            r#""keyslots":{"1":{"type":"luks2"},"0":{"#,
            "unknown field `1`",
        ),
        (
            "extra token",
            r#""tokens":{}"#,
            r#""tokens":{"0":{"type":"systemd-tpm2","keyslots":["0"]}}"#,
            "unknown field `0`",
        ),
        (
            "re-encryption",
            r#""config":{"#,
            r#""config":{"requirements":{"mandatory":["online-reencrypt-v2"]},"#,
            "unknown field `requirements`",
        ),
        (
            "flags",
            r#""config":{"#,
            r#""config":{"flags":["allow-discards"],"#,
            "unknown field `flags`",
        ),
        (
            "digest of nothing",
            r#""segments":["0"]"#,
            r#""segments":[]"#,
            "invalid length 0",
        ),
        (
            "digest of another hash",
            r#""hash":"sha256","iterations":1000,"salt":"kL"#,
            r#""hash":"sha1","iterations":1000,"salt":"kL"#,
            "the digest's hash",
        ),
        (
            "more iterations",
            r#""iterations":1000"#,
            r#""iterations":4294967295"#,
            "kdf.iterations",
        ),
        (
            "short salt",
            "hvhMJIuNzZR10OxZZswYKuKgyoJ1VxhfGKmsy7ucL98=",
            "aGk=",
            "kdf.salt",
        ),
        (
            "unbounded JSON",
            r#""json_size":"12288""#,
            r#""json_size":"4096""#,
            "config.json_size",
        ),
    ] {
        assert!(JSON.contains(from), "{name}: nothing to replace");
        let json = JSON.replacen(from, to, 1);
        let found = refused(&header(&json));
        assert!(found.contains(said), "{name}: {found}");
    }
}

#[test]
fn copies_that_differ_are_refused() {
    let mut changed = header(JSON);
    let other = header(&JSON.replace("hvhMJIuNzZR10OxZZswYKuKg", "AAAAJIuNzZR10OxZZswYKuKg"));
    changed[METADATA_BYTES..2 * METADATA_BYTES]
        .copy_from_slice(&other[METADATA_BYTES..2 * METADATA_BYTES]);
    assert!(refused(&changed).contains("the JSON of its second copy"));
    let mut changed = header(JSON);
    changed[METADATA_BYTES + 23] = 4;
    seal(&mut changed[METADATA_BYTES..2 * METADATA_BYTES]);
    assert!(refused(&changed).contains("sequence ids of both copies"));
}

#[test]
fn other_volumes_lengths_and_rests_are_refused() {
    let other = Uuid::from_u128(1);
    let error = check(&header(JSON), other).expect_err("another volume");
    assert_eq!(error.field, "the UUID of copy 1");
    assert!(refused(&header(JSON)[..METADATA_BYTES]).contains("its length"));
    let mut changed = header(JSON);
    for start in [0, METADATA_BYTES] {
        changed[start + METADATA_BYTES - 1] = b'}';
        seal(&mut changed[start..start + METADATA_BYTES]);
    }
    assert!(refused(&changed).contains("what follows its JSON"));
}

/// With a right checksum, as an attacker would write it: which bits of both copies does the check leave alone?
#[test]
fn every_flipped_bit_of_the_metadata_is_refused_but_those_of_salts_and_digest() {
    let whole = header(JSON);
    let values: Vec<(usize, usize)> = ["hvhM", "kL9d", "3Gkw"]
        .iter()
        .map(|beginning| {
            let start = 4096 + JSON.find(beginning).expect("value");
            (start, start + 44)
        })
        .collect();
    let end = 4096 + JSON.len() + 64;
    for position in 0..end {
        // The checksum is made anew below.
        if (448..512).contains(&position) {
            continue;
        }
        for bit in 0..8 {
            let mut flipped = whole.clone();
            for start in [0, METADATA_BYTES] {
                flipped[start + position] ^= 1 << bit;
                seal(&mut flipped[start..start + METADATA_BYTES]);
            }
            let accepted = check(&flipped, UUID).is_ok();
            // Sequence id, salt of the checksum, and what PBKDF2 takes and gives.
            let harmless = (16..24).contains(&position)
                || (104..168).contains(&position)
                || values
                    .iter()
                    .any(|(start, end)| (*start..*end).contains(&position));
            // JSON may end with white space.
            let white = position == 4096 + JSON.len() && flipped[position].is_ascii_whitespace();
            assert!(
                !accepted || harmless || white,
                "bit {bit} of byte {position} was accepted"
            );
        }
    }
}

#[test]
fn every_wrong_checksum_is_refused() {
    let whole = header(JSON);
    for copy in [0, METADATA_BYTES] {
        for position in 448..512 {
            let mut flipped = whole.clone();
            flipped[copy + position] ^= 1;
            assert!(refused(&flipped).contains("the checksum of copy"));
        }
    }
}
