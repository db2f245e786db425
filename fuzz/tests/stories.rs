//! What docs/src/outcomes.md says of storms and of NFSv4.0, shown in the simulator: stories, told over lines and with clients
//! as a few seeds say, and simulations of all kinds whose clients are of minor version 0.

use ringback_fuzz::sim::{self, Coverage, Kind, Options, Plant, Report, Rule, Story};
use std::sync::OnceLock;

/// Seeds with which each story is told.
const SEEDS: u64 = 12;

/// Seeds that are played with clients of minor version 0.
const MINOR0_SEEDS: u64 = 60;

/// Tells a story with each seed. One that fails is told once more, step by step.
fn tell(story: Story, minor0: bool) -> Vec<Report> {
    let options = Options { minor0, ..Options::default() };
    let told = |seed| {
        let report = sim::tell(seed, story, &options);
        if !report.failures.is_empty() {
            sim::tell(seed, story, &Options { trace: true, ..options });
            panic!("{story:?}, minor version 0: {minor0}, seed {seed}: {:#?}", report.failures);
        }
        report
    };
    (0..SEEDS).map(told).collect()
}

fn replied(reports: &[Report], count: u64) {
    let right = |report: &Report| report.coverage.count(Kind::Replied) == count;
    assert!(
        reports.iter().all(right),
        "{:?}",
        reports.iter().map(|r| r.coverage.count(Kind::Replied)).collect::<Vec<_>>()
    );
}

#[test]
fn t24_a_client_of_one_slot_gets_a_thousand_recalls_one_by_one() {
    replied(&tell(Story::OneByOne { capped: false }, false), 1000);
}

#[test]
fn t24_a_client_with_a_cap_gets_a_thousand_recalls_one_by_one() {
    replied(&tell(Story::OneByOne { capped: true }, false), 1000);
}

#[test]
fn t24_clients_of_minor_version_0_get_a_thousand_recalls_one_by_one() {
    replied(&tell(Story::OneByOne { capped: false }, true), 1000);
    replied(&tell(Story::OneByOne { capped: true }, true), 1000);
}

#[test]
fn t25_a_dead_reader_delays_none_of_a_hundred() {
    replied(&tell(Story::DeadReader, false), 99);
}

#[test]
fn t25_a_dead_reader_of_minor_version_0_delays_none_of_a_hundred() {
    replied(&tell(Story::DeadReader, true), 99);
}

#[test]
fn who_has_little_to_send_does_not_wait_for_who_has_much() {
    replied(&tell(Story::Crowd, false), 1040);
    replied(&tell(Story::Crowd, true), 1040);
}

#[test]
fn classes_come_in_their_order_and_none_starves() {
    tell(Story::Classes, false);
}

/// For every k: those before it are settled, it is, and those behind it go together in the next call.
#[test]
fn t31_a_batch_stops_at_each_operation_in_turn() {
    for k in 1..=16 {
        for delays in [false, true] {
            let reports = tell(Story::StopsAt { k, delays }, false);
            replied(&reports, 16);
            assert!(reports.iter().all(|report| report.coverage.count(Kind::Batch) > 0));
        }
    }
}

#[test]
fn f5_a_thousand_sessions_are_sent_nothing() {
    tell(Story::Sessions, false);
}

#[test]
fn f5_who_answers_does_not_wait_for_twenty_who_do_not() {
    tell(Story::SilentDoors, true);
}

/// What simulations come across all of whose clients are of minor version 0.
fn minor0() -> &'static Coverage {
    static COVERAGE: OnceLock<Coverage> = OnceLock::new();
    COVERAGE.get_or_init(|| {
        let mut coverage = Coverage::default();
        for seed in 0..MINOR0_SEEDS {
            let report = sim::run(seed, &Options { minor0: true, ..Options::default() });
            assert!(report.failures.is_empty(), "sim --minor0 --seed {seed}: {:#?}", report.failures);
            coverage.add(&report.coverage);
        }
        coverage
    })
}

/// Whether the checkers find a mistake that is made on purpose.
fn is_found(plant: Plant, rule: Rule) -> bool {
    let options = Options { minor0: true, plant, ..Options::default() };
    (0..MINOR0_SEEDS).any(|seed| sim::run(seed, &options).failures.iter().any(|failure| failure.rule == rule))
}

#[test]
fn f2_each_call_has_the_callback_ident_of_its_client() {
    assert!(minor0().count(Kind::Call0) > 1000, "{}", minor0().count(Kind::Call0));
    assert!(is_found(Plant::WrongIdent, Rule::Wire));
}

#[test]
fn f11_clients_are_connected_to_over_ipv4_and_ipv6_alike() {
    let counts = [Kind::ConnectTaken, Kind::ConnectTaken6].map(|kind| minor0().count(kind));
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn f16_only_confirmed_addresses_are_connected_to() {
    let [said, confirmed] = [Kind::SetClientId, Kind::Confirmed].map(|kind| minor0().count(kind));
    assert!(confirmed > 100 && said > confirmed + 20, "{said} {confirmed}");
    assert!(is_found(Plant::ConnectElsewhere, Rule::Stale));
}

#[test]
fn t20_calls_are_sent_again_as_they_were() {
    assert!(minor0().count(Kind::Call0Resent) > 20, "{}", minor0().count(Kind::Call0Resent));
    assert!(is_found(Plant::AlterResend0, Rule::SameBytes));
}

#[test]
fn t9_there_is_one_probe_at_a_time() {
    assert!(minor0().count(Kind::Null) > 100);
    assert!(is_found(Plant::SecondProbe, Rule::Wire));
}
