use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Answer, Hash, Link, Log, Operation, Question};

/// What no single history explains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Two reads returned chains of which none continues the other.
    #[error(
        "the history forked: {long:?} read {expected}, {short:?} read {found}, both as transition {position}"
    )]
    Forked {
        /// The read with the longer chain.
        long: Box<Operation>,
        /// The other one.
        short: Box<Operation>,
        /// Position of the first difference, from 1.
        position: usize,
        /// What the longer one has there.
        expected: Hash,
        /// What the other one has there.
        found: Hash,
    },
    /// An acknowledged transition is not in the history.
    #[error("acknowledged transition {transition} is lost: {operation:?}")]
    Lost {
        /// The transition.
        transition: Hash,
        /// Who was told of it.
        operation: Box<Operation>,
    },
    /// A certificate was issued under a transition that is not in the history.
    #[error("certificate under transition {transition}, which was never set: {operation:?}")]
    IssuedUnderNothing {
        /// The transition.
        transition: Hash,
        /// The issuance.
        operation: Box<Operation>,
    },
    /// A set took effect on another base than it named, or with another manifest.
    #[error("{operation:?} took effect after {base}, with manifest {manifest}")]
    OtherEffect {
        /// The set.
        operation: Box<Operation>,
        /// The transition before it.
        base: Hash,
        /// The manifest that it has.
        manifest: Hash,
    },
    /// A transition of the history that no client asked for.
    #[error("nobody asked for transition {transition}, number {position}")]
    FromNowhere {
        /// The transition.
        transition: Hash,
        /// Its position, from 1.
        position: usize,
    },
    /// An answer is older than what was known before the question, or newer than what was asked for by then.
    #[error(
        "{operation:?} saw state {found}, but {witness:?} had shown at least {known} before (odd: in the middle of appending \
         transition (n+1)/2; even: n/2 transitions)"
    )]
    Stale {
        /// The operation.
        operation: Box<Operation>,
        /// Its state.
        found: u64,
        /// The least that the state can have been.
        known: u64,
        /// The operation that had shown it.
        witness: Box<Operation>,
    },
}

/// How much a log that passed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Transitions in the history.
    pub transitions: usize,
    /// Acknowledged sets and recoveries.
    pub acknowledged: usize,
    /// Sets without an answer that took effect all the same.
    pub silent: usize,
    /// Reads that returned a chain.
    pub reads: usize,
    /// Certificates.
    pub issued: usize,
}

/// One operation as a demand on the state. State `2n` is "n transitions"; `2n - 1` is the moment at which the n-th is appended.
struct Demand<'a> {
    start: Duration,
    end: Duration,
    least: u64,
    most: u64,
    operation: &'a Operation,
}

/// Checks `log`; certificates may be older than the head by `bound`.
///
/// The longest chain that was read is the history: with a fork, a lost or an invented transition it is not a continuation of
/// all others. Now each operation demands a state, or a least one. The state never shrinks, so an order exists exactly if no
/// operation demands less than what operations that ended before it started demand. (If so, order by the least state that each
/// can have been in, then by start; that respects real time and never goes back.) One sweep over starts and ends decides it.
///
/// End a log with a read after all sets have their answers; otherwise the last transitions count as lost.
///
/// # Errors
/// The first thing that cannot be explained.
pub fn check(log: &Log, bound: Duration) -> Result<Summary, Violation> {
    let history = history(log)?;
    let mut summary = Summary {
        transitions: history.len(),
        ..Summary::default()
    };
    let demands = demands(log, history, bound, &mut summary)?;
    sweep(demands)?;
    Ok(summary)
}

fn chain(operation: &Operation) -> Option<&[Link]> {
    match &operation.answer {
        Answer::Chain { links } => Some(links),
        _ => None,
    }
}

/// The longest chain, of which all others must be a beginning.
fn history(log: &Log) -> Result<&[Link], Violation> {
    let reads = || log.0.iter().filter(|operation| chain(operation).is_some());
    let length = |operation: &&Operation| chain(operation).map_or(0, <[Link]>::len);
    let Some(longest) = reads().max_by_key(length) else {
        return Ok(&[]);
    };
    let history = chain(longest).unwrap_or_default();
    for read in reads() {
        let mut links = history.iter().zip(chain(read).unwrap_or_default()).zip(1..);
        if let Some(((expected, found), position)) = links.find(|((one, two), _)| one != two) {
            return Err(Violation::Forked {
                long: Box::new(longest.clone()),
                short: Box::new(read.clone()),
                position,
                expected: expected.transition,
                found: found.transition,
            });
        }
    }
    Ok(history)
}

