//! A quote generation service that speaks the real protocol over a real socket, and each way in which it may misbehave.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpListener,
    sync::Mutex,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use contrast_guest_device::TD_REPORT_BYTES;
use socket2::{Domain, Socket, Type};

use super::{
    REPORT_DATA,
    tdx_guest::{Driver, quote_of, verify_quote},
};
use crate::{
    Evidence, Issuer as _,
    hardware::{
        AnswerError, HostVsock, QuoteChannel, QuoteGenerationService, QuoteServiceError,
        TdxDeviceError, TdxDeviceIssuer,
    },
    software::fixture::software_tee,
};

/// Where the deadline is what is tested.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Elsewhere, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a service does with its end of the stream after it read the request; it is given the quote for the request.
type Behaviour = fn(&mut Socket, Vec<u8>);

/// One connection to a service that behaves.
#[derive(Debug)]
struct Service {
    client: Mutex<Option<Socket>>,
    thread: JoinHandle<()>,
}

impl Service {
    fn on((client, mut server): (Socket, Socket), behaviour: Behaviour) -> Self {
        // The first use makes keys, which takes seconds that no deadline should count.
        software_tee();
        let thread = thread::spawn(move || {
            let quote = quote_of(&read_request(&mut server));
            behaviour(&mut server, quote);
        });
        Self {
            client: Mutex::new(Some(client)),
            thread,
        }
    }

    fn over_unix(behaviour: Behaviour) -> Self {
        let pair = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("pair");
        Self::on(pair, behaviour)
    }
}

impl QuoteChannel for &Service {
    fn peer(&self) -> String {
        "the test".into()
    }

