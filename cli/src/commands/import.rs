//! `contrast import`: the first manifest of a deployment that keeps the seed of an earlier one.

use super::set;
use crate::{
    args::ImportArgs,
    diagnostic::Failure,
    output::Output,
    owner::{KnownSeed, SeedShareOwner, shares_from_file},
    workspace::{self, Workspace},
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
    output.warning(
        "whoever had the seed of the earlier deployment has that of this one: its seed share owners, those of the new manifest, and you",
    );
    set::set(&args.set, Some(&seed), workspace, output).await
}
