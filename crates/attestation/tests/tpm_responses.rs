//! A TPM that answers something else than it was asked for is not believed, and panics nobody.

#![allow(clippy::expect_used, reason = "helpers of tests fail like tests")]

use std::{collections::VecDeque, io, sync::Mutex};

use contrast_attestation::hardware::{Tpm, TpmCommandError, tpm};
use proptest::prelude::*;

const SESSIONS: u16 = 0x8002;
const NO_SESSIONS: u16 = 0x8001;
const SUCCESS: u32 = 0;

/// Gives prepared responses in their order, and keeps the commands.
#[derive(Debug, Default)]
struct Canned {
    responses: Mutex<VecDeque<Vec<u8>>>,
    commands: Mutex<Vec<Vec<u8>>>,
}

impl Canned {
    fn with(responses: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            responses: Mutex::new(responses.into_iter().collect()),
            ..Self::default()
        }
    }

    fn commands(&self) -> Vec<String> {
        let commands = self.commands.lock().expect("commands");
        commands.iter().map(hex::encode).collect()
    }
}

impl Tpm for Canned {
    fn transact(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut commands = self.commands.lock().expect("commands");
        commands.push(command.to_vec());
        let response = self.responses.lock().expect("responses").pop_front();
        response.ok_or_else(|| io::Error::other("gone"))
    }
}

