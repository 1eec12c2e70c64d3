//! Puts everything on the node, in an order in which every interruption can be completed.
//!
//! Written down, copied, backed up, edited, asked of containerd, restarted, looked at. Only then the record says that it is installed.

use std::{collections::BTreeMap, fs};

use crate::{
    config::Config,
    containerd::{self, Entry, Target, judge},
    error::{Error, Rejection},
    integrity,
    lock::Lock,
    node::{CANDIDATE, Comparison, Node},
    path::HostPath,
    plan::{Change as Planned, Observed, Plan},
    record::{self, Change, Record, RecordedFile, Stage, backup},
    restart::{restart, unit},
    source::{SourceError, WantedFile},
    tree::{Permissions, Text, TreeError, UNFINISHED},
};

/// Permissions of a configuration that was not there.
const CONFIG_MODE: u32 = 0o644;

/// Brings the node to what is wanted; what was to be changed is returned.
///
/// # Errors
/// When the node is not fit for it, something fails on the way, or containerd does not take it.
pub fn apply(node: &Node, config: &Config, lock_seconds: u64) -> Result<Plan, Error> {
    node.changing(|| locked(node, config, lock_seconds))
}

fn locked(node: &Node, config: &Config, lock_seconds: u64) -> Result<Plan, Error> {
    let _lock = Lock::take(&node.tree, &*node.host, lock_seconds)?;
    let Comparison {
        wanted,
        observed,
        plan,
    } = node.compare(config, false)?;
    let target = &observed.target;
    let paths = wanted.iter().map(|file| &file.path);
    for path in paths.chain([&target.file, &Record::path(&config.handler)?]) {
        for unfinished in unfinished(path, &config.handler) {
            node.tree.remove(&unfinished)?;
        }
    }
    if !plan.changes.is_empty() {
        check_writable(node, &plan, target)?;
        let restarts = plan
            .changes
            .iter()
            .any(|change| matches!(change, Planned::Restart { .. }));
        let unit = match restarts {
            true => unit(&*node.host, target)?,
            false => None,
        };
        let run = Run {
            node,
            config,
            target,
            entry: Entry::of(config),
            unit,
            before: observed
                .record
                .as_ref()
                .and_then(|record| record.change_of(&target.file).cloned()),
        };
        let mut record = run.record(&wanted, &observed)?;
        // What is not written down would stay behind, so the record comes before everything else.
        let own = Record::path(&config.handler)?.ancestors();
        let (first, then): (Vec<_>, Vec<_>) = observed
            .missing
            .iter()
            .partition(|directory| own.contains(directory));
        for directory in first {
            node.tree.make_directory(directory)?;
        }
        record.write(&node.tree)?;
        for directory in then {
            node.tree.make_directory(directory)?;
        }
        run.copy(&wanted, &plan)?;
        run.edit_and_restart(&mut record, &observed.edited)?;
        run.clean(&mut record)?;
        run.finish(record, &wanted)?;
    }
    let findings = node.findings(config, false)?;
    match findings.is_empty() {
        true => Ok(plan),
        false => Err(Error::NotAsWanted { findings }),
    }
}

/// Whether everything can be written, and fits, before anything is.
fn check_writable(node: &Node, plan: &Plan, target: &Target) -> Result<(), Error> {
    let tree = &node.tree;
    tree.file_system(&Record::path(&plan.handler)?)?;
    let mut needed_in = BTreeMap::new();
    for change in &plan.changes {
        match change {
            Planned::PutFile { path, content, .. } => {
                let (system, free) = tree.file_system(path)?;
                let needed: &mut u64 = needed_in.entry(system).or_default();
                *needed = needed.saturating_add(content.size);
                if *needed > free {
                    return Err(TreeError::NoSpace {
                        path: path.clone(),
                        free,
                        needed: *needed,
                    }
                    .into());
                }
            }
            Planned::RemoveFile { path } => {
                tree.file_system(path)?;
            }
            Planned::EditContainerd { .. } => {
                tree.file_system(&target.file)?;
            }
            Planned::CleanContainerd { file } => {
                tree.file_system(file)?;
            }
            _ => {}
        }
    }
    Ok(())
}

