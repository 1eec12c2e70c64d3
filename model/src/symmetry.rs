//! Identities 1 and 2 differ in name only: at the start both follow identity 0, after a recovery both wait for it. A
//! state and the one with their names swapped need one visit.

use stateright::Representative;

use crate::state::{Config, Disk, Entry, Id, Leadership, Message, Node, Payload, State, Voters};

fn swap(id: Id) -> Id {
    match id {
        1 => 2,
        2 => 1,
        other => other,
    }
}

fn voters(set: Voters) -> Voters {
    Voters::of(set.ids().map(swap))
}

fn log(entries: &[Entry]) -> Vec<Entry> {
    let payload = |payload| match payload {
        Payload::Membership(config) => Payload::Membership(Config {
            voters: voters(config.voters),
            next: config.next.map(voters),
        }),
        transition => transition,
    };
    entries
        .iter()
        .map(|entry| Entry {
            term: entry.term,
            payload: payload(entry.payload),
        })
        .collect()
}

fn node(node: &Node) -> Node {
    Node {
        id: swap(node.id),
        voted: node.voted.map(swap),
        log: log(&node.log),
        ..*node
    }
}

fn message(message: &Message) -> Message {
    match *message {
        Message::Ask {
            epoch,
            term,
            from,
            last,
        } => Message::Ask {
            epoch,
            term,
            from: swap(from),
            last,
        },
        Message::Vote {
            epoch,
            term,
            from,
            to,
        } => Message::Vote {
            epoch,
            term,
            from: swap(from),
            to: swap(to),
        },
    }
}

fn leadership(leadership: &Leadership) -> Leadership {
    Leadership {
        id: swap(leadership.id),
        log: log(&leadership.log),
        acknowledged: leadership
            .acknowledged
            .iter()
            .map(|(id, len)| (swap(*id), *len))
            .collect(),
        ended: leadership.ended,
    }
}

fn disk(disk: &Disk) -> Disk {
    Disk {
        id: swap(disk.id),
        voted: disk.voted.map(swap),
        log: log(&disk.log),
        ..*disk
    }
}

impl Representative for State {
    /// The smaller of the two. Places 0, 1 and 2 belong to identities 0, 1 and 2, so they are swapped too.
    fn representative(&self) -> Self {
        if self.places.len() < 3 {
            return self.clone();
        }
        let mut nodes: Vec<Node> = self.nodes.iter().map(node).collect();
        nodes.sort_by_key(|node| node.id);
        let mut places: Vec<u8> = self.places.iter().map(|place| swap(*place)).collect();
        places.swap(1, 2);
        let swapped = Self {
            nodes,
            places,
            messages: self.messages.iter().map(message).collect(),
            leaders: self
                .leaders
                .iter()
                .map(|(term, led)| (*term, leadership(led)))
                .collect(),
            histories: self.histories.clone(),
            disks: self.disks.iter().map(disk).collect(),
            history: self.history.clone(),
            acknowledged: self.acknowledged.clone(),
            guard: self.guard.clone(),
            ..*self
        };
        swapped.min(self.clone())
    }
}
