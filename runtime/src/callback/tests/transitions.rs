//! Every state with every transition: the table in `transitions.txt`, and what must hold in all of it.

use crate::callback::members::Members;
use crate::callback::state::{Claim, Flags, Loss, Snapshot, StateWord};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub(super) const GENERATION: u32 = 5;

/// A transition as the table lists it: its name, and how to take it with a key of some generation.
pub(super) type Transition = (&'static str, fn(&StateWord, u32) -> String);

const WITH_A_KEY: [Transition; 6] = [
    ("try_run, may coalesce", |word, key| show(word.try_run(key, Loss::MayCoalesce))),
    ("try_run, must not lose", |word, key| show(word.try_run(key, Loss::MustNotLose))),
    ("wait", |word, key| show(word.wait(key))),
    ("remove", |word, key| show(word.remove(key))),
    ("returned", |word, key| show(word.returned(key))),
    ("cancel", |word, key| show(word.cancel(key))),
];

/// Answers `false` to a stale key, as to what is not set.
const QUESTIONS: [Transition; 1] = [("is_owed", |word, key| show(word.is_owed(key)))];

const OF_THE_OWNER: [Transition; 9] = [
    ("abandon", |word, _| show(word.abandon())),
    ("take_requeue", |word, _| show(word.take_requeue())),
    ("requeue", |word, _| {
        word.requeue();
        "done".to_owned()
    }),
    ("settle", |word, _| {
        let wake = word.settle();
        format!("wake: {wake}")
    }),
    ("finish", |word, _| show(word.finish(true))),
    ("finish, drop rearm", |word, _| show(word.finish(false))),
    ("recalled", |word, _| show(word.recalled())),
    ("free", |word, _| show(word.free())),
    ("activate", |word, _| show(word.activate())),
];

fn show(duty: impl Debug) -> String {
    format!("{duty:?}")
}

pub(super) fn all() -> impl Iterator<Item = Transition> {
    WITH_A_KEY.into_iter().chain(QUESTIONS).chain(OF_THE_OWNER)
}

/// Takes one transition from one state. `None`: it is illegal there, and the word kept its value.
pub(super) fn take(transition: Transition, flags: Flags, key: u32) -> Option<(String, Snapshot)> {
    let word = StateWord::with(Snapshot::new(GENERATION, flags));
    match catch_unwind(AssertUnwindSafe(|| transition.1(&word, key))) {
        Ok(duty) => Some((duty, word.snapshot())),
        Err(_) => {
            assert_eq!(word.snapshot(), Snapshot::new(GENERATION, flags), "an illegal {} changed it", transition.0);
            None
        }
    }
}

/// All states that legal transitions lead to from a free entry.
pub(super) fn reachable() -> Vec<Flags> {
    let mut found = BTreeSet::from([0]);
    let mut open = vec![Flags::empty()];
    while let Some(flags) = open.pop() {
        for (_, after) in all().filter_map(|transition| take(transition, flags, GENERATION)) {
            if found.insert(after.flags().bits()) {
                open.push(after.flags());
            }
        }
    }
    found.into_iter().map(Flags::from_bits_retain).collect()
}

/// A state in the table: the generation only where it changed.
fn name(state: Snapshot) -> String {
    let name = format!("{state:?}");
    name.replace(&format!("generation {GENERATION} "), "")
}

fn table() -> String {
    let mut table = String::new();
    for flags in reachable() {
        writeln!(table, "{}", name(Snapshot::new(GENERATION, flags))).expect("a string grows");
        for transition in all() {
            let (duty, after) = match take(transition, flags, GENERATION) {
                None => ("illegal".to_owned(), String::new()),
                Some((duty, after)) if after == Snapshot::new(GENERATION, flags) => (duty, "stays".to_owned()),
                Some((duty, after)) => (duty, name(after)),
            };
            let line = format!("    {:<24}{duty:<26}{after}", transition.0);
            writeln!(table, "{}", line.trim_end()).expect("a string grows");
        }
    }
    table
}

#[test]
fn every_state_with_every_transition_is_as_tabled() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/callback/tests/transitions.txt");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &table).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let tabled = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(table == tabled, "{}: run this test with UPDATE=1, and look at what changed", path.display());
}

#[test]
fn reachable_states_keep_what_the_flags_exclude() {
    let per_run = Flags::SETTLED | Flags::REQUEUE | Flags::REARM | Flags::WAKE | Flags::CANCEL;
    let legal = |flags: Flags| {
        (flags.contains(Flags::LIVE) || flags.is_empty())
            && (flags.contains(Flags::RUNNING) || !flags.intersects(per_run))
            && !flags.contains(Flags::SETTLED | Flags::REQUEUE)
            && !flags.contains(Flags::REARM | Flags::DYING)
            && !flags.contains(Flags::OWED | Flags::DYING)
    };
    let expected: Vec<Flags> = (0..=Flags::all().bits()).map(Flags::from_bits_retain).filter(|&f| legal(f)).collect();
    assert_eq!(reachable(), expected);
}

