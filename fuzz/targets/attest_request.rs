//! Any query or body is a question to the attest API, or a typed error; a nonce that is read is written as the same, and a question means
//! the same in a query and in a body.
#![no_main]

use contrast_attest_document::{Nonce, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let from_query = std::str::from_utf8(bytes).map(Request::from_query);
    let from_body = Request::parse(bytes);
    for request in from_query.into_iter().flatten().chain(from_body) {
        let Ok(nonce) = Nonce::parse(&request.nonce) else {
            continue;
        };
        let written = nonce.to_base64url();
        assert!(Nonce::parse(&written).is_ok_and(|again| again == nonce));
        let omit = if request.omits_policies() {
            "&policies=omit"
        } else {
            ""
        };
        let again = Request::from_query(&format!("nonce={written}{omit}"));
        assert!(again.is_ok_and(|again| {
            again.nonce == written && again.omits_policies() == request.omits_policies()
        }));
    }
});
