//! Peers that break the protocol, speak another one, or hang. They are made by hand and speak real TLS (or none).

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in helper functions, too"
)]

mod support;

use std::{future::Future, time::Duration};

use contrast_atls::{
    AtlsError, Incompatibility, Limits, Misbehaviour, Phase, ServerConfig, accept, connect,
};
use contrast_proto::evidence::Verdict;
use prost::Message;
use rustls::version::TLS12;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

#[tokio::test]
async fn truncated_frame_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.send_bytes(&[EVIDENCE, 0, 0, 1, 0, 0x0a, 0x0b]).await;
        raw.close().await;
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::TruncatedFrame {
            frame: "EvidenceFrame",
            missing: 254
        }
    ));
}

#[tokio::test]
async fn oversized_frame_is_refused_from_its_header() {
    let header = |kind: u8, length: u32| [&[kind], &length.to_be_bytes()[..]].concat();
    let too_much = Limits::EVIDENCE_FRAME_BYTES_MAX + 1;
    // Nothing but the header is sent and the connection stays open: only a check of the header can end the handshake.
    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.expect(HELLO).await;
        raw.send_bytes(&header(EVIDENCE, too_much)).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::FrameTooLarge { frame: "EvidenceFrame", found, .. } if found == too_much
    ));

    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send_bytes(&header(HELLO, u32::MAX)).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::FrameTooLarge {
            frame: "Hello",
            limit: 64,
            found: u32::MAX
        }
    ));
}

#[tokio::test]
async fn garbage_in_a_frame_is_refused() {
    for (kind, frame) in [(HELLO, "Hello"), (EVIDENCE, "EvidenceFrame")] {
        let (outcome, ()) = against_server(|mut raw| async move {
            if kind == EVIDENCE {
                raw.send(HELLO, HELLO_OPEN).await;
            }
            raw.send(kind, &[0xff; 40]).await;
            raw.expect(HELLO).await;
        })
        .await;
        let found = misbehaviour(outcome);
        assert!(
            matches!(found, Misbehaviour::NotProtobuf { frame: f, .. } if f == frame),
            "{found}"
        );
    }
}

#[tokio::test]
async fn other_protocol_version_is_refused() {
    let (outcome, ()) = against_server(|mut raw| async move {
        raw.send(HELLO, &[0x08, 2]).await;
        raw.expect(HELLO).await;
    })
    .await;
    assert!(matches!(
        outcome,
        Err(AtlsError::PeerIncompatible(Incompatibility::Version {
            expected: 1,
            found: 2
        }))
    ));
}

