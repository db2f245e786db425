//! Clients that move between two reactors, turned by hand: whatever happens at whichever moment, in every order of turns.

use super::answer;
use super::stepped::{Far, Stepped};
#[cfg(feature = "checkpoint")]
use crate::checkpoint::pace::{Pace, block};
use crate::command::Command;
use crate::{CallbackKey, ClientId, ClientState, ConnectionId, Ended, Error, OutcomeKind, SessionKey, WaitError};
use ringback_rpc::nfs4::fore::seq4_status;
use ringback_rpc::record::MARK_BYTES;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Turns of the two reactors after the move was asked for: with three of each in any order it is over.
const TURNS: usize = 6;

/// A client at home on reactor 0, with a connection on each reactor and four session slots.
struct Scene {
    stepped: Stepped,
    client: ClientId,
    session: SessionKey,
    lines: [(ConnectionId, Arc<Far>); 2],
}

impl Scene {
    fn new(tune: impl FnOnce(&mut crate::settings::Settings)) -> Self {
        let mut stepped = Stepped::new(2, tune);
        let lines = [stepped.transport(), stepped.transport()];
        assert_eq!((lines[0].0.reactor(), lines[1].0.reactor()), (0, 1));
        let (client, session) = stepped.client(lines[0].0);
        let scene = Scene { stepped, client, session, lines };
        scene.bind(0);
        scene.bind(1);
        let mut scene = scene;
        scene.stepped.settle();
        scene
    }

    fn bind(&self, line: usize) {
        self.stepped.runtime.bind(self.lines[line].0, self.session).unwrap();
    }

    fn ask(&mut self, count: usize) -> Vec<CallbackKey> {
        (0..count).map(|_| self.stepped.try_run(self.client)).collect()
    }

    /// The client answers what it was sent. How many calls that were.
    fn answer(&self) -> usize {
        let mut answered = 0;
        for (connection, far) in &self.lines {
            let sent = std::mem::take(&mut *far.sent.lock().unwrap());
            let mut rest = &sent[..];
            while let Some((mark, after)) = rest.split_first_chunk::<MARK_BYTES>() {
                let (record, after) = after.split_at((u32::from_be_bytes(*mark) & 0x7fff_ffff) as usize);
                self.stepped.runtime.receive(*connection, answer(record).1[MARK_BYTES..].to_vec());
                (rest, answered) = (after, answered + 1);
            }
        }
        answered
    }

    /// Until the client has nothing more to answer.
    fn settle(&mut self) {
        self.stepped.settle();
        while self.answer() > 0 {
            self.stepped.settle();
        }
    }

    /// How each run ended, whether it was sent or not.
    fn done(&self) -> Vec<(CallbackKey, OutcomeKind)> {
        let mut done = self.stepped.embedder.done.lock().unwrap().clone();
        for (_, kind) in &mut done {
            *kind = match *kind {
                OutcomeKind::CancelledUnsent => OutcomeKind::Cancelled,
                OutcomeKind::TimedOutUnsent => OutcomeKind::TimedOut,
                other => other,
            };
        }
        done.sort_by_key(|(key, _)| *key);
        done
    }

    /// Where it was told that a client has moved.
    fn moved(&self, client: ClientId) -> Vec<usize> {
        let moved = self.stepped.embedder.moved.lock().unwrap();
        moved.iter().filter(|(moved, _)| *moved == client).map(|(_, to)| *to).collect()
    }

    fn census(&self) -> crate::Census {
        let census = |reactor: usize| self.stepped.reactors[reactor].home.census(|_| true);
        census(0).plus(&census(1))
    }
}

/// Asks for a move from reactor 0 to 1 and does something after so many turns, for each number and in each order of turns.
fn in_every_order(tune: fn(&mut crate::settings::Settings), play: impl Fn(&mut Scene, &mut dyn FnMut(&mut Scene))) {
    for order in 0..1usize << TURNS {
        for moment in 0..=TURNS {
            let mut scene = Scene::new(tune);
            let pass = |scene: &mut Scene, range: std::ops::Range<usize>| {
                range.for_each(|turn| scene.stepped.turn(order >> turn & 1));
            };
            let mut advance = |scene: &mut Scene| {
                scene.stepped.runtime.move_client(scene.client, 1).unwrap();
                pass(scene, 0..moment);
            };
            play(&mut scene, &mut advance);
            pass(&mut scene, moment..TURNS);
        }
    }
}

