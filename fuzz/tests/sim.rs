//! A few seeds of the simulator, and the checkers themselves: each finds the fault that is planted for it.

use ringback_fuzz::seeds::simulator::noise;
use ringback_fuzz::sim::{self, Coverage, Kind, Options, Plant, Rule};

/// Seeds that are played; CI plays more of them, optimised.
const SEEDS: u64 = 100;

/// Seeds that are played for upgrades: there is one in every fourth or so.
const UPGRADE_SEEDS: u64 = 300;

/// Seeds in which a planted fault must be found.
const PLANTED_SEEDS_MAX: u64 = 200;

/// Seeds in which everything that a simulation may come across must be reached.
const COVERAGE_SEEDS_MAX: u64 = 500;

fn failures(seed: u64, plant: Plant) -> Vec<sim::Failure> {
    sim::run(seed, &Options { plant, ..Options::default() }).failures
}

#[test]
fn whatever_happens_every_callback_ends_once() {
    let mut runs = 0;
    for seed in 0..SEEDS {
        let report = sim::run(seed, &Options::default());
        assert!(
            report.failures.is_empty(),
            "cargo run --release --bin sim -- --seed {seed} --trace\n{:#?}",
            report.failures
        );
        runs += report.runs;
    }
    assert!(runs > 500, "{runs} runs");
}

/// Members come to each of their ends, groups are dropped, and what the others say is what the model knows.
#[test]
fn t25_groups_are_settled_once_whatever_happens() {
    let kinds = [Kind::GroupReturned, Kind::GroupOverdue, Kind::GroupFailed, Kind::GroupLeft];
    let mut coverage = Coverage::default();
    for seed in 1000..1000 + SEEDS {
        let report = sim::run(seed, &Options::default());
        assert!(report.failures.is_empty(), "seed {seed}: {:#?}", report.failures);
        coverage.add(&report.coverage);
    }
    kinds.into_iter().for_each(|kind| assert!(coverage.count(kind) > 20, "{kind:?}: {}", coverage.count(kind)));
}

/// Tenants come to each of their limits, have none exceeded, and are told what the model has counted.
#[test]
fn tenants_have_what_they_may_and_no_more() {
    let kinds = [Kind::InsertTenantFull, Kind::TenantHeldBack, Kind::TenantLimited];
    let mut coverage = Coverage::default();
    for seed in 2000..2000 + SEEDS {
        let report = sim::run(seed, &Options::default());
        assert!(report.failures.is_empty(), "seed {seed}: {:#?}", report.failures);
        coverage.add(&report.coverage);
    }
    kinds.into_iter().for_each(|kind| assert!(coverage.count(kind) > 20, "{kind:?}: {}", coverage.count(kind)));
}

/// The runtime is handed over to another process, or is not because either fails, is late or is gone, in the middle of everything:
/// whatever was accepted ends once, in the one or in the other.
#[test]
fn a_runtime_is_handed_over_or_not_whatever_happens() {
    let mut coverage = Coverage::default();
    for seed in 3000..3000 + UPGRADE_SEEDS {
        let report = sim::run(seed, &Options::default());
        assert!(report.failures.is_empty(), "seed {seed}: {:#?}", report.failures);
        coverage.add(&report.coverage);
    }
    let kinds = [Kind::Upgraded, Kind::UpgradedFlying, Kind::UpgradeFailed, Kind::UpgradeTimedOut, Kind::NobodyServes];
    kinds.into_iter().for_each(|kind| assert!(coverage.count(kind) > 5, "{kind:?}: {}", coverage.count(kind)));
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let [one, two] = [0; 2].map(|_| sim::run(seed, &Options::default()));
        assert_eq!((one.digest, one.runs, one.turns), (two.digest, two.runs, two.turns), "seed {seed}");
        assert!(seed == 0 || one.digest != sim::run(seed - 1, &Options::default()).digest);
    }
}

#[test]
fn every_kind_of_fault_answer_and_outcome_is_reached() {
    let mut coverage = Coverage::default();
    for seed in 0..COVERAGE_SEEDS_MAX {
        for hostile in [false, true] {
            // Upgrades go the same way whether clients lie or not.
            let seed = if hostile { COVERAGE_SEEDS_MAX + seed } else { seed };
            let report = sim::run(seed, &Options { hostile, ..Options::default() });
            assert!(report.failures.is_empty(), "seed {seed}, hostile: {hostile}: {:#?}", report.failures);
            coverage.add(&report.coverage);
        }
        if coverage.missing().is_empty() {
            return;
        }
    }
    panic!("{:?} not reached in {COVERAGE_SEEDS_MAX} seeds", coverage.missing());
}

