//! A volume from the device to the mount point, and back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use contrast_clock::Entropy;
use uuid::Uuid;

use crate::{
    Advanced, Filesystem, FormatRule, GenerationRecord, MountOptions, RollbackRule, Seal, State,
    VolumeError, VolumeKeys,
    disk::{Disk, Filling},
    layout::SEAL_OFFSETS,
    leftovers, luks, mounts,
    open::{Found, Sealed, look},
    seal::header_digest,
    tools::{self, Header, Journal},
};

/// How much is filled between two seals that say how far it went.
const FILL_BYTES: u64 = 1024 * 1024 * 1024;

/// What to open, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Block device that the host offers.
    pub device: PathBuf,
    /// Where the file system is to be.
    pub mount_point: PathBuf,
    /// What a blank device is formatted with.
    pub filesystem: Filesystem,
    /// How it is mounted.
    pub mount_options: MountOptions,
    /// When the device is formatted.
    pub format: FormatRule,
    /// What happens with an older disk.
    pub rollback: RollbackRule,
}

/// A volume that is mounted.
#[derive(Debug)]
pub struct OpenVolume {
    device: PathBuf,
    mount_point: PathBuf,
    rollback: RollbackRule,
    sealed: Sealed,
}

/// Who opens volumes.
pub struct Opener<'a> {
    /// Secret of the workload, from which the keys come.
    pub workload_secret: &'a [u8],
    /// Who remembers generations.
    pub record: &'a dyn GenerationRecord,
    /// Where identities of new volumes come from.
    pub entropy: &'a dyn Entropy,
}

