//! Where something stands, for messages.

use crate::{
    Step,
    node::{Content, Node},
};

/// A place in a file, as editors count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where the parts of one document stand in its file, as the user's text has them; edits do not move them.
#[derive(Debug, Clone)]
pub struct Positions {
    pub(crate) root: Option<Node>,
    /// Lines of the file before the document.
    pub(crate) before: usize,
}

impl Positions {
    /// Where `path` stands: an entry of a mapping at its key, an item of a sequence at its content. What is not there, as a
    /// field that is missing, stands where the innermost part of the path that is there does. Behind an alias it is the place
    /// of the anchor's content.
    pub fn of(&self, path: &[Step]) -> Position {
        let mut place = self
            .root
            .as_ref()
            .map_or((1, 0), |root| (root.line, root.column));
        let mut node = self.root.as_ref();
        for step in path {
            let found = node.and_then(|node| node.child(step));
            let Some((shown, child)) = found else { break };
            place = (shown.line, shown.column);
            node = Some(child);
        }
        Position {
            line: self.before.saturating_add(place.0),
            column: place.1.saturating_add(1),
        }
    }
}

impl Node {
    /// The node that is shown for a step, and the one that it leads to.
    fn child(&self, step: &Step) -> Option<(&Self, &Self)> {
        match (&self.content, step) {
            (Content::Mapping { entries, .. }, Step::Key(key)) => entries
                .iter()
                .find(|(found, _)| found.key_text().is_some_and(|found| found == *key))
                .map(|(found, value)| (found, value)),
            (Content::Sequence { items, .. }, Step::Index(at)) => {
                items.get(*at).map(|item| (item, item))
            }
            _ => None,
        }
    }
}
