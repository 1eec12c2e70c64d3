//! Where each check comes from, and what to do when it fails.
//!
//! The table in `docs/reference/attestation.md` has the same rows; a test keeps the two equal.

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
const TD_REPORT: &str = "Intel TDX DCAP Quoting Library API, A.3 TD quote body";
const QUOTE: &str = "Intel TDX DCAP Quoting Library API, appendix A";
const PCS: &str = "Intel PCS API v4, TCB info and QE identity";
const PCK: &str = "Intel SGX PCK Certificate and CRL Profile Specification";

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

/// Every rule, in the order of the documentation. Longer prefixes come before shorter ones.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain(vtpm::RULES)
}

/// Rules for what the hardware itself signs.
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
        "AUTHOR_KEY_DIGEST*",
        REPORT,
        "zero exactly when KEY_INFO bit 0 (AUTHOR_KEY_EN) is 0",
        "",
        "the report is inconsistent",
    ),
    rule(
        "ID_KEY_DIGEST",
        REPORT,
        "not compared: it authenticates an ID block, MEASUREMENT is what is pinned; it becomes a claim",
        "",
        "",
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
        "equal, 48 bytes at 0x090",
        "`TrustedMeasurement`",
        "another image, kernel, command line, firmware or vCPU count was launched",
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
        "a guest policy of a newer specification",
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
        "a platform of a newer specification",
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
    // TDX.
    rule(
        "quote",
        QUOTE,
        "version 4 or 5, TEE type TDX",
        "",
        "the evidence is damaged or of an SGX enclave",
    ),
    rule(
        "quote layout",
        QUOTE,
        "certification data type 6, all lengths exact",
        "",
        "the evidence is damaged",
    ),
    rule(
        "quote and collateral",
        QUOTE,
        "PCK chain, CRLs, QE report, QE identity, TCB info and quote signature; TCB level by Intel's algorithm",
        "",
        "read what was found: it names the signature or the level that failed",
    ),
    rule(
        "PCK certificate",
        PCK,
        "certification data type 5 with a chain",
        "",
        "the quote carries no certificate chain",
    ),
    rule(
        "collateral",
        PCS,
        "there",
        "",
        "the attester had no access to Intel's PCS; give it a proxy or an offline bundle",
    ),
    rule(
        "root certificate*",
        PCK,
        "SHA-256 is Intel's (pinned), valid",
        "`RootSHA256`",
        "the chain does not end in Intel's root",
    ),
    rule("verification time", PCS, "after 1970", "", "set the clock"),
    rule(
        "TCB info validity",
        PCS,
        "issueDate to nextUpdate",
        "",
        "refresh the collateral, or check the clock",
    ),
    rule(
        "QE identity validity",
        PCS,
        "issueDate to nextUpdate",
        "",
        "refresh the collateral, or check the clock",
    ),
    rule(
        "root CRL validity",
        PCK,
        "thisUpdate to nextUpdate",
        "",
        "refresh the collateral, or check the clock",
    ),
    rule(
        "PCK CRL validity",
        PCK,
        "thisUpdate to nextUpdate",
        "",
        "refresh the collateral, or check the clock",
    ),
    rule(
        "PCEID of the TCB info",
        PCS,
        "equals the PCK certificate's",
        "",
        "the collateral is of another platform",
    ),
    rule(
        "TCB level",
        PCS,
        "the SVNs of the PCK certificate and of the TD report reach a level of the TCB info",
        "",
        "update BIOS, microcode and TDX module",
    ),
    rule(
        "TCB status",
        PCS,
        "UpToDate for platform, TDX module and QE; advisories are named",
        "",
        "update BIOS, microcode and TDX module; the advisories say what for",
    ),
    rule(
        "TCB evaluation data number",
        PCS,
        "at least",
        "`MinTCBEvaluationDataNumber`",
        "refresh the collateral; Intel published a newer evaluation",
    ),
    rule(
        "REPORTDATA",
        TD_REPORT,
        "equal, 64 bytes",
        "",
        "the evidence was made for another connection or nonce",
    ),
    rule(
        "TD ATTRIBUTES*",
        TD_REPORT,
        "debug and profiling off",
        "",
        "the TD was launched for debugging",
    ),
    rule(
        "MRTD",
        TD_REPORT,
        "equal, 48 bytes",
        "`MrTd`",
        "another firmware was launched",
    ),
    rule(
        "MRSEAM",
        TD_REPORT,
        "equal, 48 bytes",
        "`MrSeam`",
        "another TDX module is loaded",
    ),
    rule(
        "RTMR0",
        TD_REPORT,
        "equal to one of the values",
        "`Rtmrs`, `Rtmr0Alternatives`",
        "another virtual hardware configuration, for example another vCPU count",
    ),
    rule(
        "RTMR*",
        TD_REPORT,
        "equal, 48 bytes each",
        "`Rtmrs`",
        "another kernel, command line or initrd was launched",
    ),
    rule(
        "XFAM",
        TD_REPORT,
        "equal, 8 bytes",
        "`Xfam`",
        "the TD has other CPU features",
    ),
    rule(
        "MRCONFIGID",
        TD_REPORT,
        "its first 32 bytes are a policy in the manifest",
        "`Policies`",
        "the pod was started with another initdata document; run generate and set again",
    ),
    rule(
        "MRCONFIGID after the policy hash",
        TD_REPORT,
        "zero, 16 bytes",
        "",
        "MRCONFIGID holds something else than a policy hash",
    ),
    rule(
        "platform instance id",
        PCK,
        "in the list, when there is one",
        "`AllowedPIIDs`",
        "another machine",
    ),
    rule(
        "memory integrity",
        PCK,
        "SGX type 2",
        "`MemoryIntegrity`",
        "the platform has no cryptographic memory integrity",
    ),
    rule(
        "SMT",
        PCK,
        "off, when demanded",
        "`SMTDisabled`",
        "switch SMT off in the BIOS and register the platform again",
    ),
    rule(
        "dynamic platform",
        PCK,
        "no, when demanded",
        "`StaticPlatform`",
        "packages may be added to the platform",
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
