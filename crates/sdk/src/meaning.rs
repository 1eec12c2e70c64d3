//! What each kind of check means, for a reader who knows neither TEEs nor this program.

use contrast_attestation::specification::rule_of;
use serde::Serialize;

/// Kind of a [`crate::rows::Row`]. Its JSON form is the name in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The evidence as a whole.
    Evidence,
    /// Layout of the evidence.
    EvidenceFormat,
    /// Certificates of the CPU vendor.
    VendorChain,
    /// What the CPU vendor publishes: revocations, patch levels.
    Collateral,
    /// The signature over the evidence.
    EvidenceSignature,
    /// The evidence names this connection.
    Connection,
    /// Launch measurements.
    Launch,
    /// The runtime policy that the VM was started with.
    Policy,
    /// Versions of firmware and microcode.
    PatchLevel,
    /// Settings of the VM.
    GuestSettings,
    /// Settings of the machine.
    PlatformSettings,
    /// Which machine it is.
    Machine,
    /// Who signed the VM's identity block.
    ImageSigner,
    /// The history as a whole.
    History,
    /// A transition names its predecessor.
    Link,
    /// A transition is signed.
    TransitionSignature,
    /// The manifests are those that the transitions name.
    ManifestHash,
    /// A manifest can be read.
    ManifestForm,
    /// The initdata documents are those that the manifests name.
    Initdata,
    /// The mesh CA is that of the latest transition.
    MeshCa,
    /// The root CA is a certificate.
    RootCa,
    /// What this workspace saw before is still true.
    Memory,
    /// The manifest in force is the given one.
    NewestManifest,
}

impl Kind {
    /// Every kind, in the order in which a report shows them.
    pub const ALL: [Self; 23] = [
        Self::Evidence,
        Self::EvidenceFormat,
        Self::VendorChain,
        Self::Collateral,
        Self::EvidenceSignature,
        Self::Connection,
        Self::Launch,
        Self::Policy,
        Self::PatchLevel,
        Self::GuestSettings,
        Self::PlatformSettings,
        Self::Machine,
        Self::ImageSigner,
        Self::NewestManifest,
        Self::Memory,
        Self::RootCa,
        Self::MeshCa,
        Self::History,
        Self::Link,
        Self::TransitionSignature,
        Self::ManifestHash,
        Self::ManifestForm,
        Self::Initdata,
    ];

    /// The kind of a check of evidence, by its field's name in `docs/reference/attestation.md`.
    pub fn of_field(field: &str) -> Self {
        let Some(rule) = rule_of(field) else {
            return Self::Evidence;
        };
        match rule.field {
            "report" | "SIGNATURE_ALGO" | "product" | "quote" | "quote layout" | "vTPM"
            | "HCL report" | "HCL report type" | "TPM quote" => Self::EvidenceFormat,
            "ARK" | "certificate chain" | "ARK *" | "ASK *" | "VEK certificate*" | "VEK *"
            | "product in the *" | "PCK certificate" | "root certificate*" | "SIGNING_KEY"
            | "MASK_CHIP_KEY" => Self::VendorChain,
            "ASK revocation"
            | "CRL*"
            | "collateral"
            | "verification time"
            | "TCB info validity"
            | "QE identity validity"
            | "root CRL validity"
            | "PCK CRL validity"
            | "FMSPC of the TCB info"
            | "PCEID of the TCB info" => Self::Collateral,
            "SIGNATURE"
            | "quote and collateral"
            | "vTPM attestation key"
            | "TPM quote signature" => Self::EvidenceSignature,
            "REPORT_DATA"
            | "REPORTDATA"
            | "TDREPORT REPORTDATA"
            | "user-data of the runtime data"
            | "TPM quote extraData" => Self::Connection,
            "MEASUREMENT"
            | "MRTD"
            | "MRSEAM"
            | "RTMR0"
            | "RTMR*"
            | "PCR *"
            | "TPM quote pcrDigest" => Self::Launch,
            "HOSTDATA" | "MRCONFIGID" | "MRCONFIGID after the policy hash" | "PCR 8" => {
                Self::Policy
            }
            "reported TCB in the *"
            | "committed TCB *"
            | "launch TCB *"
            | "reported TCB *"
            | "mitigation vectors"
            | "LAUNCH_MIT_VECTOR"
            | "CURRENT_MIT_VECTOR"
            | "TCB level"
            | "TCB status"
            | "TCB status of the current module"
            | "TCB date of the *"
            | "TCB evaluation data number" => Self::PatchLevel,
            "VMPL"
            | "guest policy reserved bits"
            | "guest policy *"
            | "TD ATTRIBUTES debug and profiling"
            | "TD ATTRIBUTES SERVTD_EXT"
            | "TD ATTRIBUTES SEPT_VE_DISABLE"
            | "TD ATTRIBUTES MIGRATABLE"
            | "TD ATTRIBUTES TPA"
            | "TD ATTRIBUTES reserved bits"
            | "MRSERVICETD"
            | "MROWNER"
            | "MROWNERCONFIG"
            | "XFAM" => Self::GuestSettings,
            "platform info reserved bits"
            | "platform info *"
            | "memory integrity"
            | "SMT"
            | "dynamic platform" => Self::PlatformSettings,
            "CHIP_ID" | "platform instance id" | "hardware id in the *" => Self::Machine,
            "ID_KEY_DIGEST" | "AUTHOR_KEY_DIGEST" | "AUTHOR_KEY_DIGEST (*" => Self::ImageSigner,
            _ => Self::Evidence,
        }
    }