fn all(keys: &[CallbackKey], kind: OutcomeKind) -> Vec<(CallbackKey, OutcomeKind)> {
    let mut all: Vec<_> = keys.iter().map(|key| (*key, kind)).collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

#[test]
fn a_move_carries_what_waits_what_is_out_and_what_comes_meanwhile() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let mut keys = scene.ask(10);
            scene.stepped.turn(0);
            assert_eq!(scene.census().with_run, 4, "four are out and six wait");
            advance(scene);
            // Replies to what the old home has sent, on both connections; and more to do.
            assert!(scene.answer() > 0);
            keys.extend(scene.ask(10));
            scene.settle();
            assert_eq!(scene.done(), all(&keys, OutcomeKind::Ok), "each once");
            assert_eq!((scene.stepped.in_flight(), scene.census().slots, scene.census().free), (0, 4, 4));
            assert_eq!(scene.stepped.runtime.home_of(scene.client), Ok(1));
            assert_eq!(scene.moved(scene.client), [1]);
            assert!(scene.stepped.reactors[0].home.client(scene.client.index).is_none());
            // And back, by another way.
            scene.stepped.runtime.move_client(scene.client, 0).unwrap();
            let keys = scene.ask(3);
            scene.settle();
            assert_eq!(scene.done().iter().filter(|(key, _)| keys.contains(key)).count(), 3);
            assert_eq!(scene.moved(scene.client), [1, 0]);
        },
    );
}

#[test]
fn t35_a_drain_that_meets_a_move_ends_everything_and_then_says_so() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let keys = scene.ask(10);
            scene.stepped.turn(0);
            advance(scene);
            let job = scene.stepped.runtime.begin_drain(0);
            for turn in 0..40 {
                scene.stepped.turn(turn % 2);
                if job.is_over() {
                    assert_eq!(scene.stepped.in_flight(), 0, "it says so when it is so");
                }
            }
            assert!(job.is_over());
            assert_eq!(scene.done(), all(&keys, OutcomeKind::Cancelled));
        },
    );
}

/// Of several moves those are told that were made, up to the first that was not.
#[test]
fn t35_a_drain_between_two_moves_drops_the_later_one_and_what_is_behind_it() {
    in_every_order(
        |_| (),
        |scene, advance| {
            advance(scene);
            scene.stepped.runtime.move_client(scene.client, 0).unwrap();
            scene.stepped.runtime.move_client(scene.client, 1).unwrap();
            scene.stepped.runtime.move_client(scene.client, 1).unwrap();
            let job = scene.stepped.runtime.begin_drain(0);
            scene.stepped.settle();
            assert!(job.is_over());
            let told = scene.moved(scene.client);
            assert!([1, 0, 1, 1].starts_with(&told), "{told:?}");
            let home = scene.stepped.runtime.home_of(scene.client);
            assert_eq!(home, Ok(told.last().copied().unwrap_or(0)), "{told:?}");
        },
    );
}

#[test]
fn t29_a_client_that_is_removed_as_it_moves_leaves_nothing() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let keys = scene.ask(10);
            scene.stepped.turn(0);
            advance(scene);
            scene.stepped.runtime.remove_client(scene.client).unwrap();
            scene.stepped.settle();
            assert_eq!(scene.done(), all(&keys, OutcomeKind::Cancelled));
            let here = |reactor: usize| scene.stepped.reactors[reactor].home.clients.iter().flatten().count();
            assert_eq!((here(0), here(1), scene.stepped.in_flight()), (0, 0, 0));
        },
    );
}

#[test]
fn a_deadline_that_passes_during_a_move_ends_the_run() {
    let tune = |settings: &mut crate::settings::Settings| settings.run_deadline = Duration::from_millis(1);
    in_every_order(tune, |scene, advance| {
        let keys = scene.ask(5);
        scene.stepped.turn(0);
        advance(scene);
        while scene.stepped.in_flight() > 0 {
            std::thread::sleep(Duration::from_millis(1));
            scene.stepped.settle();
        }
        assert_eq!(scene.done(), all(&keys, OutcomeKind::TimedOut));
    });
}

