//! Where each check comes from, and what to do when it fails.
//!
//! The table in `docs/reference/attestation.md` has the same rows; a test keeps the two equal.

mod tdx;
mod vtpm;

/// One kind of check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The check's field; one that ends in `*` stands for every field that starts like that.
    pub field: &'static str,
    /// Document, table or section that defines the field.
    pub source: &'static str,
    /// How it is checked.
    pub demand: &'static str,
    /// The manifest's key for it; empty when the rule is fixed.
    pub manifest_key: &'static str,
    /// What a failure most likely means, and what to do.
    pub hint: &'static str,
}

/// Every rule. Longer prefixes come before shorter ones.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain(tdx::RULES).chain(vtpm::RULES)
}

/// The rule behind a check's field, if there is one.
pub fn rule_of(field: &str) -> Option<&'static Rule> {
    rules().find(|rule| match rule.field.strip_suffix('*') {
        Some(prefix) => field.starts_with(prefix),
        None => field == rule.field,
    })
}

const REPORT: &str = "AMD 56860, table ATTESTATION_REPORT";
const GUEST_POLICY: &str = "AMD 56860, table Guest Policy";
const KDS: &str = "AMD 57230, VCEK certificate extensions";
const CHAIN: &str = "AMD 57230, chains; RFC 5280";

const fn rule(
    field: &'static str,
    source: &'static str,
    demand: &'static str,
    manifest_key: &'static str,
    hint: &'static str,
) -> Rule {
    Rule {
        field,
        source,
        demand,
        manifest_key,
        hint,
    }
}