impl std::fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl Opener<'_> {
    /// Opens the volume on a device and mounts it; makes it first, if the device is blank and that is allowed. A volume that this pod
    /// opened before, and that is still mounted, stays so.
    ///
    /// # Errors
    /// When the device is foreign, changed, older than recorded, in use, or fails.
    pub fn open(&self, request: &Request) -> Result<OpenVolume, VolumeError> {
        if let Some(open) = self.still_open(request)? {
            return Ok(open);
        }
        let disk = take(&request.device)?;
        let sealed = match look(&disk, self.workload_secret)? {
            Found::Volume(sealed) => {
                let sealed = self.check_generation(&disk, request.rollback, *sealed)?;
                match sealed.seal.state {
                    State::Ready => {
                        sealed.check(&disk)?;
                        return self.open_ready(request, disk, sealed);
                    }
                    State::Formatting if request.format == FormatRule::Never => {
                        return Err(missing(&disk));
                    }
                    State::Formatting => match sealed.check(&disk) {
                        Ok(()) => sealed,
                        Err(_) => self.begin_format(request, &disk)?,
                    },
                }
            }
            Found::Blank if request.format == FormatRule::Never => return Err(missing(&disk)),
            Found::Foreign { .. } if request.format == FormatRule::Discard => {
                self.begin_format(request, &disk)?
            }
            Found::Blank => self.begin_format(request, &disk)?,
            Found::Foreign { recognised, offset } => {
                return Err(VolumeError::Foreign {
                    path: disk.path().to_owned(),
                    recognised,
                    offset,
                });
            }
        };
        drop(disk);
        self.finish_format(request, sealed)
    }

    /// Whether a device may become larger before it is opened: it is blank, or holds a volume of this workload and is not smaller than that was.
    ///
    /// # Errors
    /// When it is in use or fails.
    pub fn may_grow(&self, device: &Path) -> Result<bool, VolumeError> {
        let disk = take(device)?;
        Ok(match look(&disk, self.workload_secret)? {
            Found::Volume(sealed) => disk.bytes() >= sealed.seal.device_bytes,
            Found::Blank => true,
            Found::Foreign { .. } => false,
        })
    }

    /// The container of the Initializer may be a new one, and the pod the same.
    fn still_open(&self, request: &Request) -> Result<Option<OpenVolume>, VolumeError> {
        let Some(name) = mounts::mapped_at(&request.mount_point) else {
            return Ok(None);
        };
        let disk = Disk::open_shared(&request.device)?;
        let Found::Volume(sealed) = look(&disk, self.workload_secret)? else {
            return Ok(None);
        };
        if sealed.name() != name {
            return Ok(None);
        }
        tracing::info!(volume = %sealed.seal.uuid, "the volume is mounted already");
        Ok(Some(OpenVolume::new(request, *sealed)))
    }

    fn open_ready(
        &self,
        request: &Request,
        disk: Disk,
        mut sealed: Sealed,
    ) -> Result<OpenVolume, VolumeError> {
        let found = disk.bytes();
        let expected = sealed.seal.device_bytes;
        if found < expected {
            return Err(VolumeError::Shrunk {
                path: disk.path().to_owned(),
                found,
                expected,
            });
        }
        sealed.advance(&disk)?;
        self.report(&disk, request.rollback, &sealed)?;
        drop(disk);
        let header = Header::of(&sealed.header)?;
        let grown = found > expected;
        if grown {
            self.grow(&request.device, &header, &mut sealed)?;
        }
        let mapped = sealed.open(&request.device, &header, Journal::On)?;
        let outcome = self.mount_ready(request, &mapped, &mut sealed, grown.then_some(found));
        match outcome {
            Ok(()) => Ok(OpenVolume::new(request, sealed)),
            Err(error) => {
                // The reason is the first error.
                let _ = mounts::detach(&request.mount_point, Duration::ZERO);
                let _ = tools::luks_close(&sealed.name());
                Err(error)
            }
        }
    }

    fn mount_ready(
        &self,
        request: &Request,
        mapped: &Path,
        sealed: &mut Sealed,
        grown_to: Option<u64>,
    ) -> Result<(), VolumeError> {
        let filesystem = sealed.seal.filesystem;
        let decrypted = Filling::open(mapped, 0)?.bytes();
        if decrypted < sealed.seal.written_bytes {
            return Err(VolumeError::Shrunk {
                path: mapped.to_owned(),
                found: decrypted,
                expected: sealed.seal.written_bytes,
            });
        }
        tools::check_filesystem(mapped, filesystem)?;
        let options = request.mount_options;
        mounts::attach(mapped, &request.mount_point, filesystem, options)?;
        if let Some(device_bytes) = grown_to {
            tools::grow_filesystem(mapped, &request.mount_point, filesystem)?;
            sealed.seal.device_bytes = device_bytes;
            sealed.advance(&Disk::open_shared(&request.device)?)?;
            tracing::info!(volume = %sealed.seal.uuid, bytes = decrypted, "the volume has grown");
        }
        Ok(())
    }

    /// The kernel takes the new size when it opens a larger device, and offers it when it opens it again.
    fn grow(&self, device: &Path, header: &Header, sealed: &mut Sealed) -> Result<(), VolumeError> {
        sealed.open(device, header, Journal::On)?;
        tools::luks_close(&sealed.name())?;
        self.fill(device, header, sealed)
    }

    /// Writes what was never written, so that all of the decrypted device can be read.
    fn fill(&self, device: &Path, header: &Header, sealed: &mut Sealed) -> Result<(), VolumeError> {
        let mapped = sealed.open(device, header, Journal::Off)?;
        let outcome = fill(device, &mapped, sealed);
        tools::luks_close(&sealed.name())?;
        outcome
    }

    fn begin_format(&self, request: &Request, disk: &Disk) -> Result<Sealed, VolumeError> {
        let mut identity = [0; 16];
        self.entropy.fill(&mut identity)?;
        let uuid = uuid::Builder::from_random_bytes(identity).into_uuid();
        let keys = VolumeKeys::derive(self.workload_secret, uuid)?;
        tracing::info!(volume = %uuid, device = %disk.path().display(), bytes = disk.bytes(), "formatting");
        Ok(Sealed {
            seal: Seal {
                state: State::Formatting,
                uuid,
                generation: 0,
                device_bytes: disk.bytes(),
                written_bytes: 0,
                filesystem: request.filesystem,
                header_digest: [0; 32],
            },
            keys,
            header: Vec::new(),
        })
    }

    fn finish_format(
        &self,
        request: &Request,
        mut sealed: Sealed,
    ) -> Result<OpenVolume, VolumeError> {
        let device = &request.device;
        if sealed.header.is_empty() {
            make_header(device, &mut sealed)?;
        }
        let header = Header::of(&sealed.header)?;
        self.fill(device, &header, &mut sealed)?;
        let mapped = sealed.open(device, &header, Journal::On)?;
        let outcome = self.mount_new(request, &mapped, &mut sealed);
        match outcome {
            Ok(()) => Ok(OpenVolume::new(request, sealed)),
            Err(error) => {
                // As above.
                let _ = mounts::detach(&request.mount_point, Duration::ZERO);
                let _ = tools::luks_close(&sealed.name());
                Err(error)
            }
        }
    }

    fn mount_new(
        &self,
        request: &Request,
        mapped: &Path,
        sealed: &mut Sealed,
    ) -> Result<(), VolumeError> {
        let filesystem = sealed.seal.filesystem;
        tools::make_filesystem(mapped, filesystem)?;
        let access = mounts::access(&request.mount_point).ok();
        let options = request.mount_options;
        mounts::attach(mapped, &request.mount_point, filesystem, options)?;
        if let Some(access) = access {
            mounts::set_access(&request.mount_point, access)?;
        }
        sealed.seal.state = State::Ready;
        let disk = Disk::open_shared(&request.device)?;
        sealed.advance(&disk)?;
        self.report(&disk, request.rollback, sealed)
    }

    /// An older disk than was recorded.
    fn check_generation(
        &self,
        disk: &Disk,
        rule: RollbackRule,
        mut sealed: Sealed,
    ) -> Result<Sealed, VolumeError> {
        if rule == RollbackRule::Off {
            return Ok(sealed);
        }
        let uuid = sealed.seal.uuid;
        let found = sealed.seal.generation;
        match (self.record.recorded(uuid), rule) {
            (Ok(None), _) => {
                tracing::info!(volume = %uuid, generation = found, exposure = "public", "the Coordinator has no record of this volume yet");
            }
            (Ok(Some(recorded)), _) if recorded <= found => {}
            (Ok(Some(recorded)), RollbackRule::Warn) => {
                tracing::warn!(volume = %uuid, found, recorded, exposure = "public", "the disk was rolled back; opening it, because secure-pv-rollback is `warn`");
                sealed.seal.generation = recorded;
            }
            (Ok(Some(recorded)), _) => {
                return Err(VolumeError::RolledBack {
                    path: disk.path().to_owned(),
                    found,
                    recorded,
                });
            }
            (Err(error), RollbackRule::Warn) => {
                tracing::warn!(volume = %uuid, "cannot compare the volume's generation with the Coordinator's record: {error}");
            }
            (Err(error), _) => return Err(VolumeError::Record(error)),
        }
        Ok(sealed)
    }

    fn report(&self, disk: &Disk, rule: RollbackRule, sealed: &Sealed) -> Result<(), VolumeError> {
        report(self.record, disk.path(), rule, &sealed.seal)
    }
}

