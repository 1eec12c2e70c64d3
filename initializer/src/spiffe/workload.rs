use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use contrast_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse, spiffe_workload_api_server::SpiffeWorkloadApi,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::{Request, Response, Status};

use super::{Svid, Updates, stream_permit, svid::SpiffeId};

/// The specification demands it, so that a browser or a proxy that was led astray to the socket gets nothing.
const HEADER: &str = "workload.spiffe.io";

#[derive(Debug)]
pub(super) struct Service {
    pub(super) updates: Updates,
    pub(super) streams: Arc<Semaphore>,
}

/// What is now, then each later version.
pub(super) struct Versions<T> {
    updates: WatchStream<Option<Arc<Svid>>>,
    answer: fn(&Svid, &SpiffeId) -> T,
    _permit: OwnedSemaphorePermit,
}

impl<T> Stream for Versions<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = self.answer;
        let update = Pin::new(&mut self.updates).poll_next(context);
        update.map(|update| update.map(|svid| answered(svid.as_deref(), answer)))
    }
}

impl Service {
    fn versions<T, R>(
        &self,
        request: &Request<R>,
        answer: fn(&Svid, &SpiffeId) -> T,
    ) -> Result<Response<Versions<T>>, Status> {
        check_header(request)?;
        // Here and not as the first message of the stream, so that a client gets the error without one.
        answered(self.updates.borrow().as_deref(), |_, _| ())?;
        Ok(Response::new(Versions {
            _permit: stream_permit(&self.streams)?,
            updates: WatchStream::new(self.updates.clone()),
            answer,
        }))
    }
}

fn answered<T>(
    svid: Option<&Svid>,
    answer: impl FnOnce(&Svid, &SpiffeId) -> T,
) -> Result<T, Status> {
    let svid = svid.ok_or_else(|| {
        Status::permission_denied("no identity issued: the pod is not enrolled yet; ask again")
    })?;
    let id = svid.id.as_ref().ok_or_else(|| {
        Status::permission_denied(
            "no identity issued: the manifest gives this pod no SPIFFEPath; run `contrast generate` and set the manifest",
        )
    })?;
    Ok(answer(svid, id))
}

fn check_header<R>(request: &Request<R>) -> Result<(), Status> {
    match request.metadata().get(HEADER).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "expected the header `{HEADER}: true`"
        ))),
    }
}

fn no_jwt<T, R>(request: &Request<R>) -> Result<T, Status> {
    check_header(request)?;
    Err(Status::unimplemented(
        "Contrast issues no JWT-SVIDs; use FetchX509SVID",
    ))
}

fn identity(svid: &Svid, id: &SpiffeId) -> X509svidResponse {
    X509svidResponse {
        svids: vec![X509svid {
            spiffe_id: id.uri.clone(),
            x509_svid: svid.chain_der.clone(),
            x509_svid_key: svid.private_key_der(),
            bundle: svid.bundle_der.clone(),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated_bundles: HashMap::new(),
    }
}

fn bundles(svid: &Svid, id: &SpiffeId) -> X509BundlesResponse {
    X509BundlesResponse {
        crl: Vec::new(),
        bundles: HashMap::from([(id.trust_domain.clone(), svid.bundle_der.clone())]),
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Service {
    type FetchX509SVIDStream = Versions<X509svidResponse>;
    type FetchX509BundlesStream = Versions<X509BundlesResponse>;
    type FetchJWTBundlesStream = Versions<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.versions(&request, identity)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.versions(&request, bundles)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        no_jwt(&request)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        no_jwt(&request)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        no_jwt(&request)
    }
}