fn demands<'a>(
    log: &'a Log,
    history: &[Link],
    bound: Duration,
    summary: &mut Summary,
) -> Result<Vec<Demand<'a>>, Violation> {
    // Position from 1; the empty history is position 0.
    let mut positions: BTreeMap<Hash, u64> = (1..)
        .zip(history)
        .map(|(position, link)| (link.transition, position))
        .collect();
    positions.insert(Hash::NONE, 0);
    let mut unclaimed: BTreeSet<u64> = (1..).take(history.len()).collect();
    let mut demands = Vec::new();
    let mut silent = Vec::new();
    for operation in &log.0 {
        let Operation { start, end, .. } = *operation;
        let exactly = |state| (start, state, state);
        let (start, least, most) = match (&operation.question, &operation.answer) {
            (_, Answer::Done { transition }) => {
                let position = positions
                    .get(transition)
                    .copied()
                    .filter(|found| *found > 0);
                let position = position.ok_or_else(|| Violation::Lost {
                    transition: *transition,
                    operation: Box::new(operation.clone()),
                })?;
                let position = effect(operation, history, position);
                require_effect(operation, history, position)?;
                unclaimed.remove(&position);
                summary.acknowledged += 1;
                exactly(2 * position - 1)
            }
            (Question::Set { base, .. }, Answer::StaleBase) => match positions.get(base) {
                // The head was another one, so something follows the base already.
                Some(position) => (start, 2 * position + 2, u64::MAX),
                None => continue,
            },
            (_, Answer::Chain { links }) => {
                summary.reads += 1;
                exactly(2 * u64::try_from(links.len()).unwrap_or(u64::MAX))
            }
            (_, Answer::Issued { transition }) => {
                let position = positions
                    .get(transition)
                    .copied()
                    .filter(|found| *found > 0);
                let position = position.ok_or_else(|| Violation::IssuedUnderNothing {
                    transition: *transition,
                    operation: Box::new(operation.clone()),
                })?;
                summary.issued += 1;
                (start.saturating_sub(bound), 2 * position, 2 * position)
            }
            (Question::Set { .. } | Question::Recover, Answer::Unknown) => {
                silent.push(operation);
                continue;
            }
            (_, Answer::Unknown | Answer::Failed | Answer::StaleBase) => continue,
        };
        demands.push(Demand {
            start,
            end,
            least,
            most,
            operation,
        });
    }
    // Who asked first is who can explain most.
    silent.sort_by_key(|operation| operation.start);
    for position in unclaimed {
        let claim = silent
            .iter()
            .position(|operation| require_effect(operation, history, position).is_ok());
        let Some(claim) = claim else {
            let link = usize::try_from(position - 1)
                .ok()
                .and_then(|index| history.get(index));
            return Err(Violation::FromNowhere {
                transition: link.map_or(Hash::NONE, |link| link.transition),
                position: usize::try_from(position).unwrap_or(usize::MAX),
            });
        };
        let operation = silent.remove(claim);
        summary.silent += 1;
        demands.push(Demand {
            start: operation.start,
            end: Duration::MAX,
            least: 2 * position - 1,
            most: 2 * position - 1,
            operation,
        });
    }
    Ok(demands)
}

/// Position of what `operation` brought about, if it was answered with the transition at `position`. A set that took effect and
/// is repeated after a recovery is answered with the recovery's transition, which has the same manifest.
fn effect(operation: &Operation, history: &[Link], position: u64) -> u64 {
    let Question::Set { base, manifest } = operation.question else {
        return position;
    };
    let Ok(answered) = usize::try_from(position) else {
        return position;
    };
    let with_manifest = history.iter().take(answered).rev();
    let same = with_manifest.take_while(|link| link.manifest == manifest);
    let first = position
        .saturating_sub(same.count() as u64)
        .saturating_add(1);
    let before = usize::try_from(first).ok().and_then(|first| {
        let index = first.checked_sub(2)?;
        history.get(index)
    });
    match before.map_or(Hash::NONE, |link| link.transition) == base {
        true => first,
        false => position,
    }
}

/// The transition at `position` is what `operation` asked for.
fn require_effect(operation: &Operation, history: &[Link], position: u64) -> Result<(), Violation> {
    let at = |position: u64| {
        let index = usize::try_from(position).ok()?.checked_sub(1)?;
        history.get(index).copied()
    };
    let before = at(position - 1);
    let base = before.map_or(Hash::NONE, |link| link.transition);
    let manifest = at(position).map_or(Hash::NONE, |link| link.manifest);
    let asked = match operation.question {
        Question::Set { base, manifest } => (base, manifest),
        Question::Recover => (base, before.map_or(Hash::NONE, |link| link.manifest)),
        Question::Read | Question::Issue => (base, manifest),
    };
    match asked == (base, manifest) {
        true => Ok(()),
        false => Err(Violation::OtherEffect {
            operation: Box::new(operation.clone()),
            base,
            manifest,
        }),
    }
}

fn sweep(demands: Vec<Demand<'_>>) -> Result<(), Violation> {
    let mut by_start: Vec<usize> = (0..demands.len()).collect();
    by_start.sort_by_key(|index| demands[*index].start);
    let mut by_end = by_start.clone();
    by_end.sort_by_key(|index| demands[*index].end);
    let mut ended = by_end.into_iter().peekable();
    // The highest state that an operation which has ended demanded at least, and that operation.
    let mut known: (u64, Option<&Operation>) = (0, None);
    for index in by_start {
        let demand = &demands[index];
        while let Some(other) = ended.next_if(|other| demands[*other].end < demand.start) {
            let least = demands[other].least;
            if least > known.0 {
                known = (least, Some(demands[other].operation));
            }
        }
        if let (state, Some(witness)) = known
            && state > demand.most
        {
            return Err(Violation::Stale {
                operation: Box::new(demand.operation.clone()),
                found: demand.most,
                known: state,
                witness: Box::new(witness.clone()),
            });
        }
    }
    Ok(())
}
