//! Thresholds above one.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeySize, PrivateDecryptingKey},
};
use contrast_clock::{Entropy, EntropyError, SeededEntropy};

use super::*;

const OWNERS_MAX: usize = 7;

/// RSA and X25519 by turns. Smaller RSA keys than owners have, because it takes seconds to find one of those.
fn owners() -> &'static [Zeroizing<String>] {
    static OWNERS: OnceLock<Vec<Zeroizing<String>>> = OnceLock::new();
    OWNERS.get_or_init(|| {
        let owner = |number: usize| {
            if number % 2 == 1 {
                return x25519::owner_pem(u8::try_from(number).expect("small"));
            }
            let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("key");
            let pkcs8: Pkcs8V1Der<'_> = key.as_der().expect("DER");
            Zeroizing::new(pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref())))
        };
        (0..OWNERS_MAX).map(owner).collect()
    })
}

fn shared(threshold: u32, count: usize) -> SeedSharesDocument {
    let public = |pem: &Zeroizing<String>| SeedShareOwnerKey::from_pem(pem).expect("public half");
    let keys: Vec<_> = owners()[..count].iter().map(public).collect();
    encrypt_seed(&seed(), &salt(), &keys, threshold, &SystemEntropy).expect("shares")
}

fn decrypted(document: &SeedSharesDocument) -> Vec<SeedShare> {
    let open = |pem: &Zeroizing<String>| decrypt_share(document, pem).expect("own share");
    owners()[..document.shares.len()].iter().map(open).collect()
}

/// Every choice of `size` out of `shares`.
fn choices(shares: &[SeedShare], size: usize) -> Vec<Vec<SeedShare>> {
    let all = 0_u32..1 << shares.len();
    let chosen = all.filter(|chosen| chosen.count_ones() as usize == size);
    let of = |chosen: u32| {
        let places = (0..shares.len()).filter(|place| chosen >> place & 1 == 1);
        places.map(|place| shares[place].clone()).collect()
    };
    chosen.map(of).collect()
}

#[test]
fn any_threshold_of_owners_recovers_and_one_fewer_does_not() {
    for count in 2..=OWNERS_MAX {
        for threshold in 2..=count {
            let needed = u32::try_from(threshold).expect("small");
            let document = shared(needed, count);
            let shares = decrypted(&document);
            for enough in choices(&shares, threshold) {
                let found = complete(document.clone(), enough);
                assert_eq!(found.expose(), seed().expose(), "{threshold} of {count}");
            }
            for too_few in choices(&shares, threshold - 1) {
                let mut collector = Collector::new(document.clone());
                for (added, share) in too_few.into_iter().enumerate() {
                    let missing = needed - 1 - u32::try_from(added).expect("small");
                    let progress = collector.add(share.clone()).expect("adds");
                    assert!(matches!(progress, Progress::Missing(found) if found == missing));
                    // The same owner once more is still one owner.
                    let again = collector.add(share).expect("adds");
                    assert!(matches!(again, Progress::Missing(found) if found == missing));
                }
                assert_eq!(collector.owners().count(), threshold - 1);
            }
        }
    }
}

/// With all but one share at hand, each value of a byte of the missing one makes another value of the seed's byte: whatever the seed is, there
/// is exactly one share that would make it.
#[test]
fn one_share_too_few_excludes_no_seed() {
    let mut shares = decrypted(&shared(3, 3));
    let point = |share: &SeedShare| split::Part::parse(share).expect("a share").point.to_vec();
    let mut missing = point(&shares.pop().expect("three"));
    let known: Vec<_> = shares.iter().map(point).collect();
    for byte in [1, 32, 64] {
        let mut seen = [false; 256];
        for value in 0..=u8::MAX {
            missing[byte] = value;
            let points = [known.clone(), vec![missing.clone()]].concat();
            let seed = split::combine(points).expect("combines");
            seen[usize::from(seed.expose()[byte - 1])] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "byte {byte}");
    }
}

#[test]
fn wrong_shares_are_told_from_right_ones_as_they_come() {
    let document = shared(2, 3);
    let [first, second, _] = <[_; 3]>::try_from(decrypted(&document)).expect("three");
    let mut collector = Collector::new(document);
    assert!(matches!(
        collector.add(first).expect("adds"),
        Progress::Missing(1)
    ));

    // Of the same owners and the same seed, shared anew.
    let anew = shared(2, 3);
    let replaced = decrypted(&anew).remove(1);
    assert!(matches!(
        collector.add(replaced),
        Err(SharesError::Replaced)
    ));
    let whole = SeedShare::from_bytes(vec![7; 64]);
    assert!(matches!(
        collector.add(whole),
        Err(SharesError::Unknown { available: 3 })
    ));
    for position in [0, 1, 18, 19, 82] {
        let mut bytes = second.expose().to_vec();
        bytes[position] ^= 1;
        let damaged = SeedShare::from_bytes(bytes);
        let error = collector.add(damaged).expect_err("damaged");
        assert!(
            matches!(error, SharesError::Unknown { .. }),
            "{position}: {error}"
        );
    }
    for length in [0, 1, 2, 18, 82, 84] {
        let cut = SeedShare::from_bytes([second.expose(), &[0; 2]].concat()[..length].to_vec());
        assert!(collector.add(cut).is_err(), "{length}");
    }
    match collector.add(second).expect("adds") {
        Progress::Complete(found) => assert_eq!(found.expose(), seed().expose()),
        Progress::Missing(_) => panic!("both are there"),
    }
}

#[test]
fn document_says_how_many_and_which_set() {
    let document = shared(2, 3);
    let json = document.to_json().expect("JSON");
    assert_eq!(
        SeedSharesDocument::from_json(json.as_bytes()).expect("parses"),
        document
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["Threshold"], 2);
    assert_eq!(json["Set"].as_str().map(str::len), Some(32));
    for share in json["SeedShares"].as_array().expect("shares") {
        assert_eq!(share["Digest"].as_str().map(str::len), Some(64));
    }
    assert_ne!(document.set, shared(2, 3).set);
    // Today's format knows neither.
    let whole: serde_json::Value =
        serde_json::from_str(&shared(1, 3).to_json().expect("JSON")).expect("JSON");
    assert_eq!(whole.get("Set"), None);
    assert_eq!(whole["SeedShares"][0].get("Digest"), None);
}

#[derive(Debug)]
pub(super) struct Broken;

impl Entropy for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
        Err(EntropyError::new("broken"))
    }
}

#[test]
fn without_randomness_nothing_is_shared() {
    let key = SeedShareOwnerKey::from_pem(&owners()[0]).expect("public half");
    let keys = [key.clone(), key];
    let error = encrypt_seed(&seed(), &salt(), &keys, 2, &Broken).expect_err("no entropy");
    assert!(matches!(error, SharesError::Entropy(_)), "{error}");
    // The set and 64 coefficients: it may also fail between them.
    let parts = split::split(&seed(), 2, 2, &SeededEntropy::new(1)).expect("splits");
    assert_eq!(parts.shares.len(), 2);
}
