use super::{Rule, rule};

const HCL: &str = "Microsoft, Azure confidential VM guest attestation";
const TPM: &str = "TCG TPM 2.0 library, part 2, 10.12";

/// Rules for evidence through a virtual TPM below a paravisor (Azure).
pub(super) const RULES: &[Rule] = &[
    rule(
        "vTPM",
        HCL,
        "evidence comes through a vTPM exactly when the reference value says so",
        "`VTPM`",
        "guests with and without a paravisor need reference values of their own",
    ),
    rule(
        "HCL report",
        HCL,
        "\"HCLA\", report type SEV-SNP or TDX, known hash, runtime data within it",
        "",
        "the evidence is damaged, or not from NV index 0x01400001",
    ),
    rule(
        "HCL report type",
        HCL,
        "SEV-SNP for a report, TDX for a quote",
        "",
        "the HCL report and the evidence are of different machines",
    ),
    rule(
        "TDREPORT REPORTDATA",
        HCL,
        "hash of the runtime data, then zeros",
        "",
        "the runtime data was changed",
    ),
    rule(
        "vTPM attestation key",
        HCL,
        "exactly one RSA key `HCLAkPub` of 2048 bits or more in the runtime data",
        "",
        "the runtime data is not of an Azure confidential VM",
    ),
    rule(
        "user-data of the runtime data",
        HCL,
        "equal, 64 bytes",
        "",
        "the guest wrote other data to NV index 0x01400002",
    ),
    rule(
        "TPM quote signature",
        TPM,
        "RSASSA-PKCS1-v1_5 with SHA-256 by the attestation key",
        "",
        "the quote was changed, or is of another vTPM",
    ),
    rule(
        "TPM quote extraData",
        TPM,
        "SHA-256 of the report data",
        "",
        "the quote was made for another connection or nonce",
    ),
    rule(
        "TPM quote",
        TPM,
        "magic, type quote, one selection of SHA-256 PCRs, nothing after it",
        "",
        "not a quote over SHA-256 PCRs",
    ),
    rule(
        "TPM quote pcrDigest",
        TPM,
        "SHA-256 of the PCR values, one for each quoted PCR",
        "",
        "the PCR values are not those that were quoted, or a PCR was extended in between",
    ),
    rule(
        "PCR 8",
        TPM,
        "quoted; SHA-256 of 32 zero bytes and a policy hash in the manifest",
        "`Policies`",
        "the guest did not extend PCR 8 once with the hash of its initdata document, or that document is another one",
    ),
    rule(
        "PCR *",
        TPM,
        "quoted and equal, 32 bytes each",
        "`VTPM`",
        "another boot loader, kernel or command line was started",
    ),
];
