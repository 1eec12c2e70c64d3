//! Secrets, and whether some bytes hold one of them, in any form in which programs write bytes.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use memchr::memmem;

/// A secret by its forms.
pub(crate) struct Needle {
    pub(crate) name: &'static str,
    raw: Vec<u8>,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Needle {
    pub(crate) fn new(name: &'static str, secret: &[u8]) -> Self {
        let decimal: Vec<String> = secret.iter().map(u8::to_string).collect();
        let debug = secret.iter().map(|byte| format!("\\x{byte:02x}"));
        let mut forms = vec![
            ("raw", secret.to_vec()),
            ("hex", hex::encode(secret).into_bytes()),
            ("HEX", hex::encode_upper(secret).into_bytes()),
            ("numbers", decimal.join(", ").into_bytes()),
            ("JSON numbers", decimal.join(",").into_bytes()),
            ("escapes", debug.collect::<String>().into_bytes()),
        ];
        for before in 0..3 {
            // In the middle of something longer, the first and last characters depend on the neighbours.
            let text = [&vec![0; before], secret].concat();
            for (form, engine) in [("base64", &STANDARD), ("base64url", &URL_SAFE)] {
                let encoded = engine.encode(&text).into_bytes();
                let whole = encoded.len() / 4 * 4;
                forms.push((form, encoded[4..whole - 4].to_vec()));
            }
        }
        Self {
            name,
            raw: secret.to_vec(),
            forms,
        }
    }

    /// In which forms `haystack` holds it, whole or its first or last half.
    pub(crate) fn found_in(&self, haystack: &[u8]) -> Vec<&'static str> {
        let halves = |form: &[u8]| {
            let (first, last) = form.split_at(form.len() / 2);
            [first, last]
                .iter()
                .any(|half| memmem::find(haystack, half).is_some())
        };
        let found = self.forms.iter().filter(|(_, form)| halves(form));
        found.map(|(name, _)| *name).collect()
    }

    /// How often `haystack` holds it as it is.
    pub(crate) fn count_in(&self, haystack: &[u8]) -> usize {
        memmem::find_iter(haystack, &self.raw).count()
    }
}

/// Bytes of a private key on P-384.
const KEY_BYTES: usize = 48;
const LIMB_BYTES: usize = 8;
/// One limb in 256 is text by chance, so one key in 300 million has more such limbs.
const TEXT_LIMBS_MAX: usize = 3;

/// The private key in `memory` that belongs to `public`, a point on P-384 (SEC 1). The library keeps it as a number of six limbs, the lowest
/// first, in the byte order of the machine.
pub(crate) fn private_key(memory: &[u8], public: &[u8]) -> Option<Vec<u8>> {
    let windows = memory.windows(KEY_BYTES).step_by(LIMB_BYTES);
    let mut keys = windows.filter(|window| looks_random(window)).map(|window| {
        let limbs = window.chunks(LIMB_BYTES).rev();
        limbs.flat_map(|limb| limb.iter().rev().copied()).collect()
    });
    keys.find(|key: &Vec<u8>| {
        EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P384_SHA384_ASN1_SIGNING, key, public)
            .is_ok()
    })
}

/// Most of a memory is no number that was drawn: every limb of one has most of its bytes set, and hardly more than one is text by chance.
fn looks_random(window: &[u8]) -> bool {
    let limbs = || window.chunks(LIMB_BYTES);
    let is_set = |byte: &&u8| !matches!(byte, 0 | 0xff);
    let texts = limbs().filter(|limb| limb.is_ascii()).count();
    texts <= TEXT_LIMBS_MAX
        && limbs().all(|limb| limb.iter().filter(is_set).count() + 2 >= LIMB_BYTES)
}

#[test]
fn needle_is_found_in_every_form_and_nothing_else_is() {
    let secret: Vec<u8> = (100..164).collect();
    let needle = Needle::new("secret", &secret);
    for before in 0..3 {
        let hidden = [&vec![b'x'; before], secret.as_slice(), b"after"].concat();
        for text in [STANDARD.encode(&hidden), URL_SAFE.encode(&hidden)] {
            assert!(
                !needle.found_in(text.as_bytes()).is_empty(),
                "{before}: {text}"
            );
        }
    }
    for text in [
        hex::encode(&secret),
        hex::encode_upper(&secret),
        format!("{secret:?}"),
        format!("{secret:#?}").replace(",\n   ", ","),
        serde_json::to_string(&secret).expect("JSON"),
    ] {
        assert!(
            !needle.found_in(format!("a{text}z").as_bytes()).is_empty(),
            "{text}"
        );
    }
    assert_eq!(needle.found_in(&[0, 1, 2].repeat(100)), [""; 0]);
    assert_eq!(needle.count_in(&secret.repeat(2)), 2);
}
