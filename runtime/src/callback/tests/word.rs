//! The word in the scenarios that it alone decides, step by step.

use super::{OP_CB_NOTIFY, OP_CB_RECALL};
use crate::callback::state::{Abandon, Claim, Dequeue, Finish, Flags, Freed, Loss, Removal, Snapshot, StateWord, Wait};
use crate::callback::{Cancel, Returned};

/// A live, idle entry, and the generation of its key.
fn idle() -> (StateWord, u32) {
    let word = StateWord::new();
    let generation = word.activate();
    (word, generation)
}

/// An entry in its first run.
fn running() -> (StateWord, u32) {
    let (word, key) = idle();
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit);
    (word, key)
}

#[test]
fn a_snapshot_prints_generation_and_flags() {
    let (word, _) = running();
    assert_eq!(format!("{word:?}"), "generation 1 LIVE | RUNNING");
    assert_eq!(format!("{:?}", Snapshot::new(9, Flags::empty())), "generation 9 FREE");
}

#[test]
fn only_kinds_that_add_to_the_message_must_not_lose() {
    for op in 0..=u8::MAX {
        let expected = if op == OP_CB_NOTIFY || op == 8 { Loss::MustNotLose } else { Loss::MayCoalesce };
        assert_eq!(Loss::of(op), expected, "operation {op}");
    }
    assert_eq!(Loss::of(OP_CB_RECALL), Loss::MayCoalesce);
}

#[test]
fn t2_a_kick_during_the_rpc_is_coalesced_or_rearmed_by_kind() {
    let (word, key) = running();
    assert_eq!(word.take_requeue(), Dequeue::Prepare);
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Coalesced);
    word.settle();
    assert_eq!(word.finish(true), Finish::Idle { wake: false }, "one submission served both");

    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Submit);
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    word.settle();
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false }, "one more run serves both");
    word.settle();
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
}

#[test]
fn t7_a_winner_that_was_refused_leaves_no_run() {
    let (word, key) = running();
    assert_eq!(word.wait(key), Wait::Registered);
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    assert_eq!(word.abandon(), Abandon::Idle { wake: true });
    assert_eq!(word.snapshot().flags(), Flags::LIVE);

    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit, "nothing stands in the way of a next run");
    assert_eq!(word.remove(key), Removal::Deferred);
    assert_eq!(word.abandon(), Abandon::Free { wake: false });
    assert_eq!(word.free(), Freed::Reusable);
}

#[test]
fn t18_a_requeue_of_one_run_does_not_skip_prepare_of_the_next() {
    let (word, key) = running();
    assert_eq!(word.take_requeue(), Dequeue::Prepare);
    word.requeue();
    word.settle(); // it ended in the queue, by its deadline
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Rearmed);
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false });
    assert_eq!(word.take_requeue(), Dequeue::Prepare, "a fresh run prepares");
    word.settle();
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit);
    assert_eq!(word.take_requeue(), Dequeue::Prepare);
}

#[test]
fn t32_a_request_between_settled_and_the_finish_runs_again() {
    let (word, key) = running();
    word.settle();
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Rearmed);
    assert_eq!(word.wait(key), Wait::TooLate);
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false });
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Coalesced, "the fresh run is not decided");
}

#[test]
fn t32_a_request_that_done_answers_with_a_requeue_still_runs_again() {
    let (word, key) = running();
    word.settle();
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Rearmed);
    word.requeue(); // `done` asked for another transmission
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Coalesced, "served by the transmission to come");
    assert_eq!(word.take_requeue(), Dequeue::Resend);
    word.settle();
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false });
}

#[test]
fn t22_a_requeue_that_done_asked_for_may_end_by_its_deadline() {
    let (word, _) = running();
    word.settle();
    word.requeue(); // `done` asked for another transmission
    word.settle(); // there was no time left for it
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
}

#[test]
fn t33_a_remove_at_any_point_of_a_run_frees_once() {
    let steps: [fn(&StateWord); 5] = [
        |word| assert_eq!(word.take_requeue(), Dequeue::Prepare),
        |word| word.requeue(),
        |word| assert_eq!(word.take_requeue(), Dequeue::Resend),
        |word| assert!(!word.settle()),
        |_| {},
    ];
    for removed_before in 0..steps.len() {
        let (word, key) = running();
        for (number, step) in steps.iter().enumerate() {
            if number == removed_before {
                assert_eq!(word.remove(key), Removal::Deferred);
            }
            step(&word);
        }
        assert_eq!(word.remove(key), Removal::AlreadyDying);
        assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Dying);
        assert_eq!(word.finish(true), Finish::Free { wake: false });
        assert_eq!(word.remove(key), Removal::AlreadyDying, "the finisher frees it, nobody else");
        assert_eq!(word.free(), Freed::Reusable);
        assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Stale);
    }
}

