//! Storms with clients and connections that misbehave, seen callback by callback: who was asked, who answered, and what
//! a drain says about the rest.

use ringback::{Backend, Builder, CallbackKey, Outcome, Run, TryRun};
use ringback_bench::swarm::{Behaviour, Progress, Swarm, SwarmConfig, Tally, Until};
use ringback_rpc::nfs4::Status;
use ringback_server::{Config, Observer, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// What became of one callback.
#[derive(Clone, Debug, Default)]
struct Fate {
    outcomes: Vec<String>,
    answered: bool,
    released: u32,
}

#[derive(Default)]
struct Fates(Mutex<BTreeMap<CallbackKey, Fate>>);

impl Fates {
    fn of(&self, key: CallbackKey, f: impl FnOnce(&mut Fate)) {
        f(self.0.lock().unwrap().entry(key).or_default());
    }
}

impl Observer for Fates {
    fn done(&self, run: &Run, outcome: &Outcome<'_>) {
        self.of(run.key, |fate| {
            fate.outcomes.push(format!("{outcome:?}"));
            fate.answered |= matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. });
        });
    }
    fn released(&self, run: &Run) {
        self.of(run.key, |fate| fate.released += 1);
    }
}

/// A storm of one recall for each of `delegations`; `serving` is asked while the swarm serves.
struct Storm {
    server: Server,
    fates: Arc<Fates>,
    keys: BTreeSet<CallbackKey>,
}

impl Storm {
    fn run(
        backend: Backend,
        delegations: u64,
        configure: impl FnOnce(&mut SwarmConfig),
        mut serving: impl FnMut(&Storm) -> ControlFlow<()>,
    ) -> (Storm, Tally) {
        let fates = Arc::new(Fates::default());
        let builder = Builder::new().reactors(2).backend(backend);
        let server = Server::new(Config::default(), builder, Arc::clone(&fates) as _).unwrap();
        let mut config = SwarmConfig::new(server.listen("127.0.0.1:0").unwrap());
        configure(&mut config);
        let mut go_on = |_: &Progress<'_>| ControlFlow::Continue(());
        let mut swarm = Swarm::connect(config).unwrap();
        swarm.set_up(&mut go_on).unwrap();
        swarm.grant(delegations, &mut go_on).unwrap();
        swarm.begin_recalls();
        let held: Vec<_> = server.held().collect();
        assert_eq!(held.len() as u64, delegations);
        for held in &held {
            assert_eq!(server.recall(held), TryRun::Submitted);
        }
        let storm = Storm { server, fates, keys: held.iter().map(|held| held.key).collect() };
        let begun = Instant::now();
        let mut look = |_: &Progress<'_>| {
            assert!(begun.elapsed() < PATIENCE, "{:?}", storm.server.runtime().stats());
            serving(&storm)
        };
        swarm.serve(Until::Told, &mut look).unwrap();
        (storm, swarm.finish())
    }

    fn in_flight(&self) -> u64 {
        self.server.runtime().stats().in_flight
    }

    /// Each callback that was asked for has one outcome and one release (rule R3); gives those that were not answered.
    fn unanswered(&self) -> BTreeSet<CallbackKey> {
        let fates = self.fates.0.lock().unwrap();
        assert_eq!(
            fates.keys().copied().collect::<BTreeSet<_>>(),
            self.keys,
            "no more and no fewer than were asked for"
        );
        for (key, fate) in fates.iter() {
            assert_eq!((fate.outcomes.len(), fate.released), (1, 1), "{key:?}: {fate:?}");
        }
        fates.iter().filter(|(_, fate)| !fate.answered).map(|(key, _)| *key).collect()
    }
}

