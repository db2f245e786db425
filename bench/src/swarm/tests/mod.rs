//! The swarm against a scripted server, over real sockets.

mod callback;
mod fake;

use super::*;
use fake::{Fake, Script};
use ringback_rpc::nfs4::Status;
use std::time::Instant;

fn config(fake: &Fake) -> SwarmConfig {
    let mut config = SwarmConfig::new(fake.addr);
    (config.clients, config.session_slots) = (4, 8);
    config.stall_max = Duration::from_secs(10);
    config
}

fn go_on(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Sets up, grants, begins the recall phase, and has the server recall.
fn recalled(fake: &Fake, config: SwarmConfig, delegations: u64) -> Swarm {
    let mut swarm = Swarm::connect(config).unwrap();
    swarm.set_up(&mut go_on).unwrap();
    swarm.grant(delegations, &mut go_on).unwrap();
    swarm.begin_recalls();
    fake.recall_all();
    swarm
}

/// Serves until everything is recalled; ten seconds must do.
fn serve(swarm: &mut Swarm) {
    let deadline = Instant::now() + Duration::from_secs(10);
    let until =
        |_: &Progress<'_>| if Instant::now() < deadline { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    swarm.serve(Until::AllRecalled, &mut { until }).unwrap();
}

#[test]
fn every_delegation_is_recalled_once_and_returned() {
    let fake = Fake::start(Script::default());
    let mut swarm = recalled(&fake, config(&fake), 1000);
    serve(&mut swarm);
    let tally = swarm.finish();
    let total = tally.total();
    assert_eq!((total.granted, total.received, total.distinct, total.doubled), (1000, 1000, 1000, 0), "{tally:?}");
    assert_eq!((total.delegreturns_ok, fake.returned()), (1000, 1000));
    assert_eq!((tally.malformed, tally.sequence_errors, tally.misordered, tally.other_credential), (0, 0, 0, 0));
    assert_eq!((&tally.failures[..], tally.errors.len()), (&[][..], 0));
}

#[test]
fn without_returns_the_recall_is_the_end() {
    let fake = Fake::start(Script::default());
    let mut config = config(&fake);
    config.return_delegations = false;
    let mut swarm = recalled(&fake, config, 300);
    serve(&mut swarm);
    let total = swarm.finish().total();
    assert_eq!((total.distinct, total.delegreturns_ok, fake.returned()), (300, 0, 0));
}

#[test]
fn delayed_opens_are_opened_once_more() {
    let fake = Fake::start(Script { delays_opens: true, ..Script::default() });
    let mut swarm = recalled(&fake, config(&fake), 50);
    serve(&mut swarm);
    let tally = swarm.finish();
    assert_eq!((tally.total().granted, tally.opened, tally.errors[&Status::NFS4ERR_DELAY.0]), (50, 50, 50));
}

#[test]
fn a_server_that_grants_nothing_is_told_apart() {
    let fake = Fake::start(Script { stingy: true, ..Script::default() });
    let mut swarm = recalled(&fake, config(&fake), 20);
    serve(&mut swarm);
    let tally = swarm.finish();
    assert_eq!((tally.total().granted, tally.not_granted, tally.opened), (0, 20, 20));
}

#[test]
fn f1_auth_none_on_a_recall_is_refused() {
    let fake = Fake::start(Script { auth_none: true, ..Script::default() });
    let mut swarm = recalled(&fake, config(&fake), 8);
    let mut until = |p: &Progress<'_>| match p.tally.wrong_credential < 8 {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    swarm.serve(Until::Told, &mut until).unwrap();
    let tally = swarm.finish();
    assert_eq!((tally.wrong_credential, tally.total().received), (8, 0));
    assert_eq!(fake.rejected(), 8);
}

#[test]
fn a_doubled_recall_is_counted() {
    let fake = Fake::start(Script { doubles: true, ..Script::default() });
    let mut config = config(&fake);
    config.return_delegations = false;
    let mut swarm = recalled(&fake, config, 40);
    let mut until = |p: &Progress<'_>| match p.tally.total().received < 80 {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    swarm.serve(Until::Told, &mut until).unwrap();
    let total = swarm.finish().total();
    assert_eq!((total.distinct, total.doubled, total.repeated), (40, 40, 0));
}

#[test]
fn cut_connections_are_bound_again_and_nothing_is_lost_or_doubled() {
    let fake = Fake::start(Script::default());
    let mut config = config(&fake);
    config.cuts = 5;
    let mut swarm = recalled(&fake, config, 2000);
    serve(&mut swarm);
    let tally = swarm.finish();
    let total = tally.total();
    assert_eq!((total.distinct, total.doubled, tally.cuts), (2000, 0, 20), "{tally:?}");
    assert_eq!((total.delegreturns_ok, fake.returned()), (2000, 2000));
    assert_eq!(&tally.failures[..], &[] as &[String]);
    assert!(tally.replays > 0, "some answers are lost on purpose");
    // A program and a credential of its own for each connection.
    assert!((4..=20).contains(&tally.controls), "{tally:?}");
    assert_eq!((tally.wrong_program, tally.replaced_parameters, tally.other_credential), (0, 0, 0), "{tally:?}");
}

#[test]
fn f6_a_server_that_goes_on_with_replaced_parameters_is_found_out() {
    let fake = Fake::start(Script { ignores_controls: true, ..Script::default() });
    let mut config = config(&fake);
    config.cuts = 1;
    let mut swarm = recalled(&fake, config, 2000);
    serve(&mut swarm);
    let tally = swarm.finish();
    // Half of the recalls come after the cut, and 8 session slots of each client had one call out at most.
    assert!(tally.replaced_parameters > 500, "{tally:?}");
    assert_eq!((tally.total().distinct, tally.controls), (2000, 4));
}

#[test]
fn bad_clients_do_what_they_are_told_to() {
    let fake = Fake::start(Script::default());
    let mut config = config(&fake);
    (config.dead_clients, config.slow_clients, config.delay_clients) = (1, 1, 1);
    config.slow_delay = Duration::from_millis(2);
    let mut swarm = recalled(&fake, config, 100);
    serve(&mut swarm);
    let tally = swarm.finish();
    let of = |behaviour| *tally.of(behaviour);
    assert_eq!((of(Behaviour::Normal).distinct, of(Behaviour::Slow).distinct), (25, 25));
    assert_eq!((of(Behaviour::Dead).received, of(Behaviour::Delay).received), (0, 0));
    assert!(of(Behaviour::Delay).delayed > 0);
    assert_eq!((tally.total().granted, fake.returned()), (100, 50));
}

#[test]
fn the_trigger_makes_the_server_recall() {
    let fake = Fake::start(Script::default());
    let mut config = config(&fake);
    (config.trigger, config.trigger_window) = (true, 16);
    config.directory = vec!["export".into(), "run".into()];
    let mut swarm = Swarm::connect(config).unwrap();
    swarm.set_up(&mut go_on).unwrap();
    swarm.grant(60, &mut go_on).unwrap();
    swarm.begin_recalls();
    swarm.trigger(&mut go_on).unwrap();
    let tally = swarm.finish();
    assert_eq!((tally.total().distinct, tally.triggered, fake.returned()), (60, 60, 60), "{tally:?}");
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let fake = Fake::start(Script { no_backchannel: true, ..Script::default() });
    let mut swarm = Swarm::connect(config(&fake)).unwrap();
    let e = swarm.set_up(&mut go_on).unwrap_err().to_string();
    assert!(e.starts_with("client ") && e.ends_with("CREATE_SESSION gave no backchannel"), "{e}");
    let mut nobody = config(&fake);
    nobody.server = "127.0.0.1:1".parse().unwrap();
    let e = Swarm::connect(nobody).unwrap_err().to_string();
    assert!(e.starts_with("cannot connect to 127.0.0.1:1: Connection refused"), "{e}");
}
