//! `docs/reference/environment.md` has the variables of the port forwarder.

use clap::CommandFactory as _;
use contrast_port_forwarder::Config;
use contrast_testbed::reference::{environment, hold};

/// With `UPDATE_REFERENCE=1` the test writes them there.
#[test]
fn reference_has_every_variable() {
    hold(
        "environment.md",
        "port-forwarder",
        &environment(&Config::command()),
    );
}
