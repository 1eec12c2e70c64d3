//! The report as one HTML page that needs nothing else: no script, no font, no picture, nothing from the network.
//!
//! Manifests and evidence are written by strangers, and the page is opened in a browser. Three layers keep their texts harmless: texts cannot
//! become markup (`markup`), characters that disguise a text are written out, and a content security policy forbids everything but the
//! one style sheet of the page, by its hash.

mod history;
mod markup;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use markup::Markup;

use super::{
    facts::{Allowed, Authorities, EvidenceFacts},
    meaning::Kind,
    report::{INSECURE_BANNER, Report, Verdict},
    rows::Row,
};
use contrast_sdk::certificate::CertificateFacts;

use crate::transition::sha256;

/// The page's one style sheet.
const STYLE: &str = include_str!("page.css");
/// Passed rows of a kind are folded when there are more.
const FOLDED_ROWS: usize = 6;

/// The page for a report, a UTF-8 document.
pub fn page(report: &Report) -> String {
    let mut page = Markup::default();
    head(&mut page, report.verdict);
    verdict(&mut page, report);
    failures(&mut page, report);
    if let Some(difference) = &report.difference {
        page.raw("<h2>How the manifest in force differs from yours</h2>\n");
        page.raw(
            "<p>Before is your manifest, after is the one that the Coordinator enforces.</p>\n",
        );
        history::changes(&mut page, difference);
    }
    deployment(&mut page, report);
    evidence(&mut page, report.evidence.as_ref());
    allowed(&mut page, &report.allowed);
    history::steps(&mut page, report);
    checks(&mut page, report);
    files(&mut page, report);
    page.raw("</body>\n</html>\n");
    page.into_page()
}

fn head(page: &mut Markup, verdict: Verdict) {
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
        .raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-")
        .text(&BASE64_STANDARD.encode(sha256(STYLE.as_bytes())))
        .raw("'; base-uri 'none'; form-action 'none'\">\n")
        .raw("<meta name=\"referrer\" content=\"no-referrer\">\n")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
        .raw(match verdict {
            Verdict::Verified => "<title>Verified: report of contrast verify</title>\n",
            Verdict::Refused => "<title>Refused: report of contrast verify</title>\n",
        })
        .raw("<style>")
        .raw(STYLE)
        .raw("</style>\n</head>\n<body>\n<h1>Report of <code>contrast verify</code></h1>\n");
}

fn verdict(page: &mut Markup, report: &Report) {
    if report.insecure {
        page.raw("<div class=\"insecure\">");
        for line in INSECURE_BANNER.lines() {
            page.raw("<p>").text(line).raw("</p>");
        }
        page.raw("</div>\n");
    }
    let (total, failed) = (report.checks.all().len(), report.checks.failed().count());
    match report.verdict {
        Verdict::Verified => {
            page.raw("<div class=\"verdict verified\"><p><strong>Verified");
            if report.insecure {
                page.raw(" (INSECURE)");
            }
            page.raw("</strong></p><p>")
                .code(&report.coordinator)
                .raw(" enforces exactly this manifest; all ")
                .text(&total.to_string())
                .raw(" checks passed.");
        }
        Verdict::Refused => {
            page.raw("<div class=\"verdict refused\"><p><strong>Refused</strong></p><p>Do not trust what answers at ")
                .code(&report.coordinator)
                .raw(" under this manifest: ")
                .text(&failed.to_string())
                .raw(" of ")
                .text(&total.to_string())
                .raw(" checks failed.");
        }
    }
    page.raw("</p><p class=\"soft\">Checked at ")
        .text(&report.verified_at)
        .raw(". This page is a record of that moment; it proves nothing to somebody else. Repeat the check with <code>contrast verify</code>.</p></div>\n");
}

fn failures(page: &mut Markup, report: &Report) {
    if report.checks.failed().next().is_none() {
        return;
    }
    page.raw("<h2>What failed</h2>\n");
    for row in report.checks.failed() {
        page.raw("<div class=\"failure\"><h3>")
            .text(&row.name)
            .raw("</h3>\n<dl>");
        field(page, "Expected", &row.expected);
        field(page, "Found", &row.found);
        page.raw("</dl>\n<p>").text(row.meaning).raw("</p>\n");
        if !row.hint.is_empty() {
            page.raw("<p>Most likely, and what to do: ")
                .text(row.hint)
                .raw(".</p>\n");
        }
        page.raw("</div>\n");
    }
}

fn deployment(page: &mut Markup, report: &Report) {
    page.raw("<h2>Deployment</h2>\n<dl>");
    field(page, "Coordinator", &report.coordinator);
    field(page, "SHA-256 of your manifest", &report.manifest_sha256);
    if let Some(transition) = report.latest_transition {
        field(page, "Latest transition", &transition.to_string());
    }
    page.raw("</dl>\n");
    let Some(Authorities { root, mesh }) = &report.authorities else {
        return;
    };
    certificate(page, "Root CA", root.as_ref());
    certificate(page, "Mesh CA", mesh.as_ref());
}

fn certificate(page: &mut Markup, name: &'static str, certificate: Option<&CertificateFacts>) {
    page.raw("<h3>").raw(name).raw("</h3>\n");
    let Some(facts) = certificate else {
        page.raw("<p>The Coordinator did not give a certificate that can be read.</p>\n");
        return;
    };
    page.raw("<dl>");
    field(page, "Subject", &facts.subject);
    field(page, "SHA-256 of the certificate", &facts.sha256);
    field(page, "SHA-256 of its public key", &facts.key_sha256);
    field(page, "Valid from", &facts.not_before);
    field(page, "Valid until", &facts.not_after);
    page.raw("</dl>\n");
}

