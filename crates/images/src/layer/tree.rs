//! The entries of a layer together: which of them exclude each other.
//!
//! A layer is a tree. Where one name stands for two things, or lies below something that is no directory, readers disagree on what the
//! tree is; and where an entry lies behind a link, it may be anywhere.

use std::collections::HashMap;

use super::entry::{Described, What};
use crate::Digest;

/// Entries of a layer, with the directories around them.
const ENTRIES_MAX: usize = 1_000_000;

/// Half a digest of a path: names can be long, and layers many at once.
type Key = [u8; 16];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File,
    Symlink,
    Whiteout,
}

/// Names that a layer has so far.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<Key, Node>,
}

impl Tree {
    /// Adds an entry to the entries before it.
    pub(super) fn add(&mut self, entry: &Described<'_>) -> Result<(), &'static str> {
        let node = match &entry.what {
            What::Nothing => return Ok(()),
            What::Opaque => return self.add_directories(&entry.path),
            What::Directory => Node::Directory,
            What::File { .. } => Node::File,
            What::Symlink { .. } => Node::Symlink,
            What::Whiteout => Node::Whiteout,
            What::HardLink { target } => match self.get(target) {
                Some(node @ (Node::File | Node::Symlink)) => node,
                _ => return Err("is a hard link to something that is not before it in its layer"),
            },
        };
        let Some((_, around)) = entry.path.split_last() else {
            return Ok(());
        };
        self.add_directories(around)?;
        match (self.get(&entry.path), node) {
            (None, _) => self.insert(&entry.path, node),
            (Some(Node::Directory), Node::Directory) => Ok(()),
            (Some(Node::Whiteout), Node::Whiteout) => Err("is a whiteout twice in its layer"),
            (Some(Node::Whiteout), _) | (_, Node::Whiteout) => Err(
                "stands beside its own whiteout in the same layer, and readers disagree on which of the two counts",
            ),
            _ => Err("is twice in its layer"),
        }
    }

    /// Directories need no entries of their own.
    fn add_directories(&mut self, path: &[&[u8]]) -> Result<(), &'static str> {
        let mut missing = Vec::new();
        let mut above = path;
        while let Some((_, rest)) = above.split_last() {
            match self.get(above) {
                Some(Node::Directory) => break,
                Some(_) => {
                    return Err(
                        "lies below a link, a file or a whiteout of its own layer, where readers disagree on its place",
                    );
                }
                None => missing.push(above),
            }
            above = rest;
        }
        for path in missing {
            self.insert(path, Node::Directory)?;
        }
        Ok(())
    }

    fn get(&self, path: &[&[u8]]) -> Option<Node> {
        match path.is_empty() {
            true => Some(Node::Directory),
            false => self.nodes.get(&key(path)).copied(),
        }
    }

    fn insert(&mut self, path: &[&[u8]], node: Node) -> Result<(), &'static str> {
        if self.nodes.len() >= ENTRIES_MAX {
            return Err("is one entry too many: layers may have 1000000");
        }
        self.nodes.insert(key(path), node);
        Ok(())
    }
}

fn key(path: &[&[u8]]) -> Key {
    Digest::of(&path.join(&b'/')).half()
}