/// A device that nobody uses. A container of this pod may have ended before it could mount the volume, or while it made it; what it left in the device mapper
/// is removed. What is mounted stays, and is an error.
fn take(device: &Path) -> Result<Disk, VolumeError> {
    match Disk::open_alone(device) {
        Err(error) if error.is_busy() => {
            for name in leftovers::above(device) {
                tracing::info!(name, "removing what an earlier container left open");
                tools::remove_mapping(&name)?;
            }
            Ok(Disk::open_alone(device)?)
        }
        opened => Ok(opened?),
    }
}

impl OpenVolume {
    fn new(request: &Request, sealed: Sealed) -> Self {
        Self {
            device: request.device.clone(),
            mount_point: request.mount_point.clone(),
            rollback: request.rollback,
            sealed,
        }
    }

    /// Identity of the volume.
    pub fn uuid(&self) -> Uuid {
        self.sealed.seal.uuid
    }

    /// Generation of its seal.
    pub fn generation(&self) -> u64 {
        self.sealed.seal.generation
    }

    /// Unmounts the volume, and seals it anew: from then on every disk that was copied while it was open is an older one. Waits at most
    /// for `patience` until nobody uses it.
    ///
    /// # Errors
    /// When it stays in use, or the device fails. Everything that was synchronised is on the disk all the same.
    pub fn close(
        mut self,
        record: &dyn GenerationRecord,
        patience: Duration,
    ) -> Result<(), VolumeError> {
        mounts::detach(&self.mount_point, patience)?;
        tools::luks_close(&self.sealed.name())?;
        let disk = Disk::open_alone(&self.device)?;
        self.sealed.advance(&disk)?;
        report(record, &self.device, self.rollback, &self.sealed.seal)
    }
}