/// What the embedder asks for one after the other is done in this order, wherever it arrives.
#[test]
fn what_is_asked_during_a_move_is_done_in_its_order() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let runtime = scene.stepped.runtime.clone();
            runtime.set_client_state(scene.client, ClientState::Courtesy).unwrap();
            advance(scene);
            runtime.set_client_state(scene.client, ClientState::Active).unwrap();
            let config = super::session(7);
            let second = runtime.add_session(scene.client, config).unwrap();
            runtime.bind(scene.lines[1].0, second).unwrap();
            runtime.remove_session(scene.session).unwrap();
            runtime.backchannel_ctl(second, 0x4000_0001, crate::Security::None).unwrap();
            scene.stepped.settle();
            assert_eq!((scene.census().slots, scene.census().free), (7, 7));
            let keys = scene.ask(3);
            scene.settle();
            assert_eq!(scene.done(), all(&keys, OutcomeKind::Ok), "it is active, and has a path");
            assert_eq!(runtime.seq4_status(scene.client, Some(second)) & seq4_status::CB_PATH_DOWN, 0);
        },
    );
}

#[test]
fn t21_who_waits_is_answered_wherever_the_run_ends() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let key = scene.ask(1)[0];
            let mut before = pin!(scene.stepped.runtime.wait(key));
            scene.stepped.turn(0);
            advance(scene);
            let mut during = pin!(scene.stepped.runtime.wait(key));
            scene.settle();
            let mut cx = Context::from_waker(Waker::noop());
            let mut told = [before.as_mut().poll(&mut cx), during.as_mut().poll(&mut cx)].into_iter();
            assert!(told.all(|told: Poll<Result<Ended, WaitError>>| matches!(told, Poll::Ready(Ok(_)))));
        },
    );
}

/// A census and a snapshot count a client once, though it is nowhere for a moment.
#[test]
fn a_census_during_a_move_counts_each_client_once() {
    in_every_order(
        |_| (),
        |scene, advance| {
            advance(scene);
            let runtime = scene.stepped.runtime.clone();
            let asked = std::thread::spawn(move || (runtime.census().unwrap(), runtime.snapshot(0).unwrap()));
            while !asked.is_finished() {
                scene.stepped.turn(0);
                scene.stepped.turn(1);
            }
            let (census, snapshot) = asked.join().unwrap();
            assert_eq!((census.slots, snapshot.clients.len()), (4, 1));
            let counted: u64 = snapshot.reactors.iter().map(|reactor| reactor.counters.started).sum();
            assert_eq!(counted, 0);
        },
    );
}

#[test]
fn f12_connections_on_other_reactors_carry_bytes_in_batches() {
    let mut scene = Scene::new(|_| ());
    let second = scene.stepped.runtime.add_session(scene.client, super::session(64)).unwrap();
    scene.stepped.runtime.bind(scene.lines[1].0, second).unwrap();
    scene.stepped.runtime.close_connection(scene.lines[0].0);
    scene.stepped.settle();
    scene.ask(64);
    scene.stepped.turn(0);
    assert_eq!(scene.stepped.runtime.stats().callbacks_sent, 64, "encoded at home");
    assert_eq!(scene.lines[1].1.sent.lock().unwrap().len(), 0, "and not sent there");
    let waiting = scene.stepped.reactors[1].port().commands.len();
    assert!((1..=2).contains(&waiting), "in {waiting} batches");
    scene.settle();
    assert_eq!((scene.done().len(), scene.stepped.in_flight()), (64, 0));
}

