//! A node: its files, its programs, and how what is on it compares with what is wanted.

use std::{collections::BTreeSet, fmt, fs};

use crate::{
    config::Config,
    containerd::{self, ContainerdError, Entry, QUICK, Target},
    error::{Error, Rejection},
    host::Host,
    kata::{self, KataError},
    path::HostPath,
    plan::{Observed, Plan},
    record::{self, Record},
    source::{self, SourceError, WantedFile},
    tee,
    tree::{HostTree, Permissions},
};

/// Suffix of a configuration that containerd is asked about.
pub(crate) const CANDIDATE: &str = "contrast-node-installer.candidate";

/// A node.
pub struct Node {
    /// Its files.
    pub tree: HostTree,
    /// Its programs.
    pub host: Box<dyn Host>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("tree", &self.tree).finish()
    }
}

/// What is wanted, what is there, and what follows.
#[derive(Debug)]
pub struct Comparison {
    /// The files that are wanted.
    pub wanted: Vec<WantedFile>,
    /// What is there.
    pub observed: Observed,
    /// The changes.
    pub plan: Plan,
}

impl Node {
    /// Compares the node with what is wanted, and refuses nodes that are not fit for it. With `quick`, contents are compared by size only.
    ///
    /// # Errors
    /// When the node is not fit, or sources are not what they must be.
    pub fn compare(&self, config: &Config, quick: bool) -> Result<Comparison, Error> {
        tee::check(&self.tree, config.platform)?;
        let wanted = source::resolve(&config.files, quick)?;
        self.check_runtime(config, &wanted)?;
        let record = Record::read(&self.tree, &config.handler)?;
        let others = Record::others(&self.tree, &config.handler)?;
        let target = containerd::locate(&self.tree, &*self.host, &config.containerd)?;
        let edited = edited(config, &target, record.as_ref())?;
        let files: Result<Vec<_>, _> = wanted
            .iter()
            .map(|file| self.tree.content(&file.path, quick))
            .collect();
        let observed = Observed {
            files: files?,
            stale: self.stale(&wanted, record.as_ref(), &others)?,
            missing: self.missing(&wanted, &target)?,
            record,
            others,
            target,
            edited,
            quick,
        };
        let plan = Plan::make(&config.handler, &wanted, &observed)?;
        Ok(Comparison {
            wanted,
            observed,
            plan,
        })
    }

    /// Kata's configuration and the shim must fit together, and everything they name must be there in the end.
    fn check_runtime(&self, config: &Config, wanted: &[WantedFile]) -> Result<(), Error> {
        let will_be = |path: &HostPath| wanted.iter().find(|file| file.path == *path);
        let on_host = |path: &HostPath| self.tree.exists(path).unwrap_or(false);
        let runtime = &config.runtime;
        if will_be(&runtime.shim).is_none() && !on_host(&runtime.shim) {
            return Err(KataError::NoShim {
                path: runtime.shim.clone(),
            }
            .into());
        }
        let text = match will_be(&runtime.config) {
            Some(file) => Some(fs::read(&file.source).map_err(|source| SourceError::Read {
                path: file.source.clone(),
                source,
            })?),
            None => self.tree.read(&runtime.config)?.map(|text| text.bytes),
        };
        let text = text.ok_or_else(|| KataError::Missing {
            path: runtime.config.clone(),
        })?;
        kata::check(&runtime.config, &text, runtime.rs, |path| {
            will_be(path).is_some() || on_host(path)
        })?;
        Ok(())
    }

    /// Files of earlier runs that are wanted no more.
    fn stale(
        &self,
        wanted: &[WantedFile],
        record: Option<&Record>,
        others: &[Record],
    ) -> Result<Vec<HostPath>, Error> {
        let mut all = Vec::new();
        for file in record.into_iter().flat_map(|record| &record.files) {
            let wanted = wanted.iter().any(|wanted| wanted.path == file.path);
            if wanted || record::user(others, &file.path).is_some() {
                continue;
            }
            let found = self.tree.content(&file.path, false)?;
            // What somebody changed since is not ours any more.
            if found.is_some_and(|(content, _)| file.contents.contains(&content)) {
                all.push(file.path.clone());
            }
        }
        Ok(all)
    }

    /// Directories that are not there, outermost first.
    fn missing(&self, wanted: &[WantedFile], target: &Target) -> Result<Vec<HostPath>, Error> {
        let mut all = BTreeSet::new();
        let record = Record::path("record")?;
        let paths = wanted.iter().map(|file| &file.path);
        for path in paths.chain([&target.file, &record]) {
            all.extend(self.tree.missing_directories(path)?);
        }
        // A directory sorts before what is in it.
        Ok(all.into_iter().collect())
    }

