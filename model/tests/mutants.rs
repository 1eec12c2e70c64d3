//! Every wrong rule breaks the invariant that it is said to break.

use contrast_model::{Action, Mutant, counterexample};

fn caught(mutant: Mutant) -> Vec<Action> {
    let found = counterexample(mutant, mutant.breaks());
    assert!(found.is_some(), "{mutant:?} keeps \"{}\"", mutant.breaks());
    found.unwrap_or_default()
}

fn restarts(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::Restart { .. } | Action::PowerLoss))
        .count()
}

#[test]
fn resuming_from_disk_loses_an_acknowledged_transition() {
    assert_eq!(restarts(&caught(Mutant::ResumeFromDisk)), 1);
}

#[test]
fn a_survivor_cut_off_from_a_living_quorum_does_not_know_enough_to_let_another_resume() {
    assert_eq!(restarts(&caught(Mutant::ResumeBySurvivor)), 1);
}

#[test]
fn all_survivors_below_a_quorum_do_not_know_enough_to_let_another_resume() {
    assert_eq!(restarts(&caught(Mutant::ResumeBelowQuorum)), 2);
}

#[test]
fn survivors_that_remember_entries_only_let_a_term_have_two_leaders() {
    caught(Mutant::ResumeBelowQuorumWithoutVotes);
}

#[test]
fn a_fresh_identity_that_counts_before_the_old_one_is_replaced_loses_an_acknowledged_transition() {
    caught(Mutant::CountByPlace);
}

#[test]
fn a_membership_change_without_a_joint_membership_forks_the_history() {
    caught(Mutant::ChangeWithoutJoint);
}

#[test]
fn a_replica_that_forgets_its_vote_lets_a_term_have_two_leaders() {
    caught(Mutant::ForgetVote);
}

#[test]
fn recovery_without_a_guard_activates_a_rolled_back_history() {
    caught(Mutant::RecoverWithoutGuard);
}

#[test]
fn a_guard_that_only_counts_activates_a_history_that_was_never_acknowledged() {
    caught(Mutant::GuardByLength);
}

#[test]
fn recovery_beside_a_survivor_that_takes_no_part_forks_the_history() {
    caught(Mutant::RecoverBesideSurvivors);
}
