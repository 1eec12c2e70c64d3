//! Takes back what was put on the node: exactly that, and nothing that somebody changed since.

use crate::{
    apply::leftovers,
    config::Config,
    containerd::{self, ContainerdError, Target},
    error::Error,
    integrity,
    lock::Lock,
    node::Node,
    path::HostPath,
    record::{self, Change, Record, Stage},
    restart::{restart, unit},
    tree::{Permissions, Text},
};

/// Takes everything back; what was removed is returned.
///
/// # Errors
/// When something fails on the way, containerd does not come up without the runtime, or files were changed by somebody.
pub fn uninstall(node: &Node, config: &Config, lock_seconds: u64) -> Result<Vec<String>, Error> {
    let lock = Lock::take(&node.tree, &*node.host, lock_seconds)?;
    let handler = &config.handler;
    let mut record = Record::read(&node.tree, handler)?;
    let mut removed = Vec::new();
    let mut run = Run {
        node,
        config,
        removed: &mut removed,
    };
    run.containerd(&mut record)?;
    let mut left = Vec::new();
    let above_record = Record::path(handler)?.ancestors();
    if let Some(record) = &record {
        for file in &record.files {
            match node.tree.content(&file.path, false)? {
                None => {}
                Some((content, _)) if file.contents.contains(&content) => {
                    run.remove(&file.path)?;
                }
                Some(_) => left.push(file.path.to_string()),
            }
            for path in leftovers(&file.path, handler) {
                run.remove(&path)?;
            }
        }
        for directory in record.directories.iter().rev() {
            if !above_record.contains(directory) {
                run.remove_directory(directory)?;
            }
        }
    }
    let own = Record::path(handler)?;
    run.remove(&own)?;
    for path in leftovers(&own, handler) {
        run.remove(&path)?;
    }
    let made = record
        .as_ref()
        .map_or(&[][..], |record| &record.directories);
    for directory in above_record.iter().rev() {
        // The innermost is nobody else's, even if the record was never written or is gone already.
        if made.contains(directory) || directory.as_str() == record::DIRECTORY {
            run.remove_directory(directory)?;
        }
    }
    lock.remove(&node.tree)?;
    match left.is_empty() {
        true => Ok(removed),
        false => Err(Error::Left { left }),
    }
}

struct Run<'a> {
    node: &'a Node,
    config: &'a Config,
    removed: &'a mut Vec<String>,
}