    fn connect(&self, _: Duration) -> io::Result<Socket> {
        let client = self.client.lock().expect("lock").take();
        client.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

/// The TDREPORT in the request, which must be exactly what `qgs_msg_lib.h` prescribes.
fn read_request(stream: &mut Socket) -> Vec<u8> {
    let mut frame = [0; 4 + 24 + TD_REPORT_BYTES];
    stream.read_exact(&mut frame).expect("request");
    let header = [
        // Frame: 1048, big-endian.
        0, 0, 4, 24, // Version 1.0.
        1, 0, 0, 0, // GET_QUOTE_REQ.
        0, 0, 0, 0, // Size 1048, little-endian.
        24, 4, 0, 0, // No error.
        0, 0, 0, 0, // TDREPORT of 1024 bytes.
        0, 4, 0, 0, // No ids.
        0, 0, 0, 0,
    ];
    assert_eq!(frame[..28], header);
    frame[28..].to_vec()
}

/// A GET_QUOTE_RESP in its frame.
fn response(id: &[u8], quote: &[u8]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).expect("small");
    let size = number(24 + id.len() + quote.len());
    let mut frame = size.to_be_bytes().to_vec();
    frame.extend([1, 0, 1, 0]);
    for field in [1, size, 0, number(id.len()), number(quote.len())] {
        frame.extend(field.to_le_bytes());
    }
    frame.extend(id);
    frame.extend(quote);
    frame
}

fn send(stream: &mut Socket, bytes: &[u8]) {
    // The client may have hung up: that is what is tested.
    let _ = stream.write_all(bytes);
}

fn altered(stream: &mut Socket, quote: &[u8], offset: usize, bytes: &[u8]) {
    let mut frame = response(&[], quote);
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    send(stream, &frame);
}

fn evidence_from(service: &Service) -> Result<Evidence, TdxDeviceError> {
    evidence_within(PATIENCE, service)
}

fn evidence_within(timeout: Duration, service: &Service) -> Result<Evidence, TdxDeviceError> {
    let driver = Driver::default();
    let qgs = QuoteGenerationService::new(service).with_timeout(timeout);
    TdxDeviceIssuer::new(&driver, qgs).evidence(&REPORT_DATA)
}

fn accepted(behaviour: Behaviour) {
    let service = Service::over_unix(behaviour);
    verify_quote(evidence_from(&service).expect("evidence"));
    service.thread.join().expect("service");
}

fn refused(behaviour: Behaviour) -> QuoteServiceError {
    let service = Service::over_unix(behaviour);
    let error = evidence_from(&service).expect_err("refused");
    service.thread.join().expect("service");
    match error {
        TdxDeviceError::Quote(error) => error,
        other => panic!("expected an error of the service, found {other}"),
    }
}

#[test]
fn a_quote_is_evidence_over_unix_and_tcp_with_and_without_the_keys_id() {
    accepted(|stream, quote| send(stream, &response(&[], &quote)));
    accepted(|stream, quote| send(stream, &response(&[7; 16], &quote)));

    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    let address = listener.local_addr().expect("address");
    client.connect(&address.into()).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    let service = Service::on((client, server.into()), |stream, quote| {
        send(stream, &response(&[], &quote));
    });
    verify_quote(evidence_from(&service).expect("evidence"));
    service.thread.join().expect("service");
}

#[test]
fn an_answer_in_pieces_is_put_together() {
    accepted(|stream, quote| {
        for piece in response(&[], &quote).chunks(700) {
            send(stream, piece);
            thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn another_minor_version_is_compatible_and_another_major_version_is_not() {
    accepted(|stream, quote| altered(stream, &quote, 6, &[9, 9]));
    let error = refused(|stream, quote| altered(stream, &quote, 4, &[2, 0]));
    assert!(
        matches!(error, QuoteServiceError::Version { major: 2, minor: 1 }),
        "{error}"
    );
}

#[test]
fn a_truncated_answer_names_what_is_missing() {
    let error = refused(|_, _| {});
    assert_eq!(
        error.to_string(),
        "the service closed the stream after 0 of 4 bytes of its size; see its log on the host"
    );
    let error = refused(|stream, quote| send(stream, &response(&[], &quote)[..1000]));
    assert!(
        matches!(
            error,
            QuoteServiceError::Truncated {
                part: "answer",
                found: 996,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn sizes_outside_the_limits_are_refused_before_a_byte_is_read() {
    // A quote of 16 KiB with an id is the most, a header without parts the least.
    for size in [0, 23, 24 + 16 + 16384 + 1, u32::MAX] {
        let behaviour: Behaviour = match size {
            0 => |stream, _| send(stream, &[0; 4]),
            23 => |stream, _| send(stream, &23_u32.to_be_bytes()),
            u32::MAX => |stream, _| send(stream, &[0xff; 4]),
            _ => |stream, _| send(stream, &16425_u32.to_be_bytes()),
        };
        let error = refused(behaviour);
        assert!(
            matches!(error, QuoteServiceError::FrameSize { found } if found == size),
            "{size}: {error}"
        );
    }
}

#[test]
fn every_field_of_the_header_is_checked() {
    let error = refused(|stream, quote| altered(stream, &quote, 8, &[3]));
    assert!(
        matches!(error, QuoteServiceError::Type { found: 3 }),
        "{error}"
    );
    let error = refused(|stream, quote| altered(stream, &quote, 12, &[0; 4]));
    assert!(
        matches!(error, QuoteServiceError::MessageSize { message: 0, .. }),
        "{error}"
    );
    // The id's size, then the quote's: both must be there, known, and fill the message exactly.
    let wrong: [Behaviour; 6] = [
        |stream, quote| send(stream, &response(&[7], &quote)),
        |stream, quote| altered(stream, &quote, 20, &[16, 0, 0, 0]),
        |stream, quote| altered(stream, &quote, 20, &[0xff; 4]),
        |stream, quote| altered(stream, &quote, 24, &[0xff; 4]),
        |stream, quote| altered(stream, &quote, 24, &[0; 4]),
        |stream, _| send(stream, &response(&[], &[])),
    ];
    for behaviour in wrong {
        let error = refused(behaviour);
        assert!(matches!(error, QuoteServiceError::Parts { .. }), "{error}");
    }
}

#[test]
fn an_error_code_is_named() {
    let error = refused(|stream, _| {
        let mut frame = response(&[], &[]);
        frame[16..20].copy_from_slice(&0x0001_2004_u32.to_le_bytes());
        send(stream, &frame);
    });
    assert_eq!(
        error.to_string(),
        "the service refused with error code 0x12004 (INVALID_VERSION); see its log on the host"
    );
}

#[test]
fn silence_and_a_byte_now_and_then_both_end_at_the_deadline() {
    let behaviours: [Behaviour; 2] = [
        |_, _| thread::sleep(TIMEOUT * 3),
        |stream, quote| {
            let start = Instant::now();
            for byte in response(&[], &quote) {
                if start.elapsed() > TIMEOUT * 3 {
                    break;
                }
                send(stream, &[byte]);
                thread::sleep(TIMEOUT / 10);
            }
        },
    ];
    for behaviour in behaviours {
        let service = Service::over_unix(behaviour);
        let start = Instant::now();
        let error = evidence_within(TIMEOUT, &service).expect_err("late");
        let elapsed = start.elapsed();
        assert!(
            matches!(
                error,
                TdxDeviceError::Quote(QuoteServiceError::Deadline {
                    timeout: TIMEOUT,
                    ..
                })
            ),
            "{error}"
        );
        assert!(elapsed >= TIMEOUT && elapsed < TIMEOUT * 3, "{elapsed:?}");
        service.thread.join().expect("service");
    }
}

#[test]
fn a_service_that_takes_no_request_ends_at_the_deadline_too() {
    let (client, server) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("pair");
    client.set_send_buffer_size(0).expect("small");
    // Fills what the kernel buffers.
    client.set_nonblocking(true).expect("non-blocking");
    while (&client).write(&[0; 256]).is_ok() {}
    client.set_nonblocking(false).expect("blocking");
    let service = Service {
        client: Mutex::new(Some(client)),
        thread: thread::spawn(|| {}),
    };
    let error = evidence_within(TIMEOUT, &service).expect_err("late");
    let text = error.to_string();
    assert!(
        matches!(
            error,
            TdxDeviceError::Quote(QuoteServiceError::Deadline {
                action: "send the request",
                ..
            })
        ),
        "{text}"
    );
    drop(server);
}

#[test]
fn a_quote_that_is_bound_to_other_data_is_refused() {
    let service = Service::over_unix(|stream, _| {
        send(stream, &response(&[], &quote_of(&[9; TD_REPORT_BYTES])));
    });
    let error = evidence_from(&service).expect_err("other data");
    assert!(
        matches!(error, TdxDeviceError::Answer(AnswerError::ReportData)),
        "{error}"
    );
}

#[test]
fn an_absent_service_is_named_with_what_configures_it() {
    let driver = Driver::default();
    let qgs = QuoteGenerationService::new(HostVsock { port: 0xfff0_0123 }).with_timeout(TIMEOUT);
    let error = TdxDeviceIssuer::new(&driver, qgs)
        .issue(&REPORT_DATA)
        .expect_err("nobody");
    let text = error.to_string();
    assert!(
        text.contains("cannot connect to vsock port 4293919011 of the host")
            && text.contains("/etc/tdx-attest.conf"),
        "{text}"
    );
}
