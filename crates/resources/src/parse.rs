//! From events to nodes. Aliases are resolved; their size and the nesting are bounded.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::{
    ResourceError,
    node::{Content, Node},
    text::skip_properties,
    work::examined,
};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 128;
/// Most nodes in one file, aliases counted as often as they are used.
const NODES_MAX: usize = 1_000_000;

/// A document's root; `None` for a document without content.
pub(crate) struct ParsedDocument {
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
    };
    let mut documents = Vec::new();
    while let Some((event, _)) = reader.next()? {
        if let Event::DocumentStart(_) = event {
            let root = reader.document()?;
            documents.push(ParsedDocument { root });
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
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ResourceError> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(error)) => Err(not_yaml(self.text, error.marker(), error.info())),
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
        let empty = matches!(&root.content, Content::Scalar { value, plain: true, .. } if value.is_empty() || value == "~");
        Ok((!empty).then_some(root))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, ResourceError> {
        let line = span.start.line();
        self.count(1, &span)?;
        if depth > DEPTH_MAX {
            return Err(structure(
                line,
                span.start.col(),
                format!("nested deeper than {DEPTH_MAX} levels"),
            ));
        }
        let start = self.offset(span.start.index());
        let content = skip_properties(self.text, start);
        let mut node = Node {
            start,
            end: self.offset(span.end.index()),
            line,
            column: span.start.col(),
            alias: false,
            content: Content::Scalar {
                value: String::new(),
                plain: true,
                block: false,
            },
        };
        let anchor = match event {
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).cloned();
                let target = target.ok_or_else(|| {
                    structure(line, span.start.col(), "alias of an unknown anchor".into())
                })?;
                self.count(size(&target), &span)?;
                node.content = target.content;
                node.alias = true;
                0
            }
            Event::Scalar(value, style, anchor, tag) => {
                let string_tag = tag.is_some_and(|tag| tag.suffix == "str");
                let plain = matches!(style, ScalarStyle::Plain) && !string_tag;
                // The parser counts white space and a comment behind a quoted scalar as part of it.
                if let Some(quote @ (b'"' | b'\'')) = self.text.as_bytes().get(content) {
                    node.end = quoted_end(self.text, content, *quote);
                }
                // It counts the next line's indentation as part of a block scalar.
                // Only within the scalar: its line may be the whole file.
                let own = self.text.get(start..node.end).unwrap_or_default();
                examined(own.len());
                if let Some(newline) = own.rfind('\n')
                    && own
                        .get(newline..)
                        .is_some_and(|rest| rest.trim().is_empty())
                {
                    node.end = start.saturating_add(newline).saturating_add(1);
                }
                // The parser reports an absent value in front of its colon or dash.
                if value.is_empty()
                    && node.start == node.end
                    && matches!(self.text.as_bytes().get(start), Some(b':' | b'-'))
                {
                    node.start = node.start.saturating_add(1);
                    node.end = node.start;
                }
                node.content = Content::Scalar {
                    value: Cow::into_owned(value),
                    plain,
                    block: matches!(style, ScalarStyle::Literal | ScalarStyle::Folded),
                };
                anchor
            }
            Event::SequenceStart(anchor, _) => {
                let flow = self
                    .text
                    .get(content..)
                    .is_some_and(|rest| rest.starts_with('['));
                let mut items = Vec::new();
                while let Some((event, span)) = self.next()? {
                    if matches!(event, Event::SequenceEnd) {
                        node.end = self.offset(span.end.index());
                        break;
                    }
                    items.push(self.node(event, span, depth.saturating_add(1))?);
                }
                node.content = Content::Sequence { items, flow };
                anchor
            }
            Event::MappingStart(anchor, _) => {
                let flow = self
                    .text
                    .get(content..)
                    .is_some_and(|rest| rest.starts_with('{'));
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
                // The parser reports a block mapping's start behind its first key.
                if !flow && let Some((key, _)) = entries.first() {
                    (node.start, node.line, node.column) = (key.start, key.line, key.column);
                }
                node.content = Content::Mapping { entries, flow };
                anchor
            }
            _ => {
                return Err(structure(
                    line,
                    span.start.col(),
                    "unexpected end of a node".into(),
                ));
            }
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), ResourceError> {
        self.nodes = self.nodes.saturating_add(nodes);
        match self.nodes > NODES_MAX {
            true => Err(structure(
                span.start.line(),
                span.start.col(),
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
    let from = start.saturating_add(1);
    let own = text.as_bytes().get(from..).unwrap_or_default();
    let mut bytes = own.iter().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        if *byte == b'\\' && quote == b'"' {
            bytes.next();
        } else if *byte == quote {
            // In single quotes, two of them stand for one.
            let doubled = quote == b'\'' && matches!(bytes.peek(), Some((_, b'\'')));
            if !doubled {
                examined(offset);
                return from.saturating_add(offset).saturating_add(1);
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

fn structure(line: usize, column: usize, reason: String) -> ResourceError {
    ResourceError::Structure {
        line,
        column: column.saturating_add(1),
        reason,
    }
}

/// Longest part of a line that a message shows, in characters.
const SHOWN_MAX: usize = 100;

fn not_yaml(text: &str, marker: &Marker, reason: &str) -> ResourceError {
    let line = text
        .lines()
        .nth(marker.line().saturating_sub(1))
        .unwrap_or_default();
    let indent = line.len().saturating_sub(line.trim_start().len());
    let tab = line
        .get(..indent)
        .is_some_and(|indent| indent.contains('\t'));
    let advice = if tab {
        "; indent with spaces, YAML allows no tabs"
    } else {
        ""
    };
    ResourceError::NotYaml {
        line: marker.line(),
        column: marker.col().saturating_add(1),
        reason: format!("{reason}{advice}"),
        shown: line
            .chars()
            .take(SHOWN_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
    }
}