impl Run<'_> {
    fn remove(&mut self, path: &HostPath) -> Result<(), Error> {
        if self.node.tree.remove(path)? {
            self.removed.push(path.to_string());
        }
        Ok(())
    }

    fn remove_directory(&mut self, path: &HostPath) -> Result<(), Error> {
        if self.node.tree.remove_directory(path)? {
            self.removed.push(format!("{path}/"));
        }
        Ok(())
    }

    /// Takes the runtime out of containerd's configuration, wherever it was put.
    fn containerd(&mut self, record: &mut Option<Record>) -> Result<(), Error> {
        let tree = &self.node.tree;
        let change = record.as_ref().and_then(|record| record.containerd.clone());
        let target = self.target(change.as_ref())?;
        let Some(mut target) = target else {
            return Ok(());
        };
        if let Some(change) = &change
            && change.file != target.file
        {
            target.current = tree.read(&change.file)?;
            target.file = change.file.clone();
        }
        let file = target.file.clone();
        let after = match target.text()? {
            None => None,
            Some(current) => self.without(&target, current, change.as_ref())?,
        };
        let before = target.current.as_ref();
        let differs = before.is_some_and(|before| {
            after
                .as_ref()
                .is_none_or(|after| after.as_bytes() != before.bytes)
        });
        let pending = change.is_some_and(|change| change.restart);
        // Before anything is written down: a node without the unit is left alone.
        let unit = match differs || pending {
            true => unit(&*self.node.host, &target)?,
            false => None,
        };
        if let Some(record) = record {
            record.stage = Stage::Uninstalling;
            if let Some(change) = &mut record.containerd {
                change.restart |= differs;
            }
            record.write(tree)?;
        }
        if let (true, Some(before)) = (differs, before) {
            if let Err(error) = self.node.check_unchanged(&target) {
                self.settle(record, pending)?;
                return Err(error);
            }
            self.put(&file, after.as_deref(), before.permissions)?;
            self.removed.push(format!("the runtime in {file}"));
            if let Err(error) = self.check(&target) {
                let error = self.back(&file, before, error)?;
                self.settle(record, pending)?;
                return Err(error);
            }
        }
        if differs || pending {
            tree.step("restart containerd")?;
            let seconds = self.config.containerd.restart_timeout_seconds;
            if let Some(unit) = unit
                && let Err(error) = restart(&*self.node.host, &unit, seconds)
            {
                let Some(before) = before.filter(|_| differs) else {
                    return Err(error.into());
                };
                let error = self.back(&file, before, error.into())?;
                tree.step("restart containerd with the old configuration")?;
                let again = restart(&*self.node.host, &unit, seconds);
                self.settle(record, again.is_err())?;
                return Err(Error::RolledBack {
                    source: Box::new(error),
                    after: match again {
                        Ok(()) => "containerd runs with it".to_owned(),
                        Err(error) => {
                            format!("with it containerd does not come up either: {error}")
                        }
                    },
                });
            }
        }
        for path in leftovers(&file, &self.config.handler) {
            self.remove(&path)?;
        }
        if let Some(record) = record {
            record.containerd = None;
            record.write(tree)?;
        }
        Ok(())
    }

    /// A node that has no configuration of containerd any more has nothing to take back from it.
    fn target(&self, change: Option<&Change>) -> Result<Option<Target>, Error> {
        let node = self.node;
        match containerd::locate(&node.tree, &*node.host, &self.config.containerd) {
            Ok(target) => Ok(Some(target)),
            Err(ContainerdError::UnknownVersion { .. } | ContainerdError::NotRendered { .. })
                if change.is_none() =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn without(
        &self,
        target: &Target,
        current: &str,
        change: Option<&Change>,
    ) -> Result<Option<String>, Error> {
        let handler = &self.config.handler;
        let (file, version, template) = (&target.file, target.version, target.template);
        let ours = change.is_some();
        let marked = containerd::uninstall(file, current, version, template, handler, false)?;
        if marked.as_deref() != Some(current) || !ours {
            return Ok(marked);
        }
        // Without marks: nobody changed it since, so what was there before is known to the byte.
        let backup = change.map(|change| change.backup(handler));
        if let (Some(change), Some(backup)) = (change, backup)
            && integrity::content(current.as_bytes()) == change.after
            && let Some(text) = self.node.tree.read(&backup)?
            && let Ok(text) = String::from_utf8(text.bytes)
            && !text.contains(handler.as_str())
        {
            return Ok(Some(text));
        }
        Ok(containerd::uninstall(
            file, current, version, template, handler, true,
        )?)
    }

    /// Whether containerd reads what is left.
    fn check(&self, target: &Target) -> Result<(), Error> {
        if target.template || !self.node.tree.exists(&target.main)? {
            return Ok(());
        }
        self.node.dump(target, &target.main).map(|_| ())
    }

    fn put(
        &self,
        file: &HostPath,
        content: Option<&str>,
        permissions: Permissions,
    ) -> Result<(), Error> {
        let tree = &self.node.tree;
        match content {
            Some(content) => {
                tree.replace(file, permissions, content.as_bytes(), None)?;
            }
            None => {
                tree.remove(file)?;
            }
        }
        Ok(())
    }

    /// Puts the configuration back after `error`, which is returned for the answer.
    fn back(&self, file: &HostPath, before: &Text, error: Error) -> Result<Error, Error> {
        if error.is_interrupted() {
            return Err(error);
        }
        let tree = &self.node.tree;
        tree.replace(file, before.permissions, before.bytes.as_slice(), None)?;
        Ok(error)
    }

    /// Writes down whether containerd has still to be restarted, or the next `apply` would do it for nothing.
    fn settle(&self, record: &mut Option<Record>, restart: bool) -> Result<(), Error> {
        if let Some(record) = record {
            if let Some(change) = &mut record.containerd {
                change.restart = restart;
            }
            record.write(&self.node.tree)?;
        }
        Ok(())
    }
}
