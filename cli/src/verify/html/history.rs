//! The chain of manifests on the page.

use super::{field, markup::Markup};
use crate::verify::{
    report::Report,
    steps::{Change, Changes, Step},
};

/// More differences than this between two manifests are counted.
const CHANGES_MAX: usize = 100;
/// Values longer than this are cut.
const VALUE_CHARS_MAX: usize = 400;

/// The history, the newest step first.
pub(super) fn steps(page: &mut Markup, report: &Report) {
    if report.history.is_empty() {
        return;
    }
    page.raw("<h2>History</h2>\n<p>")
        .text(&report.history_in_short())
        .raw(". The newest comes first. A transition is a hash over the manifest, the mesh CA's key, the seed shares, the key that signs, and the transition before.</p>\n");
    for step in report.history.iter().rev() {
        one(page, step);
    }
}

fn one(page: &mut Markup, step: &Step) {
    page.raw("<div class=\"step\"><h3>")
        .text(&format!("{}. {}", step.generation, step.event.words()))
        .raw("</h3>\n<p class=\"soft\">")
        .text(step.event.meaning())
        .raw("</p>\n<dl>");
    match step.transition {
        Some(hash) => field(page, "Transition", &hash.to_string()),
        None => field(
            page,
            "Transition",
            "cannot be computed; see the failed checks",
        ),
    }
    field(page, "SHA-256 of the manifest", &step.manifest_sha256);
    match step.manifest {
        Some(number) => field(page, "File", &format!("verify/manifest.{number}.json")),
        None => field(
            page,
            "File",
            "none: the Coordinator did not send this manifest",
        ),
    }
    field(
        page,
        "SHA-256 of the mesh CA's key",
        &step.mesh_ca_key_sha256,
    );
    field(
        page,
        "SHA-256 of the key that signed",
        &step.signing_key_sha256,
    );
    page.raw("</dl>\n");
    if step.seed_shared_anew {
        page.raw("<p>The seed was encrypted to its owners anew.</p>\n");
    }
    changes(page, &step.changes);
    page.raw("</div>\n");
}

/// What is different, owners first.
pub(super) fn changes(page: &mut Markup, changes: &Changes) {
    if !changes.owners.is_empty() {
        page.raw("<p><b>Owners changed:</b></p>\n<ul>");
        for owner in &changes.owners {
            page.raw("<li>").text(owner).raw("</li>");
        }
        page.raw("</ul>\n");
    }
    if !changes.note.is_empty() {
        page.raw("<p>").text(&changes.note).raw("</p>\n");
    }
    if changes.values.is_empty() {
        return;
    }
    page.raw("<table><thead><tr><th>Changed value</th><th>Before</th><th>After</th></tr></thead><tbody>\n");
    for Change {
        path,
        before,
        after,
    } in changes.values.iter().take(CHANGES_MAX)
    {
        page.raw("<tr><td>").code(&cut(path)).raw("</td><td>");
        value(page, before.as_deref());
        page.raw("</td><td>");
        value(page, after.as_deref());
        page.raw("</td></tr>\n");
    }
    page.raw("</tbody></table>\n");
    let more = changes.values.len().saturating_sub(CHANGES_MAX);
    if more > 0 {
        page.raw("<p>")
            .text(&format!(
                "{more} more are in the report with --format json."
            ))
            .raw("</p>\n");
    }
}

fn value(page: &mut Markup, value: Option<&str>) {
    match value {
        Some(text) => page.code(&cut(text)),
        None => page.raw("<span class=\"soft\">absent</span>"),
    };
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!(
            "{}… ({} characters)",
            text.get(..end).unwrap_or_default(),
            text.chars().count()
        ),
        None => text.to_owned(),
    }
}
