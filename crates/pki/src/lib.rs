//! Seed, key derivation, seed shares, certificate authorities.
