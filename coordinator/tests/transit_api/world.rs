//! A deployment with a transit engine, requests for every operation, and a client that compares with the OpenAPI document.

#![allow(unreachable_pub, reason = "a module of a program of its own")]

use std::sync::Arc;

use bytes::Bytes;
use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, ManifestDocument};
use contrast_testbed::OpenApi;
use serde_json::{Value, json};

use crate::support::{
    Coordinator, Deployment, WEB_INITDATA,
    transit::{Answer, Connection, Credentials},
    user_client,
};

/// The workload secret id of the deployment's workload, and as a part of a path.
pub const ID: &str = "apps/v1/Deployment/default/web";
pub const NAME: &str = "apps%2Fv1%2FDeployment%2Fdefault%2Fweb";

/// A workload that has no secret.
pub const PLAIN_INITDATA: &[u8] = b"version = \"0.1.0\"\n# plain\n";

pub const METHODS: [&str; 2] = ["POST", "PUT"];

pub fn parsed(document: &ManifestDocument) -> Manifest {
    Manifest::parse(document.to_json().as_bytes()).expect("valid")
}

pub fn system_clock() -> Arc<dyn WallClock> {
    Arc::new(SystemWallClock)
}

/// Sets `manifest` after `base`; returns the transition. `more` are further policies.
pub async fn set(
    (deployment, coordinator): (&Deployment, &Coordinator),
    manifest: &Manifest,
    base: &[u8],
    more: &[&'static [u8]],
) -> Vec<u8> {
    let mut user = user_client(coordinator.addresses.user_api, manifest).await;
    let mut request = deployment.request(manifest, base);
    let more = more.iter().map(|policy| Bytes::from_static(policy));
    request.policies.extend(more);
    let set = user.set_manifest(request).await.expect("sets");
    set.into_inner().transition.to_vec()
}

/// A certificate for the deployment's workload.
pub async fn fetch(
    (deployment, coordinator): (&Deployment, &Coordinator),
    manifest: &Manifest,
) -> Credentials {
    let guest = deployment.guest(WEB_INITDATA);
    Credentials::fetch(coordinator.addresses.mesh_api, manifest, guest).await
}

pub fn document() -> OpenApi {
    let text = include_str!("../../../docs/reference/transit.openapi.json");
    OpenApi::parse(text).expect("an OpenAPI document")
}

/// Asks, and compares request and answer with the document.
pub async fn ask(
    api: &mut OpenApi,
    connection: &mut Connection,
    (method, target, body): (&str, &str, &str),
) -> Answer {
    let request = (method, target, Bytes::copy_from_slice(body.as_bytes()));
    let answer = connection.ask(request).await.expect("answers");
    compare(api, (method, target, body), &answer);
    answer
}

/// Compares request and answer with the document: what is answered with success must be a request that it describes.
pub fn compare(api: &mut OpenApi, (method, target, body): (&str, &str, &str), answer: &Answer) {
    let described = api.check_request((method, target), body.as_bytes());
    let status = answer.status;
    let shown = format!("{method} {target} {body}: {status}");
    let schema = match status {
        404 => "NoPath",
        405 => "WrongMethod",
        _ => {
            // A batch of which a part is refused may be as the document says or not.
            if status < 400 && status != 207 {
                described.expect(&shown);
            }
            let header = |name: &str| answer.header(name);
            let checked = api.check((method, target, status), header, &answer.body);
            return checked.expect(&shown);
        }
    };
    described.expect_err(&shown);
    let checked = api.check_schema(schema, &answer.json());
    checked.expect(&shown);
}

/// What is made with the key of the workload, for requests about it.
pub struct Made {
    pub ciphertext: Value,
    pub hmac: Value,
    pub signature: Value,
}

impl Made {
    pub async fn with(api: &mut OpenApi, connection: &mut Connection) -> Self {
        let mut data = Vec::new();
        for (operation, field) in [
            ("encrypt", "ciphertext"),
            ("hmac", "hmac"),
            ("sign", "signature"),
        ] {
            let target = format!("/v1/transit/{operation}/{NAME}");
            let body = r#"{"plaintext": "dW5zZWFsIG1l", "input": "bWVzc2FnZQ=="}"#;
            let answer = ask(api, connection, ("POST", &target, body)).await;
            assert_eq!(answer.status, 200);
            data.push(answer.json()["data"][field].clone());
        }
        let mut data = data.into_iter();
        let mut next = || data.next().expect("three");
        Self {
            ciphertext: next(),
            hmac: next(),
            signature: next(),
        }
    }

    /// Operations with a key that take a batch: path, and an item.
    pub fn batches(&self, name: &str) -> Vec<(String, Value)> {
        let plaintext = json!({ "plaintext": "AAEC" });
        let ciphertext = json!({ "ciphertext": self.ciphertext });
        let input = json!({ "input": "bWVzc2FnZQ==" });
        let hmac = json!({ "input": "bWVzc2FnZQ==", "hmac": self.hmac });
        let signature = json!({ "input": "bWVzc2FnZQ==", "signature": self.signature });
        let operations = [
            ("encrypt", "", plaintext),
            ("decrypt", "", ciphertext.clone()),
            ("rewrap", "", ciphertext),
            ("hmac", "", input.clone()),
            ("hmac", "/sha2-512", input.clone()),
            ("sign", "", input.clone()),
            ("sign", "/sha2-384", input),
            ("verify", "", signature),
            ("verify", "/sha2-256", hmac),
        ];
        let to_request = |(operation, algorithm, item)| {
            let path = format!("/v1/transit/{operation}/{name}{algorithm}");
            (path, item)
        };
        operations.map(to_request).to_vec()
    }

    /// One request for each other path that takes a body.
    pub fn others(&self, name: &str) -> Vec<(String, Value)> {
        vec![
            (format!("/v1/transit/datakey/plaintext/{name}"), json!({})),
            (
                format!("/v1/transit/datakey/wrapped/{name}"),
                json!({ "bits": "512" }),
            ),
            ("/v1/transit/random".to_owned(), json!({ "bytes": 5 })),
            (
                "/v1/transit/random/24".to_owned(),
                json!({ "format": "hex" }),
            ),
            ("/v1/transit/random/platform/7".to_owned(), json!({})),
            ("/v1/transit/hash".to_owned(), json!({ "input": "YWJj" })),
            (
                "/v1/transit/hash/sha3-512".to_owned(),
                json!({ "input": "", "format": "base64" }),
            ),
        ]
    }
}
