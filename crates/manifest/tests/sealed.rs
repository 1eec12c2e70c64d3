//! Sealed secrets in manifests.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use contrast_manifest::{
    MAX_SEALED_BYTES, ManifestDocument, PolicyDocument, SealedSecretDocument, is_sealed_name,
};

fn secret(kind: &str, bytes: usize) -> SealedSecretDocument {
    SealedSecretDocument {
        kind: kind.to_owned(),
        ciphertext: "ab".repeat(bytes),
    }
}

/// Problems of a manifest with these secrets and one policy that lists `names`, but those of what it lacks besides.
fn problems(secrets: &[(&str, SealedSecretDocument)], role: &str, names: &[&str]) -> Vec<String> {
    let document = ManifestDocument {
        policies: [(
            "11".repeat(32),
            PolicyDocument {
                role: role.to_owned(),
                sealed_secrets: names.iter().map(ToString::to_string).collect(),
                ..PolicyDocument::default()
            },
        )]
        .into(),
        sealed_secrets: secrets
            .iter()
            .map(|(name, secret)| ((*name).to_owned(), secret.clone()))
            .collect(),
        ..ManifestDocument::default()
    };
    let error = contrast_manifest::Manifest::parse(document.to_json().as_bytes());
    let error = error.expect_err("it has no reference values");
    let all = error.problems().iter().map(ToString::to_string);
    all.filter(|problem| problem.contains("SealedSecrets"))
        .collect()
}

#[test]
fn secrets_and_listings_that_fit_are_no_problem() {
    let secrets = [
        ("db", secret("Files", 48)),
        ("ghcr.io:443", secret("Registry", MAX_SEALED_BYTES)),
    ];
    let found = problems(&secrets, "", &["ghcr.io:443", "db"]);
    assert!(found.is_empty(), "{found:?}");
    // Nobody has to list one.
    assert!(problems(&secrets, "", &[]).is_empty());
}

#[test]
fn everything_else_is_refused_where_it_stands() {
    let db = ("db", secret("Files", 48));
    let cases = [
        (
            vec![("db", secret("files", 48))],
            "",
            vec![],
            "SealedSecrets.db.Kind",
        ),
        (
            vec![("db", secret("Files", 47))],
            "",
            vec![],
            "SealedSecrets.db.Ciphertext",
        ),
        (
            vec![("db", secret("Files", MAX_SEALED_BYTES + 1))],
            "",
            vec![],
            "SealedSecrets.db.Ciphertext",
        ),
        (
            vec![("../db", secret("Files", 48))],
            "",
            vec![],
            "SealedSecrets",
        ),
        (
            vec![db.clone()],
            "",
            vec!["other"],
            "`other` is not among SealedSecrets",
        ),
        (
            vec![db.clone()],
            "",
            vec!["db", "db"],
            "`db` is there twice",
        ),
        (
            vec![db],
            "coordinator",
            vec!["db"],
            "a Coordinator gets no sealed secrets",
        ),
    ];
    for (secrets, role, names, expected) in cases {
        let found = problems(&secrets, role, &names).join("\n");
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let many: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let many: Vec<_> = many
        .iter()
        .map(|name| (name.as_str(), secret("Files", 48)))
        .collect();
    assert!(problems(&many, "", &[]).join("").contains("at most 256"));
    let names: Vec<&str> = many.iter().map(|(name, _)| *name).take(65).collect();
    assert!(
        problems(&many, "", &names)
            .join("")
            .contains("at most 64 names")
    );
}

#[test]
fn names_lead_nowhere_else() {
    for good in ["a", "A-1_b.c:5000", "9"] {
        assert!(is_sealed_name(good), "{good}");
    }
    let long = "a".repeat(254);
    for bad in ["", ".", "..", "-a", ":a", "a/b", "a b", "ä", long.as_str()] {
        assert!(!is_sealed_name(bad), "{bad}");
    }
}