/// Rules of SEV-SNP.
const RULES: &[Rule] = &[
    // SEV-SNP: chain.
    rule(
        "ARK",
        CHAIN,
        "SHA-256 is the pinned one of the product",
        "`ProductName`, `RootSHA256`",
        "the chain is of another product or vendor; compare ProductName with the machine",
    ),
    rule(
        "certificate chain",
        CHAIN,
        "verified before and still valid",
        "",
        "verify again; the cached chain is no longer valid",
    ),
    rule(
        "ARK *",
        CHAIN,
        "self-signed, CA, valid, no unknown critical extension",
        "",
        "fetch the chain from AMD again, and check the clock",
    ),
    rule(
        "ASK revocation",
        CHAIN,
        "its serial is not in the CRL",
        "",
        "AMD revoked the signing key: update the platform's firmware",
    ),
    rule(
        "ASK *",
        CHAIN,
        "signed by the ARK, CA, valid, no unknown critical extension",
        "",
        "ASK and ARK must be of one product and of the VEK's kind (ASK for VCEK, ASVK for VLEK)",
    ),
    rule(
        "VEK certificate*",
        KDS,
        "X.509 with the extensions of a VCEK or VLEK; valid",
        "",
        "get the certificate from AMD's KDS for this chip and its reported TCB",
    ),
    rule(
        "VEK *",
        CHAIN,
        "signed by the ASK, no CA, valid, no unknown critical extension",
        "",
        "certificate and chain do not belong together; get both for the same product",
    ),
    rule(
        "CRL*",
        CHAIN,
        "signed by the ARK, thisUpdate to nextUpdate, no unknown critical extension",
        "",
        "fetch the product's CRL again",
    ),
    rule(
        "product in the *",
        KDS,
        "extension 1.3.6.1.4.1.3704.1.2 names the report's product",
        "",
        "report and certificate are of different machines",
    ),
    rule(
        "reported TCB in the *",
        KDS,
        "extensions blSPL, teeSPL, snpSPL, ucodeSPL, fmcSPL equal REPORTED_TCB",
        "",
        "the certificate is for another firmware version; fetch the one for the reported TCB",
    ),
    rule(
        "hardware id in the *",
        KDS,
        "extension 1.3.6.1.4.1.3704.1.4 equals CHIP_ID (8 bytes on Turin), unless masked",
        "",
        "the certificate is of another chip",
    ),
    // SEV-SNP: report.
    rule(
        "product",
        REPORT,
        "CPUID_FAM_ID, CPUID_MOD_ID (version 3 and later) or the certificate",
        "`ProductName`",
        "the machine is of another generation; add a reference value for it",
    ),
    rule(
        "report",
        REPORT,
        "1184 bytes, version 2 to 5",
        "",
        "the evidence is damaged or newer than this version",
    ),
    rule(
        "SIGNATURE_ALGO",
        REPORT,
        "1 (ECDSA P-384 with SHA-384), 0x034",
        "",
        "the report is damaged",
    ),
    rule(
        "SIGNATURE",
        REPORT,
        "over bytes 0x000 to 0x29F, by the key in the VEK certificate; padding zero",
        "",
        "the report was changed, or the certificate is of another chip or TCB",
    ),
    rule(
        "SIGNING_KEY",
        REPORT,
        "KEY_INFO bits 4 to 2 say VCEK or VLEK, as the certificate does",
        "",
        "VCEK report with a VLEK certificate, or the reverse",
    ),
    rule(
        "MASK_CHIP_KEY",
        REPORT,
        "KEY_INFO bit 1 is 0",
        "",
        "the firmware was told not to sign; unset MaskChipKey in SNP_CONFIG",
    ),
    rule(
        "AUTHOR_KEY_DIGEST",
        REPORT,
        "in the list, when there is one, 48 bytes at 0x110",
        "`TrustedAuthorKeyDigests`",
        "the VM was launched with the ID block of another author, or without one",
    ),
    rule(
        "AUTHOR_KEY_DIGEST (*",
        REPORT,
        "zero exactly when KEY_INFO bit 0 (AUTHOR_KEY_EN) is 0",
        "",
        "the report is inconsistent",
    ),
    rule(
        "ID_KEY_DIGEST",
        REPORT,
        "in the list, when there is one, 48 bytes at 0x0E0",
        "`TrustedIDKeyDigests`",
        "the VM was launched with an ID block that another key signed, or without one",
    ),
    rule(
        "REPORT_DATA",
        REPORT,
        "equal, 64 bytes at 0x050",
        "",
        "the evidence was made for another connection or nonce",
    ),
    rule(
        "MEASUREMENT",
        REPORT,
        "equal, or equal to the one for the policy's number of vCPUs, 48 bytes at 0x090",
        "`TrustedMeasurement`, `TrustedMeasurements`, `VCPUs`",
        "another image, kernel, command line, firmware or number of vCPUs was launched",
    ),
    rule(
        "HOSTDATA",
        REPORT,
        "HOST_DATA at 0x0C0 is a policy in the manifest",
        "`Policies`",
        "the pod was started with another initdata document; run generate and set again",
    ),
    rule(
        "VMPL",
        REPORT,
        "0",
        "",
        "the report was requested by less privileged code",
    ),
    rule(
        "guest policy reserved bits",
        GUEST_POLICY,
        "bit 17 is 1, bits above 25 are 0",
        "",
        "a guest policy of a newer specification: an unknown bit may permit something",
    ),
    rule(
        "guest policy *",
        GUEST_POLICY,
        "each bit equal",
        "`GuestPolicy`",
        "the VM was launched with another policy; debug must be off",
    ),
    rule(
        "platform info reserved bits",
        REPORT,
        "bit 6 and bits above 7 are 0",
        "",
        "a platform of a newer specification: an unknown bit may let something in, as TIO_EN does",
    ),
    rule(
        "platform info *",
        REPORT,
        "each bit equal, 0x040",
        "`PlatformInfo`",
        "the BIOS is set differently; change it or the reference value",
    ),
    rule(
        "committed TCB *",
        REPORT,
        "each component at least, 0x1E0",
        "`MinimumTCB`",
        "commit newer firmware (SNP_COMMIT), or lower the minimum knowingly",
    ),
    rule(
        "launch TCB *",
        REPORT,
        "each component at least, 0x1F0",
        "`MinimumTCB`",
        "restart the VM after the firmware update",
    ),
    rule(
        "reported TCB *",
        REPORT,
        "each component at least, 0x180",
        "`MinimumTCB`",
        "raise the reported TCB (SNP_CONFIG) to the current one",
    ),
    rule(
        "mitigation vectors",
        REPORT,
        "version 5, when bits are demanded",
        "`MinimumMitigationVector`",
        "the firmware is too old to report mitigations",
    ),
    rule(
        "LAUNCH_MIT_VECTOR",
        REPORT,
        "demanded bits are set, 0x1F8",
        "`MinimumMitigationVector`",
        "restart the VM after the mitigation was applied",
    ),
    rule(
        "CURRENT_MIT_VECTOR",
        REPORT,
        "demanded bits are set, 0x200",
        "`MinimumMitigationVector`",
        "apply the firmware mitigation",
    ),
    rule(
        "CHIP_ID",
        REPORT,
        "in the list, when there is one, 0x1A0",
        "`AllowedChipIDs`",
        "another machine, or the host masks CHIP_ID",
    ),
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_documentation_has_the_same_table() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/attestation.md");
        let text = fs::read_to_string(path).expect("readable");
        for rule in rules() {
            let Rule {
                field,
                source,
                demand,
                manifest_key,
                ..
            } = rule;
            let row = format!("| {field} | {source} | {demand} | {manifest_key} |")
                .replace(" |  |", " | |");
            assert!(text.contains(&row), "missing row:\n{row}");
        }
        let rows = text
            .lines()
            .filter(|line| line.starts_with("| ") && line.matches(" |").count() == 4);
        assert_eq!(
            rows.count(),
            rules().count() + 1,
            "one row each, and the heading"
        );
    }

    #[test]
    fn every_rule_can_be_found_by_its_own_field() {
        for rule in rules() {
            let field = rule.field.replace('*', "something");
            assert_eq!(rule_of(&field), Some(rule), "{field}");
        }
    }
}
