//! Settings that change while callbacks run.

use super::stepped::Stepped;
use crate::settings::Settings;
use crate::{BuildError, OutcomeKind, Tuning};
use ringback_rpc::backchannel::ClientLimits;
use std::time::Duration;

#[test]
fn a_change_reaches_every_client_and_the_runs_of_it() {
    let mut stepped = Stepped::new(2, |_| ());
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (connection, _) = stepped.transport();
            stepped.client(connection).0
        })
        .collect();
    stepped.settle();
    let keys: Vec<_> = clients.iter().map(|client| stepped.try_run(*client)).collect();
    stepped.settle();
    stepped.runtime.tune(|tuning| tuning.run_deadline = Duration::from_millis(1)).unwrap();
    stepped.settle();
    while stepped.in_flight() > 0 {
        std::thread::sleep(Duration::from_millis(1));
        stepped.settle();
    }
    let mut done = stepped.embedder.done.lock().unwrap().clone();
    done.sort_by_key(|(key, _)| *key);
    assert_eq!(done, keys.iter().map(|key| (*key, OutcomeKind::TimedOutUnsent)).collect::<Vec<_>>());
    // One that comes later has it too.
    let late = stepped.runtime.add_client(None).unwrap();
    stepped.try_run(late);
    stepped.settle();
    std::thread::sleep(Duration::from_millis(60));
    stepped.settle();
    assert_eq!(stepped.in_flight(), 0);
}

#[test]
fn limits_of_all_leave_those_of_one_alone() {
    let mut stepped = Stepped::new(1, |_| ());
    let own = stepped.runtime.add_client(None).unwrap();
    let other = stepped.runtime.add_client(None).unwrap();
    let (one, two, three) = (ClientLimits::default().calls_max(1), ClientLimits::default().calls_max(2), 3);
    stepped.runtime.set_client_limits(own, one).unwrap();
    stepped.runtime.tune(|tuning| tuning.client_limits = two).unwrap();
    stepped.settle();
    let limits = |stepped: &mut Stepped, client: crate::ClientId| {
        stepped.reactors[0].home.client(client.index).unwrap().backchannel.limits().calls_max
    };
    assert_eq!((limits(&mut stepped, own), limits(&mut stepped, other)), (1, 2));
    let newcomer = stepped.runtime.add_client(None).unwrap();
    stepped.runtime.tune(|tuning| tuning.client_limits = ClientLimits::default().calls_max(three)).unwrap();
    stepped.settle();
    assert_eq!((limits(&mut stepped, own), limits(&mut stepped, newcomer)), (1, 3));
}

/// A client that is on its way when the settings change.
#[test]
fn a_client_that_moves_meanwhile_gets_them_too() {
    for order in 0..64usize {
        let mut stepped = Stepped::new(2, |_| ());
        let (near, _) = stepped.transport();
        let (client, _) = stepped.client(near);
        stepped.settle();
        stepped.runtime.move_client(client, 1).unwrap();
        stepped.turn(0);
        stepped.runtime.tune(|tuning| tuning.batch_max = 7).unwrap();
        (0..6).for_each(|turn| stepped.turn(order >> turn & 1));
        stepped.settle();
        let there = stepped.reactors[1].home.client(client.index).unwrap();
        assert_eq!(there.backchannel.config().batch_max, 7, "{order:b}");
    }
}

#[test]
fn thousands_of_clients_are_given_them_in_several_turns() {
    let mut stepped = Stepped::new(1, |_| ());
    let clients: Vec<_> = (0..3000).map(|_| stepped.runtime.add_client(None).unwrap()).collect();
    stepped.settle();
    stepped.runtime.tune(|tuning| tuning.batch_max = 7).unwrap();
    let mut counts = Vec::new();
    while counts.last() != Some(&3000) {
        stepped.turn(0);
        let home = &mut stepped.reactors[0].home;
        let tuned = |client: &crate::ClientId| home.clients[client.index as usize].as_ref().unwrap().tunings == 1;
        counts.push(clients.iter().filter(|client| tuned(client)).count());
    }
    assert_eq!(counts, [1024, 2048, 3000]);
}

#[test]
fn what_is_out_of_range_changes_nothing() {
    let stepped = Stepped::new(1, |_| ());
    let before = stepped.runtime.tuning();
    let refused = |change: fn(&mut Tuning), text: &str| {
        let error: BuildError = stepped.runtime.tune(change).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(stepped.runtime.tuning(), before);
    };
    refused(|t| t.batch_max = 65, "batch_max is 65, which is not in 1..=64");
    refused(|t| t.rpc_timeout = Duration::ZERO, "RPC timeout in ms is 0");
    refused(|t| t.backoff_max = Duration::from_secs(6), "longest backoff in ms is 6000, which is not in 1..=5000");
    refused(|t| t.backoff_min = t.backoff_max * 2, "first backoff in ms is 10000");
    refused(|t| t.return_deadline = 4 * Settings::default().return_deadline, "return deadline in ms is 360000");
}