#[tokio::test]
async fn refusing_verdict_reaches_the_refused_side_with_its_reason() {
    let (outcome, ()) = against_client(|mut raw| async move {
        raw.send(HELLO, HELLO_STRICT).await;
        raw.expect(HELLO).await;
        let evidence = World::shared().evidence(raw.own_report_data("server"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        assert_eq!(raw.expect(VERDICT).await, ACCEPTED);
        raw.expect(EVIDENCE).await;
        let verdict = Verdict {
            accepted: false,
            reason: "HOSTDATA: expected 00, found 07".into(),
        };
        raw.send(VERDICT, &verdict.encode_to_vec()).await;
    })
    .await;
    match outcome {
        Err(AtlsError::RefusedByPeer { reason }) => {
            assert_eq!(reason, "HOSTDATA: expected 00, found 07");
        }
        other => panic!("expected the reason, found {other:?}"),
    }
}

#[tokio::test]
async fn application_bytes_before_the_verdict_are_refused() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (outcome, _raw) = against_server(|mut raw| async move {
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send_bytes(PREFACE).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::UnexpectedFrame {
            expected: "EvidenceFrame",
            found_kind: b'P',
            ..
        }
    ));

    let (outcome, _raw) = against_client(|mut raw| async move {
        raw.send(HELLO, HELLO_STRICT).await;
        let evidence = World::shared().evidence(raw.own_report_data("server"));
        raw.send(EVIDENCE, &evidence_body(&evidence)).await;
        raw.send_bytes(PREFACE).await;
        raw
    })
    .await;
    assert!(matches!(
        misbehaviour(outcome),
        Misbehaviour::UnexpectedFrame {
            expected: "Verdict",
            found_kind: b'P',
            ..
        }
    ));
}

#[tokio::test]
async fn peer_that_closes_midway_is_named_with_the_phase() {
    let (outcome, ()) = against_client(|raw| async move { raw.close().await }).await;
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerClosed {
                phase: Phase::Hello
            })
        ),
        "{outcome:?}"
    );

    // The transport ends inside the TLS handshake.
    let server = World::shared().server();
    let (mut near, far) = duplex(64 * 1024);
    let vanish = async move { near.write_all(&[22, 3, 1]).await.expect("three bytes") };
    let (outcome, ()) = tokio::join!(accept(far, None, &server), vanish);
    assert!(
        matches!(outcome, Err(AtlsError::PeerClosed { phase: Phase::Tls })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn tls12_peer_is_refused() {
    let world = World::shared();
    let old = || RawTls {
        versions: vec![&TLS12],
        ..RawTls::default()
    };
    let (server, client) = (world.server(), world.client());

    let (near, far) = duplex(64 * 1024);
    let (outcome, raw) = tokio::join!(accept(far, None, &server), old().connect(near));
    assert!(raw.is_err());
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerIncompatible(Incompatibility::Tls(_)))
        ),
        "{outcome:?}"
    );

    let (near, far) = duplex(64 * 1024);
    let (outcome, raw) = tokio::join!(connect(near, &client), old().accept(far));
    assert!(raw.is_err());
    assert!(
        matches!(
            outcome,
            Err(AtlsError::PeerIncompatible(Incompatibility::Tls(_)))
        ),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn peer_of_another_application_protocol_is_told_apart() {
    let world = World::shared();
    let (server, client) = (world.server(), world.client());
    for alpn in [&b"h2"[..], b""] {
        let other = || RawTls {
            alpn,
            ..RawTls::default()
        };
        let (near, far) = duplex(64 * 1024);
        let (outcome, _raw) = tokio::join!(accept(far, None, &server), other().connect(near));
        assert!(
            matches!(
                outcome,
                Err(AtlsError::PeerIncompatible(
                    Incompatibility::ApplicationProtocol
                ))
            ),
            "{alpn:?}: {outcome:?}"
        );
        let (near, far) = duplex(64 * 1024);
        let (outcome, _raw) = tokio::join!(connect(near, &client), other().accept(far));
        assert!(
            matches!(
                outcome,
                Err(AtlsError::PeerIncompatible(
                    Incompatibility::ApplicationProtocol
                ))
            ),
            "{alpn:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn peer_that_does_not_speak_tls_is_refused() {
    let server = World::shared().server();
    let (mut near, far) = duplex(64 * 1024);
    let talk = async move {
        near.write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("request");
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.expect("closed");
    };
    let (outcome, ()) = tokio::join!(accept(far, None, &server), talk);
    let found = misbehaviour(outcome);
    assert!(
        matches!(found, Misbehaviour::Tls(rustls::Error::InvalidMessage(_))),
        "{found:?}"
    );
}

/// Runs an honest server against `cheat` on paused time; returns how long it took and where it hung.
async fn hang<F: Future>(cheat: impl FnOnce(DuplexStream) -> F) -> (Duration, Phase) {
    let server = ServerConfig {
        limits: Limits {
            handshake: Duration::from_secs(25),
            ..Limits::server()
        },
        ..World::shared().server()
    };
    let (near, far) = duplex(64 * 1024);
    let cheat = cheat(near);
    let start = tokio::time::Instant::now();
    tokio::select! {
        outcome = accept(far, None, &server) => match outcome {
            Err(AtlsError::Deadline { limit, phase }) => {
                assert_eq!(limit, Duration::from_secs(25));
                (start.elapsed(), phase)
            }
            other => panic!("expected the deadline, found {other:?}"),
        },
        _ = cheat => panic!("the cheating peer outlived the server's patience"),
    }
}

#[tokio::test(start_paused = true)]
async fn silent_peer_meets_the_deadline() {
    let on_time = |took: Duration| (25_000..25_100).contains(&took.as_millis());

    let (took, phase) = hang(|io| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        drop(io);
    })
    .await;
    assert!(on_time(took) && phase == Phase::Tls, "{took:?} {phase:?}");

    let (took, phase) = hang(|io| async move {
        let _raw = RawTls::default().connect(io).await.expect("TLS");
        tokio::time::sleep(Duration::from_secs(600)).await;
    })
    .await;
    assert!(on_time(took) && phase == Phase::Hello, "{took:?} {phase:?}");
}

#[tokio::test(start_paused = true)]
async fn peer_that_drips_bytes_meets_the_same_deadline() {
    let (took, phase) = hang(|io| async move {
        let mut raw = RawTls::default().connect(io).await.expect("TLS");
        raw.send(HELLO, HELLO_OPEN).await;
        raw.send_bytes(&[EVIDENCE, 0, 0, 1, 0]).await;
        for _ in 0..256 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            raw.send_bytes(&[0]).await;
        }
    })
    .await;
    assert!((25_000..25_100).contains(&took.as_millis()), "{took:?}");
    assert_eq!(phase, Phase::Evidence);
}
