//! `contrast port-forward`: a Coordinator in a cluster, at an address of this machine.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    address::CoordinatorAddress,
    args::{Format, PortForwardArgs},
    diagnostic::Failure,
    kube::{Forward, Kubectl, Port},
    output::{Output, Paint, Render},
};

#[derive(Serialize)]
struct Addresses {
    user_api: String,
    attest_api: String,
}

impl Render for Addresses {
    fn text(&self, out: &mut dyn Write, _: Paint) -> io::Result<()> {
        writeln!(out, "user API:   {}", self.user_api)?;
        writeln!(out, "attest API: {}", self.attest_api)
    }
}

/// Forwards until it is interrupted.
///
/// # Errors
/// When `kubectl` does not forward, or ends.
pub(super) async fn run(args: &PortForwardArgs, output: &Output) -> Result<(), Failure> {
    let kubectl = Kubectl::new(args.kube_context.clone());
    let ports = [
        Port::at(args.port, Port::USER_API),
        Port::at(args.attest_port, Port::ATTEST_API),
    ];
    let spinner = output.spinner("forwarding ports with kubectl");
    let mut forward = Forward::start(&kubectl, args.namespace.as_deref(), &ports).await?;
    drop(spinner);
    let at = |index: usize| {
        let address = forward.addresses().get(index);
        address
            .map(CoordinatorAddress::to_string)
            .unwrap_or_default()
    };
    let addresses = Addresses {
        user_api: at(0),
        attest_api: at(1),
    };
    output.result(Format::Text, &addresses)?;
    output.note("until you interrupt it; `contrast verify --kube` needs no second terminal");
    tokio::select! {
        ended = forward.ended() => Err(ended.into()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
