//! Intel's collateral from files, recognised by what is in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contrast_attestation::{
    TdxCollateral,
    tdx::{INTEL_TCB_SIGNING_CHAIN_2018, QuoteDetails},
};
use der::Decode as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use x509_cert::{Certificate, certificate::Rfc5280, crl::CertificateList};

use super::input::{InputError, from_pem};
use crate::workspace;

/// Reads every file (of a directory: every file in it, files of other kinds are left alone). Of several TCB infos, the one for
/// the quote's FMSPC counts. Issuer chains of TCB info and QE
/// identity may be missing: then Intel's signing chain of 2018 is tried.
pub(super) fn read(paths: &[PathBuf], quote: &QuoteDetails) -> Result<TdxCollateral, InputError> {
    let mut found = Found::default();
    for path in paths {
        if path.is_dir() {
            for file in files(path)? {
                let bytes = workspace::read("collateral", &file, "")?;
                found.take(&bytes, &file)?;
            }
        } else {
            let bytes = workspace::read("collateral", path, "")?;
            if !found.take(&bytes, path)? {
                return Err(InputError::Collateral {
                    path: path.clone(),
                    problem: "expected TCB info, QE identity, a CRL or a PEM chain as Intel serves them; found something else"
                        .into(),
                });
            }
        }
    }
    found.collateral(paths, quote)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, InputError> {
    let failed = |source| InputError::Directory {
        path: directory.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A PCS answer; its signature covers the exact bytes of the value, so it is never parsed and written again.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, rename = "tcbInfo")]
    tcb_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "enclaveIdentity")]
    enclave_identity: Option<&'a RawValue>,
    signature: String,
}

/// What tells whose TCB info this is.
#[derive(Deserialize)]
struct Platform {
    fmspc: String,
}

#[derive(Default)]
struct Found {
    tcb_info: Vec<(PathBuf, String, Vec<u8>)>,
    qe_identity: Vec<(PathBuf, String, Vec<u8>)>,
    root_crl: Option<Vec<u8>>,
    pck_crl: Option<Vec<u8>>,
    signing_chain: Option<String>,
    pck_chain: Option<String>,
}

impl Found {
    /// Whether the file was of a known kind.
    fn take(&mut self, bytes: &[u8], path: &Path) -> Result<bool, InputError> {
        if let Ok(answer) = serde_json::from_slice::<Answer<'_>>(bytes) {
            let signature =
                hex::decode(&answer.signature).map_err(|error| InputError::Collateral {
                    path: path.to_owned(),
                    problem: format!("expected a signature in hex, found one with {error}"),
                })?;
            let known = answer.tcb_info.is_some() || answer.enclave_identity.is_some();
            let part =
                |value: &RawValue| (path.to_owned(), value.get().to_owned(), signature.clone());
            self.tcb_info.extend(answer.tcb_info.map(part));
            self.qe_identity.extend(answer.enclave_identity.map(part));
            return Ok(known);
        }
        let blocks = from_pem(bytes);
        let list = blocks.first().map_or_else(|| bytes.to_vec(), Clone::clone);
        if let Ok(parsed) = CertificateList::<Rfc5280>::from_der(&list) {
            let issuer = parsed.tbs_cert_list.issuer.to_string();
            let slot = if issuer.contains("Root CA") {
                &mut self.root_crl
            } else {
                &mut self.pck_crl
            };
            *slot = Some(list);
            return Ok(true);
        }
        let Some(leaf) = blocks
            .first()
            .and_then(|der| Certificate::from_der(der).ok())
        else {
            return Ok(false);
        };
        let chain = String::from_utf8_lossy(bytes).into_owned();
        let subject = leaf.tbs_certificate().subject().to_string();
        let slot = if subject.contains("TCB Signing") {
            &mut self.signing_chain
        } else {
            &mut self.pck_chain
        };
        *slot = Some(chain);
        Ok(true)
    }

    fn collateral(
        self,
        paths: &[PathBuf],
        quote: &QuoteDetails,
    ) -> Result<TdxCollateral, InputError> {
        let fmspc = quote.pck.as_ref().map(|pck| hex::encode(pck.fmspc));
        let is_for_quote = |info: &str| {
            serde_json::from_str::<Platform>(info).is_ok_and(|info| {
                fmspc
                    .as_ref()
                    .is_some_and(|fmspc| info.fmspc.eq_ignore_ascii_case(fmspc))
            })
        };
        let mut tcb_infos = self.tcb_info;
        if tcb_infos.iter().any(|(_, info, _)| is_for_quote(info)) {
            tcb_infos.retain(|(_, info, _)| is_for_quote(info));
        }
        let missing = |what: &str| InputError::Collateral {
            path: paths.first().cloned().unwrap_or_default(),
            problem: format!("expected {what} in --collateral, found none"),
        };
        let (_, tcb_info, tcb_info_signature) =
            one(tcb_infos, "TCB info")?.ok_or_else(|| missing("TCB info"))?;
        let (_, qe_identity, qe_identity_signature) =
            one(self.qe_identity, "QE identity")?.ok_or_else(|| missing("a QE identity"))?;
        let chain = self
            .signing_chain
            .unwrap_or_else(|| INTEL_TCB_SIGNING_CHAIN_2018.to_owned());
        Ok(TdxCollateral {
            pck_crl_issuer_chain: self.pck_chain.unwrap_or_default(),
            root_ca_crl: self.root_crl.ok_or_else(|| missing("the root CA's CRL"))?,
            pck_crl: self.pck_crl.ok_or_else(|| missing("a PCK CRL"))?,
            tcb_info_issuer_chain: chain.clone(),
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain: chain,
            qe_identity,
            qe_identity_signature,
        })
    }
}

type Part = (PathBuf, String, Vec<u8>);

fn one(parts: Vec<Part>, what: &str) -> Result<Option<Part>, InputError> {
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some((first, ..)), Some((path, ..))) => Err(InputError::Collateral {
            problem: format!(
                "a second {what}, the first is `{}`; name the files instead of their directory",
                first.display()
            ),
            path,
        }),
        (part, _) => Ok(part),
    }
}
