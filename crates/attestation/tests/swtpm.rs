//! Evidence from a real TPM: `swtpm`, a TPM 2.0 in software, is made what a paravisor's virtual TPM is, and what it issues is
//! verified. Skips when `swtpm` is not installed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests fail like tests, and say why they skip"
)]
#![cfg(unix)]

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contrast_attestation::{
    Evidence, EvidenceVerifier as _, Issuer, PolicyHash, ReferenceValue, ReportData,
    SnpCertificates, Tee, Verifier, VerifyError, VtpmDemands, VtpmHardware,
    hardware::{
        ATTESTATION_KEY_HANDLE, CloudHost, CloudHostError, HCL_REPORT_INDEX, NoCloudHost, Tpm,
        VtpmError, VtpmIssuer, tpm,
    },
    software::{SoftwareTee, encode_hcl_report, hcl_report, runtime_data},
};

const POLICY: PolicyHash = PolicyHash([1; 32]);
const NO_POLICY: PolicyHash = PolicyHash([0; 32]);
const REPORT_DATA: ReportData = ReportData([2; 64]);
const BOOT_EVENT: [u8; 32] = [4; 32];

const OWNER: u32 = 0x4000_0001;
/// TPMA_NV: OWNERWRITE, OWNERREAD, NO_DA.
const NV_ATTRIBUTES: u32 = 0x0202_0002;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn tee() -> &'static SoftwareTee {
    static TEE: OnceLock<SoftwareTee> = OnceLock::new();
    TEE.get_or_init(|| SoftwareTee::generate(now()).expect("software TEE"))
}

/// A TPM of its own for each test; it goes when it is dropped.
#[derive(Debug, Clone)]
struct SwTpm(Arc<Process>);

