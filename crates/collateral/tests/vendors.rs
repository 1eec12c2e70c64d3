//! Real processes of fetching: HTTP on loopback, files on disk, and the evidence of real machines where it is there.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use contrast_attestation::{
    Evidence, Issuer, ReportData, Root, SnpEvidence, TdxEvidence, Tee, authenticate,
    snp::{Endorsement, Report},
    software::SoftwareTee,
    tdx::INTEL_TCB_SIGNING_CHAIN_2018,
};
use contrast_clock::FixedWallClock;
use contrast_collateral::{
    Bundle, Collateral, CompletingIssuer, Completion, Endpoints, HttpTransport, Item, Limits,
    Unavailable,
};
use contrast_testbed::{Page, Silence, Vendor, evidence as real};

const QE_IDENTITY: &str = "/tdx/certification/v4/qe/identity?update=standard";

fn asking(base: &str) -> Collateral {
    let endpoints = Endpoints::at(base).expect("a URL");
    Collateral::offline()
        .with_vendors(endpoints, Box::<HttpTransport>::default())
        .with_limits(Limits {
            first_pause: Duration::from_millis(1),
            ..Limits::default()
        })
}

/// 2023-06-20T00:00:00Z: everything in the collected evidence is valid.
fn june_2023() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_687_219_200)
}

fn page(body: impl Into<Vec<u8>>) -> Page {
    Page {
        body: body.into(),
        ..Page::default()
    }
}

/// An identity that is valid for 30 days from a day in June 2023. Nobody checks its signature here.
fn qe_identity(day: u8) -> String {
    format!(
        r#"{{"enclaveIdentity":{{"id":"TD_QE","issueDate":"2023-06-{day:02}T00:00:00Z","nextUpdate":"2023-07-{day:02}T00:00:00Z"}},"signature":"00"}}"#
    )
}

/// Fetches what is due. Returns how much was fetched and how much could not be.
fn refresh(collateral: &Collateral, now: SystemTime) -> (usize, usize) {
    let due = collateral.due(now);
    let fetched = due
        .iter()
        .filter(|item| collateral.fetch(item, now).is_ok());
    let fetched = fetched.count();
    (fetched, due.len() - fetched)
}

fn of_qe_identity(page: Page) -> Vendor {
    Vendor::serving([(QE_IDENTITY.to_owned(), page)])
}

/// A report of a Milan machine, its VCEK, and a KDS that has it.
fn milan() -> Option<(SnpEvidence, Vec<u8>, Vendor)> {
    let report = real("snp/attestation.bin")?;
    let vcek = real("snp/vcek.testcer")?;
    let chip_id = hex::encode(Report::parse(&report).expect("a report").chip_id);
    let tcb = Endorsement::read(&vcek).expect("a VCEK").tcb;
    let path = format!(
        "/vcek/v1/Milan/{chip_id}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}",
        tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
    );
    let evidence = SnpEvidence {
        report,
        ..SnpEvidence::default()
    };
    let kds = Vendor::serving([(path, page(vcek.clone()))]);
    Some((evidence, vcek, kds))
}

/// A quote of a Sapphire Rapids machine, and a PCS that has everything about it.
fn sapphire_rapids() -> Option<(TdxEvidence, Vendor)> {
    let quote = real("tdx/tdx_prod_quote_SPR_E4.dat")?;
    let chain = INTEL_TCB_SIGNING_CHAIN_2018
        .replace('\n', "%0A")
        .replace(' ', "%20");
    let signed = |name, body| Page {
        body,
        headers: vec![(name, chain.clone())],
        ..Page::default()
    };
    let tcb_info = signed(
        "TCB-Info-Issuer-Chain",
        real("tdx/sample_tcbInfo_response")?,
    );
    let identity = signed(
        "SGX-Enclave-Identity-Issuer-Chain",
        real("tdx/sample_qeIdentity_response")?,
    );
    let pcs = Vendor::serving([
        (
            "/tdx/certification/v4/tcb?fmspc=50806f000000&update=standard".to_owned(),
            tcb_info,
        ),
        (QE_IDENTITY.to_owned(), identity),
        (
            "/sgx/certification/v4/pckcrl?ca=platform&encoding=der".to_owned(),
            page(real("tdx/pckcrl")?),
        ),
        (
            "/sgx/certification/v4/rootcacrl".to_owned(),
            // As a PCCS sends it.
            page(hex::encode(real("tdx/rootcrl.der")?)),
        ),
    ]);
    let evidence = TdxEvidence {
        quote,
        collateral: None,
    };
    Some((evidence, pcs))
}