    /// What containerd makes of the configuration at `path`; `None`: it cannot be asked.
    ///
    /// # Errors
    /// When it refuses the configuration.
    pub(crate) fn dump(&self, target: &Target, path: &HostPath) -> Result<Option<String>, Error> {
        let Some(binary) = &target.binary else {
            return Ok(None);
        };
        // It refuses a configuration that is not there, although it starts without one.
        let arguments: &[&str] = match self.tree.exists(path)? {
            true => &["--config", path.as_str(), "config", "dump"],
            false => &["config", "default"],
        };
        let output = self.host.run(binary.as_str(), arguments, QUICK)?;
        if !output.success() {
            return Err(Error::Rejected(Rejection::Dump {
                words: output.last_words(),
            }));
        }
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// What containerd makes of its configuration before a change; `None`: nothing, or it cannot be asked.
    ///
    /// # Errors
    /// When its program does not run.
    pub(crate) fn dump_before(&self, target: &Target) -> Result<Option<String>, Error> {
        if target.current.is_none() {
            return Ok(None);
        }
        match self.dump(target, &target.main) {
            // It does not take the old one either; the question about the new one says why.
            Err(Error::Rejected(_)) => Ok(None),
            other => other,
        }
    }

    /// What containerd makes of a new configuration that is not in place yet; `None`: it cannot be asked. What is imported can only be
    /// asked about in place.
    ///
    /// # Errors
    /// When it refuses the configuration.
    pub(crate) fn dump_candidate(
        &self,
        target: &Target,
        text: &str,
    ) -> Result<Option<String>, Error> {
        if !target.is_main() || target.binary.is_none() {
            return Ok(None);
        }
        let candidate = target.file.beside(CANDIDATE);
        let permissions = Permissions::of_mode(0o600);
        self.tree
            .replace(&candidate, permissions, text.as_bytes(), None)?;
        let dump = self.dump(target, &candidate);
        self.tree.remove(&candidate)?;
        dump
    }

    /// Whether the file that is to be changed is still what was looked at. Copying takes minutes, in which others may write it.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn check_unchanged(&self, target: &Target) -> Result<(), Error> {
        match self.tree.read(&target.file)? == target.current {
            true => Ok(()),
            false => Err(Error::Overtaken {
                file: target.file.clone(),
            }),
        }
    }

    /// Why containerd does not serve the kubelet; `None`: it does, or cannot be asked. systemd calls it active all the same.
    ///
    /// # Errors
    /// When it cannot be asked although it should.
    pub(crate) fn not_serving(&self, target: &Target) -> Result<Option<String>, Error> {
        let directory = target.binary.as_ref().and_then(HostPath::parent);
        let Some(directory) = directory else {
            return Ok(None);
        };
        let client = directory.join("ctr")?;
        let address = match self.dump(target, &target.main)? {
            Some(dump) if self.tree.exists(&client)? => containerd::address(&dump),
            _ => None,
        };
        let Some(address) = address else {
            return Ok(None);
        };
        let arguments = ["--address", &address, "plugins", "ls"];
        let output = self.host.run(client.as_str(), &arguments, QUICK)?;
        Ok(match output.success() {
            false => Some(format!("it does not answer: {}", output.last_words())),
            true => containerd::not_running(&String::from_utf8_lossy(&output.stdout)),
        })
    }

    /// Does `work`, whose errors say whether anything was changed.
    pub(crate) fn changing<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let before = self.tree.changes();
        work().map_err(|error| match self.tree.changes() == before {
            true => error,
            false => error.begun(),
        })
    }

    /// Whether containerd serves the kubelet, or cannot be asked.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check_serving(&self, target: &Target) -> Result<(), Error> {
        match self.not_serving(target)? {
            None => Ok(()),
            Some(found) => Err(Error::NotServing { found }),
        }
    }
}

/// What the configuration of containerd is to be.
fn edited(
    config: &Config,
    target: &Target,
    record: Option<&Record>,
) -> Result<String, ContainerdError> {
    let entry = Entry::of(config);
    let current = target.text()?;
    let (file, version, template) = (&target.file, target.version, target.template);
    let edited = containerd::install(file, current, version, template, &entry);
    let ours = record.is_some_and(|record| !record.containerd.is_empty());
    match (edited, current) {
        // An earlier run put it there with other values, and somebody dropped the marks since.
        (Err(ContainerdError::Taken { .. }), Some(current)) if ours => {
            let handler = &config.handler;
            let without = containerd::uninstall(file, current, version, template, handler, true)?;
            containerd::install(file, without.as_deref(), version, template, &entry)
        }
        (edited, _) => edited,
    }
}
