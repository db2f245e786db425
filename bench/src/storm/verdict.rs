//! Compares what the runtime says with what the swarm counted, and names everything that does not add up.

use super::cli::{Halves, Options};
use super::results::{Drained, Results, ServerResults, SwarmTally};
use ringback::CallbackKey;
use std::time::Duration;

/// The smallest RPC timeout: a client that waits longer than that has noticed.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Clients that gave up are named so far.
const FAILURES_SHOWN_MAX: usize = 10;

/// Every discrepancy of a run, one line each; empty if nothing was lost, doubled or leaked.
pub fn judge(results: &Results) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(server) = &results.server {
        judge_server(&results.options, server, results.interrupted, &mut found);
    }
    if let Some(swarm) = &results.swarm {
        judge_swarm(&results.options, swarm, results.interrupted, &mut found);
    }
    if let (Some(server), Some(swarm)) = (&results.server, &results.swarm) {
        judge_both(&results.options, server, swarm, results.interrupted, &mut found);
    }
    found
}

/// Notes `message` unless `right`.
fn expect(found: &mut Vec<String>, right: bool, message: impl FnOnce() -> String) {
    if !right {
        found.push(message());
    }
}

fn judge_server(options: &Options, s: &ServerResults, interrupted: bool, found: &mut Vec<String>) {
    let (accepted, completed, released) = (s.accepted, s.completed, s.released);
    expect(found, s.started == accepted, || format!("{accepted} callbacks accepted but {} taken up", s.started));
    expect(found, completed == accepted, || format!("{accepted} callbacks accepted but {completed} completed"));
    expect(found, released == completed, || format!("{completed} callbacks completed but {released} released"));
    expect(found, s.in_flight == 0, || format!("{} callbacks in flight at the end", s.in_flight));
    expect(found, s.slots_leaked == 0, || format!("{} session slots leaked", s.slots_leaked));
    let stuck = expected_stuck(options);
    let abandoned = s.drained.abandoned.len() as u64;
    expect(found, abandoned <= stuck, || format!("{abandoned} callbacks abandoned by the drain"));
    judge_drain(&s.drained, found);
    let seen = s.outcomes.total();
    expect(found, seen == completed, || format!("{completed} callbacks completed but the hooks saw {seen} endings"));
    if interrupted {
        return;
    }
    expect(found, accepted == options.delegations, || {
        format!("{} delegations to recall but {accepted} callbacks accepted", options.delegations)
    });
    let (asked, done) = (options.upgrades as usize, s.upgrades.len());
    expect(found, done == asked, || format!("{asked} upgrades were asked for, {done} came to pass"));
    let pause = s.pause_max();
    expect(found, pause < PAUSE_MAX, || format!("an upgrade took {} ms", pause.as_millis()));
    let unanswered = completed.saturating_sub(s.outcomes.answered() + s.outcomes.refused);
    expect(found, unanswered <= stuck, || {
        format!("{unanswered} callbacks without an answer, {stuck} at most are at clients made dead or delaying")
    });
}

/// What a drain reports by key must be what the hooks were told to be cancelled, each once.
fn judge_drain(drained: &Drained, found: &mut Vec<String>) {
    let in_order = |mut keys: Vec<CallbackKey>| {
        keys.sort_unstable();
        keys
    };
    let reported = in_order([drained.abandoned.as_slice(), &drained.unsent].concat());
    let cancelled = in_order(drained.cancelled.clone());
    expect(found, reported == cancelled, || {
        let (said, seen) = (reported.len(), cancelled.len());
        format!("the drain reports {said} keys, which are not those of the {seen} callbacks that it cancelled")
    });
}

fn judge_swarm(options: &Options, t: &SwarmTally, interrupted: bool, found: &mut Vec<String>) {
    expect(found, t.doubled == 0, || format!("{} recalls arrived more than once", t.doubled));
    expect(found, t.malformed == 0, || format!("{} records malformed", t.malformed));
    expect(found, t.against_rules == 0, || format!("{} callbacks or replies against the rules", t.against_rules));
    expect(found, t.unknown == 0, || format!("{} recalls of delegations never granted", t.unknown));
    expect(found, t.granted_twice == 0, || format!("{} delegations granted twice", t.granted_twice));
    for why in t.failures.iter().take(FAILURES_SHOWN_MAX) {
        found.push(why.clone());
    }
    let hidden = t.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
    expect(found, hidden == 0, || format!("{hidden} more clients gave up"));
    if interrupted {
        return;
    }
    let wanted = options.delegations;
    // Another server need not grant what is asked for (RFC 8881 section 10.4), but without any there was no storm.
    let enough = if matches!(options.halves, Halves::Swarm(..)) { t.granted > 0 } else { t.granted == wanted };
    expect(found, enough, || format!("{wanted} delegations wanted but {} granted", t.granted));
    expect(found, t.missed_live == 0, || format!("{} delegations of live clients never recalled", t.missed_live));
    expect(found, !options.return_all || t.kept_live == 0, || {
        format!("{} delegations of live clients recalled but not returned", t.kept_live)
    });
}