#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
    stream: Mutex<UnixStream>,
    _state: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().expect("child");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl SwTpm {
    /// None, with a message, when `swtpm` is not installed.
    fn start() -> Option<Self> {
        let state = tempfile::tempdir().expect("directory");
        let socket = state.path().join("tpm");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: `swtpm` is not installed");
                return None;
            }
            Err(error) => panic!("swtpm does not start: {error}"),
        };
        Some(Self(Arc::new(Process {
            child: Mutex::new(child),
            stream: Mutex::new(connect(&socket)),
            _state: state,
        })))
    }

    fn send(&self, tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(body.len() + 10).expect("small");
        let command = [
            tag.to_be_bytes().as_slice(),
            &size.to_be_bytes(),
            &code.to_be_bytes(),
            body,
        ]
        .concat();
        // TPM_RC_RETRY: the TPM has housekeeping to do first.
        let response = (0..20)
            .map(|_| self.transact(&command).expect("response"))
            .find(|response| response[6..10] != [0, 0, 0x09, 0x22])
            .expect("a TPM that answers");
        assert_eq!(
            response[6..10],
            [0; 4],
            "command {code:#x}: {response:02x?}"
        );
        response[10..].to_vec()
    }

    /// A command with an empty password for each of its handles.
    fn authorised(&self, code: u32, handles: &[u32], auths: usize, parameters: &[u8]) -> Vec<u8> {
        // TPM_RS_PW, no nonce, no attributes, no password.
        let session = hex::decode("400000090000000000")
            .expect("hex")
            .repeat(auths);
        let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
        body.extend(u32::try_from(session.len()).expect("small").to_be_bytes());
        body.extend(session);
        body.extend(parameters);
        self.send(0x8002, code, &body)
    }

    /// Makes a restricted RSA-2048 signing key, keeps it at `handle`, and gives its modulus.
    fn create_key(&self, handle: u32) -> Vec<u8> {
        let public = [
            "0001000b",     // RSA, name by SHA-256
            "00050072", // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign
            "0000",     // no policy
            "00100014000b", // no symmetric algorithm, RSASSA with SHA-256
            "080000000000", // 2048 bits, exponent 65537
            "0000",
        ]
        .concat();
        let public = hex::decode(public).expect("hex");
        let parameters = [
            hex::decode("000400000000").expect("hex"),
            sized(&public),
            hex::decode("000000000000").expect("hex"),
        ]
        .concat();
        let response = self.authorised(0x131, &[OWNER], 1, &parameters);
        let transient = u32::from_be_bytes(response[..4].try_into().expect("handle"));
        // Handle, size of the parameters, size of the public area, public area; the modulus is at its end.
        let length = usize::from(u16::from_be_bytes([response[8], response[9]]));
        let modulus = response[10 + length - 256..10 + length].to_vec();
        self.authorised(0x120, &[OWNER, transient], 1, &handle.to_be_bytes());
        // TPM2_FlushContext: the transient copy is in the way.
        self.send(0x8001, 0x165, &transient.to_be_bytes());
        modulus
    }

    fn define_nv(&self, contents: &[u8]) {
        let public = [
            HCL_REPORT_INDEX.to_be_bytes().as_slice(),
            &[0x00, 0x0B],
            &NV_ATTRIBUTES.to_be_bytes(),
            &[0, 0],
            &u16::try_from(contents.len()).expect("small").to_be_bytes(),
        ]
        .concat();
        let parameters = [vec![0, 0], sized(&public)].concat();
        self.authorised(0x12A, &[OWNER], 1, &parameters);
        for (index, chunk) in contents.chunks(512).enumerate() {
            let offset = u16::try_from(index * 512).expect("small");
            let parameters = [sized(chunk).as_slice(), &offset.to_be_bytes()].concat();
            self.authorised(0x137, &[OWNER, HCL_REPORT_INDEX], 1, &parameters);
        }
    }

    fn extend(&self, pcr: u32, digest: &[u8; 32]) {
        let digests = [[0, 0, 0, 1, 0x00, 0x0B].as_slice(), digest].concat();
        self.authorised(0x182, &[pcr], 1, &digests);
    }

    /// Does what a paravisor does at launch and a guest at boot: `issuer` is the hardware.
    fn set_up(&self, issuer: &dyn Issuer) -> VtpmHardware {
        let modulus = self.create_key(ATTESTATION_KEY_HANDLE);
        let document = runtime_data(&modulus, &[1, 0, 1]);
        let (hcl, hardware) = hcl_report(issuer, &document).expect("HCL report");
        self.define_nv(&hcl);
        self.extend(4, &BOOT_EVENT);
        self.extend(8, &POLICY.0);
        hardware
    }
}

impl Tpm for SwTpm {
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.0.stream.lock().expect("stream");
        stream.write_all(command)?;
        let mut response = vec![0; 10];
        stream.read_exact(&mut response)?;
        let size = u32::from_be_bytes(response[2..6].try_into().expect("size"));
        let rest = usize::try_from(size).expect("small") - 10;
        response.resize(10 + rest, 0);
        stream.read_exact(&mut response[10..])?;
        Ok(response)
    }
}