/// Group members that wait are no state of their own: every transition goes as it does without them, and keeps them; the end
/// of a run says that they are there. But an entry is not freed with them.
#[test]
fn members_are_carried_along() {
    const WAITED: Option<u32> = Some(7);
    for flags in reachable().into_iter().filter(|flags| flags.contains(Flags::LIVE)) {
        for transition in all() {
            let word = StateWord::with(Snapshot::new(GENERATION, flags).with_member(WAITED));
            let with_member = catch_unwind(AssertUnwindSafe(|| transition.1(&word, GENERATION))).ok();
            let without = take(transition, flags, GENERATION).filter(|_| transition.0 != "free");
            assert_eq!(with_member.is_some(), without.is_some(), "{} from {flags:?}", transition.0);
            let after = without.as_ref().map_or(Snapshot::new(GENERATION, flags), |(_, after)| *after);
            assert_eq!(word.snapshot(), after.with_member(WAITED), "{} from {flags:?}", transition.0);
            let ends = transition.0.starts_with("finish");
            let told = without.map(|(duty, _)| if ends { duty.replace("Idle", "Joined") } else { duty });
            assert_eq!(with_member, told, "{} from {flags:?}", transition.0);
        }
    }
}

#[test]
fn a_member_joins_where_a_run_is_asked_for_and_nowhere_else() {
    for flags in reachable() {
        for loss in [Loss::MayCoalesce, Loss::MustNotLose] {
            let [plain, joined] = [(); 2].map(|()| StateWord::with(Snapshot::new(GENERATION, flags)));
            let answer = joined.join(GENERATION, loss, 3, |first| assert_eq!(first, None));
            assert_eq!(answer, plain.try_run(GENERATION, loss));
            let waits = !matches!(answer, Claim::Stale | Claim::Dying);
            assert_eq!(joined.snapshot(), plain.snapshot().with_member(waits.then_some(3)), "{flags:?}");
            if waits {
                let _ = joined.join(GENERATION, loss, 9, |first| assert_eq!(first, Some(3)));
                assert_eq!(joined.snapshot().member(), Some(9));
                assert!(joined.take_members(GENERATION, Flags::RUNNING).is_empty(), "it waits for this run");
                assert!(joined.take_members(GENERATION + 1, Flags::empty()).is_empty(), "a stale key");
                assert!(joined.take_members(GENERATION, Flags::empty()) == Members::first(Some(9)));
                assert!(joined.take_members(GENERATION, Flags::empty()).is_empty(), "taken once");
            }
        }
    }
}

#[test]
fn r8_a_stale_key_changes_no_state() {
    for flags in reachable() {
        for stale in [0, GENERATION - 1, GENERATION + 1, u32::MAX] {
            let with_a_key = WITH_A_KEY.map(|transition| (transition, "Stale"));
            for (transition, expected) in with_a_key.into_iter().chain(QUESTIONS.map(|question| (question, "false"))) {
                let answer = take(transition, flags, stale);
                assert_eq!(answer, Some((expected.to_owned(), Snapshot::new(GENERATION, flags))), "{}", transition.0);
            }
        }
    }
}

#[test]
fn r6_only_finish_and_abandon_end_a_run() {
    for flags in reachable() {
        for transition in all() {
            let Some((duty, after)) = take(transition, flags, GENERATION) else { continue };
            let (before, after) = (flags.contains(Flags::RUNNING), after.flags().contains(Flags::RUNNING));
            let ends = ["abandon", "finish", "finish, drop rearm"].contains(&transition.0);
            let name = transition.0;
            assert_eq!(!before && after, duty == "Submit", "RUNNING is set by a Submit and nothing else: {name}");
            assert_eq!(before && !after, ends && !duty.starts_with("RunAgain"), "{name} from {flags:?}");
        }
    }
}

#[test]
fn generations_change_by_free_and_by_the_first_activate_only() {
    for flags in reachable() {
        for transition in all() {
            let Some((_, after)) = take(transition, flags, GENERATION) else { continue };
            let expected = if transition.0 == "free" { GENERATION + 1 } else { GENERATION };
            assert_eq!(after.generation(), expected, "{} from {flags:?}", transition.0);
        }
    }
    assert_eq!(StateWord::with(Snapshot::new(0, Flags::empty())).activate(), 1, "no key has generation 0");
}
