//! AMD's root keys (ARK), pinned.

use crate::{Root, appraisal::SnpProduct};

use super::certificate::{SignedCertificate, SignedCrl};

/// SHA-256 of the DER of the certificate ARK-Milan, serial 010000, valid 2020-10-22 to 2045-10-22.
///
/// AMD serves it at `https://kdsintf.amd.com/vcek/v1/Milan/cert_chain`. The value was computed from a copy of that answer
/// and agrees with the certificate that crate `sev` 8.0 embeds.
const ARK_MILAN_SHA256: [u8; 32] = [
    0x69, 0xd0, 0x63, 0xb4, 0x53, 0x44, 0xd2, 0x6a, 0x2e, 0x94, 0xe1, 0xf4, 0x21, 0x0d, 0xe4, 0x9e,
    0xf5, 0x55, 0x30, 0x82, 0x87, 0xd4, 0xc1, 0x74, 0x44, 0x5c, 0x95, 0x63, 0x9a, 0x54, 0x0b, 0xcd,
];

/// SHA-256 of the DER of the certificate ARK-Genoa, serial 020000, valid 2022-01-26 to 2047-01-26.
///
/// AMD serves it at `https://kdsintf.amd.com/vcek/v1/Genoa/cert_chain`; computed from the certificate that crate `sev` 8.0
/// embeds.
const ARK_GENOA_SHA256: [u8; 32] = [
    0x4c, 0x65, 0x98, 0xd1, 0x9c, 0x18, 0x71, 0x9c, 0x5d, 0xfd, 0x4a, 0x7d, 0x33, 0x5f, 0x67, 0x4e,
    0x5b, 0xfe, 0x1d, 0x8f, 0x80, 0x0c, 0xea, 0x2c, 0xf2, 0x70, 0xc1, 0x0d, 0x10, 0x3d, 0xb2, 0xf1,
];

/// SHA-256 of the DER of the certificate ARK-Turin, serial 030000, valid 2023-05-15 to 2048-05-15.
///
/// AMD serves it at `https://kdsintf.amd.com/vcek/v1/Turin/cert_chain`; computed from the certificate that crate `sev` 8.0
/// embeds.
const ARK_TURIN_SHA256: [u8; 32] = [
    0x1f, 0x08, 0x41, 0x61, 0xa4, 0x4b, 0xb6, 0xd9, 0x37, 0x78, 0xa9, 0x04, 0x87, 0x7d, 0x48, 0x19,
    0xca, 0xfa, 0x5d, 0x05, 0xef, 0x41, 0x93, 0xb2, 0xde, 0xd9, 0xdd, 0x9c, 0x73, 0xdd, 0x3f, 0x6a,
];

/// The only ARK that a chain may start with.
#[derive(Debug, Clone)]
pub(super) struct PinnedArk {
    /// SHA-256 of the certificate's DER.
    pub(super) sha256: [u8; 32],
    /// For people.
    pub(super) name: String,
}

impl PinnedArk {
    /// The ARK that `root` stands for when the reference value demands `product`.
    pub(super) fn of(root: Root, product: SnpProduct) -> Self {
        match root {
            Root::Vendor => Self {
                sha256: match product {
                    SnpProduct::Milan => ARK_MILAN_SHA256,
                    SnpProduct::Genoa => ARK_GENOA_SHA256,
                    SnpProduct::Turin => ARK_TURIN_SHA256,
                },
                name: format!("AMD's ARK-{product}"),
            },
            Root::Insecure { sha256 } => Self {
                sha256,
                name: "the software TEE's ARK".to_owned(),
            },
        }
    }
}

/// The certificates above the VCEKs of one product, DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VendorChain {
    /// AMD SEV key: signs VCEK certificates.
    pub ask: &'static [u8],
    /// AMD root key: signs the ASK.
    pub ark: &'static [u8],
}

/// AMD's ASK and ARK of `product`, for evidence that comes without them. They change nothing about what is trusted: the
/// ARK is pinned, and the ASK is verified like one that came with the evidence. There is none here for VLEKs.
pub fn vendor_chain(product: SnpProduct) -> VendorChain {
    match product {
        SnpProduct::Milan => VendorChain {
            ask: include_bytes!("vendor/milan-ask.der"),
            ark: include_bytes!("vendor/milan-ark.der"),
        },
        SnpProduct::Genoa => VendorChain {
            ask: include_bytes!("vendor/genoa-ask.der"),
            ark: include_bytes!("vendor/genoa-ark.der"),
        },
        SnpProduct::Turin => VendorChain {
            ask: include_bytes!("vendor/turin-ask.der"),
            ark: include_bytes!("vendor/turin-ark.der"),
        },
    }
}

impl VendorChain {
    /// Whether this ASK signed a VCEK (DER). Says nothing about its validity or whose it is.
    pub fn signed_vcek(&self, der: &[u8]) -> bool {
        is_signed(der, self.ask)
    }

    /// Whether this ARK signed an ASK or ASVK (DER).
    pub fn signed_ask(&self, der: &[u8]) -> bool {
        is_signed(der, self.ark)
    }

    /// Whether this ARK signed a revocation list (DER).
    pub fn signed_crl(&self, der: &[u8]) -> bool {
        match (SignedCrl::parse(der), SignedCertificate::parse(self.ark)) {
            (Ok(crl), Ok(ark)) => crl.is_signed_by(&ark).is_ok(),
            _ => false,
        }
    }
}

fn is_signed(der: &[u8], issuer: &[u8]) -> bool {
    match (
        SignedCertificate::parse(der),
        SignedCertificate::parse(issuer),
    ) {
        (Ok(certificate), Ok(issuer)) => certificate.is_signed_by(&issuer).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    #[test]
    fn the_embedded_chains_lead_to_the_pinned_roots() {
        for product in [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin] {
            let chain = vendor_chain(product);
            let pin = PinnedArk::of(Root::Vendor, product);
            assert_eq!(digest(&SHA256, chain.ark).as_ref(), pin.sha256);
            let ark = SignedCertificate::parse(chain.ark).expect("ARK");
            let ask = SignedCertificate::parse(chain.ask).expect("ASK");
            ask.is_signed_by(&ark).expect("signed");
        }
    }
}