/// What no storm may show, however the clients behave.
fn assert_within_the_rules(tally: &Tally) {
    assert_eq!(
        (tally.total().doubled, tally.malformed, tally.misordered, tally.unknown_xid),
        (0, 0, 0, 0),
        "{tally:?}"
    );
    assert_eq!((tally.wrong_program, tally.wrong_credential, tally.other_credential), (0, 0, 0), "{tally:?}");
    assert_eq!(tally.replaced_parameters, 0, "nothing new has a program or a credential that was replaced: {tally:?}");
    assert!(tally.failures.is_empty(), "{tally:?}");
}

#[test]
fn t20_a_storm_cut_three_times_completes_each_callback_once() {
    const DELEGATIONS: u64 = 4_000;
    for backend in [Backend::Auto, Backend::Epoll] {
        let configure = |config: &mut SwarmConfig| (config.clients, config.session_slots, config.cuts) = (16, 8, 3);
        let (storm, tally) = Storm::run(backend, DELEGATIONS, configure, |storm| {
            if storm.in_flight() > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        storm.unanswered();
        // A recall whose reply was lost is asked again, and may find its delegation returned.
        for (key, fate) in storm.fates.0.lock().unwrap().iter() {
            let returned = fate.outcomes[0].starts_with("Replied { status: NFS4ERR_BAD_STATEID");
            assert!(fate.answered || returned, "{key:?}: {fate:?}");
        }
        assert_eq!((tally.cuts, tally.total().distinct), (3 * 16, DELEGATIONS), "{tally:?}");
        assert_within_the_rules(&tally);
        assert!((16..=3 * 16).contains(&tally.controls), "each client replaces both after a cut: {tally:?}");
        assert!(storm.server.runtime().stats().resent > 0, "something was out when a connection was cut");
        storm.server.shutdown(Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn t12_a_drain_ends_a_storm_with_delaying_and_dead_clients() {
    const CLIENTS: u64 = 64;
    const EACH: u64 = 40;
    const BAD: u64 = 8;
    const DRAIN: Duration = Duration::from_millis(500);
    for backend in [Backend::Auto, Backend::Epoll] {
        let configure = |config: &mut SwarmConfig| {
            (config.clients, config.session_slots) = (CLIENTS as u32, 16);
            (config.delay_clients, config.dead_clients) = (BAD as u32, BAD as u32);
        };
        let mut drain = None;
        let (storm, tally) = Storm::run(backend, CLIENTS * EACH, configure, |storm| {
            if storm.in_flight() > 2 * BAD * EACH {
                return ControlFlow::Continue(());
            }
            // The others are done. The swarm goes on to answer, or not to, while the runtime is drained.
            let drain = drain.get_or_insert_with(|| {
                let runtime = storm.server.runtime().clone();
                std::thread::spawn(move || runtime.drain(DRAIN).unwrap())
            });
            if drain.is_finished() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // A drain that did not end at its deadline would come back a second later, and with runs in flight.
        let report = drain.expect("the others are done").join().unwrap();
        assert_eq!((report.in_flight, storm.in_flight()), (0, 0));
        let unanswered = storm.unanswered();
        assert_eq!(unanswered.len() as u64, 2 * BAD * EACH, "the other 48 clients have answered");
        let reported: Vec<_> = report.abandoned.iter().chain(&report.unsent).copied().collect();
        assert_eq!(reported.iter().copied().collect::<BTreeSet<_>>(), unanswered, "each of them, by key");
        assert_eq!(reported.len(), unanswered.len(), "and once");
        // A dead client has 16 session slots, the rest was never sent to it.
        assert!(report.abandoned.len() as u64 >= BAD * 16, "{}", report.abandoned.len());
        assert!(report.unsent.len() as u64 >= BAD * (EACH - 16), "{}", report.unsent.len());
        assert_eq!(tally.of(Behaviour::Normal).distinct, (CLIENTS - 2 * BAD) * EACH);
        assert!(tally.of(Behaviour::Delay).delayed > 0);
        assert_within_the_rules(&tally);
        storm.server.shutdown(Duration::from_secs(1)).unwrap();
    }
}
