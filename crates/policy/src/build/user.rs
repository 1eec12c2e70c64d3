//! Who a container runs as, the way kubelet and containerd find out.

use contrast_images::{Accounts, ImageConfig};
use serde_json::Value;

use super::{
    BuildError, PodSource,
    fields::{id, ids},
};

pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Ascending.
    pub(super) groups: Vec<u32>,
}

impl PodSource<'_> {
    pub(super) fn user(
        &self,
        container_name: &str,
        container: &Value,
        config: &ImageConfig,
    ) -> Result<User, BuildError> {
        let own = &container["securityContext"];
        let pod = &self.spec()["securityContext"];
        let declared = |field: &str| id(&own[field]).or_else(|| id(&pod[field]));
        let accounts = config.accounts.as_ref();

        // kubelet takes only the user from `user:group`.
        let image_user = config.user.split(':').next().unwrap_or_default();
        let uid = match (declared("runAsUser"), image_user) {
            (Some(uid), _) => uid,
            (None, "") => 0,
            (None, name) => match name.parse() {
                Ok(uid) => uid,
                Err(_) => named(accounts, name).ok_or_else(|| BuildError::UnknownUser {
                    container: container_name.to_owned(),
                    user: name.to_owned(),
                })?,
            },
        };
        let entry =
            accounts.and_then(|accounts| accounts.users.iter().find(|user| user.uid == uid));
        let gid = declared("runAsGroup")
            .or_else(|| entry.map(|user| user.gid))
            .unwrap_or_default();

        let mut groups = vec![gid];
        groups.extend(id(&pod["fsGroup"]));
        groups.extend(ids(&pod["supplementalGroups"]));
        if pod["supplementalGroupsPolicy"] != "Strict"
            && let (Some(accounts), Some(user)) = (accounts, entry)
        {
            let member = accounts
                .groups
                .iter()
                .filter(|group| group.members.contains(&user.name));
            groups.extend(member.map(|group| group.gid));
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(User { uid, gid, groups })
    }
}

fn named(accounts: Option<&Accounts>, name: &str) -> Option<u32> {
    let users = &accounts?.users;
    users
        .iter()
        .find(|user| user.name == name)
        .map(|user| user.uid)
}
