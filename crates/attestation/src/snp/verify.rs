//! The report's signature.

use crate::{CheckList, keys::ParsedPublicKey};

use super::abi::{ECDSA_P384_SHA384, Report, SCALAR_FIELD_BYTES, SIGNED_BYTES};

const SCALAR_BYTES: usize = 48;

/// Whether `key` signed `bytes`, which `report` was parsed from.
pub(super) fn verify_signature(
    bytes: &[u8],
    report: &Report,
    key: &ParsedPublicKey,
    checks: &mut CheckList,
) -> bool {
    checks.equal("SIGNATURE_ALGO", &ECDSA_P384_SHA384, &report.signature_algo);
    let Some(signature) = big_endian(&report.signature) else {
        let expected = "R and S of 48 bytes each, all other bytes zero";
        checks.fail("SIGNATURE", expected, hex::encode(report.signature));
        return false;
    };
    let signed = bytes.get(..SIGNED_BYTES);
    let holds = signed.is_some_and(|signed| key.verify_sig(signed, &signature).is_ok());
    let found = if holds {
        "one that holds"
    } else {
        "one that does not hold"
    };
    checks.record(
        "SIGNATURE",
        "a signature by the key in the VEK certificate",
        found,
        holds,
    );
    holds && report.signature_algo == ECDSA_P384_SHA384
}

/// R || S in big-endian, 48 bytes each, from the report's two little-endian fields of 72 bytes. The signature covers no
/// byte of these fields, so that those without meaning must be zero; otherwise one report would have many encodings.
fn big_endian(field: &[u8; 512]) -> Option<[u8; 96]> {
    let (r, rest) = field.split_first_chunk::<SCALAR_FIELD_BYTES>()?;
    let (s, padding) = rest.split_first_chunk::<SCALAR_FIELD_BYTES>()?;
    let mut signature = [0; 96];
    let halves = signature.chunks_exact_mut(SCALAR_BYTES);
    for (half, scalar) in halves.zip([r, s]) {
        let (value, excess) = scalar.split_first_chunk::<SCALAR_BYTES>()?;
        if excess.iter().any(|byte| *byte != 0) {
            return None;
        }
        half.copy_from_slice(value);
        half.reverse();
    }
    padding.iter().all(|byte| *byte == 0).then_some(signature)
}

/// The inverse of [`big_endian`].
#[cfg(any(test, all(feature = "software-tee", not(target_arch = "wasm32"))))]
pub(crate) fn encode_signature(signature: &[u8; 96]) -> [u8; 512] {
    let mut field = [0; 512];
    let fields = field.chunks_exact_mut(SCALAR_FIELD_BYTES);
    for (slot, scalar) in fields.zip(signature.chunks_exact(SCALAR_BYTES)) {
        for (to, from) in slot.iter_mut().zip(scalar.iter().rev()) {
            *to = *from;
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_reversed_one_by_one() {
        let mut signature = [0; 96];
        signature[0] = 1;
        signature[95] = 2;
        let field = encode_signature(&signature);
        assert_eq!((field[47], field[72]), (1, 2));
        assert_eq!(big_endian(&field), Some(signature));
    }

    #[test]
    fn a_byte_outside_the_scalars_is_refused() {
        for position in (48..72).chain(120..512) {
            let mut field = encode_signature(&[7; 96]);
            field[position] = 1;
            assert_eq!(big_endian(&field), None, "byte {position}");
        }
    }
}