fn connect(socket: &Path) -> UnixStream {
    for _ in 0..500 {
        if let Ok(stream) = UnixStream::connect(socket) {
            return stream;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("swtpm does not listen on {}", socket.display());
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("small");
    [&length.to_be_bytes(), bytes].concat()
}

/// A provider that hands out what the software TEE made.
#[derive(Debug)]
struct Host {
    hardware: VtpmHardware,
    asked: Mutex<u32>,
}

impl Host {
    fn with(hardware: VtpmHardware) -> Arc<Self> {
        let asked = Mutex::default();
        Arc::new(Self { hardware, asked })
    }
}

impl CloudHost for Host {
    fn snp_certificates(&self) -> Result<SnpCertificates, CloudHostError> {
        *self.asked.lock().expect("count") += 1;
        match &self.hardware {
            VtpmHardware::Snp(certificates) => Ok(certificates.clone()),
            VtpmHardware::Tdx(_) => panic!("asked for SNP certificates"),
        }
    }

    fn td_quote(&self, td_report: &[u8]) -> Result<Vec<u8>, CloudHostError> {
        *self.asked.lock().expect("count") += 1;
        assert_eq!(td_report.len(), 1024);
        match &self.hardware {
            VtpmHardware::Tdx(evidence) => Ok(evidence.quote.clone()),
            VtpmHardware::Snp(_) => panic!("asked for a TDX quote"),
        }
    }
}

fn hardware_of(kind: Tee) -> Box<dyn Issuer> {
    match kind {
        Tee::Snp => Box::new(tee().snp_guest(NO_POLICY)),
        _ => Box::new(tee().tdx_guest(NO_POLICY)),
    }
}

fn reference(kind: Tee) -> ReferenceValue {
    let mut reference = tee().vtpm_reference_value(kind);
    // PCR 4 after one event.
    let boot = contrast_attestation::vtpm::TpmQuote::digest_of(&[[0; 32], BOOT_EVENT]);
    reference.vtpm = Some(VtpmDemands {
        pcrs: [(4, boot), (11, [0; 32])].into(),
    });
    reference
}

/// Evidence with the collateral that the verifier's side would fetch.
fn completed(evidence: Evidence, hardware: &VtpmHardware) -> Evidence {
    match (evidence, hardware) {
        (Evidence::Vtpm(evidence), VtpmHardware::Tdx(whole)) => {
            Evidence::Vtpm(evidence.with_hardware(Evidence::Tdx(whole.clone())))
        }
        (evidence, _) => evidence,
    }
}

fn verify(kind: Tee, evidence: &Evidence) -> Vec<String> {
    let verifier = Verifier::new(vec![reference(kind)], [POLICY]);
    match verifier.verify(evidence, &REPORT_DATA, now()) {
        Ok(verified) => {
            assert_eq!(verified.policy_hash(), POLICY);
            Vec::new()
        }
        Err(VerifyError::Refused(report)) => report.sets[0]
            .checks
            .checks()
            .iter()
            .filter(|check| !check.passed)
            .map(|check| check.field.clone())
            .collect(),
        Err(other) => panic!("expected a report, found {other}"),
    }
}

#[test]
fn evidence_of_a_real_tpm_is_accepted() {
    for kind in [Tee::Snp, Tee::Tdx] {
        let Some(tpm) = SwTpm::start() else { return };
        let hardware = tpm.set_up(&*hardware_of(kind));
        let host = Host::with(hardware.clone());
        let issuer = VtpmIssuer::probe(tpm.clone(), Arc::clone(&host) as _).expect("probes");
        assert_eq!(issuer.tee(), kind);
        let evidence = issuer.issue(&REPORT_DATA).expect("issues");
        let evidence = Evidence::decode(&evidence.encode()).expect("decodes");
        let evidence = completed(evidence, &hardware);
        assert!(
            verify(kind, &evidence).is_empty(),
            "{:?}",
            verify(kind, &evidence)
        );

        // The provider was asked once; what it gave belongs to the hardware's report.
        issuer.issue(&ReportData([3; 64])).expect("issues");
        assert_eq!(*host.asked.lock().expect("count"), 1);
    }
}

#[test]
fn evidence_for_another_connection_is_refused() {
    let Some(tpm) = SwTpm::start() else { return };
    let host = Host::with(tpm.set_up(&*hardware_of(Tee::Snp)));
    let issuer = VtpmIssuer::probe(tpm, host).expect("probes");
    let evidence = issuer.issue(&ReportData([3; 64])).expect("issues");
    assert_eq!(verify(Tee::Snp, &evidence), ["TPM quote extraData"]);
}

#[test]
fn what_a_guest_measures_later_shows() {
    let Some(tpm) = SwTpm::start() else { return };
    let host = Host::with(tpm.set_up(&*hardware_of(Tee::Snp)));
    let issuer = VtpmIssuer::probe(tpm.clone(), host).expect("probes");
    let failed = |issuer: &dyn Issuer| {
        let evidence = issuer.issue(&REPORT_DATA).expect("issues");
        verify(Tee::Snp, &evidence)
    };
    assert!(failed(&issuer).is_empty());
    // Another policy on top of the first.
    tpm.extend(8, &POLICY.0);
    assert_eq!(failed(&issuer), ["PCR 8"]);
    tpm.extend(11, &[9; 32]);
    assert_eq!(failed(&issuer), ["PCR 11", "PCR 8"]);
}

#[test]
fn a_tpm_whose_key_the_hardware_does_not_name_gives_no_evidence() {
    let Some(tpm) = SwTpm::start() else { return };
    let Some(other) = SwTpm::start() else { return };
    tpm.create_key(ATTESTATION_KEY_HANDLE);
    let document = runtime_data(&other.create_key(ATTESTATION_KEY_HANDLE), &[1, 0, 1]);
    let (hcl, hardware) = hcl_report(&*hardware_of(Tee::Snp), &document).expect("HCL report");
    tpm.define_nv(&hcl);
    let issuer = VtpmIssuer::probe(tpm, Host::with(hardware)).expect("probes");
    assert!(matches!(
        issuer.evidence(&REPORT_DATA),
        Err(VtpmError::Signature)
    ));
}

#[test]
fn a_tdx_quote_over_another_report_is_not_passed_on() {
    let Some(tpm) = SwTpm::start() else { return };
    tpm.set_up(&*hardware_of(Tee::Tdx));
    let Ok(Evidence::Tdx(other)) = tee().tdx_guest(NO_POLICY).issue(&REPORT_DATA) else {
        panic!("TDX evidence");
    };
    let host = Host::with(VtpmHardware::Tdx(other));
    let issuer = VtpmIssuer::probe(tpm.clone(), host).expect("probes");
    assert!(matches!(
        issuer.evidence(&REPORT_DATA),
        Err(VtpmError::TdQuote)
    ));
    let issuer = VtpmIssuer::probe(tpm, Arc::new(NoCloudHost)).expect("probes");
    let error = issuer.issue(&REPORT_DATA).expect_err("refused").to_string();
    assert_eq!(
        error,
        "the virtual TPM could not issue evidence: the TDREPORT in the HCL report cannot be made verifiable: no TDX quote \
         from the cloud provider: this program asks none"
    );
}

#[test]
fn a_tpm_without_an_hcl_report_is_an_ordinary_tpm() {
    let Some(tpm) = SwTpm::start() else { return };
    let error = VtpmIssuer::probe(tpm.clone(), Arc::new(NoCloudHost)).expect_err("none");
    let VtpmError::Tpm { source, .. } = &error else {
        panic!("expected the TPM's own error, found {error}");
    };
    assert!(source.is_absent(), "{source}");
    tpm.define_nv(b"something else");
    assert!(matches!(
        VtpmIssuer::probe(tpm.clone(), Arc::new(NoCloudHost)),
        Err(VtpmError::Hcl(_))
    ));
    // No key either.
    let error = tpm::quote(&tpm, ATTESTATION_KEY_HANDLE, &[0; 32], &[4, 8]).expect_err("no key");
    assert!(
        error
            .to_string()
            .starts_with("TPM2_Quote was refused by the TPM: "),
        "{error}"
    );
}

#[test]
fn nv_contents_of_any_size_come_back_whole() {
    for size in [1236, 1536, 2000] {
        let Some(tpm) = SwTpm::start() else { return };
        let contents = encode_hcl_report(2, &[7; 1184], 1, &vec![b'x'; size - 1236]);
        assert_eq!(contents.len(), size);
        tpm.define_nv(&contents);
        let read = tpm::nv_read(&tpm, HCL_REPORT_INDEX).expect("reads");
        assert_eq!(read, contents);
    }
}
