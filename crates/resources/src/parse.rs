//! From events to nodes. Aliases are resolved; their size and the nesting are bounded.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::{
    ResourceError,
    node::{Content, Node},
};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 128;
/// Most nodes in one file, aliases counted as often as they are used.
const NODES_MAX: usize = 1_000_000;

/// A document's root; `None` for a document without content.
pub(crate) struct ParsedDocument {
    pub(crate) line: usize,
    pub(crate) root: Option<Node>,
}

/// Parses all documents of `text`.
pub(crate) fn parse(text: &str) -> Result<Vec<ParsedDocument>, ResourceError> {
    let mut reader = Reader {
        text,
        offsets: text
            .char_indices()
            .map(|(offset, _)| offset)
            .chain([text.len()])
            .collect(),
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        flow_depth: 0,
    };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        if let Event::DocumentStart(_) = event {
            let root = reader.document()?;
            let line = root
                .as_ref()
                .map_or_else(|| span.start.line(), |root| root.line);
            documents.push(ParsedDocument { line, root });
        }
    }
    Ok(documents)
}

struct Reader<'a> {
    text: &'a str,
    /// Byte offset of every character, for the parser counts characters.
    offsets: Vec<usize>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    /// Flow collections that are open.
    flow_depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ResourceError> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => Err(ResourceError::NotYaml {
                line: error.marker().line(),
                column: error.marker().col().saturating_add(1),
                reason: error.info().to_owned(),
            }),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, ResourceError> {
        let Some((event, span)) = self.next()? else {
            return Ok(None);
        };
        if matches!(event, Event::DocumentEnd) {
            return Ok(None);
        }
        let root = self.node(event, span, 0)?;
        let empty = matches!(&root.content, Content::Scalar { value, plain: true } if value.is_empty() || value == "~");
        Ok((!empty).then_some(root))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, ResourceError> {
        let line = span.start.line();
        self.count(1, line)?;
        if depth > DEPTH_MAX {
            return Err(structure(
                line,
                format!("nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        let start = self.offset(span.start.index());
        let mut node = Node {
            start,
            end: self.offset(span.end.index()),
            line,
            column: span.start.col(),
            alias: false,
            in_flow: self.flow_depth > 0,
            content: Content::Scalar {
                value: String::new(),
                plain: true,
            },
        };
        let anchor = match event {
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).cloned();
                let target =
                    target.ok_or_else(|| structure(line, "alias of an unknown anchor".into()))?;
                self.count(size(&target), line)?;
                node.content = target.content;
                node.alias = true;
                0
            }
            Event::Scalar(value, style, anchor, tag) => {
                let string_tag = tag.is_some_and(|tag| tag.suffix == "str");
                let plain = matches!(style, ScalarStyle::Plain) && !string_tag;
                // The parser counts white space and a comment behind a quoted scalar as part of it.
                if let Some(quote @ (b'"' | b'\'')) = self.text.as_bytes().get(start) {
                    node.end = quoted_end(self.text, start, *quote);
                }
                node.content = Content::Scalar {
                    value: Cow::into_owned(value),
                    plain,
                };
                anchor
            }
            Event::SequenceStart(anchor, _) => {
                let flow = self
                    .text
                    .get(start..)
                    .is_some_and(|rest| rest.starts_with('['));
                self.flow_depth = self.flow_depth.saturating_add(usize::from(flow));
                let mut items = Vec::new();
                while let Some((event, span)) = self.next()? {
                    if matches!(event, Event::SequenceEnd) {
                        node.end = self.offset(span.end.index());
                        break;
                    }
                    items.push(self.node(event, span, depth.saturating_add(1))?);
                }
                self.flow_depth = self.flow_depth.saturating_sub(usize::from(flow));
                node.content = Content::Sequence { items, flow };
                anchor
            }
            Event::MappingStart(anchor, _) => {
                let flow = self
                    .text
                    .get(start..)
                    .is_some_and(|rest| rest.starts_with('{'));
                self.flow_depth = self.flow_depth.saturating_add(usize::from(flow));
                let mut entries = Vec::new();
                while let Some((event, span)) = self.next()? {
                    if matches!(event, Event::MappingEnd) {
                        node.end = self.offset(span.end.index());
                        break;
                    }
                    let key = self.node(event, span, depth.saturating_add(1))?;
                    let Some((event, span)) = self.next()? else {
                        break;
                    };
                    entries.push((key, self.node(event, span, depth.saturating_add(1))?));
                }
                self.flow_depth = self.flow_depth.saturating_sub(usize::from(flow));
                // The parser reports a block mapping's start behind its first key.
                if !flow && let Some((key, _)) = entries.first() {
                    (node.start, node.line, node.column) = (key.start, key.line, key.column);
                }
                node.content = Content::Mapping { entries, flow };
                anchor
            }
            _ => return Err(structure(line, "unexpected end of a node".into())),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), ResourceError> {
        self.nodes = self.nodes.saturating_add(nodes);
        match self.nodes > NODES_MAX {
            true => Err(structure(
                line,
                format!("more than {NODES_MAX} nodes, aliases included"),
            )),
            false => Ok(()),
        }
    }

    fn offset(&self, character: usize) -> usize {
        self.offsets
            .get(character)
            .copied()
            .unwrap_or(self.text.len())
    }
}

/// Offset behind the closing quote of the quoted scalar that starts at `start`.
fn quoted_end(text: &str, start: usize, quote: u8) -> usize {
    let mut bytes = text
        .bytes()
        .enumerate()
        .skip(start.saturating_add(1))
        .peekable();
    while let Some((offset, byte)) = bytes.next() {
        if byte == b'\\' && quote == b'"' {
            bytes.next();
        } else if byte == quote {
            // In single quotes, two of them stand for one.
            let doubled = quote == b'\'' && matches!(bytes.peek(), Some((_, b'\'')));
            if !doubled {
                return offset.saturating_add(1);
            }
            bytes.next();
        }
    }
    text.len()
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::Sequence { items, .. } => items.iter().map(size).sum::<usize>().saturating_add(1),
        Content::Mapping { entries, .. } => entries
            .iter()
            .map(|(key, value)| size(key).saturating_add(size(value)))
            .sum::<usize>()
            .saturating_add(1),
    }
}

fn structure(line: usize, reason: String) -> ResourceError {
    ResourceError::Structure { line, reason }
}
