//! What pods are told about encrypted volumes, and what they may be told ([decision 24](../../../docs/decisions/0024-volume-generations.md)).
//!
//! 1. What a pod was told is recorded, or accepted, is a floor for every question that starts later, at whatever replica: it shows no less,
//!    and accepts nothing less.
//! 2. Of all pods that report one generation of a volume, one at most is told that it is accepted.
//! 3. A report is refused only where another pod reported that generation or a higher one. So a pod that lost the answer and repeats its
//!    report is told the same.
//! 4. Nothing is recorded that nobody reported.
//! 5. After a recovery all that was told before an owner asked for a transition that owners know is set is still a floor; the rest may be
//!    forgotten. After one with `--forget-volumes` everything may.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use contrast_coordinator::state::{Advanced, Generation, VolumeId};

/// SHA-256 of a pod's key.
type Reporter = [u8; 32];

/// A pod's question that is under way.
#[derive(Debug, Clone)]
pub struct Question {
    pub(super) epoch: u64,
    volume: VolumeId,
    report: Option<Generation>,
    /// What anybody had been told when it started.
    known: u64,
}

/// The answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// To a pod that only asks: the generation that is recorded.
    Recorded(Option<u64>),
    /// To a pod that reports one.
    Advanced(Advanced),
}

/// What anybody has been told until some moment.
#[derive(Debug, Clone)]
pub struct Floor {
    pub(super) epoch: u64,
    told: BTreeMap<VolumeId, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Generations {
    volumes: BTreeMap<VolumeId, Volume>,
    /// What the transitions cover that owners know are set.
    covered: BTreeMap<VolumeId, u64>,
}

#[derive(Debug, Default)]
struct Volume {
    /// The highest generation that anybody was told of; 0 is none.
    told: u64,
    /// Who reported what, whatever came of it.
    reported: BTreeMap<u64, BTreeSet<Reporter>>,
    /// Who was told that it is accepted.
    accepted: BTreeMap<u64, Reporter>,
    /// Who was told that another pod has the same generation.
    refused: BTreeSet<(u64, Reporter)>,
}

impl Generations {
    /// A pod starts to ask, or to report.
    pub(super) fn ask(
        &mut self,
        epoch: u64,
        volume: VolumeId,
        report: Option<Generation>,
    ) -> Question {
        let known = self.volumes.entry(volume).or_default();
        if let Some(Generation { number, reporter }) = report {
            known.reported.entry(number).or_default().insert(reporter);
        }
        Question {
            epoch,
            volume,
            report,
            known: known.told,
        }
    }

    /// The answer; what is wrong with it.
    pub(super) fn answer(&mut self, question: &Question, said: Said) -> Result<(), String> {
        let known = question.known;
        let volume = self.volumes.entry(question.volume).or_default();
        let number = match (question.report, said) {
            (None, Said::Recorded(found)) => volume.recorded(known, found.unwrap_or_default())?,
            (Some(report), Said::Advanced(Advanced::Accepted)) => volume.accept(known, report)?,
            (Some(report), Said::Advanced(Advanced::Behind { recorded })) => {
                volume.refuse(report, recorded)?;
                volume.recorded(known, recorded)?
            }
            (Some(_), Said::Advanced(Advanced::Full)) => {
                return Err("there are too many volumes, it is said".to_owned());
            }
            _ => return Err("another question is answered".to_owned()),
        };
        volume.told = volume.told.max(number);
        Ok(())
    }

    /// What anybody has been told until now.
    pub(super) fn floor(&self, epoch: u64) -> Floor {
        let told = self.volumes.iter().map(|(id, volume)| (*id, volume.told));
        Floor {
            epoch,
            told: told.collect(),
        }
    }

    /// Owners know a transition that was asked for when pods had been told `floor`.
    pub(super) fn cover(&mut self, floor: &Floor) {
        for (id, told) in &floor.told {
            let covered = self.covered.entry(*id).or_default();
            *covered = (*covered).max(*told);
        }
    }

    /// The log since the latest transition may be lost, or all of it.
    pub(super) fn begin_recovery(&mut self, forget: bool) {
        if forget {
            self.covered.clear();
        }
        for (id, volume) in &mut self.volumes {
            let covered = self.covered.get(id).copied().unwrap_or_default();
            volume.told = covered;
            volume.accepted.retain(|number, _| *number <= covered);
            volume.refused.retain(|(number, _)| *number <= covered);
        }
    }
}

impl Volume {
    /// `number` is said to be recorded.
    fn recorded(&self, known: u64, number: u64) -> Result<u64, String> {
        if number < known {
            return Err(format!(
                "generation {number} is recorded, it is said, but {known} was known before the question"
            ));
        }
        if number > 0 && !self.reported.contains_key(&number) {
            return Err(format!(
                "generation {number} is recorded, it is said, which nobody reported"
            ));
        }
        Ok(number)
    }

    fn accept(&mut self, known: u64, report: Generation) -> Result<u64, String> {
        let Generation { number, reporter } = report;
        if number < known {
            return Err(format!(
                "generation {number} is accepted, but {known} was known before the report"
            ));
        }
        if self.refused.contains(&(number, reporter)) {
            return Err(format!(
                "generation {number} is accepted, which was refused to the same pod as another's"
            ));
        }
        match self.accepted.insert(number, reporter) {
            Some(other) if other != reporter => {
                Err(format!("generation {number} is accepted from a second pod"))
            }
            _ => Ok(number),
        }
    }

