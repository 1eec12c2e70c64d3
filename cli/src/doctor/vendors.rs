//! The services of CPU vendors: whether collateral can be had.

use std::time::Duration;

use contrast_attestation::appraisal::SnpProduct;
use contrast_clock::WallClock;
use contrast_collateral::{
    Answer, Endpoints, HttpTransport, Item, Options, SnpSigner, Transport, TransportError,
};

use super::{Check, clock};

/// Looks at the services that `options` name. Blocks.
pub(crate) fn look_at(options: &Options, timeout: Duration, ours: &dyn WallClock) -> Vec<Check> {
    const NAME: &str = "collateral";
    if let Err(error) = options.open() {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        return vec![Check::failed(
            NAME,
            format!("{error}{}", cause.unwrap_or_default()),
            "check `--collateral`, `--collateral-proxy` and `--collateral-cache`, and the variables CONTRAST_COLLATERAL…",
        )];
    }
    let endpoints = match (&options.collateral_proxy, &options.collateral) {
        (Some(base), _) => Endpoints::at(base).ok(),
        (None, Some(_)) => None,
        (None, None) => Some(Endpoints::vendors()),
    };
    let Some(endpoints) = endpoints else {
        return vec![Check::good(NAME, "from a directory; nobody is asked")];
    };
    let transport = HttpTransport::default();
    let amd = Item::SnpCrl {
        product: SnpProduct::Milan,
        signer: SnpSigner::Vcek,
    };
    let mut checks = Vec::new();
    for (whose, item) in [("AMD", amd), ("Intel", Item::QeIdentity)] {
        let name = format!("{NAME} of {whose}");
        let url = endpoints.url(&item);
        let answer = transport.get(&url, timeout);
        let now = ours.now();
        let date = answer.as_ref().ok().and_then(|answer| answer.date.clone());
        checks.push(judge(&name, &url, &answer));
        if let Some(date) = date {
            checks.push(clock(&format!("the service of {whose}"), &date, now));
        }
    }
    checks
}

fn judge(name: &str, url: &str, answer: &Result<Answer, TransportError>) -> Check {
    let error = match answer {
        Ok(Answer { status: 200, .. }) => return Check::good(name, url),
        Ok(Answer { status, .. }) => {
            return Check::failed(
                name,
                format!("{url} answered with HTTP status {status}"),
                "whatever answers there is not the vendor's service: check the proxy and `--collateral-proxy`",
            );
        }
        Err(TransportError(error)) => error,
    };
    let found = format!("{url}: {error}");
    let hint = match error.to_lowercase() {
        said if said.contains("certificate") => {
            "a proxy intercepts TLS: add its CA to the system's store, or name a service of your own with `--collateral-proxy`"
        }
        said if said.contains("proxy") => "check HTTPS_PROXY; exceptions go into NO_PROXY",
        said if said.contains("time") => {
            "a firewall drops packets: open the way, or use `contrast collateral fetch` elsewhere and `--collateral DIR` here"
        }
        _ => {
            "use `contrast collateral fetch` on a machine with a connection, and `--collateral DIR` here, or name a service of your own with `--collateral-proxy`"
        }
    };
    Check::failed(name, found, hint)
}