/// Each planted fault, and what its checker calls it.
const PLANTED: [(Plant, Rule); 43] = [
    (Plant::SwallowRelease, Rule::OneCompletion),
    (Plant::SwallowDone, Rule::OneCompletion),
    (Plant::SkipSequenceId, Rule::SequenceIds),
    (Plant::AlterResend, Rule::SameBytes),
    (Plant::OldProgram, Rule::Stale),
    (Plant::MuffleBell, Rule::Ends),
    (Plant::HideSlot, Rule::Slots),
    (Plant::SpinReactor, Rule::BoundedWork),
    (Plant::HideRun, Rule::InFlight),
    (Plant::HideAbandoned, Rule::Ends),
    (Plant::KeepBuffer, Rule::Leak),
    (Plant::RecycleTwice, Rule::Seam),
    (Plant::StrayReactor, Rule::OneOwner),
    (Plant::SwallowPrepare, Rule::HookOrder),
    (Plant::TwistAnswer, Rule::Answer),
    (Plant::TwistOutcome, Rule::Outcome),
    (Plant::StretchDeadline, Rule::Deadline),
    (Plant::CacheThis, Rule::Wire),
    (Plant::MuffleWaiter, Rule::Waiters),
    (Plant::SwapAnswer, Rule::Fore),
    (Plant::RepeatOverdue, Rule::Overdue),
    (Plant::SwallowOverdue, Rule::Overdue),
    (Plant::SwallowReferring, Rule::Wire),
    (Plant::RepeatCompletion, Rule::OneCompletion),
    (Plant::SlotGivenUp, Rule::SequenceIds),
    (Plant::WrongIdent, Rule::Wire),
    (Plant::WrongStamp, Rule::Stale),
    (Plant::AlterResend0, Rule::SameBytes),
    (Plant::SecondProbe, Rule::Wire),
    (Plant::ConnectElsewhere, Rule::Stale),
    (Plant::PanicInHook, Rule::Panic),
    (Plant::PanicInReactor, Rule::Panic),
    (Plant::MisplaceClient, Rule::OneOwner),
    (Plant::MuffleGroup, Rule::Groups),
    (Plant::TwistGroup, Rule::Groups),
    (Plant::HastenGroup, Rule::Groups),
    (Plant::LooseCalls, Rule::Limits),
    (Plant::LooseRate, Rule::Limits),
    (Plant::MiscountTenant, Rule::Limits),
    (Plant::EarlierIds, Rule::SequenceIds),
    (Plant::LoseUnread, Rule::Fore),
    (Plant::ForgetRun, Rule::InFlight),
    (Plant::BothServe, Rule::OneOwner),
];

#[test]
fn each_planted_fault_is_found() {
    for (plant, rule) in PLANTED {
        // An upgrade that is not planned to fail comes in few seeds, and what goes wrong with it must matter afterwards.
        let seeds = if plant.is_of_upgrades() { 3 * PLANTED_SEEDS_MAX } else { PLANTED_SEEDS_MAX };
        let mut failures = (0..seeds).flat_map(|seed| failures(seed, plant));
        let found = failures.any(|failure| failure.rule == rule);
        assert!(found, "{plant:?} breaks {rule:?}, which was not found in {seeds} seeds");
    }
}

/// Inputs of noise in which a planted fault must be found: their simulations are small.
const PLANTED_INPUTS_MAX: u64 = 5000;

#[test]
fn each_planted_fault_is_found_from_bytes_too() {
    // Small simulations have no completion queues, each of which is a descriptor to be opened, nor clients of NFSv4.0,
    // nor tenants; and they hardly ever use a session slot again after an upgrade.
    let large = [Plant::RepeatCompletion, Plant::EarlierIds];
    let small = |plant: Plant| !large.contains(&plant) && !plant.is_minor0() && !plant.is_of_tenants();
    for (plant, rule) in PLANTED.into_iter().filter(|(plant, _)| small(*plant)) {
        let options = Options { plant, ..Options::default() };
        let finds = |number| sim::run_input(&noise(number), &options).failures.iter().any(|f| f.rule == rule);
        let found = (0..PLANTED_INPUTS_MAX).any(finds);
        assert!(found, "{plant:?} breaks {rule:?}, which was not found in {PLANTED_INPUTS_MAX} inputs");
    }
}

#[test]
fn the_same_input_gives_the_same_history() {
    for number in 0..100 {
        let [one, two] = [0; 2].map(|_| sim::run_input(&noise(number), &Options::default()));
        assert_eq!((one.digest, one.runs, one.turns), (two.digest, two.runs, two.turns), "input {number}");
    }
}

#[test]
fn each_checker_has_a_planted_fault() {
    for rule in Rule::ALL {
        assert!(PLANTED.iter().any(|(_, found)| *found == rule), "nothing shows that {rule:?} finds anything");
    }
}
