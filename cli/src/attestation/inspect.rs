//! What a file says, unverified.

use std::io::{self, Write};

use contrast_attestation::{
    Evidence,
    appraisal::{SnpProduct, SnpTcb},
    printable,
    snp::{self, CertificateTable, Report, ReportFile, TcbVersion},
    tdx::QuoteDetails,
    vtpm::HclReport,
};
use der::Decode as _;
use serde::Serialize;
use serde_json::{Map, Value, json};
use x509_cert::Certificate;

use super::vtpm;
use crate::output::{Paint, Render};

/// The contents of a file as a tree of names and values.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Inspection(Value);

impl Inspection {
    /// Reads a report, a quote, a certificate table, or an evidence file; none when `bytes` are none of them.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if let Ok(file) = ReportFile::read(bytes)
            && let Ok(report) = Report::parse(file.report)
        {
            let mut tree = report_tree(&report, report.product());
            if file.certificates.entries().next().is_some() {
                tree["certificate table"] = entries_tree(&file.certificates).into();
            }
            return Some(Self(tree));
        }
        if let Ok(quote) = QuoteDetails::parse(bytes) {
            return Some(Self(quote_tree(&quote)));
        }
        if let Ok(hcl) = HclReport::parse(bytes) {
            return Some(Self(hcl_tree(&hcl)));
        }
        if let Some(tree) = table_tree(bytes) {
            return Some(Self(tree));
        }
        evidence_tree(&Evidence::decode(bytes).ok()?).map(Self)
    }
}

fn evidence_tree(evidence: &Evidence) -> Option<Value> {
    match evidence {
        Evidence::Snp(evidence) => {
            let report = Report::parse(&evidence.report).ok()?;
            let mut tree = report_tree(&report, snp::claimed_product(evidence));
            tree["certificates"] = json!({
                "vek": size(&evidence.vek),
                "ask": size(&evidence.ask),
                "ark": size(&evidence.ark),
                "crl": size(&evidence.crl),
            });
            Some(tree)
        }
        Evidence::Tdx(evidence) => {
            let mut tree = quote_tree(&QuoteDetails::parse(&evidence.quote).ok()?);
            tree["collateral"] = match &evidence.collateral {
                Some(collateral) => json!({
                    "tcb_info": size(collateral.tcb_info.as_bytes()),
                    "qe_identity": size(collateral.qe_identity.as_bytes()),
                    "root_ca_crl": size(&collateral.root_ca_crl),
                    "pck_crl": size(&collateral.pck_crl),
                }),
                None => json!("none"),
            };
            Some(tree)
        }
        Evidence::Vtpm(evidence) => {
            let hcl = HclReport::parse(&evidence.hcl_report).ok()?;
            let mut tree = hcl_tree(&hcl);
            tree["kind"] = json!(format!("{} evidence through a virtual TPM", hcl.tee));
            tree["hardware_report"] = evidence_tree(&evidence.hardware.evidence(&hcl))?;
            tree["tpm_quote"] = vtpm::quote_tree(&evidence.tpm_quote, &evidence.pcr_values);
            tree["tpm_signature"] = json!(size(&evidence.tpm_signature));
            Some(tree)
        }
        _ => None,
    }
}

fn size(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "none".to_owned(),
        length => format!("{length} bytes"),
    }
}

fn report_tree(report: &Report, product: Option<SnpProduct>) -> Value {
    let policy = report.guest_policy();
    let platform = report.platform_info();
    let tcb = |version: TcbVersion| match product {
        Some(product) => tcb_tree(version.components(product)),
        // Without the product nobody can tell which byte is which.
        None => json!(format!("{:#018x}", version.0)),
    };
    let firmware = |version: snp::FirmwareVersion| {
        format!(
            "{}.{} build {}",
            version.major, version.minor, version.build
        )
    };
    json!({
        "kind": "SEV-SNP attestation report",
        "version": report.version,
        "product": product.map_or_else(|| "unknown (version 2 has no CPUID; the VEK certificate says it)".to_owned(), |product| product.to_string()),
        "cpuid": report.cpuid.map(|cpuid| json!({"family": cpuid.family, "model": cpuid.model, "stepping": cpuid.stepping})),
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "measurement": hex::encode(report.measurement),
        "host_data": hex::encode(report.host_data),
        "report_data": hex::encode(report.report_data),
        "guest_policy": {
            "abi": format!("{}.{}", policy.abi_major, policy.abi_minor),
            "smt": policy.smt,
            "migrate_ma": policy.migrate_ma,
            "debug": policy.debug,
            "single_socket": policy.single_socket,
            "cxl_allowed": policy.cxl_allowed,
            "mem_aes_256_xts": policy.mem_aes_256_xts,
            "rapl_dis": policy.rapl_dis,
            "ciphertext_hiding_dram": policy.ciphertext_hiding_dram,
            "page_swap_disable": policy.page_swap_disable,
            "raw": format!("{:#x}", report.policy),
        },
        "platform_info": {
            "smt_enabled": platform.smt_enabled,
            "tsme_enabled": platform.tsme_enabled,
            "ecc_enabled": platform.ecc_enabled,
            "rapl_disabled": platform.rapl_disabled,
            "ciphertext_hiding_dram_enabled": platform.ciphertext_hiding_dram_enabled,
            "alias_check_complete": platform.alias_check_complete,
            "tio_enabled": platform.tio_enabled,
            "raw": format!("{:#x}", report.platform_info),
        },
        "signing_key": report.signing_key().to_string(),
        "author_key": report.author_key_present(),
        "mask_chip_key": report.chip_key_masked(),
        "current_tcb": tcb(report.current_tcb),
        "reported_tcb": tcb(report.reported_tcb),
        "committed_tcb": tcb(report.committed_tcb),
        "launch_tcb": tcb(report.launch_tcb),
        "current_firmware": firmware(report.current_firmware),
        "committed_firmware": firmware(report.committed_firmware),
        "mitigation_vectors": report.mitigations.map(|vectors| json!({
            "launch": format!("{:#x}", vectors.launch),
            "current": format!("{:#x}", vectors.current),
        })),
        "chip_id": hex::encode(report.chip_id),
        "family_id": hex::encode(report.family_id),
        "image_id": hex::encode(report.image_id),
        "report_id": hex::encode(report.report_id),
        "report_id_ma": hex::encode(report.report_id_ma),
        "id_key_digest": hex::encode(report.id_key_digest),
        "author_key_digest": hex::encode(report.author_key_digest),
    })
}