fn evidence(page: &mut Markup, evidence: Option<&EvidenceFacts>) {
    page.raw("<h2>Evidence of the Coordinator</h2>\n");
    let Some(facts) = evidence else {
        page.raw("<p>The evidence was not accepted, so nothing that it says is shown here as a fact. See the failed checks.</p>\n");
        return;
    };
    page.raw("<dl>");
    field(page, "Kind of TEE", &facts.tee);
    field(page, "Reference value that it met", &facts.reference);
    field(page, "Launch measurement", &facts.launch_measurement);
    for version in &facts.tcb {
        page.raw("<dt>Version: ")
            .text(version.part)
            .raw("</dt><dd>")
            .code(&version.version)
            .raw("</dd>\n");
    }
    match facts.hardware_id.as_str() {
        "" => page.raw("<dt>Machine</dt><dd>hides its identity</dd>\n"),
        id => page
            .raw("<dt>Machine (chip id)</dt><dd>")
            .code(id)
            .raw("</dd>\n"),
    };
    field(page, "SHA-256 of its initdata", &facts.policy_sha256);
    page.raw("</dl>\n");
    if facts.insecure {
        page.raw("<p class=\"bad\">This is evidence of a software TEE: no hardware protects the Coordinator.</p>\n");
    }
}

fn allowed(page: &mut Markup, allowed: &Allowed) {
    page.raw("<h2>What your manifest allows</h2>\n<table><thead><tr><th>Names in certificates</th><th class=\"narrow\">Role</th><th>Workload secret</th><th>Policy: SHA-256 of the initdata</th></tr></thead><tbody>\n");
    for workload in &allowed.workloads {
        page.raw("<tr><td>");
        for name in &workload.names {
            page.code(name).raw(" ");
        }
        page.raw("</td><td>")
            .text(&workload.role)
            .raw("</td><td>")
            .code(&workload.workload_secret_id);
        page.raw("</td><td>")
            .code(&workload.policy_sha256)
            .raw("</td></tr>\n");
    }
    page.raw("</tbody></table>\n<p>What a policy permits is in its initdata document; <code>contrast policy</code> shows it.</p>\n");
    owners(
        page,
        "Who can change the manifest",
        allowed.workload_owner_threshold,
        &allowed.workload_owners,
    );
    owners(
        page,
        "Who can recover the seed",
        allowed.seedshare_threshold,
        &allowed.seedshare_owners,
    );
}

fn owners(page: &mut Markup, title: &'static str, threshold: u32, keys: &[String]) {
    page.raw("<h3>").raw(title).raw("</h3>\n");
    if keys.is_empty() {
        page.raw("<p>Nobody, for ever.</p>\n");
        return;
    }
    page.raw("<p>")
        .text(&format!(
            "{threshold} of {} are needed. The SHA-256 of their keys:",
            keys.len()
        ))
        .raw("</p>\n<ul>");
    for key in keys {
        page.raw("<li>").code(key).raw("</li>");
    }
    page.raw("</ul>\n");
}

fn checks(page: &mut Markup, report: &Report) {
    page.raw("<h2>Every check</h2>\n");
    for kind in Kind::ALL {
        let rows: Vec<&Row> = report
            .checks
            .all()
            .iter()
            .filter(|row| row.kind == kind)
            .collect();
        if rows.is_empty() {
            continue;
        }
        let failed = rows.iter().filter(|row| !row.passed).count();
        let summary = match failed {
            0 => format!("{} passed", rows.len()),
            some => format!("{some} of {} failed", rows.len()),
        };
        page.raw(match (failed, rows.len() > FOLDED_ROWS) {
            (0, true) => "<details><summary>",
            _ => "<details open><summary>",
        });
        page.raw(if failed == 0 {
            "<span class=\"ok\">"
        } else {
            "<span class=\"bad\">"
        });
        page.text(&summary)
            .raw("</span>. ")
            .text(kind.meaning())
            .raw("</summary>\n");
        page.raw("<table><thead><tr><th class=\"narrow\">Result</th><th>Check</th><th>Expected</th><th>Found</th></tr></thead><tbody>\n");
        for row in rows {
            page.raw(match row.passed {
                true => "<tr><td class=\"ok\">passed</td><td>",
                false => "<tr><td class=\"bad\">FAILED</td><td>",
            });
            page.text(&row.name).raw("</td><td>").code(&row.expected);
            page.raw("</td><td>").code(&row.found).raw("</td></tr>\n");
        }
        page.raw("</tbody></table></details>\n");
    }
}

fn files(page: &mut Markup, report: &Report) {
    if report.files.is_empty() {
        return;
    }
    page.raw("<h2>Files that were written</h2>\n<ul>");
    for file in &report.files {
        page.raw("<li>")
            .code(&file.display().to_string())
            .raw("</li>\n");
    }
    page.raw("</ul>\n");
}

/// A row of a description list.
fn field(page: &mut Markup, name: &'static str, value: &str) {
    page.raw("<dt>")
        .raw(name)
        .raw("</dt><dd>")
        .code(value)
        .raw("</dd>\n");
}

#[cfg(test)]
mod tests;
