use std::fmt;

/// 64 bytes that the guest chooses and the hardware signs (REPORT_DATA, REPORTDATA).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData(pub [u8; 64]);

impl fmt::Debug for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReportData({})", hex::encode(self.0))
    }
}

/// SHA-256 of a pod's initdata document: HOSTDATA on SNP, the first 32 bytes of MRCONFIGID on TDX, and the key of an entry
/// in the manifest's `Policies`. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyHash(pub [u8; 32]);

impl fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyHash({self})")
    }
}

/// Kind of trusted execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snp => "SEV-SNP",
            Self::Tdx => "TDX",
        })
    }
}

/// One verified fact for the certificate's extensions, under `1.3.9901.2.1.<arc>` (SNP) or `1.3.9901.2.2.<arc>` (TDX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Last arc of the extension's object identifier.
    pub arc: u32,
    /// The fact.
    pub value: ClaimValue,
}

/// Value of a [`Claim`]; becomes the ASN.1 type of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValue {
    /// INTEGER.
    Integer(u64),
    /// BOOLEAN.
    Boolean(bool),
    /// OCTET STRING.
    Bytes(Vec<u8>),
}

/// What signed evidence says about its guest. Facts are no verdict: an appraisal returns them as soon as the signature
/// holds, beside checks that may have failed. Only [`VerifiedEvidence`] says that all of them passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) tee: Tee,
    pub(crate) policy_hash: PolicyHash,
    pub(crate) measurement: [u8; 48],
    pub(crate) hardware_id: Vec<u8>,
    pub(crate) claims: Vec<Claim>,
}

/// Evidence that met every demand of a reference value. Only this crate's verifier can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedEvidence {
    facts: Facts,
    reference: String,
    insecure: bool,
}

impl VerifiedEvidence {
    /// Facts become a verdict: to be called by the verifier alone, after every check passed.
    pub(crate) fn new(facts: Facts, reference: String, insecure: bool) -> Self {
        Self {
            facts,
            reference,
            insecure,
        }
    }

    /// The TEE that signed.
    pub fn tee(&self) -> Tee {
        self.facts.tee
    }

    /// Name of the reference value that was met.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Whether the reference value was one of kind `insecure`, that is, the evidence came from the software TEE.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The policy that the guest was started with.
    pub fn policy_hash(&self) -> PolicyHash {
        self.facts.policy_hash
    }

    /// Launch measurement (MEASUREMENT, MRTD).
    pub fn measurement(&self) -> &[u8; 48] {
        &self.facts.measurement
    }

    /// Identity of the physical machine: CHIP_ID (64 bytes) or the platform instance id (16 bytes); empty when masked.
    pub fn hardware_id(&self) -> &[u8] {
        &self.facts.hardware_id
    }

    /// Facts for the certificate's extensions.
    pub fn claims(&self) -> &[Claim] {
        &self.facts.claims
    }
}
