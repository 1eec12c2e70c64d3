use super::{
    hash::Hash,
    record::{CHECKS_MAX, Event, FORMAT, NAMES_MAX, Record, Subject, TEXT_BYTES_MAX},
};

/// The records of one process, as far as a next one needs them.
#[derive(Debug)]
pub struct Chain {
    next: u64,
    head: Hash,
}

/// A record that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Its line, without a line feed.
    pub line: String,
    /// Its hash.
    pub hash: Hash,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            next: 0,
            head: Hash::NONE,
        }
    }
}

impl Chain {
    /// The latest record's sequence number and hash; `None` before the first.
    pub fn head(&self) -> Option<(u64, Hash)> {
        Some((self.next.checked_sub(1)?, self.head))
    }

    /// Appends a decision. Texts and lists that are too long are cut, so that a line is at most
    /// [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX) long.
    pub fn append(&mut self, time_ms: u64, event: Event) -> Entry {
        let record = Record {
            format: FORMAT,
            sequence: self.next,
            time_ms,
            kind: event.kind,
            outcome: event.outcome,
            reason: cut(event.reason.into_owned()),
            subject: bounded(event.subject),
            previous: self.head,
        };
        let (line, hash) = (record.line(), record.hash());
        self.next += 1;
        self.head = hash;
        Entry { record, line, hash }
    }
}

fn bounded(mut subject: Subject) -> Subject {
    for (list, max) in [
        (&mut subject.names, NAMES_MAX),
        (&mut subject.checks, CHECKS_MAX),
        (&mut subject.secrets, NAMES_MAX),
    ] {
        list.truncate(max);
        for text in list.iter_mut() {
            *text = cut(std::mem::take(text));
        }
    }
    for text in [
        &mut subject.version,
        &mut subject.boot,
        &mut subject.tee,
        &mut subject.reference,
        &mut subject.serial,
        &mut subject.volume,
        &mut subject.node,
        &mut subject.role,
        &mut subject.leader,
    ]
    .into_iter()
    .flatten()
    {
        *text = cut(std::mem::take(text));
    }
    subject
}

/// Control characters become `?`, so that no text takes more than twice its bytes in JSON.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    match text.chars().any(char::is_control) {
        true => text.replace(char::is_control, "?"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, LINE_BYTES_MAX, Outcome};

    #[test]
    fn longest_record_fits_a_line() {
        let long = || "\"".repeat(4 * TEXT_BYTES_MAX);
        let many = || vec![long(); 4 * NAMES_MAX];
        let hash = Some(Hash([0xff; 32]));
        let subject = Subject {
            version: Some(long()),
            boot: Some(long()),
            policy: hash,
            names: many(),
            tee: Some(long()),
            insecure: true,
            reference: Some(long()),
            checks: many(),
            key: hash,
            serial: Some(long()),
            expires_ms: Some(u64::MAX),
            secrets: many(),
            manifest: hash,
            transition: hash,
            approvals: Some(u64::MAX),
            missing: Some(u64::MAX),
            volume: Some(long()),
            generation: Some(u64::MAX),
            recorded: Some(u64::MAX),
            cluster: hash,
            node: Some(long()),
            role: Some(long()),
            leader: Some(long()),
            term: Some(u64::MAX),
            lost: Some(u64::MAX),
        };
        let event = Event {
            kind: Kind::SealedSecrets,
            outcome: Outcome::Refused,
            reason: long().into(),
            subject,
        };
        // Every field must be set above: a new one has to be bounded, too.
        let line = Chain::default().append(u64::MAX, event).line;
        assert!(line.len() <= LINE_BYTES_MAX, "{}", line.len());
        assert_eq!(line.matches('"').count() % 2, 0);
    }

    #[test]
    fn record_has_exactly_this_spelling_and_its_hash_is_of_the_line_without_it() {
        let mut chain = Chain::default();
        assert_eq!(chain.head(), None);
        let subject = Subject {
            version: Some("0.1.0".to_owned()),
            boot: Some(crate::hex64(1)),
            ..Subject::default()
        };
        let first = chain.append(5, Event::done(Kind::Start, subject));
        let zeros = "0".repeat(64);
        let covered = format!(
            r#"{{"audit":1,"sequence":0,"time_ms":5,"kind":"start","outcome":"done","subject":{{"version":"0.1.0","boot":"0000000000000001"}},"previous":"{zeros}"}}"#
        );
        assert_eq!(first.record.covered(), covered);
        assert_eq!(first.hash, Hash::of(covered.as_bytes()));
        let open = covered.strip_suffix('}').expect("an object");
        assert_eq!(first.line, format!("{open},\"hash\":\"{}\"}}", first.hash));
        let refused = Event {
            kind: Kind::Certificate,
            outcome: Outcome::Refused,
            reason: "POLICY_UNKNOWN".into(),
            subject: Subject::default(),
        };
        let second = chain.append(4, refused);
        assert_eq!(second.record.previous, first.hash);
        assert_eq!(chain.head(), Some((1, second.hash)));
        assert!(
            second.line.starts_with(
                r#"{"audit":1,"sequence":1,"time_ms":4,"kind":"certificate","outcome":"refused","reason":"POLICY_UNKNOWN","subject":{},"previous":""#
            ),
            "{}",
            second.line
        );
        let (parsed, hash) = Record::parse(&second.line).expect("parses");
        assert_eq!((parsed, hash), (second.record, second.hash));
    }

    #[test]
    fn text_of_others_is_cut_and_has_no_control_characters() {
        assert_eq!(cut("a\nb\u{9b}c".to_owned()), "a?b?c");
        assert_eq!(cut("ä".repeat(100)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn names_of_kinds_and_outcomes_are_those_of_the_format() {
        for kind in Kind::ALL {
            let json = serde_json::to_string(&kind).expect("encodes");
            assert_eq!(json, format!("\"{kind}\""));
        }
        for outcome in [
            Outcome::Done,
            Outcome::Pending,
            Outcome::Refused,
            Outcome::Failed,
        ] {
            let json = serde_json::to_string(&outcome).expect("encodes");
            assert_eq!(json, format!("\"{outcome}\""));
        }
    }
}
