//! A port that is taken is an error at the start that names the service, the address and the variable.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test or bench that meets the unexpected has to stop there"
)]

mod support;

use std::net::TcpListener;

use support::{Deployment, Process};

#[test]
fn taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("address").to_string();
    for (variable, what) in [
        ("CONTRAST_USER_API_ADDRESS", "user API"),
        ("CONTRAST_MESH_API_ADDRESS", "mesh API"),
        ("CONTRAST_ATTEST_API_ADDRESS", "attest API"),
        ("CONTRAST_TRANSIT_API_ADDRESS", "transit API"),
        ("CONTRAST_OPS_ADDRESS", "probes and metrics"),
    ] {
        let deployment = Deployment::new();
        let mut command = deployment.command();
        command.env(variable, &address);
        let mut process = Process::spawn(command);
        let status = process.0.wait().expect("waits");
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let message =
            format!("cannot bind the {what} to {address}; free the port or set {variable}");
        assert!(log.contains(&message), "{log}");
        assert!(!deployment.address_file().exists());
        assert!(
            !deployment.data.path().join("history.redb").exists(),
            "nothing runs before all ports are bound"
        );
    }
}

#[test]
fn unusable_option_is_a_usage_error() {
    let deployment = Deployment::new();
    let mut command = deployment.command();
    command.env("CONTRAST_MESH_API_ADDRESS", "localhost");
    let mut process = Process::spawn(command);
    assert_eq!(process.0.wait().expect("waits").code(), Some(2));
    assert!(process.log().contains("--mesh-api-address"));
}