fn is_authentic(evidence: &Evidence) -> bool {
    let failed = authenticate(evidence, Root::Vendor, None, june_2023());
    failed.checks().checks().iter().all(|check| check.passed)
}

#[test]
fn a_report_alone_is_completed_by_kds_and_verifies() {
    let Some((report, vcek, kds)) = milan() else {
        return;
    };
    let evidence = Evidence::Snp(report);
    assert!(!is_authentic(&evidence));
    let Completion {
        evidence, remarks, ..
    } = asking(&kds.base).complete(&evidence, june_2023());
    let Evidence::Snp(completed) = &evidence else {
        panic!("another kind");
    };
    assert_eq!(completed.vek, vcek);
    assert!(is_authentic(&evidence));
    // The CRL is the only thing that this KDS does not have.
    let [remark] = remarks.as_slice() else {
        panic!("{remarks:?}");
    };
    assert!(
        remark.contains("/vcek/v1/Milan/crl: there is none (status 404)"),
        "{remark}"
    );
}

#[test]
fn a_vcek_of_another_tcb_is_replaced() {
    let Some((mut evidence, vcek, kds)) = milan() else {
        return;
    };
    evidence.vek = vcek;
    let unchanged = asking(&kds.base).complete(&Evidence::Snp(evidence.clone()), june_2023());
    assert!(
        !kds.requests().iter().any(|path| path.contains("blSPL")),
        "the VCEK at hand fits"
    );
    // REPORTED_TCB, bootloader.
    *evidence.report.get_mut(0x180).expect("a report") ^= 1;
    asking(&kds.base).complete(&Evidence::Snp(evidence), june_2023());
    assert!(
        kds.requests().iter().any(|path| path.contains("blSPL")),
        "{:?}",
        kds.requests()
    );
    assert!(is_authentic(&unchanged.evidence));
}

#[test]
fn a_quote_alone_is_completed_by_pcs_and_verifies_but_for_what_it_says_of_itself() {
    let Some((quote, pcs)) = sapphire_rapids() else {
        return;
    };
    let Completion {
        evidence, remarks, ..
    } = asking(&pcs.base).complete(&Evidence::Tdx(quote), june_2023());
    assert_eq!(remarks, Vec::<String>::new());
    let verdict = authenticate(&evidence, Root::Vendor, None, june_2023());
    let failed: Vec<_> = verdict
        .checks()
        .checks()
        .iter()
        .filter(|check| !check.passed)
        .collect();
    let fields: Vec<_> = failed.iter().map(|check| check.field.as_str()).collect();
    // A machine before its launch: nothing fails that signatures, certificates or collateral say.
    assert_eq!(fields, ["TCB level", "TD ATTRIBUTES SEPT_VE_DISABLE"]);
}

