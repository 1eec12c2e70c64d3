//! What `verify` leaves in the workspace, so that people can audit it and later commands can notice a rollback.

use std::path::PathBuf;

use contrast_proto::user::GetManifestsResponse;

use super::history::{History, KnownTransition, Memory};
use crate::workspace::{
    LATEST_TRANSITION, MESH_CA, ROOT_CA, SEALING_KEY, VERIFY_DIR, Workspace, WorkspaceError,
    read_optional,
};

/// Writes `verify/`, and the mesh CA only if the manifest that was expected is `enforced`: clients that take the file for their CA must not come to
/// trust the workloads of another one. Each file is replaced atomically, and `latest-transition` comes last: when it names a transition, the
/// files of that transition are there.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    workspace: &Workspace,
    response: &GetManifestsResponse,
    history: &History,
    sealing_key: Option<&str>,
    enforced: bool,
) -> Result<Vec<PathBuf>, WorkspaceError> {
    let mut files = Vec::new();
    let mut put = |name: String, bytes: &[u8]| {
        workspace
            .write(&format!("{VERIFY_DIR}/{name}"), bytes)
            .map(|path| files.push(path))
    };
    put(ROOT_CA.to_owned(), response.root_ca.as_bytes())?;
    if enforced {
        put(MESH_CA.to_owned(), response.mesh_ca.as_bytes())?;
    }
    if let Some(key) = sealing_key {
        put(SEALING_KEY.to_owned(), key.as_bytes())?;
    }
    for (index, manifest) in response.manifests.iter().enumerate() {
        put(format!("manifest.{index}.json"), manifest)?;
    }
    for (hash, document) in &history.initdata {
        put(format!("initdata.{hash}.toml"), document)?;
    }
    if let Some(latest) = history.latest() {
        put(
            LATEST_TRANSITION.to_owned(),
            format!("{latest}\n").as_bytes(),
        )?;
    }
    Ok(files)
}

/// Reads what earlier commands of this workspace saw.
///
/// # Errors
/// When a file exists and cannot be understood.
pub fn recall(workspace: &Workspace) -> Result<Memory, WorkspaceError> {
    let root_ca = workspace.path(&format!("{VERIFY_DIR}/{ROOT_CA}"));
    Ok(Memory {
        transitions: workspace
            .known_transitions()?
            .into_iter()
            .map(|known| KnownTransition {
                hash: known.hash,
                source: known.path.display().to_string(),
            })
            .collect(),
        root_ca: read_optional("root CA certificate", &root_ca)?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    })
}
