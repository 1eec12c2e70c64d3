//! Marked blocks in a configuration of somebody else: found again by their marks, removed to the byte.
//!
//! A block says everything about itself, so that no other file has to be kept or trusted: whom it is for, and whether the line before it
//! had no end. Blocks of several runtimes stand side by side, together with what they share, which goes with the last one who needs it.

use super::ContainerdError;

const BEGIN: &str = "# BEGIN contrast-node-installer ";
const END: &str = "# END contrast-node-installer ";
/// The line before the block had no end, so the block brings one.
const UNENDED: &str = " (the line before it had no end)";

/// Whom a block is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// One handler.
    Runtime(String),
    /// A snapshotter of one or several handlers.
    Snapshotter(String),
    /// What containerd forgets when runtimes are configured.
    Defaults,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ') {
            Some(("runtime", name)) => Some(Self::Runtime(name.into())),
            Some(("snapshotter", name)) => Some(Self::Snapshotter(name.into())),
            None if text == "defaults" => Some(Self::Defaults),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Runtime(name) => format!("runtime {name}"),
            Self::Snapshotter(name) => format!("snapshotter {name}"),
            Self::Defaults => "defaults".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Foreign(String),
    Block {
        name: Name,
        /// Without its marks.
        body: String,
        unended: bool,
    },
}

/// A configuration, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks(Vec<Segment>);

impl Blocks {
    /// Takes a configuration apart.
    pub(super) fn parse(text: &str) -> Result<Self, ContainerdError> {
        let mut segments = Vec::new();
        let mut foreign = String::new();
        let mut lines = text.split_inclusive('\n');
        while let Some(line) = lines.next() {
            let Some((name, unended)) = begin(line) else {
                foreign.push_str(line);
                continue;
            };
            let unended = unended && foreign.ends_with('\n');
            if unended {
                foreign.pop();
            }
            if !foreign.is_empty() {
                segments.push(Segment::Foreign(std::mem::take(&mut foreign)));
            }
            let end = format!("{END}{}", name.text());
            let mut body = String::new();
            loop {
                match lines.next() {
                    Some(line) if line.trim_end() == end => break,
                    Some(line) if begin(line).is_none() => body.push_str(line),
                    _ => return Err(ContainerdError::Unfinished { end }),
                }
            }
            segments.push(Segment::Block {
                name,
                body,
                unended,
            });
        }
        if !foreign.is_empty() {
            segments.push(Segment::Foreign(foreign));
        }
        Ok(Self(segments))
    }