/// What evidence of the quote carries of a QE identity, after it was completed.
fn identity_after(
    collateral: &Collateral,
    quote: &TdxEvidence,
    carried: &str,
) -> (String, Vec<Item>) {
    let json = carried.trim_start_matches(r#"{"enclaveIdentity":"#);
    let (json, _) = json.split_once(r#","signature""#).expect("an answer");
    let mut evidence = quote.clone();
    evidence.collateral = Some(contrast_attestation::TdxCollateral {
        qe_identity: json.to_owned(),
        qe_identity_signature: vec![0],
        ..Default::default()
    });
    let Completion {
        evidence, unseen, ..
    } = collateral.complete(&Evidence::Tdx(evidence), june_2023());
    let Evidence::Tdx(completed) = evidence else {
        panic!("another kind");
    };
    (
        completed.collateral.expect("still there").qe_identity,
        unseen,
    )
}

#[test]
fn an_attester_cannot_choose_an_older_document_than_is_known_here() {
    let Some((quote, _)) = sapphire_rapids() else {
        return;
    };
    let pcs = of_qe_identity(page(qe_identity(10)));
    let collateral = asking(&pcs.base);
    let (unknown, unseen) = identity_after(&collateral, &quote, &qe_identity(5));
    assert!(
        unknown.contains("2023-06-05"),
        "nobody waits for what is valid: {unknown}"
    );
    assert!(unseen.contains(&Item::QeIdentity));
    collateral.want(&unseen);
    assert_eq!(refresh(&collateral, june_2023()), (1, 0));

    let (older, unseen) = identity_after(&collateral, &quote, &qe_identity(5));
    assert!(older.contains("2023-06-10"), "{older}");
    assert!(!unseen.contains(&Item::QeIdentity));
    let (newer, _) = identity_after(&collateral, &quote, &qe_identity(15));
    assert!(newer.contains("2023-06-15"), "{newer}");
}

#[test]
fn a_silent_vendor_is_not_even_asked_while_what_is_on_disk_is_valid() {
    let Some((quote, pcs)) = sapphire_rapids() else {
        return;
    };
    let evidence = Evidence::Tdx(quote);
    let disk = tempfile::tempdir().expect("a directory");
    let fetching = asking(&pcs.base).with_cache(disk.path()).expect("opens");
    let expected = fetching.complete(&evidence, june_2023());
    let silence = Silence::listening();
    let cached = asking(&silence.base)
        .with_cache(disk.path())
        .expect("opens");
    assert_eq!(cached.complete(&evidence, june_2023()), expected);
    assert_eq!(silence.connections(), 0);
}

#[test]
fn a_silent_vendor_costs_the_deadline_once_and_then_nothing() {
    let silence = Silence::listening();
    let deadline = Duration::from_millis(300);
    let collateral = asking(&silence.base).with_limits(Limits {
        deadline,
        attempt: Duration::from_millis(200),
        ..Limits::default()
    });
    let outcome = collateral.get(&Item::QeIdentity, june_2023());
    let Err(Unavailable::Fetch(error)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(error.attempts >= 1 && !error.absent, "{error}");
    let connections = silence.connections();
    let again = collateral.get(&Item::QeIdentity, june_2023() + Duration::from_secs(59));
    assert_eq!(again, Err(Unavailable::Fetch(error)));
    assert_eq!(
        silence.connections(),
        connections,
        "a failure is remembered"
    );
}

#[test]
fn a_document_that_ended_is_still_handed_out_with_the_reason() {
    let pcs = of_qe_identity(page(qe_identity(1)));
    let disk = tempfile::tempdir().expect("a directory");
    let collateral = asking(&pcs.base).with_cache(disk.path()).expect("opens");
    collateral
        .get(&Item::QeIdentity, june_2023())
        .expect("fetches");
    let offline = Collateral::offline()
        .with_cache(disk.path())
        .expect("opens");
    let august = june_2023() + Duration::from_hours(24 * 50);
    let found = offline
        .get(&Item::QeIdentity, august)
        .expect("stale, but there");
    let stale = found.stale.expect("stale").to_string();
    assert_eq!(
        stale,
        "the identity of the TD quoting enclave that was given is valid from 2023-06-01T00:00:00Z to 2023-07-01T00:00:00Z, \
         and nothing is fetched beside it"
    );
}

#[test]
fn an_answer_that_ended_is_a_failure_and_asked_for_once() {
    let pcs = of_qe_identity(page(qe_identity(1)));
    let collateral = asking(&pcs.base);
    let august = june_2023() + Duration::from_hours(24 * 50);
    for _ in 0..3 {
        let found = collateral
            .get(&Item::QeIdentity, august)
            .expect("stale, but there");
        let stale = found.stale.expect("stale").to_string();
        let reason = "the answer is valid from 2023-06-01T00:00:00Z to 2023-07-01T00:00:00Z";
        assert!(stale.contains(reason), "{stale}");
    }
    assert_eq!(pcs.requests().len(), 1);
    assert_eq!(collateral.statistics(august).stale, 1);
}

#[test]
fn a_masked_chip_whose_host_has_its_certificate_lacks_the_crl_only() {
    let Some((mut evidence, vcek, kds)) = milan() else {
        return;
    };
    evidence.vek = vcek;
    evidence.report[0x1A0..0x1E0].fill(0);
    let Completion {
        evidence, remarks, ..
    } = asking(&kds.base).complete(&Evidence::Snp(evidence), june_2023());
    let Evidence::Snp(completed) = evidence else {
        panic!("another kind");
    };
    assert!(!completed.ask.is_empty() && !completed.ark.is_empty());
    assert_eq!(kds.requests(), ["/vcek/v1/Milan/crl"]);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
}

#[test]
fn callers_who_want_the_same_share_one_request() {
    let pcs = of_qe_identity(Page {
        delay: Duration::from_millis(200),
        ..page(qe_identity(1))
    });
    let collateral = Arc::new(asking(&pcs.base));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let collateral = Arc::clone(&collateral);
            thread::spawn(move || collateral.get(&Item::QeIdentity, june_2023()))
        })
        .collect();
    for caller in callers {
        let found = caller.join().expect("no panic").expect("found");
        assert_eq!(found.stale, None);
    }
    assert_eq!(pcs.requests().len(), 1);
}

#[test]
fn what_may_pass_is_tried_again_and_what_does_not_is_not() {
    let recovering = of_qe_identity(Page {
        failures: vec![503, 429],
        ..page(qe_identity(1))
    });
    let found = asking(&recovering.base).get(&Item::QeIdentity, june_2023());
    assert!(found.is_ok_and(|found| found.stale.is_none()));
    assert_eq!(recovering.requests().len(), 3);

    let forbidding = of_qe_identity(Page {
        failures: vec![403],
        ..page(qe_identity(1))
    });
    let error = asking(&forbidding.base).get(&Item::QeIdentity, june_2023());
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("status 403 (1 attempt(s)"), "{error}");
    assert_eq!(forbidding.requests().len(), 1);
}

