//! Shares encrypted with RSA-OAEP, and the DER of the keys.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{
        KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
        PrivateDecryptingKey, PublicEncryptingKey,
    },
};
use der::{
    Decode as _, Encode as _, Sequence,
    asn1::{BitStringRef, ObjectIdentifier, OctetStringRef, UintRef},
    pem::{LineEnding, encode_string},
};
use zeroize::Zeroizing;

use super::{
    SharesError,
    owner::{AlgorithmIdentifier, LABEL, PrivateKeyInfo, SubjectPublicKeyInfo},
};

/// Smallest modulus that is accepted, in bits; owners get 4096.
const MODULUS_BITS_MIN: usize = 2048;

/// Object identifier rsaEncryption (RFC 8017, appendix A.1).
pub(super) const RSA_ENCRYPTION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// PEM label of PKCS#1 private keys, the form in which owner keys are written.
pub(super) const PKCS1_PEM: &str = "RSA PRIVATE KEY";
/// `RSAPublicKey`, RFC 8017 appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// `RSAPrivateKey`, RFC 8017 appendix A.1.2, of which only the public half is used.
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime1: UintRef<'a>,
    prime2: UintRef<'a>,
    exponent1: UintRef<'a>,
    exponent2: UintRef<'a>,
    coefficient: UintRef<'a>,
}

/// Checks an `RSAPublicKey`, DER. Strict about it: shares are found by comparing the bytes of public keys.
pub(super) fn check(pkcs1: &[u8]) -> Result<(), SharesError> {
    let parsed = RsaPublicKey::from_der(pkcs1).map_err(|_| SharesError::PublicKey)?;
    // Before the library sees the key: it refuses short keys too, but does not say why.
    let modulus = parsed.modulus.as_bytes();
    let unused = modulus.first().map_or(0, |first| first.leading_zeros());
    let found = modulus
        .len()
        .saturating_mul(8)
        .saturating_sub(unused as usize);
    if found < MODULUS_BITS_MIN {
        return Err(SharesError::ModulusTooShort { found });
    }
    encrypting_key(pkcs1).map(drop)
}

fn encrypting_key(pkcs1: &[u8]) -> Result<PublicEncryptingKey, SharesError> {
    let spki = SubjectPublicKeyInfo {
        algorithm: AlgorithmIdentifier::RSA,
        subject_public_key: BitStringRef::from_bytes(pkcs1).map_err(|_| SharesError::PublicKey)?,
    };
    let spki = spki.to_der().map_err(|_| SharesError::PublicKey)?;
    PublicEncryptingKey::from_der(&spki).map_err(|_| SharesError::PublicKey)
}

pub(super) fn encrypt(pkcs1: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SharesError> {
    let key =
        OaepPublicEncryptingKey::new(encrypting_key(pkcs1)?).map_err(|_| SharesError::PublicKey)?;
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(
            &OAEP_SHA256_MGF1SHA256,
            plaintext,
            &mut ciphertext,
            Some(LABEL),
        )
        .map_err(|_| SharesError::Encrypt)?
        .len();
    ciphertext.truncate(length);
    Ok(ciphertext)
}

/// Decrypts with an `RSAPrivateKey`, DER.
pub(super) fn decrypt(pkcs1: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, SharesError> {
    let info = PrivateKeyInfo {
        version: 0,
        algorithm: AlgorithmIdentifier::RSA,
        private_key: OctetStringRef::new(pkcs1).map_err(|_| SharesError::PrivateKey)?,
    };
    let pkcs8 = info.to_der().map_err(|_| SharesError::PrivateKey)?;
    let pkcs8 = Zeroizing::new(pkcs8);
    let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).map_err(|_| SharesError::PrivateKey)?;
    let key = OaepPrivateDecryptingKey::new(key).map_err(|_| SharesError::PrivateKey)?;
    let mut plaintext = Zeroizing::new(vec![0; key.min_output_size()]);
    let share = key
        .decrypt(
            &OAEP_SHA256_MGF1SHA256,
            ciphertext,
            &mut plaintext,
            Some(LABEL),
        )
        .map_err(|_| SharesError::Decrypt)?;
    Ok(share.to_vec())
}

/// The `RSAPublicKey` of an `RSAPrivateKey`.
pub(super) fn public_half(pkcs1: &[u8]) -> Result<Vec<u8>, SharesError> {
    let private = RsaPrivateKey::from_der(pkcs1).map_err(|_| SharesError::PrivateKey)?;
    RsaPublicKey {
        modulus: private.modulus,
        public_exponent: private.public_exponent,
    }
    .to_der()
    .map_err(|_| SharesError::PrivateKey)
}

/// A new RSA-4096 key pair of a seed share owner: private key as PKCS#1 PEM (`RSA PRIVATE KEY`), which holds the public half.
/// Takes seconds. The randomness comes from the cryptographic library: RSA keys are searched for, not computed from a secret.
///
/// # Errors
/// When the cryptographic library fails.
pub fn generate_owner_key_pem() -> Result<Zeroizing<String>, SharesError> {
    let key =
        PrivateDecryptingKey::generate(KeySize::Rsa4096).map_err(|_| SharesError::Generate)?;
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(|_| SharesError::Generate)?;
    let info = PrivateKeyInfo::from_der(pkcs8.as_ref()).map_err(|_| SharesError::Generate)?;
    let text = encode_string(PKCS1_PEM, LineEnding::LF, info.private_key.as_bytes());
    Ok(Zeroizing::new(text.map_err(|_| SharesError::Generate)?))
}
