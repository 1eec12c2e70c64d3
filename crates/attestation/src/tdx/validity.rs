use std::{str::FromStr, time::SystemTime};

use der::{DateTime, Decode as _};
use serde::Deserialize;
use x509_cert::crl::CertificateList;

use crate::{CheckList, TdxCollateral};

use super::root::moment;

/// Records for each piece of collateral whether it is valid at `now`. The signatures are checked elsewhere; this exists so
/// that a refusal names every stale piece with its dates, instead of the first one. Returns the platform that the TCB
/// info is for.
pub(super) fn check(
    collateral: &TdxCollateral,
    now: SystemTime,
    checks: &mut CheckList,
) -> Platform {
    let read = |json: &str| serde_json::from_str::<Dated>(json).map_err(|error| error.to_string());
    let (tcb_info, qe_identity) = (read(&collateral.tcb_info), read(&collateral.qe_identity));
    let window = |document: &Result<Dated, String>| match document {
        Ok(Dated {
            issue_date,
            next_update,
            ..
        }) => Window::from_json(issue_date, next_update),
        Err(error) => Err(error.clone()),
    };
    for (field, window) in [
        ("TCB info validity", window(&tcb_info)),
        ("QE identity validity", window(&qe_identity)),
        (
            "root CRL validity",
            Window::from_crl(&collateral.root_ca_crl),
        ),
        ("PCK CRL validity", Window::from_crl(&collateral.pck_crl)),
    ] {
        let expected = format!("valid at {}", moment(now));
        match window {
            Ok(Window { from, to }) => {
                let passed = from.to_system_time() <= now && now <= to.to_system_time();
                checks.record(field, expected, format!("{from} to {to}"), passed);
            }
            Err(error) => checks.fail(field, expected, format!("unreadable: {error}")),
        }
    }
    tcb_info.map_or_else(
        |_| Platform::default(),
        |info| Platform {
            pce_id: info.pce_id,
            fmspc: info.fmspc,
        },
    )
}

/// The platform that a TCB info is for, in its own hex; nothing where it does not say.
#[derive(Debug, Default)]
pub(super) struct Platform {
    pub(super) pce_id: Option<String>,
    pub(super) fmspc: Option<String>,
}

/// What is read of TCB info and QE identity here; `dcap-qvl` reads the rest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    issue_date: String,
    next_update: String,
    /// Only a TCB info has one.
    pce_id: Option<String>,
    /// The same.
    fmspc: Option<String>,
}

struct Window {
    from: DateTime,
    to: DateTime,
}

impl Window {
    fn from_json(issue_date: &str, next_update: &str) -> Result<Self, String> {
        let parse = |text: &str| {
            DateTime::from_str(text).map_err(|_| format!("`{text}` is no RFC 3339 time in UTC"))
        };
        Ok(Self {
            from: parse(issue_date)?,
            to: parse(next_update)?,
        })
    }

    fn from_crl(crl: &[u8]) -> Result<Self, String> {
        let crl = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(crl)
            .map_err(|error| error.to_string())?
            .tbs_cert_list;
        let next_update = crl.next_update.ok_or("a CRL without nextUpdate")?;
        Ok(Self {
            from: crl.this_update.to_date_time(),
            to: next_update.to_date_time(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_collateral_never_panics_and_never_passes(
            json in ".{0,256}",
            crl in proptest::collection::vec(any::<u8>(), 0..512),
        ) {
            let collateral = TdxCollateral {
                tcb_info: json.clone(),
                qe_identity: json,
                root_ca_crl: crl.clone(),
                pck_crl: crl,
                ..TdxCollateral::default()
            };
            let mut checks = CheckList::default();
            check(&collateral, SystemTime::UNIX_EPOCH, &mut checks);
            prop_assert!(checks.checks().iter().all(|check| !check.passed));
        }
    }
}
