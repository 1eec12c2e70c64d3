//! Kata's configuration: whether it fits the shim, and names files that are there.

use toml::{Table, Value};

use crate::path::HostPath;

/// Keys of a hypervisor that name files on the host.
const FILES: [&str; 5] = ["path", "kernel", "image", "initrd", "firmware"];
/// runtime-rs does not start without these; the Go shim does not know them.
const OF_RS: [&str; 3] = ["name", "hypervisor_name", "agent_name"];

/// Pods would not start with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KataError {
    /// It is nowhere.
    #[error(
        "{path} (`runtime.config`) is neither among the files to install nor on the host; add it to `files`"
    )]
    Missing {
        /// Where it should be.
        path: HostPath,
    },
    /// The shim is nowhere.
    #[error(
        "{path} (`runtime.shim`) is neither among the files to install nor on the host; add it to `files`"
    )]
    NoShim {
        /// Where it should be.
        path: HostPath,
    },
    /// It is no TOML.
    #[error("{path} (`runtime.config`) is no TOML: {message}")]
    Toml {
        /// Where it is or goes.
        path: HostPath,
        /// What the parser says.
        message: String,
    },
    /// It has no hypervisor.
    #[error("{path} (`runtime.config`) has no table `[hypervisor.NAME]`, which Kata needs")]
    NoHypervisor {
        /// Where it is or goes.
        path: HostPath,
    },
    /// It is for the other shim.
    #[error(
        "{path} (`runtime.config`) {found} in `[runtime]`, which is a configuration for {of}, but `runtime.rs` is {rs}; use the one that belongs to the shim"
    )]
    OtherShim {
        /// Where it is or goes.
        path: HostPath,
        /// What is in it.
        found: String,
        /// Whose that is.
        of: &'static str,
        /// What the installer's configuration says.
        rs: bool,
    },
    /// It names a file that is not there.
    #[error(
        "{path} (`runtime.config`) names {file} as `{key}`, which is neither among the files to install nor on the host; add it to `files`"
    )]
    NoFile {
        /// Where it is or goes.
        path: HostPath,
        /// The file.
        file: String,
        /// What it is for.
        key: String,
    },
}

/// Checks Kata's configuration at `path`; `is_there` says whether a file will be on the host.
///
/// # Errors
/// When no pod would start with it.
pub(crate) fn check(
    path: &HostPath,
    text: &[u8],
    rs: bool,
    mut is_there: impl FnMut(&HostPath) -> bool,
) -> Result<(), KataError> {
    let not_toml = |message: String| KataError::Toml {
        path: path.clone(),
        message,
    };
    let text = std::str::from_utf8(text).map_err(|error| not_toml(error.to_string()))?;
    let document: Table = text
        .parse()
        .map_err(|error: toml::de::Error| not_toml(error.message().to_owned()))?;
    let runtime = document.get("runtime").and_then(Value::as_table);
    let of_rs = OF_RS
        .into_iter()
        .filter(|key| runtime.is_some_and(|runtime| runtime.contains_key(*key)));
    let of_rs: Vec<&str> = of_rs.collect();
    if rs != (of_rs.len() == OF_RS.len()) || (!rs && !of_rs.is_empty()) {
        return Err(KataError::OtherShim {
            path: path.clone(),
            found: match of_rs.is_empty() {
                true => format!("has none of {}", OF_RS.join(", ")),
                false => format!("has {} of {}", of_rs.join(", "), OF_RS.join(", ")),
            },
            of: if rs { "the Go shim" } else { "runtime-rs" },
            rs,
        });
    }
    let hypervisors = document.get("hypervisor").and_then(Value::as_table);
    let tables = hypervisors.into_iter().flatten();
    let tables: Vec<(&String, &Table)> = tables
        .filter_map(|(name, table)| Some((name, table.as_table()?)))
        .collect();
    if tables.is_empty() {
        return Err(KataError::NoHypervisor { path: path.clone() });
    }
    for (name, table) in tables {
        for key in FILES {
            let Some(file) = table.get(key).and_then(Value::as_str) else {
                continue;
            };
            if file.is_empty() {
                continue;
            }
            if !HostPath::new(file).is_ok_and(|file| is_there(&file)) {
                return Err(KataError::NoFile {
                    path: path.clone(),
                    file: file.to_owned(),
                    key: format!("hypervisor.{name}.{key}"),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = "[hypervisor.qemu]\npath = \"/q\"\nkernel = \"/k\"\nfirmware = \"\"\n[runtime]\nenable_debug = false\n";
    const RS: &str = "[hypervisor.qemu]\npath = \"/q\"\n[runtime]\nname = \"virt_container\"\nhypervisor_name = \"qemu\"\nagent_name = \"kata\"\n";

    fn judged(text: &str, rs: bool) -> Result<(), String> {
        let path = HostPath::new("/etc/kata.toml").expect("plain");
        check(&path, text.as_bytes(), rs, |file| file.as_str() != "/gone")
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_shim_has_its_configuration() {
        assert_eq!(judged(GO, false), Ok(()));
        assert_eq!(judged(RS, true), Ok(()));
        let error = judged(GO, true).expect_err("Go's for runtime-rs");
        assert!(
            error.contains("has none of name, hypervisor_name"),
            "{error}"
        );
        let error = judged(RS, false).expect_err("runtime-rs's for Go");
        assert!(error.contains("a configuration for runtime-rs"), "{error}");
    }

    #[test]
    fn files_that_are_nowhere_are_named() {
        let error = judged(&GO.replace("/k", "/gone"), false).expect_err("no kernel");
        assert!(
            error.contains("names /gone as `hypervisor.qemu.kernel`"),
            "{error}"
        );
        let error = judged(&GO.replace("/k", "k"), false).expect_err("relative");
        assert!(error.contains("names k as"), "{error}");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(
            judged("[", false)
                .expect_err("no TOML")
                .contains("is no TOML")
        );
        assert!(
            judged("", false)
                .expect_err("empty")
                .contains("[hypervisor.NAME]")
        );
    }
}
