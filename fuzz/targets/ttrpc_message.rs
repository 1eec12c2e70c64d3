//! Any bytes are messages, the beginning of one, or no ttrpc, whether they come at once or one by one; nothing larger than a request is kept.
#![no_main]

use contrast_ttrpc::{Call, Decoder, FrameError, HEADER_BYTES, Incoming};
use libfuzzer_sys::fuzz_target;

const REQUEST_MAX: u32 = 1000;

fn all(decoder: &mut Decoder, found: &mut Vec<Incoming>) -> Result<(), FrameError> {
    while let Some(incoming) = decoder.decode()? {
        found.push(incoming);
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let mut at_once = Vec::new();
    let mut decoder = Decoder::new(REQUEST_MAX);
    decoder.buffer().extend_from_slice(bytes);
    let ended = all(&mut decoder, &mut at_once);
    let mut one_by_one = Vec::new();
    let mut decoder = Decoder::new(REQUEST_MAX);
    let mut ended_there = Ok(());
    for byte in bytes {
        decoder.buffer().extend_from_slice(&[*byte]);
        ended_there = all(&mut decoder, &mut one_by_one);
        if ended_there.is_err() {
            break;
        }
        assert!(decoder.buffer().len() < HEADER_BYTES + REQUEST_MAX as usize);
    }
    assert_eq!(ended, ended_there);
    assert_eq!(at_once, one_by_one);
    for incoming in at_once {
        if let Incoming::Request { body, .. } = incoming {
            assert!(body.len() <= REQUEST_MAX as usize);
            if let Err(status) = Call::decode(body) {
                assert!(!status.message().is_empty());
            }
        }
    }
});
