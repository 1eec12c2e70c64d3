//! Users and groups of an image: `/etc/passwd` and `/etc/group` of its layers, one above the other.

use serde::{Deserialize, Serialize};

/// What an image's `/etc/passwd` and `/etc/group` say (passwd(5), group(5)); both empty when it has no such files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Accounts {
    /// Users, in the order of the file.
    pub users: Vec<UserAccount>,
    /// Groups, in the order of the file.
    pub groups: Vec<GroupAccount>,
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UserAccount {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct GroupAccount {
    /// Group name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Names of the users for whom it is a supplementary group.
    pub members: Vec<String>,
}

/// What a layer does to a file below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileChange<T> {
    /// Nothing.
    #[default]
    Kept,
    /// It is gone.
    Removed,
    /// It has this content.
    Replaced(T),
    /// It leads elsewhere (a link), where its content was not followed.
    Unknown,
}

impl<T> FileChange<T> {
    pub(crate) fn is_kept(&self) -> bool {
        matches!(self, Self::Kept)
    }
}

/// What a layer does to the two files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AccountChanges {
    /// `/etc/passwd`.
    #[serde(default, skip_serializing_if = "FileChange::is_kept")]
    pub users: FileChange<Vec<UserAccount>>,
    /// `/etc/group`.
    #[serde(default, skip_serializing_if = "FileChange::is_kept")]
    pub groups: FileChange<Vec<GroupAccount>>,
}

impl Accounts {
    /// What layers, the lowest first, make together; `None` when a file leads elsewhere.
    pub(crate) fn of_layers<'a>(
        layers: impl Iterator<Item = &'a AccountChanges> + Clone,
    ) -> Option<Self> {
        Some(Self {
            users: topmost(layers.clone().map(|layer| &layer.users))?,
            groups: topmost(layers.map(|layer| &layer.groups))?,
        })
    }
}

fn topmost<'a, T: Clone + Default + 'a>(
    layers: impl Iterator<Item = &'a FileChange<T>>,
) -> Option<T> {
    match layers.filter(|change| !change.is_kept()).last() {
        None | Some(FileChange::Kept | FileChange::Removed) => Some(T::default()),
        Some(FileChange::Replaced(content)) => Some(content.clone()),
        Some(FileChange::Unknown) => None,
    }
}

/// Lines `name:password:uid:gid:…`; others are no accounts. The password is not kept.
pub(crate) fn users(passwd: &[u8]) -> Vec<UserAccount> {
    let text = String::from_utf8_lossy(passwd);
    let user = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        Some(UserAccount {
            name,
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(user).collect()
}

/// Lines `name:password:gid:member,…`; others are no groups.
pub(crate) fn groups(group: &[u8]) -> Vec<GroupAccount> {
    let text = String::from_utf8_lossy(group);
    let group = |line: &str| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?.to_owned();
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        let members = fields.next().unwrap_or_default().split(',');
        let members = members.filter(|member| !member.is_empty());
        Some(GroupAccount {
            name,
            gid,
            members: members.map(str::to_owned).collect(),
        })
    };
    text.lines().filter_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_accounts_are_passed_over() {
        let read =
            users(b"root:x:0:0:root:/root:/bin/sh\n\n# no\nx:y\nbad:x:-1:0\nweb:!:33:44::/:\n");
        let names: Vec<_> = read
            .iter()
            .map(|user| (&*user.name, user.uid, user.gid))
            .collect();
        assert_eq!(names, [("root", 0, 0), ("web", 33, 44)]);
        let read = groups(b"root:x:0:\nwheel:x:10:root,web\nold:x\nlast:x:7");
        let names: Vec<_> = read
            .iter()
            .map(|group| (&*group.name, group.gid, group.members.len()))
            .collect();
        assert_eq!(names, [("root", 0, 0), ("wheel", 10, 2), ("last", 7, 0)]);
    }

    #[test]
    fn upper_layers_win() {
        let with = |users| AccountChanges {
            users,
            ..AccountChanges::default()
        };
        let file = |name: &str| {
            FileChange::Replaced(vec![UserAccount {
                name: name.to_owned(),
                uid: 1,
                gid: 1,
            }])
        };
        let top = |layers: &[AccountChanges]| {
            Accounts::of_layers(layers.iter()).map(|accounts| {
                accounts
                    .users
                    .iter()
                    .map(|user| user.name.clone())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(top(&[]), Some(vec![]));
        assert_eq!(
            top(&[with(file("a")), with(FileChange::Kept)]),
            Some(vec!["a".to_owned()])
        );
        assert_eq!(
            top(&[with(file("a")), with(file("b"))]),
            Some(vec!["b".to_owned()])
        );
        assert_eq!(
            top(&[with(file("a")), with(FileChange::Removed)]),
            Some(vec![])
        );
        assert_eq!(top(&[with(file("a")), with(FileChange::Unknown)]), None);
        assert_eq!(
            top(&[with(FileChange::Unknown), with(file("b"))]),
            Some(vec!["b".to_owned()])
        );
    }
}
