//! However much there is to do, a turn ends.

use super::stepped::Stepped;
use crate::command::Command;
use crate::{CallbackOp, Cancel, ClientId};
use std::sync::mpsc;
use std::time::Duration;

/// What a turn may end, by its budget and by what the last client that comes under it may be over.
const ENDED_MAX: u64 = 4096 + 1024;

/// So many clients without a path, with so many runs each that their cores have taken up.
fn crowd(clients: usize, runs: usize, run_deadline: Duration) -> (Stepped, Vec<ClientId>) {
    let mut stepped = Stepped::new(1, |settings| settings.run_deadline = run_deadline);
    let clients: Vec<_> = (0..clients).map(|_| stepped.runtime.add_client(None).unwrap()).collect();
    for client in &clients {
        (0..runs).for_each(|_| _ = stepped.try_run(*client));
    }
    let all = (clients.len() * runs) as u64;
    while stepped.runtime.stats().started < all {
        stepped.turn(0);
    }
    assert_eq!(stepped.in_flight(), all);
    (stepped, clients)
}

const FOR_LONG: Duration = Duration::from_secs(3600);

#[test]
fn t1_a_drain_of_many_clients_takes_many_turns() {
    let (mut stepped, _) = crowd(12, 1000, FOR_LONG);
    let _job = stepped.runtime.begin_drain(u64::MAX);
    let most = stepped.most_in_a_turn();
    assert!(most <= ENDED_MAX, "{most} in one turn");
    assert_eq!(stepped.runtime.stats().cancelled, 12_000);
}

#[test]
fn deadlines_of_many_clients_take_many_turns() {
    let deadline = Duration::from_secs(2);
    let (mut stepped, _) = crowd(12, 1000, deadline);
    std::thread::sleep(deadline);
    let most = stepped.most_in_a_turn();
    assert!(most <= ENDED_MAX, "{most} in one turn");
    assert_eq!(stepped.runtime.stats().timed_out, 12_000);
}

#[test]
fn cancelling_many_runs_takes_many_turns() {
    let mut stepped = Stepped::new(1, |_| ());
    let client = stepped.runtime.add_client(None).unwrap();
    let keys: Vec<_> = (0..10_000).map(|_| stepped.try_run(client)).collect();
    stepped.settle();
    keys.iter().for_each(|key| assert_eq!(stepped.runtime.cancel(*key), Cancel::Asked));
    let most = stepped.most_in_a_turn();
    assert!(most <= ENDED_MAX, "{most} in one turn");
    assert_eq!(stepped.runtime.stats().cancelled, 10_000);
}

/// Each cancellation walks the queues of its client, and those may be long.
#[test]
fn few_long_queues_are_walked_in_a_turn() {
    let (mut stepped, clients) = crowd(8, 20_000, FOR_LONG);
    let keys: Vec<_> = clients.iter().map(|client| stepped.try_run(*client)).collect();
    stepped.settle();
    keys.iter().for_each(|key| assert_eq!(stepped.runtime.cancel(*key), Cancel::Asked));
    let mut left = stepped.in_flight();
    while stepped.runtime.stats().cancelled < 8 {
        stepped.turn(0);
        assert!(left - stepped.in_flight() <= 4, "{} queues in one turn", left - stepped.in_flight());
        left = stepped.in_flight();
    }
}

/// Who looks at the clients waits; the others do not.
#[test]
fn a_look_at_many_clients_takes_many_turns() {
    let (mut stepped, clients) = crowd(8, 20_000, FOR_LONG);
    for (callbacks_max, turns) in [(2, 2..100), (0, 0..1)] {
        let (answer, answers) = mpsc::channel();
        stepped.reactors[0].port().post(Command::Inspect { callbacks_max, answer });
        stepped.turn(0);
        let mut reports: Vec<_> = answers.try_iter().flat_map(|(_, clients)| clients).collect();
        let mut more = 0;
        while reports.len() < clients.len() {
            stepped.turn(0);
            reports.extend(answers.try_iter().flat_map(|(_, clients)| clients));
            more += 1;
        }
        assert!(turns.contains(&more), "{more} more turns");
        assert_eq!(reports.iter().map(|r| r.client).collect::<Vec<_>>(), clients);
        assert!(reports.iter().all(|r| (r.in_flight, r.callbacks.len()) == (20_000, callbacks_max)));
        assert!(matches!(answers.try_recv(), Err(mpsc::TryRecvError::Disconnected)), "that is all");
    }
}

/// An embedder that makes one CB_RECALL_SLOT after the other for a session that stays.
#[test]
fn callbacks_of_a_session_are_forgotten_when_they_are_gone() {
    let mut stepped = Stepped::new(1, |_| ());
    let (connection, _) = stepped.transport();
    let (client, session) = stepped.client(connection);
    let lasting = stepped.runtime.insert_recall_slot(session, 0).unwrap();
    for _ in 0..50 {
        let keys: Vec<_> = (0..100).map(|_| stepped.runtime.insert_recall_slot(session, 0).unwrap()).collect();
        keys.iter().for_each(|key| _ = stepped.runtime.remove(*key));
        // Takes the places, so that the next ones have others.
        (0..100).for_each(|_| _ = stepped.runtime.insert(client, CallbackOp::Recall, 0).unwrap());
        stepped.turn(0);
    }
    let known = &stepped.reactors[0].home.of_session;
    assert!(known.len() < 1000, "{} are remembered", known.len());
    assert!(known.contains_key(&lasting.index));
}
