use contrast_attestation::appraisal::SnpProduct;

use crate::{Item, item::name_of};

const AMD_KDS: &str = "https://kdsintf.amd.com";
const INTEL_PCS: &str = "https://api.trustedservices.intel.com";
const INTEL_ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/// Where documents are.
///
/// | item | path |
/// | --- | --- |
/// | VCEK | `/vcek/v1/PRODUCT/CHIP?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..`, on Turin `fmcSPL=..` first |
/// | chain | `/vcek/v1/PRODUCT/cert_chain`, `/vlek/v1/PRODUCT/cert_chain` |
/// | CRL | `/vcek/v1/PRODUCT/crl`, `/vlek/v1/PRODUCT/crl` |
/// | TCB info | `/tdx/certification/v4/tcb?fmspc=..&update=standard` |
/// | QE identity | `/tdx/certification/v4/qe/identity?update=standard` |
/// | PCK CRL | `/sgx/certification/v4/pckcrl?ca=..&encoding=der` |
/// | root CRL | at Intel a file of its own; at a caching service `/sgx/certification/v4/rootcacrl` |
///
/// Sources: AMD publication 57230, "VCEK Certificate and KDS Interface Specification", chapter 4; Intel, "PCS API version 4" and
/// "PCCS design guide".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    amd: String,
    intel: String,
    intel_root_crl: String,
}

/// A base URL that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a URL like http://collateral.example:8080 (http or https, a host, no query), found {found:?}"
)]
pub struct EndpointError {
    found: String,
}

impl Endpoints {
    /// The vendors themselves.
    pub fn vendors() -> Self {
        Self {
            amd: AMD_KDS.to_owned(),
            intel: INTEL_PCS.to_owned(),
            intel_root_crl: INTEL_ROOT_CRL.to_owned(),
        }
    }

    /// One service that answers AMD's and Intel's paths below `base`, such as a caching proxy; Intel's PCCS does for Intel's part.
    ///
    /// # Errors
    /// When `base` is no http or https URL, or has a query.
    pub fn at(base: &str) -> Result<Self, EndpointError> {
        let base = base.trim_end_matches('/');
        let host = ["http://", "https://"]
            .iter()
            .find_map(|scheme| base.strip_prefix(scheme));
        let usable = |host: &str| {
            !host.is_empty()
                && !host.starts_with(['/', ':'])
                && !host.contains(['?', '#', '@'])
                && host.chars().all(|c| c.is_ascii_graphic())
        };
        match host {
            Some(host) if usable(host) => Ok(Self {
                amd: base.to_owned(),
                intel: base.to_owned(),
                intel_root_crl: format!("{base}/sgx/certification/v4/rootcacrl"),
            }),
            _ => Err(EndpointError {
                found: base.to_owned(),
            }),
        }
    }

    /// The URL of `item`.
    pub fn url(&self, item: &Item) -> String {
        let Self {
            amd,
            intel,
            intel_root_crl,
        } = self;
        match item {
            Item::Vcek {
                product,
                hardware_id,
                tcb: [bootloader, tee, snp, microcode, fmc],
            } => {
                let chip = hex::encode(hardware_id);
                let fmc = match product {
                    SnpProduct::Turin => format!("fmcSPL={fmc}&"),
                    SnpProduct::Milan | SnpProduct::Genoa => String::new(),
                };
                format!(
                    "{amd}/vcek/v1/{product}/{chip}?{fmc}blSPL={bootloader}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={microcode}"
                )
            }
            Item::SnpChain { product, signer } => format!("{amd}/{signer}/v1/{product}/cert_chain"),
            Item::SnpCrl { product, signer } => format!("{amd}/{signer}/v1/{product}/crl"),
            Item::TcbInfo { fmspc } => {
                let fmspc = hex::encode(fmspc);
                format!("{intel}/tdx/certification/v4/tcb?fmspc={fmspc}&update=standard")
            }
            Item::QeIdentity => {
                format!("{intel}/tdx/certification/v4/qe/identity?update=standard")
            }
            Item::PckCrl { issuer } => format!(
                "{intel}/sgx/certification/v4/pckcrl?ca={}&encoding=der",
                name_of(*issuer)
            ),
            Item::RootCrl => intel_root_crl.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use contrast_attestation::{appraisal::SnpTcb, tdx::PckIssuer};

    use crate::SnpSigner;

    use super::*;

    const TCB: SnpTcb = SnpTcb {
        bootloader: 3,
        tee: 0,
        snp: 20,
        microcode: 209,
        fmc: None,
    };

    #[test]
    fn urls_are_those_of_the_vendors_interfaces() {
        let milan = Item::vcek(SnpProduct::Milan, &[0xAB; 64], TCB);
        let turin = Item::vcek(
            SnpProduct::Turin,
            &[0xCD; 64],
            SnpTcb {
                fmc: Some(1),
                ..TCB
            },
        );
        let vlek = SnpSigner::Vlek;
        let product = SnpProduct::Genoa;
        let at = Endpoints::vendors();
        for (item, expected) in [
            (
                milan,
                format!(
                    "https://kdsintf.amd.com/vcek/v1/Milan/{}?blSPL=3&teeSPL=0&snpSPL=20&ucodeSPL=209",
                    "ab".repeat(64)
                ),
            ),
            (
                turin,
                format!(
                    "https://kdsintf.amd.com/vcek/v1/Turin/{}?fmcSPL=1&blSPL=3&teeSPL=0&snpSPL=20&ucodeSPL=209",
                    "cd".repeat(8)
                ),
            ),
            (
                Item::SnpChain { product, signer: vlek },
                "https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain".into(),
            ),
            (
                Item::SnpCrl { product, signer: SnpSigner::Vcek },
                "https://kdsintf.amd.com/vcek/v1/Genoa/crl".into(),
            ),
            (
                Item::TcbInfo { fmspc: [0x50, 0x80, 0x6F, 0, 0, 0] },
                "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=50806f000000&update=standard".into(),
            ),
            (
                Item::PckCrl { issuer: PckIssuer::Platform },
                "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der".into(),
            ),
            (
                Item::RootCrl,
                "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der".into(),
            ),
        ] {
            assert_eq!(at.url(&item), expected);
        }
    }

    #[test]
    fn a_caching_service_answers_everything_below_its_base() {
        let at = Endpoints::at("http://cache.example:8080/contrast/").expect("a base");
        let root = at.url(&Item::RootCrl);
        assert_eq!(
            root,
            "http://cache.example:8080/contrast/sgx/certification/v4/rootcacrl"
        );
        for bad in [
            "",
            "cache.example",
            "ftp://cache.example",
            "http://",
            "http://:80",
            "http://a?b",
            "http://user@a",
        ] {
            let error = Endpoints::at(bad).expect_err(bad).to_string();
            assert!(error.contains("expected a URL like"), "{error}");
        }
    }
}
