//! Evidence that comes without its vendor's documents, and vendors that do not answer.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::sync::Arc;

use contrast_atls::Identity;
use contrast_attestation::{
    Demands, Evidence, IssueError, Issuer, ReferenceValue, ReportData, Root, SnpEvidence, Tee,
    snp::{Endorsement, Report},
};
use contrast_clock::SystemEntropy;
use contrast_collateral::{Collateral, Endpoints, HttpTransport};
use contrast_coordinator::state::Observer;
use contrast_manifest::Manifest;
use contrast_proto::mesh::NewMeshCertRequest;
use contrast_testbed::{Page, Silence, Vendor, evidence};
use support::{
    Coordinator, Deployment, WEB_INITDATA, channel_as, get, mesh_client, now, user_client,
};

fn asking(base: &str) -> Collateral {
    let endpoints = Endpoints::at(base).expect("a URL");
    Collateral::offline().with_vendors(endpoints, Box::<HttpTransport>::default())
}

/// The software TEE's reference value, and one for Milan under AMD's root.
fn manifest(deployment: &Deployment) -> Manifest {
    let mut document = deployment.document("web");
    let software = deployment.tee().reference_value(Tee::Snp);
    let Demands::Snp(demands) = software.demands else {
        panic!("another TEE");
    };
    let milan = ReferenceValue {
        vtpm: None,
        name: String::new(),
        root: Root::Vendor,
        demands: Demands::Snp(demands),
    };
    document.reference_values.push(&milan, "Metal");
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

fn start(deployment: &Deployment, collateral: Collateral) -> Coordinator {
    deployment.start_in(Observer::default(), Arc::new(SystemEntropy), collateral)
}

/// A guest of a real machine, whose report was made for somebody else.
#[derive(Debug)]
struct Recorded(Vec<u8>);

impl Issuer for Recorded {
    fn issue(&self, _: &ReportData) -> Result<Evidence, IssueError> {
        Ok(Evidence::Snp(SnpEvidence {
            report: self.0.clone(),
            ..SnpEvidence::default()
        }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_without_certificates_is_judged_with_those_of_the_vendor() {
    let (Some(report), Some(vcek)) = (
        evidence("snp/attestation.bin"),
        evidence("snp/vcek.testcer"),
    ) else {
        return;
    };
    let chip_id = hex::encode(Report::parse(&report).expect("a report").chip_id);
    let tcb = Endorsement::read(&vcek).expect("a VCEK").tcb;
    let path = format!(
        "/vcek/v1/Milan/{chip_id}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    );
    let page = Page {
        body: vcek,
        ..Page::default()
    };
    let kds = Vendor::serving([(path.clone(), page)]);
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = start(&deployment, asking(&kds.base));
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let request = deployment.request(&manifest, &[]);
    user.set_manifest(request).await.expect("sets");
    assert_eq!(kds.requests(), Vec::<String>::new());

    for _ in 0..2 {
        let refusal = channel_as(
            coordinator.addresses.mesh_api,
            Arc::new(Identity::generate(now()).expect("identity")),
            Some(Arc::new(Recorded(report.clone()))),
            Arc::new(manifest.coordinator_verifier()),
        )
        .await
        .expect_err("made for somebody else");
        let (metal, _) = refusal
            .split_once("insecure[0]")
            .expect("both reference values");
        assert!(metal.contains("REPORT_DATA: expected"), "{refusal}");
        assert!(!metal.contains("VEK certificate"), "{refusal}");
        assert!(!metal.contains("SIGNATURE:"), "{refusal}");
        // KDS has no CRL here; the peer's operator hears why that could matter.
        assert!(
            refusal.contains("note: cannot fetch the Milan vcek CRL"),
            "{refusal}"
        );
    }
    let asked = kds
        .requests()
        .iter()
        .filter(|asked| **asked == path)
        .count();
    assert_eq!(asked, 1, "the second pod finds it in memory");
    let (_, metrics) = get(coordinator.addresses.ops, "/metrics");
    for line in [
        "contrast_collateral_documents 1",
        "contrast_collateral_stale_documents 0",
        "contrast_collateral_fetched_total 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} in\n{metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_never_answers_is_no_matter_for_evidence_that_needs_nothing() {
    let silence = Silence::listening();
    let deployment = Deployment::new();
    let manifest = manifest(&deployment);
    let coordinator = start(&deployment, asking(&silence.base));
    let mut user = user_client(coordinator.addresses.user_api, &manifest).await;
    let request = deployment.request(&manifest, &[]);
    user.set_manifest(request).await.expect("sets");
    let guest = deployment.guest(WEB_INITDATA);
    let mut mesh = mesh_client(coordinator.addresses.mesh_api, &manifest, guest)
        .await
        .expect("connects");
    mesh.new_mesh_cert(NewMeshCertRequest::default())
        .await
        .expect("issues");
    assert_eq!(silence.connections(), 0);
}