    /// Puts it together again.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for segment in &self.0 {
            match segment {
                Segment::Foreign(foreign) => text.push_str(foreign),
                Segment::Block {
                    name,
                    body,
                    unended,
                } => {
                    let name = name.text();
                    let (newline, mark) = if *unended { ("\n", UNENDED) } else { ("", "") };
                    text.push_str(&format!(
                        "{newline}{BEGIN}{name}{mark}\n{body}{END}{name}\n"
                    ));
                }
            }
        }
        text
    }

    /// What others wrote.
    pub(super) fn foreign(&self) -> String {
        self.without(|_| true)
    }

    /// All but the blocks that `leave_out` names.
    pub(super) fn without(&self, leave_out: impl Fn(&Name) -> bool) -> String {
        let mut kept = self.clone();
        for segment in &self.0 {
            if let Segment::Block { name, .. } = segment
                && leave_out(name)
            {
                kept.take_out(name);
            }
        }
        kept.render()
    }

    pub(super) fn body(&self, wanted: &Name) -> Option<&str> {
        self.0.iter().find_map(|segment| match segment {
            Segment::Block { name, body, .. } if name == wanted => Some(body.as_str()),
            _ => None,
        })
    }

    /// Gives a block its content, at its place if it is there, otherwise at the end.
    pub(super) fn put(&mut self, wanted: Name, content: String) {
        for segment in &mut self.0 {
            if let Segment::Block { name, body, .. } = segment
                && *name == wanted
            {
                *body = content;
                return;
            }
        }
        let unended = match self.0.last() {
            Some(Segment::Foreign(foreign)) => !foreign.ends_with('\n'),
            _ => false,
        };
        self.0.push(Segment::Block {
            name: wanted,
            body: content,
            unended,
        });
    }

    pub(super) fn has_runtimes(&self) -> bool {
        self.0.iter().any(|segment| of_runtime(segment).is_some())
    }

    /// Takes the marks off a block: from now on it belongs to whoever else writes the file.
    pub(super) fn hand_over(&mut self, wanted: &Name) {
        for segment in &mut self.0 {
            if let Segment::Block {
                name,
                body,
                unended,
            } = segment
                && name == wanted
            {
                let newline = if *unended { "\n" } else { "" };
                *segment = Segment::Foreign(format!("{newline}{body}"));
            }
        }
    }

    /// Removes a block, and what is shared and needed no more.
    pub(super) fn remove(&mut self, name: &Name) {
        self.take_out(name);
        self.sweep();
    }

    /// Removes what is shared and needed no more.
    pub(super) fn sweep(&mut self) {
        let runtimes: Vec<&str> = self.0.iter().filter_map(of_runtime).collect();
        let needed = |name: &Name| match name {
            Name::Runtime(_) => true,
            Name::Defaults => !runtimes.is_empty(),
            Name::Snapshotter(name) => {
                let line = format!("snapshotter = \"{name}\"");
                let mut lines = runtimes.iter().flat_map(|body| body.lines());
                lines.any(|other| other.trim() == line)
            }
        };
        let idle: Vec<Name> = self
            .0
            .iter()
            .filter_map(|segment| match segment {
                Segment::Block { name, .. } if !needed(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        for name in idle {
            self.take_out(&name);
        }
    }

    pub(super) fn take_out(&mut self, wanted: &Name) {
        let is_wanted = |segment: &Segment| match segment {
            Segment::Block { name, .. } => name == wanted,
            Segment::Foreign(_) => false,
        };
        let Some(index) = self.0.iter().position(is_wanted) else {
            return;
        };
        let removed = self.0.remove(index);
        let Segment::Block { unended: true, .. } = removed else {
            return;
        };
        // What comes next stands on the line's end that the block brought.
        match self.0.get_mut(index) {
            Some(Segment::Block { unended, .. }) => *unended = true,
            Some(Segment::Foreign(foreign)) => foreign.insert(0, '\n'),
            None => {}
        }
    }
}

fn begin(line: &str) -> Option<(Name, bool)> {
    let name = line.trim_end().strip_prefix(BEGIN)?;
    let (name, unended) = match name.strip_suffix(UNENDED) {
        Some(name) => (name, true),
        None => (name, false),
    };
    Some((Name::parse(name)?, unended))
}

fn of_runtime(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Block {
            name: Name::Runtime(_),
            body,
            ..
        } => Some(body),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runtime(name: &str) -> Name {
        Name::Runtime(name.into())
    }

    #[test]
    fn shared_blocks_go_with_the_last_who_needs_them() {
        let mut blocks = Blocks::parse("a = 1").expect("parses");
        blocks.put(Name::Defaults, "d = 1\n".into());
        blocks.put(Name::Snapshotter("s".into()), "p = 1\n".into());
        blocks.put(runtime("x"), "snapshotter = \"s\"\n".into());
        blocks.put(runtime("y"), "y = 1\n".into());
        blocks.remove(&runtime("x"));
        assert_eq!(blocks.body(&Name::Snapshotter("s".into())), None);
        assert_eq!(blocks.body(&Name::Defaults), Some("d = 1\n"));
        blocks.remove(&runtime("y"));
        assert_eq!(blocks.render(), "a = 1");
    }

    #[test]
    fn a_block_without_its_end_is_refused() {
        let text = format!("{BEGIN}runtime x\na = 1\n");
        assert!(matches!(
            Blocks::parse(&text),
            Err(ContainerdError::Unfinished { .. })
        ));
        let nested =
            format!("{BEGIN}runtime x\n{BEGIN}runtime y\n{END}runtime y\n{END}runtime x\n");
        assert!(Blocks::parse(&nested).is_err());
    }

    #[test]
    fn a_line_after_the_block_stays_a_line_of_its_own() {
        let mut blocks = Blocks::parse("a = 1").expect("parses");
        blocks.put(runtime("x"), "x = 1\n".into());
        let text = format!("{}b = 2\n", blocks.render());
        let mut blocks = Blocks::parse(&text).expect("parses");
        blocks.remove(&runtime("x"));
        assert_eq!(blocks.render(), "a = 1\nb = 2\n");
    }

    proptest! {
        /// Whatever was there, and in whatever order runtimes come and go, at the end it is there again.
        #[test]
        fn what_comes_and_goes_leaves_no_trace(
            text in "[a-z#=\\[\\]\n\r ]{0,40}",
            order in proptest::sample::subsequence(vec!["x", "y", "z"], 1..=3).prop_shuffle(),
            leaving in Just(vec!["x", "y", "z"]).prop_shuffle(),
        ) {
            let mut current = text.clone();
            for name in &order {
                let mut blocks = Blocks::parse(&current).expect("parses");
                blocks.put(Name::Defaults, "d = 1\n".into());
                blocks.put(runtime(name), format!("{name} = 1\n"));
                current = blocks.render();
                prop_assert_eq!(Blocks::parse(&current).expect("parses"), blocks);
            }
            for name in leaving.iter().filter(|name| order.contains(name)) {
                let mut blocks = Blocks::parse(&current).expect("parses");
                blocks.remove(&runtime(name));
                current = blocks.render();
            }
            prop_assert_eq!(current, text);
        }
    }
}
