use std::sync::Arc;

use axum::http::StatusCode;
use contrast_clock::Entropy;
use contrast_pki::Derivation;

use super::{
    failure::Failure, fields::Input, handler::data_of, keys::Keys, operation::describe,
    route::Route, usage::Usage,
};
use crate::ops::Metrics;

/// What the transit engine makes of a path and a body, without connections, callers and state: the status, and the JSON of `data` or of
/// nothing. The caller owns the key `own`. For fuzzing.
pub fn answer_any(
    (path, body): (&str, &[u8]),
    own: &str,
    derivation: &Derivation,
    entropy: &dyn Entropy,
) -> (u16, Option<serde_json::Value>) {
    let usage = Usage::new(Arc::new(Metrics::new(std::time::SystemTime::UNIX_EPOCH)));
    let answer = || {
        let route = Route::of(path, Some(own))?;
        if let Route::Key { name, .. } | Route::ReadKey { name } = &route
            && name != own
        {
            return Err(Failure::Denied);
        }
        match &route {
            Route::Key { .. } | Route::Random { .. } | Route::Hash { .. } => {
                let keys = |name| Keys::new(derivation, entropy, (&usage, name));
                data_of(&route, &Input::read(body)?, entropy, keys)
            }
            Route::ReadKey { name } => {
                let keys = Keys::new(derivation, entropy, (&usage, name));
                Ok((StatusCode::OK, describe(&keys)?))
            }
            _ => Err(Failure::NoPath),
        }
    };
    match answer() {
        Ok((status, data)) => (status.as_u16(), Some(data)),
        Err(failure) => (failure.status().as_u16(), None),
    }
}
