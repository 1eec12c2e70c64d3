//! Secrets in clear. Values are looked at, and never shown.

use std::collections::BTreeMap;

use super::{
    Notes,
    model::{Pod, Resource, entries, items, keys, text},
    rules,
};

/// Words that names of secrets have, separated by `_`.
const WORDS: [&str; 10] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "TOKEN",
    "SECRET",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "PASS",
    "PRIVATEKEY",
];
/// Last words of names whose values say where a secret is, and not what it is.
const PLACES: [&str; 10] = [
    "FILE", "PATH", "DIR", "NAME", "ID", "URL", "URI", "HOST", "PORT", "TTL",
];

pub(super) fn check<'a>(pod: &Pod<'a>, notes: &mut Notes<'a>) {
    for container in pod.containers() {
        for (path, variable) in container.list_items("env") {
            let (name, value) = (text(&variable["name"]), text(&variable["value"]));
            // A path, or what another variable says, is no secret.
            let literal = !value.is_empty() && !value.starts_with('/') && !value.starts_with("$(");
            if literal && is_secret(name) {
                let text = (
                    format!("the variable `{name}` has its value in the YAML"),
                    "derive it from the workload secret, or fetch it from a confidential store",
                );
                notes.container(&rules::SECRET_IN_ENVIRONMENT, &container, &path, text);
            }
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let words: Vec<&str> = name.split('_').collect();
    let place = words.last().is_some_and(|last| PLACES.contains(last));
    let pair = |first, second| words.windows(2).any(|pair| pair == [first, second]);
    !place
        && (words.iter().any(|word| WORDS.contains(word))
            || pair("API", "KEY")
            || pair("PRIVATE", "KEY"))
}

pub(super) fn check_objects<'a>(
    resources: &'a [Resource],
    pods: &[Pod<'a>],
    notes: &mut Notes<'a>,
) {
    let mut users: BTreeMap<(&str, String), String> = BTreeMap::new();
    for pod in pods {
        for name in used(pod) {
            let key = (pod.resource.namespace(), name);
            users.entry(key).or_insert_with(|| pod.resource.shown());
        }
    }
    for secret in resources
        .iter()
        .filter(|resource| resource.is("", "Secret"))
    {
        let object = secret.object();
        let field = ["stringData", "data"]
            .into_iter()
            .find(|field| entries(&object[*field]).next().is_some());
        let key = (secret.namespace(), secret.name().to_owned());
        if let (Some(field), Some(user)) = (field, users.get(&key)) {
            let text = (
                format!("its values stand in the YAML, and {user} uses them"),
                "derive them from the workload secret, or fetch them from a confidential store",
            );
            notes.resource(&rules::PLAINTEXT_SECRET, secret, &keys(&[field]), text);
        }
    }
}

/// Names of the Secrets that a pod mounts or has in its environment. Those for pulling images are the node's.
fn used(pod: &Pod<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for volume in items(pod.spec(), "volumes") {
        names.push(text(&volume["secret"]["secretName"]));
        let sources = items(&volume["projected"], "sources").iter();
        names.extend(sources.map(|source| text(&source["secret"]["name"])));
    }
    for container in pod.containers() {
        let variables = container.list_items("env");
        names.extend(
            variables.map(|(_, variable)| text(&variable["valueFrom"]["secretKeyRef"]["name"])),
        );
        let all = container.list_items("envFrom");
        names.extend(all.map(|(_, from)| text(&from["secretRef"]["name"])));
    }
    names
        .into_iter()
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn names_of_secrets_are_told_from_names_of_places() {
        for name in [
            "DB_PASSWORD",
            "password",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "API_KEY",
            "tls.private-key",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in [
            "DB_PASSWORD_FILE",
            "TOKEN_URL",
            "SECRET_NAME",
            "PASSENGERS",
            "KEY",
            "TOKENS_MAX",
            "COLOUR",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