#[test]
fn an_answer_that_is_something_else_is_not_taken() {
    for body in [
        "<html>please log in</html>".to_owned(),
        qe_identity(1).replace("TD_QE", "QE"),
    ] {
        let portal = of_qe_identity(page(body));
        let error = asking(&portal.base).get(&Item::QeIdentity, june_2023());
        let error = error.expect_err("nothing").to_string();
        assert!(error.contains("is not that document"), "{error}");
    }
}

#[test]
fn a_certificate_that_amd_did_not_sign_is_neither_taken_nor_found_on_disk() {
    let Some((report, vcek, kds)) = milan() else {
        return;
    };
    let (evidence, disk) = (
        Evidence::Snp(report),
        tempfile::tempdir().expect("a directory"),
    );
    let fetching = asking(&kds.base).with_cache(disk.path()).expect("opens");
    fetching.complete(&evidence, june_2023());
    let files = std::fs::read_dir(disk.path()).expect("lists").flatten();
    let files: Vec<_> = files.map(|file| file.path()).collect();
    let [file] = files.as_slice() else {
        panic!("{files:?}");
    };
    let mut forged = vcek;
    *forged.last_mut().expect("a signature") ^= 1;
    let asked = kds.requests();
    let path = asked
        .iter()
        .find(|path| path.contains("Milan") && path.contains("blSPL"))
        .expect("asked");
    let liar = Vendor::serving([(path.clone(), page(forged.clone()))]);
    std::fs::write(file, forged).expect("writes");
    let lied_to = asking(&liar.base).with_cache(disk.path()).expect("opens");
    let Completion {
        evidence, remarks, ..
    } = lied_to.complete(&evidence, june_2023());
    let lie = "or its vendor did not sign it";
    assert!(
        remarks.iter().any(|remark| remark.contains(lie)),
        "{remarks:?}"
    );
    assert!(!is_authentic(&evidence));
    assert_eq!(lied_to.statistics(june_2023()).known, 0);
}

#[test]
fn a_root_crl_that_intels_root_did_not_sign_is_not_taken() {
    let Some(mut list) = real("tdx/rootcrl.der") else {
        return;
    };
    let get = |list: Vec<u8>| {
        let path = "/sgx/certification/v4/rootcacrl".to_owned();
        let pcs = Vendor::serving([(path, page(list))]);
        asking(&pcs.base).get(&Item::RootCrl, june_2023())
    };
    assert!(get(list.clone()).is_ok());
    *list.last_mut().expect("a signature") ^= 1;
    let error = get(list).expect_err("forged").to_string();
    assert!(error.contains("its vendor did not sign it"), "{error}");
}

#[test]
fn documents_are_renewed_in_the_background_and_never_by_older_ones() {
    let disk = tempfile::tempdir().expect("a directory");
    let first = of_qe_identity(page(qe_identity(10)));
    let collateral = asking(&first.base).with_cache(disk.path()).expect("opens");
    collateral
        .get(&Item::QeIdentity, june_2023())
        .expect("fetches");
    assert_eq!(refresh(&collateral, june_2023()), (0, 0), "just fetched");

    let later = june_2023() + Duration::from_hours(25);
    let newer = of_qe_identity(page(qe_identity(20)));
    let collateral = asking(&newer.base).with_cache(disk.path()).expect("opens");
    collateral.get(&Item::QeIdentity, later).expect("on disk");
    assert_eq!(newer.requests().len(), 0);
    assert_eq!(refresh(&collateral, later), (1, 0));
    let issued = |collateral: &Collateral| {
        let found = collateral.get(&Item::QeIdentity, later).expect("known");
        found.document.validity.from
    };
    let renewed = issued(&collateral);

    let older = of_qe_identity(page(qe_identity(5)));
    let collateral = asking(&older.base).with_cache(disk.path()).expect("opens");
    assert_eq!(issued(&collateral), renewed);
    let next = later + Duration::from_hours(25);
    refresh(&collateral, next);
    assert_eq!(older.requests().len(), 1, "asked");
    assert_eq!(issued(&collateral), renewed);
    let offline = Collateral::offline()
        .with_cache(disk.path())
        .expect("opens");
    assert_eq!(issued(&offline), renewed, "on disk too");
}

