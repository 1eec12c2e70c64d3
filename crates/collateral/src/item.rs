use std::fmt;

use contrast_attestation::{
    appraisal::{SnpProduct, SnpTcb},
    tdx::PckIssuer,
};

/// The name of one publication.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Item {
    /// The certificate of a chip's key at one TCB.
    Vcek {
        /// Product line.
        product: SnpProduct,
        /// What names the chip: CHIP_ID, 64 bytes; on Turin its first 8 bytes.
        hardware_id: Vec<u8>,
        /// The TCB: bootloader, TEE, SNP, microcode and, on Turin, FMC.
        tcb: [u8; 5],
    },
    /// ASK (or ASVK) and ARK.
    SnpChain {
        /// Product line.
        product: SnpProduct,
        /// What the ASK signs.
        signer: SnpSigner,
    },
    /// The list that the ARK signs.
    SnpCrl {
        /// Product line.
        product: SnpProduct,
        /// What the listed ASKs sign.
        signer: SnpSigner,
    },
    /// TDX TCB levels of a platform.
    TcbInfo {
        /// Family, model, stepping, platform type and custom SKU.
        fmspc: [u8; 6],
    },
    /// Identity of the TD quoting enclave.
    QeIdentity,
    /// The list of revoked PCK certificates.
    PckCrl {
        /// Who signs it.
        issuer: PckIssuer,
    },
    /// The list of revoked Intel CAs.
    RootCrl,
}

/// The key that signs reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnpSigner {
    /// Versioned chip endorsement key.
    Vcek,
    /// Versioned loaded endorsement key.
    Vlek,
}

impl Item {
    /// The VCEK of the chip `hardware_id` at `tcb`.
    pub fn vcek(product: SnpProduct, hardware_id: &[u8], tcb: SnpTcb) -> Self {
        let significant = match product {
            SnpProduct::Turin => 8,
            SnpProduct::Milan | SnpProduct::Genoa => 64,
        };
        let hardware_id = hardware_id.get(..significant).unwrap_or(hardware_id);
        let SnpTcb {
            bootloader,
            tee,
            snp,
            microcode,
            fmc,
        } = tcb;
        Self::Vcek {
            product,
            hardware_id: hardware_id.to_vec(),
            tcb: [bootloader, tee, snp, microcode, fmc.unwrap_or_default()],
        }
    }

    /// Its file in a bundle: letters, digits, `-` and `.`, at most 253 characters, so that it can be a key of a ConfigMap.
    pub fn file_name(&self) -> String {
        match self {
            Self::Vcek {
                product,
                hardware_id,
                tcb,
            } => {
                let (chip, tcb) = (hex::encode(hardware_id), hex::encode(tcb));
                format!("amd-vcek-{product}-{chip}-{tcb}.pem")
            }
            Self::SnpChain { product, signer } => format!("amd-{signer}-{product}-chain.pem"),
            Self::SnpCrl { product, signer } => format!("amd-{signer}-{product}-crl.pem"),
            Self::TcbInfo { fmspc } => format!("intel-tcb-info-{}.json", hex::encode(fmspc)),
            Self::QeIdentity => "intel-qe-identity.json".to_owned(),
            Self::PckCrl { issuer } => format!("intel-pck-crl-{}.pem", name_of(*issuer)),
            Self::RootCrl => "intel-root-crl.pem".to_owned(),
        }
    }

    /// Whether it says what holds at the moment, in contrast to certificates, which are the same for years.
    pub fn is_news(&self) -> bool {
        !matches!(self, Self::Vcek { .. } | Self::SnpChain { .. })
    }
}

/// `platform` or `processor`, as in PCS's query.
pub(crate) fn name_of(issuer: PckIssuer) -> &'static str {
    match issuer {
        PckIssuer::Processor => "processor",
        PckIssuer::Platform => "platform",
    }
}

impl fmt::Display for SnpSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        })
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek {
                product,
                hardware_id,
                tcb: [bootloader, tee, snp, microcode, _],
            } => {
                let chip = hex::encode(hardware_id.get(..8).unwrap_or(hardware_id));
                write!(
                    f,
                    "VCEK of the {product} chip {chip}... (bootloader {bootloader}, TEE {tee}, SNP {snp}, microcode {microcode})"
                )
            }
            Self::SnpChain { product, signer } => write!(f, "{product} {signer} chain"),
            Self::SnpCrl { product, signer } => write!(f, "{product} {signer} CRL"),
            Self::TcbInfo { fmspc } => write!(f, "TCB info of FMSPC {}", hex::encode(fmspc)),
            Self::QeIdentity => f.write_str("identity of the TD quoting enclave"),
            Self::PckCrl { issuer } => write!(f, "PCK CRL of the {} CA", name_of(*issuer)),
            Self::RootCrl => f.write_str("CRL of the Intel SGX Root CA"),
        }
    }
}