/// A thread read the old home, and took its time until that was over.
#[test]
fn a_run_that_comes_to_a_reactor_which_has_ended_goes_where_its_client_is() {
    let mut scene = Scene::new(|_| ());
    scene.stepped.runtime.close_connection(scene.lines[0].0);
    scene.stepped.runtime.move_client(scene.client, 1).unwrap();
    scene.stepped.settle();
    let shared = Arc::clone(scene.stepped.runtime.shared());
    let gone = scene.stepped.reactors.remove(0);
    drop(gone);
    shared.end_reactor(0);
    for _ in 0..3 {
        let key = scene.stepped.runtime.insert(scene.client, crate::CallbackOp::Recall, 0).unwrap();
        assert_eq!(shared.slab[key.index].try_run(key.generation), crate::callback::Claim::Submit);
        assert!(shared.clients.live(scene.client).unwrap().in_flight.enter());
        shared.reactors[0].inbox.push(&shared.slab, key.index);
        assert!(shared.reactors[0].parking.must_wake(), "whoever comes is told so");
        shared.wake(0);
    }
    for _ in 0..6 {
        scene.stepped.turn(0);
        scene.answer();
    }
    assert_eq!((scene.done().len(), scene.stepped.in_flight()), (3, 0));
}

/// The reactor that has frozen a client ends by a panic: the client's runs are lost with it, and nobody waits for them.
#[test]
fn a_client_that_is_lost_on_its_way_keeps_nobody_waiting() {
    let mut scene = Scene::new(|_| ());
    scene.ask(2);
    scene.stepped.turn(0);
    scene.stepped.runtime.move_client(scene.client, 1).unwrap();
    scene.stepped.turn(0);
    let key = scene.stepped.runtime.insert(scene.client, crate::CallbackOp::Recall, 0).unwrap();
    let job = scene.stepped.runtime.begin_drain_client(scene.client, u64::MAX).unwrap();
    scene.stepped.turn(1);
    let shared = Arc::clone(scene.stepped.runtime.shared());
    drop(scene.stepped.reactors.remove(0));
    shared.end_reactor(0);
    scene.stepped.turn(0);
    assert!(job.is_over());
    assert_eq!(scene.stepped.runtime.try_run(key), crate::TryRun::Closed);
    scene.stepped.reactors[0].port().post(Command::Stop);
    scene.stepped.turn(0);
    scene.stepped.turn(0);
    assert!(scene.stepped.reactors[0].is_over());
}

/// A checkpoint lets no move begin. Those that have waited are made one after the other, and so are those behind them.
#[cfg(feature = "checkpoint")]
#[test]
fn moves_that_waited_for_a_checkpoint_keep_their_order() {
    in_every_order(
        |_| (),
        |scene, advance| {
            let shared = Arc::clone(scene.stepped.runtime.shared());
            let other = scene.stepped.client(scene.lines[1].0).0;
            let held = block(shared.hold_moves(&Pace::default(), 0)).expect("nothing moves yet");
            advance(scene);
            for to in [0, 0, 1] {
                scene.stepped.runtime.move_client(scene.client, to).unwrap();
            }
            scene.stepped.runtime.move_client(other, 0).unwrap();
            scene.stepped.turn(0);
            assert_eq!(scene.moved(scene.client), [], "not yet");
            drop(held);
            scene.stepped.runtime.move_client(scene.client, 0).unwrap();
            scene.stepped.runtime.move_client(other, 1).unwrap();
            let keys = scene.ask(3);
            // There and back, and there and back.
            (0..4).for_each(|_| scene.settle());
            let told = (scene.moved(scene.client), scene.moved(other));
            assert_eq!(told, (vec![1, 0, 0, 1, 0], vec![0, 1]));
            assert_eq!(scene.done(), all(&keys, OutcomeKind::Ok));
        },
    );
}

#[test]
fn a_move_to_nowhere_is_refused() {
    let mut scene = Scene::new(|_| ());
    let runtime = scene.stepped.runtime.clone();
    assert_eq!(runtime.move_client(scene.client, 2), Err(Error::NoSuchReactor { reactor: 2, reactors: 2 }));
    runtime.remove_client(scene.client).unwrap();
    assert_eq!(runtime.move_client(scene.client, 1), Err(Error::NoSuchClient));
    scene.stepped.settle();
    let _ = runtime.begin_drain(0);
    assert_eq!(runtime.move_client(scene.client, 1), Err(Error::Closed));
}