fn report(
    record: &dyn GenerationRecord,
    device: &Path,
    rule: RollbackRule,
    seal: &Seal,
) -> Result<(), VolumeError> {
    if rule == RollbackRule::Off {
        return Ok(());
    }
    match (record.advance(seal.uuid, seal.generation), rule) {
        (Ok(Advanced::Recorded), _) => Ok(()),
        (Ok(Advanced::Behind { recorded }), RollbackRule::Warn) => {
            tracing::warn!(volume = %seal.uuid, generation = seal.generation, recorded, exposure = "public", "another pod has opened a copy of this volume");
            Ok(())
        }
        (Ok(Advanced::Behind { recorded }), _) => Err(VolumeError::RolledBack {
            path: device.to_owned(),
            found: seal.generation,
            recorded,
        }),
        (Err(error), RollbackRule::Warn) => {
            tracing::warn!(volume = %seal.uuid, "cannot report the volume's generation: {error}");
            Ok(())
        }
        (Err(error), _) => Err(VolumeError::Record(error)),
    }
}

/// Makes the header in memory, and puts it on the device.
fn make_header(device: &Path, sealed: &mut Sealed) -> Result<(), VolumeError> {
    // Before anything else is written: what a crash leaves is known to be ours, and made again.
    sealed.advance(&Disk::open_alone(device)?)?;
    let mut header = Header::blank()?;
    let uuid = sealed.seal.uuid;
    tools::luks_format(device, &header, uuid, sealed.keys.volume())?;
    let bytes = header.bytes()?;
    luks::check(&bytes, uuid).map_err(|source| VolumeError::Luks {
        path: device.to_owned(),
        source,
    })?;
    sealed.seal.header_digest = header_digest(&bytes);
    sealed.header = bytes;
    let disk = Disk::open_alone(device)?;
    let [first, second] = SEAL_OFFSETS;
    // In the other place, so that no seal of what was here before stays.
    sealed.advance(&disk)?;
    let before_seals = sealed.header.get(..first).unwrap_or_default();
    disk.write(0, before_seals)?;
    let behind_seals = second.saturating_add(crate::layout::SEAL_BYTES);
    let reserved = sealed.header.get(behind_seals..).unwrap_or_default();
    disk.write(behind_seals as u64, reserved)?;
    Ok(())
}

fn fill(device: &Path, mapped: &Path, sealed: &mut Sealed) -> Result<(), VolumeError> {
    let mut filling = Filling::open(mapped, sealed.seal.written_bytes)?;
    let whole = filling.bytes();
    while filling.done() < whole {
        filling.fill(FILL_BYTES)?;
        sealed.seal.written_bytes = filling.done();
        sealed.advance(&Disk::open_shared(device)?)?;
        tracing::info!(volume = %sealed.seal.uuid, bytes = filling.done(), of = whole, "writing what was never written");
    }
    Ok(())
}

fn missing(disk: &Disk) -> VolumeError {
    VolumeError::Missing {
        path: disk.path().to_owned(),
    }
}