    /// What is checked, and what a failure means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Evidence => {
                "The CPU signs what a virtual machine (VM) was started with, and that must match a reference value of your manifest. A failure \
                 means that nothing shows that the Coordinator of your manifest answers here: it may be anybody."
            }
            Self::EvidenceFormat => {
                "The evidence must have the form that the CPU vendor documents. A failure means that it was damaged, or comes from something \
                 that your manifest does not accept."
            }
            Self::VendorChain => {
                "Certificates must lead from the key that signed the evidence to the root of the CPU vendor. A failure means that no genuine \
                 CPU may have signed it, or that certificates expired or belong to another product."
            }
            Self::Collateral => {
                "What the CPU vendor publishes, such as revoked keys, must be signed by the vendor and in force now. A failure means that a \
                 stolen or outdated key would not be noticed."
            }
            Self::EvidenceSignature => {
                "The evidence must be signed by the CPU. A failure means that it was forged or changed."
            }
            Self::Connection => {
                "The evidence must name this very connection. A failure means that it was made for another connection: replayed, or passed \
                 on by somebody in between who can read along."
            }
            Self::Launch => {
                "A measurement is a hash over the firmware, kernel and settings that the VM started with; it must be the one in the manifest. A \
                 failure means that other software runs in the VM, and it can do anything with your data."
            }
            Self::Policy => {
                "The runtime policy says which containers may run in the VM; its hash must be that of a Coordinator in the manifest. A failure \
                 means that something else than a Coordinator of this manifest may run there."
            }
            Self::PatchLevel => {
                "Firmware and microcode of the CPU must be at least as new as the manifest demands. A failure means that known attacks on the \
                 CPU may work on this machine."
            }
            Self::GuestSettings => {
                "The VM's settings must be those of the manifest; debugging, for example, must be off. A failure means that the host may be \
                 able to look into the VM or to change it."
            }
            Self::PlatformSettings => {
                "The machine's settings must be those of the manifest. A failure means that a protection that the manifest demands is off, or \
                 that a feature that helps attackers is on."
            }
            Self::Machine => {
                "If the manifest lists machines, this must be one of them. A failure means that the VM runs on a machine that nobody vouched \
                 for, or that the machine hides its identity."
            }
            Self::ImageSigner => {
                "If the manifest says who signs images of VMs, that key must have signed this one. A failure means that the image has another \
                 origin."
            }
            Self::History => {
                "The history lists every manifest that was ever in force. An empty one says nothing about this deployment."
            }
            Self::Link => {
                "Each transition, that is each change of the deployment, names the hash of the one before. A failure means that a change was \
                 removed, inserted or altered, so that the history is not the true one."
            }
            Self::TransitionSignature => {
                "Each transition is signed with a key that follows from the secret seed of the deployment. A failure means that somebody \
                 without the seed wrote that part of the history."
            }
            Self::ManifestHash => {
                "Each transition names the hash of its manifest, and the manifests must have these hashes. A failure means that a manifest \
                 was changed, left out or added."
            }
            Self::ManifestForm => {
                "Each manifest must be one that this program understands fully. A failure means that nobody can say what it allowed."
            }
            Self::Initdata => {
                "A manifest names workloads by the hash of their initdata document, which holds their policy; exactly these documents must be \
                 there. A failure means that you cannot audit what a workload may do, or that documents were added."
            }
            Self::MeshCa => {
                "The mesh CA certifies the workloads, and the latest transition names its key. A failure means that certificates come from a CA \
                 that this history does not vouch for: do not trust connections under it."
            }
            Self::RootCa => {
                "The root CA identifies the deployment for as long as it exists. A failure means that the Coordinator did not give a usable \
                 certificate."
            }
            Self::Memory => {
                "What an earlier command saw in this workspace must still be true. A failure means that the history was rolled back to an \
                 older state, was forked, or that this is another deployment."
            }
            Self::NewestManifest => {
                "The manifest in force must be yours, byte by byte. A failure means that somebody updated it, or that you were given another \
                 one: read what differs before you trust it."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use contrast_attestation::specification::rules;

    use super::*;

    #[test]
    fn every_check_of_evidence_has_a_meaning_of_its_own_kind() {
        for rule in rules() {
            let field = rule.field.replace('*', "something");
            assert_ne!(Kind::of_field(&field), Kind::Evidence, "{field}");
        }
    }

    #[test]
    fn the_order_of_a_report_has_every_kind_once_and_every_meaning_says_what_a_failure_is() {
        let kinds: BTreeSet<Kind> = Kind::ALL.into_iter().collect();
        let meanings: BTreeSet<&str> = Kind::ALL.into_iter().map(Kind::meaning).collect();
        assert_eq!(
            (kinds.len(), meanings.len()),
            (Kind::ALL.len(), kinds.len())
        );
        for kind in kinds {
            let says = ["A failure means", "An empty one says nothing"];
            let meaning = kind.meaning();
            assert!(says.iter().any(|text| meaning.contains(text)), "{meaning}");
        }
    }
}
