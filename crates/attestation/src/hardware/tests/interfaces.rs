use std::{fs, path::Path};

use tempfile::TempDir;

use super::REPORT_DATA;
use crate::hardware::{ConfigfsReports, Interfaces, Unusable};

/// Opens like a device and refuses every request.
const DEVICE: &str = "/dev/null";

/// Interfaces of which none is there.
fn none_in(directory: &TempDir) -> Interfaces {
    let at = |name: &str| directory.path().join(name);
    Interfaces {
        configfs: ConfigfsReports::at(at("report")),
        sev_guest: at("sev-guest"),
        tdx_guest: at("tdx_guest"),
        tdx_configuration: at("tdx-attest.conf"),
    }
}

/// The TEE that refuses to issue, which tells the issuers apart.
fn chosen(interfaces: &Interfaces) -> &'static str {
    let issuer = interfaces.issuer().expect("an interface");
    issuer.issue(&REPORT_DATA).expect_err("no real device").tee
}

#[test]
fn the_devices_are_tried_in_order_after_configfs() {
    let directory = tempfile::tempdir().expect("directory");
    let none = none_in(&directory);
    let tdx = Interfaces {
        tdx_guest: DEVICE.into(),
        ..none
    };
    assert!(chosen(&tdx).contains("/dev/tdx_guest"));
    let both = Interfaces {
        sev_guest: DEVICE.into(),
        ..tdx
    };
    assert!(chosen(&both).contains("/dev/sev-guest"));
}

#[test]
fn without_any_interface_each_is_listed_with_its_reason() {
    let directory = tempfile::tempdir().expect("directory");
    let interfaces = none_in(&directory);
    fs::write(&interfaces.tdx_guest, "").expect("written");
    let tried = interfaces.issuer().expect_err("none");
    let paths: Vec<_> = tried.iter().map(|it| Path::new(&it.interface)).collect();
    assert_eq!(
        paths,
        [
            interfaces.configfs.path(),
            &interfaces.sev_guest,
            &interfaces.tdx_guest
        ]
    );
    let reason = |index: usize| tried.get(index).map(|it: &Unusable| it.reason.as_str());
    for (index, parts) in [
        (0, ["Linux 6.7", "No such file"]),
        (1, ["Linux 5.19", "No such file"]),
        (2, ["Linux 6.2", "expected a character device"]),
    ] {
        let reason = reason(index).expect("reason");
        assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    }
}

#[test]
fn the_port_is_read_from_intels_configuration_and_must_be_one() {
    let directory = tempfile::tempdir().expect("directory");
    let interfaces = Interfaces {
        tdx_guest: DEVICE.into(),
        ..none_in(&directory)
    };
    let port = || {
        let issuer = interfaces.issuer().map_err(|tried| tried[2].to_string())?;
        let text = format!("{issuer:?}");
        let (_, port) = text.split_once("port: ").expect("port");
        Ok(port.split(' ').next().expect("number").to_owned())
    };
    assert_eq!(port(), Ok("4050".to_owned()), "without a file");
    for (text, expected) in [
        ("", "4050"),
        ("# port = 1\nloglevel = 3\n", "4050"),
        ("port=4051\n", "4051"),
        ("#port=1\n  port =  4052 \nport=2\n", "4052"),
    ] {
        fs::write(&interfaces.tdx_configuration, text).expect("written");
        assert_eq!(port(), Ok(expected.to_owned()), "{text}");
    }
    for text in [
        "port=",
        "port=0",
        "port=-1",
        "port=4294967296",
        "port=vsock",
    ] {
        fs::write(&interfaces.tdx_configuration, text).expect("written");
        let error: Result<String, String> = port();
        let error = error.expect_err(text);
        assert!(error.contains("a number from 1 to 4294967295"), "{error}");
    }
}
