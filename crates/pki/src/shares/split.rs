//! Shamir's scheme over GF(256), byte by byte.
//!
//! A share with threshold above 1 is: version (1 byte, 1), threshold (1 byte), set (16 bytes), number (1 byte, from 1), value (64 bytes).

use contrast_clock::Entropy;
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use super::{SeedShare, SharesError, random::Random};
use crate::Seed;

const VERSION: u8 = 1;
const SET_BYTES: usize = 16;
const SEED_BYTES: usize = 64;

/// All shares of one set, in the order of their numbers.
pub(super) struct Parts {
    pub(super) set: [u8; SET_BYTES],
    pub(super) shares: Vec<SeedShare>,
}

/// A share with threshold above 1, taken apart.
pub(super) struct Part<'a> {
    pub(super) set: &'a [u8],
    /// Number and value: the form of the library.
    pub(super) point: &'a [u8],
}

impl<'a> Part<'a> {
    /// `None` when it is no such share.
    pub(super) fn parse(share: &'a SeedShare) -> Option<Self> {
        let (header, rest) = share.expose().split_at_checked(2)?;
        let (set, point) = rest.split_at_checked(SET_BYTES)?;
        let known = header.first() == Some(&VERSION) && point.len() == SEED_BYTES.saturating_add(1);
        known.then_some(Self { set, point })
    }
}

/// Splits `seed` into `count` shares, of which `threshold` make it again.
pub(super) fn split(
    seed: &Seed,
    threshold: u32,
    count: usize,
    entropy: &dyn Entropy,
) -> Result<Parts, SharesError> {
    let refused = || SharesError::Threshold {
        threshold,
        owners: count,
    };
    let threshold_byte = u8::try_from(threshold).map_err(|_| refused())?;
    if threshold < 2 || usize::from(threshold_byte) > count || count > usize::from(u8::MAX) {
        return Err(refused());
    }
    let mut set = [0; SET_BYTES];
    entropy.fill(&mut set)?;
    let random = Random::new(entropy);
    let points = Gf256::split_bytes(usize::from(threshold_byte), count, seed.expose(), &random);
    let points = points.map(|points| points.into_iter().map(Zeroizing::new).collect::<Vec<_>>());
    random.check()?;
    let shares = points
        .map_err(SharesError::Sharing)?
        .into_iter()
        .map(|point| {
            let header = [VERSION, threshold_byte];
            SeedShare::from_bytes([&header, &set[..], point.as_slice()].concat())
        });
    Ok(Parts {
        set,
        shares: shares.collect(),
    })
}

/// The seed from as many points of one set as its threshold.
pub(super) fn combine(points: Vec<Vec<u8>>) -> Result<Seed, SharesError> {
    let points = Zeroizing::new(points);
    let seed = Gf256::combine_bytes(points.as_slice()).map_err(SharesError::Sharing)?;
    Ok(Seed::from_slice(&Zeroizing::new(seed))?)
}