fn judge_both(options: &Options, s: &ServerResults, t: &SwarmTally, interrupted: bool, found: &mut Vec<String>) {
    if !interrupted {
        expect(found, s.granted == t.granted, || {
            format!("the server granted {} delegations, the swarm has seen {}", s.granted, t.granted)
        });
    }
    // Another server may put a name of its own into the credential; ours does not.
    let other = t.other_credential;
    expect(found, other == 0, || format!("{other} callbacks with a credential that does not go with their program"));
    // What the runtime says was answered, the swarm must have received.
    let answered = s.outcomes.ok + s.outcomes.delivered_unknown;
    expect(found, answered <= t.recalled, || {
        format!("the runtime counts {answered} recalls answered, the swarm has received {}", t.recalled)
    });
    // A recall can arrive without the runtime learning of it only where answers are missing on purpose or by a drain.
    let unsure = s.outcomes.timed_out + s.outcomes.cancelled + s.outcomes.error + s.outcomes.fault;
    expect(found, t.recalled <= answered + unsure, || {
        format!(
            "the swarm received {} recalls, the runtime counts {answered} answered and {unsure} in doubt",
            t.recalled
        )
    });
    expect(found, !options.return_all || interrupted || s.returned == t.returned, || {
        format!("the swarm returned {} delegations, the server has taken {} back", t.returned, s.returned)
    });
}

/// Callbacks that may stay without an answer: those of clients made dead, or delaying for ever, on purpose.
pub fn expected_stuck(options: &Options) -> u64 {
    let clients = u64::from(options.dead_clients + options.delay_clients);
    clients * options.delegations.div_ceil(u64::from(options.clients))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const KEY: CallbackKey = CallbackKey { index: 1, generation: 1 };

    fn found_after(change: impl FnOnce(&mut Results)) -> Vec<String> {
        let mut results = sample::results();
        change(&mut results);
        judge(&results)
    }

    fn server(results: &mut Results) -> &mut ServerResults {
        results.server.as_mut().unwrap()
    }

    fn swarm(results: &mut Results) -> &mut SwarmTally {
        results.swarm.as_mut().unwrap()
    }

    #[test]
    fn a_clean_run_has_no_discrepancy() {
        assert_eq!(found_after(|_| ()), Vec::<String>::new());
    }

    /// One thing wrong, one line at least that tells it.
    #[test]
    fn each_loss_is_named() {
        type Change = fn(&mut Results);
        let cases: [(Change, &str); 21] = [
            (|r| server(r).completed -= 1, "accepted but"),
            (|r| server(r).released -= 1, "released"),
            (|r| server(r).in_flight = 1, "in flight"),
            (|r| server(r).slots_leaked = 1, "slots leaked"),
            (|r| server(r).drained.abandoned = vec![KEY], "abandoned"),
            (|r| server(r).drained.unsent = vec![KEY], "the drain reports 1 keys"),
            (|r| server(r).drained.cancelled = vec![KEY], "the drain reports 0 keys"),
            (|r| server(r).outcomes.ok -= 1, "the hooks saw"),
            (|r| r.options.delegations += 1, "delegations to recall"),
            (|r| swarm(r).doubled = 1, "more than once"),
            (|r| swarm(r).malformed = 1, "malformed"),
            (|r| swarm(r).against_rules = 1, "against the rules"),
            (|r| swarm(r).granted_twice = 1, "granted twice"),
            (|r| swarm(r).other_credential = 1, "with a credential"),
            (|r| swarm(r).kept_live = 1, "not returned"),
            (|r| swarm(r).failures = vec!["client 3 gave up".into(); 12], "2 more clients"),
            (|r| swarm(r).unknown = 1, "never granted"),
            (|r| swarm(r).missed_live = 1, "never recalled"),
            (|r| swarm(r).recalled -= 1, "the swarm has received"),
            (|r| swarm(r).returned -= 1, "the server has taken"),
            (|r| server(r).granted -= 1, "the server granted"),
        ];
        for (change, text) in cases {
            let found = found_after(change);
            assert!(found.iter().any(|f| f.contains(text)), "{text}: {found:?}");
        }
    }

    #[test]
    fn timeouts_at_dead_clients_are_not_lost_but_others_are() {
        let dead = |r: &mut Results| {
            let o = &mut server(r).outcomes;
            (o.ok, o.timed_out) = (o.ok - 250, 250);
            server(r).returned -= 250;
            swarm(r).recalled -= 250;
            swarm(r).returned -= 250;
        };
        assert!(found_after(dead).iter().any(|f| f.contains("250 callbacks without an answer")));
        let expected = found_after(|r| {
            dead(r);
            r.options.dead_clients = 1;
        });
        assert_eq!(expected, Vec::<String>::new());
    }

    #[test]
    fn an_interrupted_run_must_still_balance() {
        let early = |r: &mut Results| {
            r.interrupted = true;
            (server(r).accepted, server(r).started) = (500, 500);
            (server(r).completed, server(r).released) = (500, 500);
            server(r).outcomes.ok = 400;
            server(r).outcomes.cancelled = 100;
            swarm(r).recalled = 450;
            swarm(r).missed_live = 550;
        };
        assert_eq!(found_after(early), Vec::<String>::new());
        let leaked = found_after(|r| {
            early(r);
            server(r).slots_leaked = 3;
        });
        assert_eq!(leaked, vec!["3 session slots leaked".to_owned()]);
    }
}