    fn refuse(&mut self, report: Generation, recorded: u64) -> Result<(), String> {
        let Generation { number, reporter } = report;
        match recorded.cmp(&number) {
            Ordering::Less => Err(format!(
                "generation {number} is refused for {recorded}, which is less"
            )),
            Ordering::Greater => Ok(()),
            Ordering::Equal => {
                let others = self.reported.get(&number);
                let others = others.is_some_and(|all| all.iter().any(|other| *other != reporter));
                if !others || self.accepted.get(&number) == Some(&reporter) {
                    return Err(format!(
                        "generation {number} is refused to the pod that reported it first"
                    ));
                }
                self.refused.insert((number, reporter));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: VolumeId = VolumeId([1; 16]);
    const BEHIND: fn(u64) -> Said = |recorded| Said::Advanced(Advanced::Behind { recorded });
    const ACCEPTED: Said = Said::Advanced(Advanced::Accepted);

    fn report(number: u64, pod: u8) -> Option<Generation> {
        let reporter = [pod; 32];
        Some(Generation { number, reporter })
    }

    /// A question that starts and ends without another between.
    fn asked(all: &mut Generations, report: Option<Generation>, said: Said) -> Result<(), String> {
        let question = all.ask(0, ID, report);
        all.answer(&question, said)
    }

    fn assert_broken(outcome: Result<(), String>, what: &str) {
        let why = outcome.expect_err("a broken promise is noticed");
        assert!(why.contains(what), "{why}");
    }

    /// Generation 3 of pod 1 is accepted, and pod 2 was refused the same.
    fn three() -> Generations {
        let mut all = Generations::default();
        asked(&mut all, None, Said::Recorded(None)).expect("nothing is known");
        asked(&mut all, report(3, 1), ACCEPTED).expect("is the first");
        asked(&mut all, report(3, 2), BEHIND(3)).expect("is another's");
        all
    }

    #[test]
    fn what_the_decision_allows_is_allowed() {
        let mut all = three();
        let slow = all.ask(0, ID, None);
        asked(&mut all, report(3, 1), ACCEPTED).expect("is repeated");
        asked(&mut all, report(2, 1), BEHIND(3)).expect("is less");
        asked(&mut all, None, Said::Recorded(Some(3))).expect("is the latest");
        asked(&mut all, report(4, 2), ACCEPTED).expect("is more");
        asked(&mut all, report(3, 1), BEHIND(4)).expect("another went on");
        let slow = all.answer(&slow, Said::Recorded(Some(3)));
        slow.expect("it started before 4 was known");
        // Nobody was told of 5, and it may be recorded all the same.
        all.ask(0, ID, report(5, 3));
        asked(&mut all, None, Said::Recorded(Some(5))).expect("was reported");
    }

    #[test]
    fn generation_that_goes_back_is_noticed() {
        assert_broken(
            asked(&mut three(), None, Said::Recorded(None)),
            "3 was known",
        );
        let mut all = three();
        all.ask(0, ID, report(2, 3));
        assert_broken(
            asked(&mut all, None, Said::Recorded(Some(2))),
            "3 was known",
        );
        assert_broken(asked(&mut all, report(2, 3), ACCEPTED), "3 was known");
        assert_broken(asked(&mut all, report(1, 3), BEHIND(2)), "3 was known");
    }

    #[test]
    fn second_pod_with_one_generation_is_noticed() {
        assert_broken(asked(&mut three(), report(3, 3), ACCEPTED), "second pod");
        let mut all = Generations::default();
        all.ask(0, ID, report(3, 1));
        asked(&mut all, report(3, 2), BEHIND(3)).expect("may be another's");
        assert_broken(asked(&mut all, report(3, 2), ACCEPTED), "as another's");
    }

    #[test]
    fn refusal_without_another_report_is_noticed() {
        assert_broken(asked(&mut three(), report(3, 1), BEHIND(3)), "first");
        assert_broken(asked(&mut three(), report(4, 1), BEHIND(4)), "first");
        assert_broken(asked(&mut three(), report(4, 1), BEHIND(3)), "less");
        assert_broken(asked(&mut three(), report(4, 1), BEHIND(9)), "nobody");
        assert_broken(asked(&mut three(), None, Said::Recorded(Some(4))), "nobody");
        let full = Said::Advanced(Advanced::Full);
        assert_broken(asked(&mut three(), report(4, 1), full), "too many");
        assert_broken(
            asked(&mut three(), report(4, 1), Said::Recorded(None)),
            "another",
        );
    }

    #[test]
    fn recovery_may_forget_what_no_transition_covers_and_nothing_else() {
        let mut all = three();
        let floor = all.floor(0);
        asked(&mut all, report(4, 1), ACCEPTED).expect("is more");
        all.cover(&floor);
        all.begin_recovery(false);
        asked(&mut all, None, Said::Recorded(Some(3))).expect("4 may be forgotten");
        asked(&mut all, report(4, 2), ACCEPTED).expect("4 is free again");
        assert_broken(asked(&mut all, report(3, 2), ACCEPTED), "4 was known");
        all.begin_recovery(false);
        assert_broken(asked(&mut all, report(3, 2), ACCEPTED), "as another's");
        assert_broken(asked(&mut all, None, Said::Recorded(None)), "3 was known");
        all.begin_recovery(true);
        asked(&mut all, None, Said::Recorded(None)).expect("everything may be forgotten");
        asked(&mut all, report(1, 2), ACCEPTED).expect("from the beginning");
    }
}
