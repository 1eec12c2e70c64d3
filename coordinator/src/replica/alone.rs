use std::time::Duration;

use super::{
    message::{Place, Reply, Request},
    peers::{BoxFuture, CallError, EvidenceSummary, Peers, Trust},
};

/// There is no other replica.
#[derive(Debug)]
pub struct Alone(pub Place);

impl Peers for Alone {
    fn own_place(&self) -> Place {
        self.0.clone()
    }

    fn places(&self) -> BoxFuture<Vec<Place>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn call(
        &self,
        place: Place,
        _: Request,
        _: Trust,
        _: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let error = CallError::Unreachable {
            place,
            reason: "this Coordinator was given no peers".to_owned(),
        };
        Box::pin(std::future::ready(Err(error)))
    }

    fn evidence(&self, _: &Place) -> Option<EvidenceSummary> {
        None
    }
}