struct Run<'a> {
    node: &'a Node,
    config: &'a Config,
    target: &'a Target,
    entry: Entry,
    unit: Option<String>,
    /// What an earlier run changed.
    before: Option<Change>,
}

impl Run<'_> {
    /// What is going to be done, before it is done.
    fn record(&self, wanted: &[WantedFile], observed: &Observed) -> Result<Record, Error> {
        let (others, edited) = (&observed.others, &observed.edited);
        let handler = &self.config.handler;
        let before = observed.record.clone();
        let mut record = before.unwrap_or_else(|| Record::new(handler));
        record.stage = Stage::Installing;
        for file in wanted {
            let known = record
                .files
                .iter()
                .position(|known| known.path == file.path);
            match known.and_then(|index| record.files.get_mut(index)) {
                Some(known) => {
                    if !known.contents.contains(&file.content) {
                        known.contents.push(file.content.clone());
                    }
                }
                // What somebody else put there stays when this is uninstalled. Of handlers the last one removes it.
                None if record::user(others, &file.path).is_none()
                    && self.node.tree.content(&file.path, true)?.is_some() => {}
                None => record.files.push(RecordedFile {
                    path: file.path.clone(),
                    contents: vec![file.content.clone()],
                }),
            }
        }
        // Whoever goes last removes the directories that any of them made.
        let made = others.iter().flat_map(|other| &other.directories);
        let own = Record::path(handler)?;
        let paths = wanted.iter().map(|file| &file.path);
        let needed: Vec<HostPath> = paths
            .chain([&self.target.file, &own])
            .flat_map(HostPath::ancestors)
            .collect();
        let made = made.filter(|directory| needed.contains(directory));
        record
            .directories
            .extend(observed.missing.iter().chain(made).cloned());
        // Made before anything is written down, perhaps by a run that was interrupted then.
        record.directories.push(HostPath::new(record::DIRECTORY)?);
        record.directories.sort();
        record.directories.dedup();
        let file = &self.target.file;
        let current = self.target.current.as_ref();
        let edits = current.is_none_or(|current| current.bytes != edited.as_bytes());
        // A restart that is still to come may be because of another file.
        let pending = record.restarts();
        match record
            .containerd
            .iter_mut()
            .find(|known| known.file == *file)
        {
            Some(known) if !edits => known.restart = pending,
            _ if edits || pending => {
                let change = Change {
                    file: file.clone(),
                    existed: current.is_some(),
                    after: integrity::content(edited.as_bytes()),
                    restart: true,
                };
                record.set_change(file, Some(change));
            }
            _ => {}
        }
        Ok(record)
    }

    fn copy(&self, wanted: &[WantedFile], plan: &Plan) -> Result<(), Error> {
        let tree = &self.node.tree;
        for change in &plan.changes {
            match change {
                Planned::PutFile { path, .. } => {
                    let file = wanted.iter().find(|file| file.path == *path);
                    if let Some(file) = file {
                        let failed = |source| SourceError::Read {
                            path: file.source.clone(),
                            source,
                        };
                        let source = fs::File::open(&file.source).map_err(failed)?;
                        let permissions = Permissions::of_mode(file.mode);
                        tree.replace(path, permissions, source, file.integrity.as_ref())?;
                        tracing::info!(%path, bytes = file.content.size, "installed");
                    }
                }
                Planned::RemoveFile { path } => {
                    tree.remove(path)?;
                    tracing::info!(%path, "removed; wanted no more");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn edit_and_restart(&self, record: &mut Record, edited: &str) -> Result<(), Error> {
        let Some(change) = record.change_of(&self.target.file).cloned() else {
            return Ok(());
        };
        let tree = &self.node.tree;
        let current = self.target.current.as_ref();
        let edits = current.is_none_or(|current| current.bytes != edited.as_bytes());
        if edits {
            if let Err(error) = self.node.check_unchanged(self.target) {
                return self.give_up(record, &change, false, error);
            }
            if let Some(Text { bytes, permissions }) = current {
                let backup = change.backup(&self.config.handler);
                tree.replace(&backup, *permissions, bytes.as_slice(), None)?;
            }
            let before = self.node.dump_before(self.target)?;
            let asked = self.ask_before(edited, before.as_deref());
            // What is written in the moment between this look and the new content is lost, and nothing else.
            if let Err(error) = asked.and_then(|()| self.node.check_unchanged(self.target)) {
                return self.give_up(record, &change, false, error);
            }
            self.write(edited)?;
            tracing::info!(file = %self.target.file, "containerd's configuration has the runtime");
            if !self.target.is_main()
                && let Err(error) = self.ask(before.as_deref())
            {
                return self.give_up(record, &change, true, error);
            }
        }
        if !change.restart {
            return Ok(());
        }
        if !edits {
            self.node.check_unchanged(self.target)?;
        }
        self.node.tree.step("restart containerd")?;
        match &self.unit {
            None => tracing::warn!(
                "containerd is not restarted; it knows the runtime when you have restarted it"
            ),
            Some(unit) => {
                let seconds = self.config.containerd.restart_timeout_seconds;
                let up = restart(&*self.node.host, unit, seconds).map_err(Error::from);
                let up = up.and_then(|()| self.wait_until_rendered(seconds));
                let up = up.and_then(|()| self.node.check_serving(self.target));
                if let Err(error) = up {
                    return self.roll_back(record, &change, unit, error);
                }
            }
        }
        Ok(())
    }

    fn write(&self, edited: &str) -> Result<(), Error> {
        let current = self.target.current.as_ref();
        let permissions = current.map(|text| text.permissions);
        let permissions = permissions.unwrap_or(Permissions::of_mode(CONFIG_MODE));
        let file = &self.target.file;
        self.node
            .tree
            .replace(file, permissions, edited.as_bytes(), None)?;
        Ok(())
    }

    /// Asks containerd about the new configuration, as long as it is not in place.
    fn ask_before(&self, edited: &str, before: Option<&str>) -> Result<(), Error> {
        self.judge(self.node.dump_candidate(self.target, edited)?, before)
    }

    fn judge(&self, dump: Option<String>, before: Option<&str>) -> Result<(), Error> {
        match dump {
            None => Ok(()),
            Some(dump) => judge(&dump, before, &self.entry)
                .map_err(|error| Error::Rejected(Rejection::Effective(error))),
        }
    }

    fn ask(&self, before: Option<&str>) -> Result<(), Error> {
        self.judge(self.node.dump(self.target, &self.target.main)?, before)
    }

    fn rendered(&self) -> Result<Option<String>, Error> {
        let text = self.node.tree.read(&self.target.main)?;
        Ok(text.map(|text| String::from_utf8_lossy(&text.bytes).into_owned()))
    }

    /// k3s and RKE2 render their template some time after they start.
    fn wait_until_rendered(&self, seconds: u64) -> Result<(), Error> {
        if !self.target.template {
            return Ok(());
        }
        let mut waited = 0;
        loop {
            let rendered = self.rendered()?.unwrap_or_default();
            let Err(error) = judge(&rendered, None, &self.entry) else {
                return Ok(());
            };
            if waited >= seconds {
                return Err(Error::NotRendered(error));
            }
            self.node.host.pause(std::time::Duration::from_secs(1));
            waited += 1;
        }
    }

    /// Puts the old configuration back, if it is not in place, and forgets the change.
    fn give_up(
        &self,
        record: &mut Record,
        change: &Change,
        in_place: bool,
        error: Error,
    ) -> Result<(), Error> {
        if error.is_interrupted() {
            return Err(error);
        }
        if in_place {
            self.put_back(change)?;
        }
        self.forget(record, change)?;
        Err(error)
    }

    fn roll_back(
        &self,
        record: &mut Record,
        change: &Change,
        unit: &str,
        error: Error,
    ) -> Result<(), Error> {
        if error.is_interrupted() {
            return Err(error);
        }
        tracing::error!(%error, "containerd did not come up; going back");
        self.put_back(change)?;
        let seconds = self.config.containerd.restart_timeout_seconds;
        self.node
            .tree
            .step("restart containerd with the old configuration")?;
        let after = match restart(&*self.node.host, unit, seconds) {
            Ok(()) => "containerd runs with it".to_owned(),
            Err(error) => format!("with it containerd does not come up either: {error}"),
        };
        self.forget(record, change)?;
        Err(Error::RolledBack {
            source: Box::new(error),
            after,
        })
    }

    /// Goes back to what was there before the change; what somebody wrote since stays, and only the own runtime goes.
    fn put_back(&self, change: &Change) -> Result<(), Error> {
        let tree = &self.node.tree;
        let file = &change.file;
        let Some(Text { bytes, permissions }) = tree.read(file)? else {
            return Ok(());
        };
        let before = match integrity::content(&bytes) == change.after {
            true if !change.existed => {
                tree.remove(file)?;
                return Ok(());
            }
            true => tree.read(&change.backup(&self.config.handler))?,
            // Perhaps months passed since the backup.
            false => None,
        };
        if let Some(Text { bytes, permissions }) = before {
            tree.replace(file, permissions, bytes.as_slice(), None)?;
            return Ok(());
        }
        let (version, template) = (self.target.version, self.target.template);
        let current = containerd::as_text(file, &bytes)?;
        let handler = &self.config.handler;
        match containerd::uninstall(file, current, version, template, handler, true)? {
            Some(without) => {
                tree.replace(file, permissions, without.as_bytes(), None)?;
            }
            None => {
                tree.remove(file)?;
            }
        }
        Ok(())
    }

    fn forget(&self, record: &mut Record, change: &Change) -> Result<(), Error> {
        let before = self.before.clone().filter(|before| before != change);
        record.set_change(&change.file, before);
        record.write(&self.node.tree)?;
        self.node
            .tree
            .remove(&change.backup(&self.config.handler))?;
        Ok(())
    }

    /// Takes the runtime out of files that are not the one to change any more. containerd has it from the other one.
    fn clean(&self, record: &mut Record) -> Result<(), Error> {
        let tree = &self.node.tree;
        let outdated: Vec<HostPath> = record.outdated(&self.target.file).cloned().collect();
        for file in outdated {
            if let Some(there) = tree.read(&file)? {
                let before = self.node.dump_before(self.target)?;
                let current = containerd::as_text(&file, &there.bytes)?;
                let (handler, version) = (&self.config.handler, self.target.version);
                let template = containerd::is_template(&file);
                let without =
                    containerd::uninstall(&file, current, version, template, handler, true)?;
                match without {
                    Some(without) if without == current => {}
                    Some(without) => {
                        tree.replace(&file, there.permissions, without.as_bytes(), None)?;
                    }
                    None => {
                        tree.remove(&file)?;
                    }
                }
                if let Err(error) = self.ask(before.as_deref()) {
                    tree.replace(&file, there.permissions, there.bytes.as_slice(), None)?;
                    return Err(error);
                }
                tracing::info!(%file, "has the runtime no more, which is in another file now");
            }
            for path in leftovers(&file, &self.config.handler) {
                tree.remove(&path)?;
            }
            record.set_change(&file, None);
        }
        Ok(())
    }

    /// Writes down that all is there.
    fn finish(&self, mut record: Record, wanted: &[WantedFile]) -> Result<(), Error> {
        record.files.retain_mut(|file| {
            let now = wanted.iter().find(|wanted| wanted.path == file.path);
            if let Some(now) = now {
                file.contents = vec![now.content.clone()];
            }
            now.is_some()
        });
        for change in &mut record.containerd {
            change.restart = false;
        }
        record.stage = Stage::Installed;
        record.write(&self.node.tree)?;
        Ok(())
    }
}

/// Names of files that an interrupted run may have left beside `path`, and that nobody needs.
fn unfinished(path: &HostPath, handler: &str) -> [HostPath; 4] {
    let candidate = path.beside(CANDIDATE);
    [
        path.beside(UNFINISHED),
        backup(path, handler).beside(UNFINISHED),
        candidate.beside(UNFINISHED),
        candidate,
    ]
}

/// Names of everything that may be beside `path` as long as it is installed.
pub(crate) fn leftovers(path: &HostPath, handler: &str) -> Vec<HostPath> {
    let mut all = vec![backup(path, handler)];
    all.extend(unfinished(path, handler));
    all
}