fn hcl_tree(hcl: &HclReport<'_>) -> Value {
    let report = Report::parse(hcl.hardware_report).ok();
    json!({
        "kind": "Azure HCL report",
        "version": hcl.version,
        "tee": hcl.tee.to_string(),
        "runtime_data_hash": hex::encode(hcl.expected_report_data().0),
        "runtime_data": serde_json::from_slice::<Value>(hcl.runtime_data).ok(),
        "hardware_report": report.map(|report| report_tree(&report, report.product())),
    })
}

/// A certificate table; none when there is not a single entry of a known kind in it.
fn table_tree(bytes: &[u8]) -> Option<Value> {
    let table = CertificateTable::parse(bytes).ok()?;
    let entries = entries_tree(&table);
    let known = table.entries().any(|(guid, _)| guid.name() != "unknown");
    known.then(|| json!({ "kind": "SEV-SNP certificate table", "entries": entries }))
}

fn entries_tree(table: &CertificateTable<'_>) -> Map<String, Value> {
    let mut entries = Map::new();
    for (guid, content) in table.entries() {
        let subject = Certificate::from_der(content)
            .map(|certificate| certificate.tbs_certificate().subject().to_string());
        let name = format!("{guid} ({})", guid.name());
        let tree = json!({ "size": content.len(), "subject": subject.ok() });
        entries.insert(name, tree);
    }
    entries
}

fn tcb_tree(tcb: SnpTcb) -> Value {
    let mut tree = Map::new();
    if let Some(fmc) = tcb.fmc {
        tree.insert("fmc".into(), fmc.into());
    }
    tree.insert("bootloader".into(), tcb.bootloader.into());
    tree.insert("tee".into(), tcb.tee.into());
    tree.insert("snp".into(), tcb.snp.into());
    tree.insert("microcode".into(), tcb.microcode.into());
    Value::Object(tree)
}

fn quote_tree(quote: &QuoteDetails) -> Value {
    let rtmrs: Vec<String> = quote.rtmrs.iter().map(hex::encode).collect();
    json!({
        "kind": "TDX quote",
        "version": quote.version,
        "tdx": if quote.td15.is_some() { "1.5" } else { "1.0" },
        "qe_vendor_id": hex::encode(quote.qe_vendor_id),
        "tee_tcb_svn": hex::encode(quote.tee_tcb_svn),
        "mr_seam": hex::encode(quote.mr_seam),
        "mr_signer_seam": hex::encode(quote.mr_signer_seam),
        "seam_attributes": hex::encode(quote.seam_attributes),
        "td_attributes": hex::encode(quote.td_attributes),
        "debug": quote.td_attributes[0] & 1 == 1,
        "xfam": hex::encode(quote.xfam),
        "mr_td": hex::encode(quote.mr_td),
        "rtmrs": rtmrs,
        "mr_config_id": hex::encode(quote.mr_config_id),
        "mr_owner": hex::encode(quote.mr_owner),
        "mr_owner_config": hex::encode(quote.mr_owner_config),
        "report_data": hex::encode(quote.report_data),
        "td15": quote.td15.map(|td| json!({
            "tee_tcb_svn2": hex::encode(td.tee_tcb_svn2),
            "mr_service_td": hex::encode(td.mr_service_td),
        })),
        "pck": quote.pck.as_ref().map(|pck| json!({
            "fmspc": hex::encode(pck.fmspc),
            "pce_id": hex::encode(&pck.pce_id),
            "cpu_svn": hex::encode(pck.cpu_svn),
            "pce_svn": pck.pce_svn,
            "sgx_type": pck.sgx_type,
            "platform_instance_id": pck.platform_instance_id.as_ref().map(hex::encode),
            "smt_enabled": pck.smt_enabled,
            "dynamic_platform": pck.dynamic_platform,
        })),
    })
}

impl Render for Inspection {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(
            out,
            "{}",
            paint.alarming("NOT VERIFIED: this is what the file says")
        )?;
        branch(out, &self.0, 0)
    }
}

fn branch(out: &mut dyn Write, tree: &Value, depth: usize) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    for (name, value) in tree.as_object().into_iter().flatten() {
        let name = printable(name);
        match value {
            Value::Object(_) => {
                writeln!(out, "{indent}{name}:")?;
                branch(out, value, depth.saturating_add(1))?;
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    writeln!(out, "{indent}{name}[{index}]: {}", leaf(item))?;
                }
            }
            Value::Null => writeln!(out, "{indent}{name}: none")?,
            other => writeln!(out, "{indent}{name}: {}", leaf(other))?,
        }
    }
    Ok(())
}

fn leaf(value: &Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    printable(&text).into_owned()
}
