//! This machine: the workspace and the proxies.

use std::env;

use contrast_manifest::Manifest;

use super::Check;
use crate::workspace::{self, MANIFEST, Workspace};

const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

/// Looks at the files of the workspace.
pub(crate) fn look_at(workspace: &Workspace) -> Vec<Check> {
    vec![manifest(workspace)]
}

fn manifest(workspace: &Workspace) -> Check {
    const NAME: &str = "manifest";
    let path = workspace.choose(None, MANIFEST);
    let shown = path.display().to_string();
    if !path.exists() {
        let hint = "`contrast generate` makes it; `--workspace-dir` names another directory";
        return Check::warning(NAME, format!("there is no {shown}"), hint);
    }
    let read = workspace::read("manifest", &path, "").map(|bytes| Manifest::parse(&bytes));
    match read {
        Ok(Ok(manifest)) if manifest.accepts_insecure_evidence() => Check::warning(
            NAME,
            format!("{shown} accepts a software TEE, which protects nothing"),
            "for production, run `contrast generate` with `--reference-values` of your platform into a new manifest",
        ),
        Ok(Ok(_)) => Check::good(NAME, shown),
        Ok(Err(error)) => Check::failed(
            NAME,
            format!("{shown} is not valid: {error}"),
            "edit the file, or remove it and run `contrast generate`",
        ),
        Err(error) => Check::failed(NAME, error.to_string(), "check the file's permissions"),
    }
}

/// Which proxies requests go through. Both spellings count, as everywhere.
pub(crate) fn proxies() -> Check {
    const NAME: &str = "proxy";
    let set = |name: &'static str| {
        let value = env::var(name).or_else(|_| env::var(name.to_lowercase()));
        let value = value.ok().filter(|value| !value.is_empty())?;
        Some((name, value))
    };
    let set: Vec<(&str, String)> = PROXIES.into_iter().filter_map(set).collect();
    if set.is_empty() {
        return Check::good(NAME, "none");
    }
    let shown: Vec<String> = set
        .iter()
        .map(|(name, value)| format!("{name}={}", without_password(value)))
        .collect();
    let wrong = set.iter().find(|(_, value)| {
        let address = value
            .split_once("://")
            .map_or(value.as_str(), |(_, rest)| rest);
        let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
        host.is_empty() || host.contains(char::is_whitespace)
    });
    match wrong {
        Some((name, _)) => Check::failed(
            NAME,
            shown.join(", "),
            &format!("{name} names no host; write http://HOST:PORT"),
        ),
        None => Check::good(NAME, shown.join(", ")),
    }
}

/// Whoever reads a report may see where a proxy is, and not how to log in to it.
fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        None => url.to_owned(),
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://…@{host}"),
            None => format!("…@{host}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_proxies_are_not_shown() {
        for (url, shown) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://me:pass@proxy:3128", "http://…@proxy:3128"),
            ("http://me:p@ss@proxy:3128", "http://…@proxy:3128"),
            ("me:pass@proxy", "…@proxy"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