#[test]
fn t34_requeue_and_rearm_together_are_a_resend_and_then_a_fresh_run() {
    let (word, key) = running();
    assert_eq!(word.take_requeue(), Dequeue::Prepare);
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    word.requeue();
    assert_eq!(word.take_requeue(), Dequeue::Resend);
    word.settle();
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false });
    assert_eq!(word.take_requeue(), Dequeue::Prepare);
    word.settle();
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
}

#[test]
fn t19_an_outcome_that_drops_requests_does_not_run_again() {
    let (word, key) = running();
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    word.settle();
    assert_eq!(word.finish(false), Finish::Idle { wake: false });
}

#[test]
fn a_waiter_is_woken_by_the_end_of_its_run_across_a_requeue() {
    let (word, key) = idle();
    assert_eq!(word.wait(key), Wait::Idle);
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit);
    assert_eq!(word.wait(key), Wait::Registered);
    word.requeue();
    assert_eq!(word.take_requeue(), Dequeue::Resend);
    assert!(word.settle());
    assert_eq!(word.finish(true), Finish::Idle { wake: true });
    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit);
    assert!(!word.settle());
    assert_eq!(word.finish(true), Finish::Idle { wake: false }, "woken once");
}

#[test]
fn t29_a_cancellation_is_about_the_current_run() {
    let (word, key) = running();
    assert_eq!(
        (word.cancel(key + 1), word.cancel(key), word.cancel(key)),
        (Cancel::Stale, Cancel::Asked, Cancel::Asked)
    );
    assert!(word.is_cancelled());
    assert_eq!(word.try_run(key, Loss::MustNotLose), Claim::Rearmed);
    word.settle(); // it ended otherwise first
    assert_eq!(word.finish(true), Finish::RunAgain { wake: false });
    assert!(!word.is_cancelled(), "the next run is another one");
    word.settle();
    assert_eq!(word.cancel(key), Cancel::Idle, "too late");
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
    assert_eq!(word.cancel(key), Cancel::Idle);
}

#[test]
fn f4_a_recall_is_owed_from_its_transmission_until_its_return() {
    let (word, key) = running();
    assert_eq!(word.returned(key), Returned::NotAwaited, "asked for, not sent");
    assert!(word.recalled() && !word.recalled(), "a resend does not begin anew");
    word.settle();
    assert_eq!(word.finish(true), Finish::Idle { wake: false });
    assert!(word.is_owed(key) && !word.is_owed(key + 1), "after the run, too");
    assert_eq!(word.returned(key + 1), Returned::Stale);
    assert_eq!((word.returned(key), word.returned(key)), (Returned::Noted, Returned::NotAwaited), "once");

    assert_eq!(word.try_run(key, Loss::MayCoalesce), Claim::Submit);
    assert!(word.recalled());
    assert_eq!(word.remove(key), Removal::Deferred);
    assert!(!word.is_owed(key) && !word.recalled(), "what was removed is not owed");
    word.settle();
    assert_eq!(word.finish(true), Finish::Free { wake: false });
    assert_eq!(word.free(), Freed::Reusable);
}

#[test]
fn an_exhausted_generation_retires_the_entry() {
    let last = u32::MAX - 1;
    let word = StateWord::with(Snapshot::new(last, Flags::empty()));
    assert_eq!(word.activate(), last);
    assert_eq!(word.remove(last), Removal::FreeNow);
    assert_eq!(word.free(), Freed::Retired);
    assert_eq!(word.try_run(last, Loss::MayCoalesce), Claim::Stale);
    assert_eq!(word.try_run(u32::MAX, Loss::MayCoalesce), Claim::Stale);
}

#[test]
#[should_panic(expected = "activate of a callback in state generation 4294967295 FREE")]
fn a_retired_entry_is_not_used_again() {
    StateWord::with(Snapshot::new(u32::MAX, Flags::empty())).activate();
}

#[test]
#[should_panic(expected = "settle of a callback in state generation 1 LIVE | RUNNING | SETTLED")]
fn r3_a_run_is_not_completed_twice() {
    let (word, _) = running();
    word.settle();
    word.settle();
}

#[test]
#[should_panic(expected = "finish of a callback in state generation 1 LIVE | RUNNING")]
fn r3_a_run_is_not_finished_undecided() {
    let (word, _) = running();
    let _ = word.finish(true);
}