#[derive(Debug)]
struct FixedIssuer(Evidence);

impl Issuer for FixedIssuer {
    fn issue(&self, _: &ReportData) -> Result<Evidence, contrast_attestation::IssueError> {
        Ok(self.0.clone())
    }
}

#[test]
fn issuing_waits_for_no_vendor_and_carries_what_came_meanwhile() {
    let Some((quote, pcs)) = sapphire_rapids() else {
        return;
    };
    let collateral = Arc::new(asking(&pcs.base));
    let issuer = CompletingIssuer {
        issuer: Arc::new(FixedIssuer(Evidence::Tdx(quote.clone()))),
        collateral: Arc::clone(&collateral),
        clock: Arc::new(FixedWallClock::new(june_2023())),
    };
    let issue = || issuer.issue(&ReportData([0; 64])).expect("issues");
    assert_eq!(issue(), Evidence::Tdx(quote));
    assert_eq!(pcs.requests(), Vec::<String>::new());
    assert_eq!(refresh(&collateral, june_2023()), (4, 0));
    let Evidence::Tdx(completed) = issue() else {
        panic!("another kind");
    };
    assert!(completed.collateral.is_some());
}

#[test]
fn evidence_of_a_software_tee_asks_nobody() {
    let nobody = Vendor::serving([]);
    let tee = SoftwareTee::generate(june_2023()).expect("generates");
    let policy = contrast_attestation::PolicyHash([7; 32]);
    for kind in [Tee::Snp, Tee::Tdx] {
        let guest: Box<dyn Issuer> = match kind {
            Tee::Snp => Box::new(tee.snp_guest(policy)),
            _ => Box::new(tee.tdx_guest(policy)),
        };
        let evidence = guest.issue(&ReportData([1; 64])).expect("issues");
        let completion = asking(&nobody.base).complete(&evidence, june_2023());
        assert_eq!(completion.evidence, evidence);
    }
    assert_eq!(nobody.requests(), Vec::<String>::new());
}

#[test]
fn a_bundle_is_told_by_content_and_survives_being_written() {
    let (Some(vcek), Some(chain), Some(crl)) = (
        real("snp/vcek.testcer"),
        real("snp/milanvlek.testcer"),
        real("tdx/pckcrl"),
    ) else {
        return;
    };
    let collected = tempfile::tempdir().expect("a directory");
    for (name, bytes) in [
        ("a", &vcek),
        ("b", &chain),
        ("c.bin", &crl),
        ("README", &b"hello".to_vec()),
    ] {
        std::fs::write(collected.path().join(name), bytes).expect("writes");
    }
    let bundle = Bundle::read(&[collected.path().to_owned()]).expect("reads");
    assert_eq!(bundle.items().count(), 3);
    let written = tempfile::tempdir().expect("a directory");
    for (item, document) in bundle.items() {
        let path = written.path().join(item.file_name());
        std::fs::write(path, document.to_file()).expect("writes");
    }
    let again = Bundle::read(&[written.path().to_owned()]).expect("reads");
    let pairs = |bundle: &Bundle| -> Vec<_> {
        let clone = |(item, document): (&Item, &Arc<_>)| (item.clone(), Arc::clone(document));
        bundle.items().map(clone).collect()
    };
    assert_eq!(pairs(&again), pairs(&bundle));
}

#[test]
fn a_url_that_cannot_be_one_is_named() {
    for url in [
        "kds.example",
        "http://",
        "http://a?b=c",
        "ftp://a",
        "https://user@a",
    ] {
        let error = Endpoints::at(url).expect_err("refused").to_string();
        assert!(error.contains(url.trim_end_matches('/')), "{error}");
    }
    assert!(Endpoints::at("https://kds.example:8443/amd/").is_ok());
}