fn response(tag: u16, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 10).expect("small");
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.extend(size.to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Parameters behind their size, and the empty answer to a password session.
fn authorised(parameters: &[u8]) -> Vec<u8> {
    let size = u32::try_from(parameters.len()).expect("small");
    let body = [&size.to_be_bytes(), parameters, &[0, 0, 0, 0, 0]].concat();
    response(SESSIONS, SUCCESS, &body)
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("small");
    [&length.to_be_bytes(), bytes].concat()
}

fn public(size: u16) -> Vec<u8> {
    let public = [
        hex::decode("01400001000b020200020000").expect("hex"),
        size.to_be_bytes().to_vec(),
    ];
    let body = [sized(&public.concat()), sized(&[0; 34])].concat();
    response(NO_SESSIONS, SUCCESS, &body)
}

/// PCRs of the bitmap with these values.
fn pcrs(bitmap: [u8; 3], values: &[Vec<u8>]) -> Vec<u8> {
    let mut body = hex::decode("0000000100000001000b03").expect("hex");
    body.extend(bitmap);
    body.extend(u32::try_from(values.len()).expect("small").to_be_bytes());
    body.extend(values.iter().flat_map(|value| sized(value)));
    response(NO_SESSIONS, SUCCESS, &body)
}

fn quote(algorithm: u16, hash: u16) -> Vec<u8> {
    let signature = [
        algorithm.to_be_bytes().to_vec(),
        hash.to_be_bytes().to_vec(),
        sized(&[9; 256]),
    ];
    authorised(&[sized(b"quoted"), signature.concat()].concat())
}

fn problem<T: std::fmt::Debug>(outcome: Result<T, TpmCommandError>) -> String {
    match outcome.expect_err("refused") {
        TpmCommandError::Malformed { problem, .. } => problem,
        other => other.to_string(),
    }
}

#[test]
fn commands_are_the_bytes_of_the_specification() {
    let tpm = Canned::with([
        public(600),
        authorised(&sized(&[1; 512])),
        authorised(&sized(&[2; 88])),
    ]);
    let contents = tpm::nv_read(&tpm, 0x0140_0001).expect("reads");
    assert_eq!(contents, [vec![1; 512], vec![2; 88]].concat());
    let session = "00000009400000090000000000";
    assert_eq!(
        tpm.commands(),
        [
            "80010000000e0000016901400001".to_owned(),
            format!("8002000000230000014e4000000101400001{session}02000000"),
            format!("8002000000230000014e4000000101400001{session}00580200"),
        ]
    );
    let tpm = Canned::with([quote(0x0014, 0x000B)]);
    let signed = tpm::quote(&tpm, 0x8100_0003, &[7; 4], &[0, 8, 15]).expect("quotes");
    assert_eq!(
        (signed.quoted, signed.signature),
        (b"quoted".to_vec(), vec![9; 256])
    );
    assert_eq!(
        tpm.commands(),
        [format!(
            "80020000002f0000015881000003{session}0004070707070014000b00000001000b03018100"
        )]
    );
}

#[test]
fn pcrs_are_asked_for_until_all_are_there() {
    let values = |bytes: std::ops::Range<u8>| bytes.map(|byte| vec![byte; 32]).collect::<Vec<_>>();
    let tpm = Canned::with([
        pcrs([0xFF, 0, 0], &values(0..8)),
        pcrs([0, 0x03, 0], &values(8..10)),
    ]);
    let wanted: Vec<u8> = (0..10).collect();
    let read = tpm::pcr_read(&tpm, &wanted).expect("reads");
    assert_eq!(read.len(), 10);
    assert!(read.iter().all(|(index, value)| *value == [*index; 32]));
    let second = tpm.commands().pop().expect("two commands");
    assert!(second.ends_with("0000017e00000001000b03000300"), "{second}");
}

#[test]
fn answers_to_something_else_are_refused() {
    let read = |response| problem(tpm::pcr_read(&Canned::with([response]), &[4, 8]));
    let value = vec![1; 32];
    assert_eq!(
        read(pcrs([0x20, 0, 0], std::slice::from_ref(&value))),
        "PCR 5 was not asked for"
    );
    assert_eq!(
        read(pcrs([0x10, 0, 0], &[vec![1; 20]])),
        "a PCR of 20 bytes"
    );
    let nothing = read(pcrs([0, 0, 0], &[]));
    assert!(
        nothing.starts_with("SHA-256 PCRs [4, 8] were asked for"),
        "{nothing}"
    );
    let uneven = read(pcrs([0x10, 1, 0], &[value]));
    assert!(uneven.ends_with("[4, 8] with 1 values came"), "{uneven}");

    let short = [public(100), authorised(&sized(&[1; 99]))];
    assert_eq!(
        problem(tpm::nv_read(&Canned::with(short), 1)),
        "100 bytes were asked for, 99 came"
    );

    let quoted = |response| problem(tpm::quote(&Canned::with([response]), 1, &[], &[8]));
    let expected = "the signature is not RSASSA with SHA-256";
    assert_eq!(quoted(quote(0x0016, 0x000B)), expected);
    assert_eq!(quoted(quote(0x0014, 0x0004)), expected);
    let mut unauthorised = quote(0x0014, 0x000B);
    unauthorised[1] = 0x01;
    assert_eq!(quoted(unauthorised), "its tag is not that of the command");
}

#[test]
fn a_busy_tpm_is_asked_again_and_a_refusal_is_not() {
    let busy = || response(NO_SESSIONS, 0x922, &[]);
    let tpm = Canned::with([busy(), busy(), public(7)]);
    assert_eq!(tpm::nv_size(&tpm, 1).expect("size"), 7);
    let tpm = Canned::with([response(NO_SESSIONS, 0x18B, &[]), public(7)]);
    let error = tpm::nv_size(&tpm, 1).expect_err("refused");
    assert!(error.is_absent(), "{error}");
    assert_eq!(tpm.commands().len(), 1);
    let error = tpm::nv_size(&Canned::default(), 1).expect_err("gone");
    assert!(!error.is_absent());
    assert!(matches!(error, TpmCommandError::Device { .. }));
}

#[test]
fn every_cut_of_a_response_is_refused() {
    for whole in [
        public(7),
        quote(0x0014, 0x000B),
        pcrs([0x10, 1, 0], &[vec![1; 32], vec![2; 32]]),
    ] {
        for length in 0..whole.len() {
            let cut = || Canned::with([whole[..length].to_vec()]);
            assert!(tpm::nv_size(&cut(), 1).is_err());
            assert!(tpm::pcr_read(&cut(), &[4, 8]).is_err());
            assert!(tpm::quote(&cut(), 1, &[], &[4, 8]).is_err());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_responses_never_panic(code in any::<u32>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        for tag in [SESSIONS, NO_SESSIONS] {
            tpm::read_any_response(&response(tag, SUCCESS, &body));
            tpm::read_any_response(&response(tag, code | 0x80, &body));
        }
        tpm::read_any_response(&body);
    }
}
