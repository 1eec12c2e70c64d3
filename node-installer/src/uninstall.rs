//! Takes back what was put on the node: exactly that, and nothing that somebody changed since.

use crate::{
    apply::leftovers,
    config::Config,
    containerd::{self, ContainerdError, Target, judge_without},
    error::{Error, Rejection},
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
    node.changing(|| locked(node, config, lock_seconds))
}

fn locked(node: &Node, config: &Config, lock_seconds: u64) -> Result<Vec<String>, Error> {
    let lock = Lock::take(&node.tree, &*node.host, lock_seconds)?;
    let handler = &config.handler;
    let mut record = Record::read(&node.tree, handler)?;
    let others = Record::others(&node.tree, handler)?;
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
                // Of handlers the last one removes it.
                Some(_) if record::user(&others, &file.path).is_some() => {}
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

/// A file without the runtime.
struct Edit {
    target: Target,
    before: Text,
    /// `None`: nothing is left that somebody else wrote.
    after: Option<String>,
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
        let node = self.node;
        let known = record.as_ref();
        let changes = known.map_or_else(Vec::new, |record| record.containerd.clone());
        let Some(target) = self.target(&changes)? else {
            return Ok(());
        };
        let edits = self.edits(&target, &changes)?;
        let pending = record.as_ref().is_some_and(Record::restarts);
        let restarts = pending || !edits.is_empty();
        // Before anything is written down: a node without the unit is left alone.
        let unit = match restarts {
            true => unit(&*node.host, &target)?,
            false => None,
        };
        if let Some(record) = record {
            record.stage = Stage::Uninstalling;
            for change in &mut record.containerd {
                change.restart |= !edits.is_empty();
            }
            record.write(&node.tree)?;
        }
        if restarts {
            // What did not serve before is not held against the change.
            let served = matches!(node.not_serving(&target), Ok(None));
            if let Err(error) = self.edit(&target, &edits) {
                if !error.is_interrupted() {
                    self.back(&edits)?;
                    self.settle(record, pending)?;
                }
                return Err(error);
            }
            node.tree.step("restart containerd")?;
            if let Some(unit) = unit {
                self.restart(record, &target, &edits, &unit, served)?;
            }
        }
        let files = changes.iter().map(|change| &change.file);
        for file in files.chain([&target.file]) {
            for path in leftovers(file, &self.config.handler) {
                self.remove(&path)?;
            }
        }
        if let Some(record) = record {
            record.containerd.clear();
            record.write(&node.tree)?;
        }
        Ok(())
    }

    /// What has to be changed so that no file has the runtime.
    fn edits(&self, target: &Target, changes: &[Change]) -> Result<Vec<Edit>, Error> {
        let mut files = vec![target.clone()];
        for change in changes.iter().filter(|change| change.file != target.file) {
            files.push(Target {
                file: change.file.clone(),
                current: self.node.tree.read(&change.file)?,
                template: containerd::is_template(&change.file),
                ..target.clone()
            });
        }
        let mut edits = Vec::new();
        for target in files {
            let change = changes.iter().find(|change| change.file == target.file);
            if let (Some(current), Some(before)) = (target.text()?, &target.current) {
                let after = self.without(&target, current, change)?;
                if after.as_deref() != Some(current) {
                    let before = before.clone();
                    edits.push(Edit {
                        target,
                        before,
                        after,
                    });
                }
            }
        }
        Ok(edits)
    }

    /// Changes the files. containerd is asked about each before it is in place, or about all of them together afterwards.
    fn edit(&mut self, target: &Target, edits: &[Edit]) -> Result<(), Error> {
        if edits.is_empty() {
            return Ok(());
        }
        let node = self.node;
        let handler = &self.config.handler;
        let before = node.dump_before(target)?;
        let judge = |dump: Option<String>| match dump {
            None => Ok(()),
            Some(dump) => judge_without(&dump, before.as_deref(), handler)
                .map_err(|error| Error::Rejected(Rejection::Effective(error))),
        };
        for edit in edits {
            if let Some(after) = &edit.after {
                judge(node.dump_candidate(&edit.target, after)?)?;
            }
            node.check_unchanged(&edit.target)?;
            let file = &edit.target.file;
            self.put(file, edit.after.as_deref(), edit.before.permissions)?;
            self.removed.push(format!("the runtime in {file}"));
        }
        let imported = edits.iter().any(|edit| !edit.target.is_main());
        if imported && !target.template && node.tree.exists(&target.main)? {
            judge(node.dump(target, &target.main)?)?;
        }
        Ok(())
    }

    /// Restarts containerd, which must serve the kubelet afterwards, or goes back.
    fn restart(
        &self,
        record: &mut Option<Record>,
        target: &Target,
        edits: &[Edit],
        unit: &str,
        served: bool,
    ) -> Result<(), Error> {
        let node = self.node;
        let seconds = self.config.containerd.restart_timeout_seconds;
        let up = restart(&*node.host, unit, seconds).map_err(Error::from);
        let up = up.and_then(|()| match served {
            true => node.check_serving(target),
            false => Ok(()),
        });
        let Err(error) = up else {
            return Ok(());
        };
        if edits.is_empty() || error.is_interrupted() {
            return Err(error);
        }
        tracing::error!(%error, "containerd did not come up; going back");
        self.back(edits)?;
        node.tree
            .step("restart containerd with the old configuration")?;
        let again = restart(&*node.host, unit, seconds);
        self.settle(record, again.is_err())?;
        Err(Error::RolledBack {
            source: Box::new(error),
            after: match again {
                Ok(()) => "containerd runs with it".to_owned(),
                Err(error) => format!("with it containerd does not come up either: {error}"),
            },
        })
    }

    /// A node that has no configuration of containerd any more has nothing to take back from it.
    fn target(&self, changes: &[Change]) -> Result<Option<Target>, Error> {
        let node = self.node;
        match containerd::locate(&node.tree, &*node.host, &self.config.containerd) {
            Ok(target) => Ok(Some(target)),
            Err(ContainerdError::UnknownVersion { .. } | ContainerdError::NotRendered { .. })
                if changes.is_empty() =>
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

    /// Puts back what was changed. What somebody else wrote since stays.
    fn back(&self, edits: &[Edit]) -> Result<(), Error> {
        for Edit {
            target,
            before,
            after,
        } in edits
        {
            let tree = &self.node.tree;
            let there = tree.read(&target.file)?.map(|text| text.bytes);
            if there.as_deref() == after.as_ref().map(String::as_bytes) {
                let bytes = before.bytes.as_slice();
                tree.replace(&target.file, before.permissions, bytes, None)?;
            }
        }
        Ok(())
    }

    /// Writes down whether containerd has still to be restarted, or the next `apply` would do it for nothing.
    fn settle(&self, record: &mut Option<Record>, restart: bool) -> Result<(), Error> {
        if let Some(record) = record {
            for change in &mut record.containerd {
                change.restart = restart;
            }
            record.write(&self.node.tree)?;
        }
        Ok(())
    }
}
