//! `contrast import`: the first manifest of a deployment that keeps the seed of an earlier one.

use super::set;
use crate::{
    args::ImportArgs,
    diagnostic::Failure,
    import::Earlier,
    output::Output,
    owner::{KnownSeed, SeedShareOwner, shares_from_file},
    workspace::{self, MANIFEST, Workspace},
};

/// Decrypts the seed, then does what `contrast set` does.
///
/// # Errors
/// When the seed cannot be decrypted, the Coordinator has one already, or as `contrast set`.
pub(super) async fn run(
    args: &ImportArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let owner = SeedShareOwner::read(&args.import_seedshare_owner_key)?;
    let path = &args.import_seed_shares;
    let shares = shares_from_file(path, &workspace::read("seed shares", path, "")?)?;
    let seed = KnownSeed::decrypt(&owner, &shares)?;
    if let Some(directory) = &args.import_verified {
        let earlier = Earlier::read(directory)?;
        earlier.check_seed(&seed)?;
        let path = workspace.choose(args.set.manifest.as_deref(), MANIFEST);
        let manifest = workspace::read("manifest", &path, "")?;
        for lost in earlier.lost_secrets(&manifest) {
            output.warning(&lost.to_string());
        }
    }
    output.warning(
        "whoever had the seed of the earlier deployment has that of this one: its seed share owners, those of the new manifest, and you",
    );
    set::set(&args.set, Some(&seed), workspace, output).await
}
