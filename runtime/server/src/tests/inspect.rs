//! What an operator sees and does.

use super::*;
use crate::admin::{Reply as Answer, Request};
use crate::top::View;
use crate::{Inspection, inspect::fileid};

fn inspect(world: &World) -> Inspection {
    world.server.inspect(10).unwrap()
}

#[test]
fn clients_are_shown_with_their_callbacks_the_stuck_ones_first() {
    let world = World::new();
    let (mut a, mut b) = (world.client("quiet"), world.client("stuck \u{e4}"));
    a.take_delegation("f");
    let (stateid, handle) = b.take_delegation("g");
    let seen = inspect(&world);
    assert_eq!((seen.clients.len(), seen.delegations), (2, 2));
    assert!(seen.clients.iter().all(|c| (c.path.as_str(), c.delegations, c.in_flight) == ("up", 1, 0)));
    assert_eq!(a.open("g", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let recalled = b.recalled();
    let seen = inspect(&world);
    let first = &seen.clients[0];
    assert_eq!((first.name.as_str(), first.in_flight), ("stuck \\xc3\\xa4", 1));
    let [callback] = &first.callbacks[..] else { panic!("{first:?}") };
    assert_eq!((callback.operation.as_str(), callback.stage.as_str(), callback.sent), ("CB_RECALL", "sent", true));
    assert_eq!(callback.file, world.inner().files.parse_handle(&handle).ok().map(fileid));
    let [session] = &first.sessions[..] else { panic!("{first:?}") };
    assert_eq!((session.connections, session.slots, session.slots_in_use, &session.fault), (1, 16, 1, &None));
    assert_eq!(callback.at, Some((session.id.clone(), 0)));
    assert_eq!((first.counters["started"], first.runs.sent, first.runs.parked), (1, 1, 0));
    assert!(seen.to_string().contains("CB_RECALL of file"));
    assert!(world.server.inspect(0).unwrap().clients.iter().all(|client| client.callbacks.is_empty()));
    b.answer(&recalled, Status::NFS4_OK);
    assert_eq!(b.delegreturn(stateid, &handle), Status::NFS4_OK);
    world.until("the recall is over", || inspect(&world).clients.iter().all(|client| client.in_flight == 0));
}

#[test]
fn what_cannot_be_sent_is_queued() {
    let world = World::new();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.take_delegation("f");
    world.server.runtime().close_connection(a.connection);
    world.until("the path is down", || inspect(&world).clients.iter().any(|client| client.path == "down"));
    assert_eq!(b.open("f", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    world.until("the recall is seen", || {
        let seen = inspect(&world);
        let client = seen.clients.iter().find(|client| client.name == "a").unwrap();
        client.callbacks.first().is_some_and(|c| (c.stage.as_str(), c.sent, &c.at) == ("queued", false, &None))
    });
}

#[test]
fn callbacks_are_started_by_hand() {
    let world = World::with(Config { write_delegations: true, ..Config::default() });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    a.take_delegation("f");
    a.take_delegation("g");
    b.take_delegation("f");
    let answer = |request| world.server.answer(&request);
    assert_eq!(answer(Request::RecallFile("/f".to_owned())), Answer::Started(2));
    assert_eq!(answer(Request::RecallClient("a".to_owned())), Answer::Started(2), "one of them is under way");
    assert_eq!(answer(Request::RecallAll), Answer::Started(3));
    assert_eq!(answer(Request::Getattr("f".to_owned())), Answer::Started(0), "nobody writes");
    assert_eq!(answer(Request::NotifyLock("f".to_owned())), Answer::Started(0), "nobody waits");
    assert_eq!(answer(Request::MaxDelegations(7)), Answer::Done);
    assert_eq!(answer(Request::RecallAny(1)), Answer::Asked(1));
    assert_eq!(inspect(&world).delegations_max, 7);
    let error = |request| match answer(request) {
        Answer::Error(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error(Request::RecallFile("/f/x".to_owned())), "/f/x: NFS4ERR_NOTDIR");
    assert!(error(Request::RecallClient("nobody".to_owned())).contains("inspect"));
    let stages = || inspect(&world).clients.iter().map(|client| client.in_flight).collect::<Vec<_>>();
    // Three recalls, and a CB_RECALL_ANY to the client that holds most: it is to keep none, which is enough.
    world.until("all are seen", || stages() == [3, 1]);
}

/// A server that has none but the default one shows nothing of tenants.
#[test]
fn tenants_are_shown_where_there_are_any() {
    let world = World::new();
    let shown = || {
        let seen = inspect(&world);
        let json = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap(), seen);
        let top = View { now: &seen, before: None, clients_max: 9 }.render();
        (seen.to_string(), top, json)
    };
    let (text, top, json) = shown();
    assert!(!text.contains("tenant") && !top.contains("tenant") && !json.contains("tenant"), "{text}{top}{json}");
    let runtime = world.server.runtime();
    let limits = ringback::TenantLimits::default().callbacks_max(1).rate_max(100);
    let acme = runtime.add_tenant("acme", limits).unwrap();
    let client = runtime.add_client_of(acme, None).unwrap();
    runtime.insert(client, ringback::CallbackOp::Recall, 0).unwrap();
    runtime.insert(client, ringback::CallbackOp::Recall, 0).unwrap_err();
    let (text, top, json) = shown();
    let line = "tenant \"acme\": 1 of 1 callbacks, 0 calls out, 0 sent (at most 100/s), 1 refused, held back 0 times\n";
    assert!(text.contains(line) && top.contains(line), "{text}{top}");
    assert!(json.contains(r#""tenants":[{"label":"acme","callbacks":1,"callbacks_max":1,"#), "{json}");
}

#[test]
fn clients_in_trouble_come_first() {
    let world = World::new();
    let (mut a, mut b) = (world.client("well"), world.client("parked"));
    a.take_delegation("f");
    b.take_delegation("g");
    world.server.runtime().close_connection(b.connection);
    world.until("the path is down", || inspect(&world).clients.iter().any(|client| client.path == "down"));
    let before = inspect(&world);
    assert_eq!(a.open("g", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    world.until("the recall is parked", || inspect(&world).clients.iter().any(|client| client.runs.parked == 1));
    let now = inspect(&world);
    let view = View { now: &now, before: Some((&before, 0.5)), clients_max: 1 }.render();
    let lines: Vec<_> = view.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("TROUBLE ")).unwrap();
    assert!(lines[at + 1].starts_with("parked  down ") && lines[at + 1].ends_with(" \"parked\""), "{view}");
    assert!(lines[at + 1].contains(" 2/s ") && lines[at + 2] == "and 1 more", "{view}");
    let all = View { now: &now, before: None, clients_max: 9 }.render();
    assert!(all.lines().last().unwrap().starts_with("-       up "), "{all}");
}

#[test]
fn metrics_name_clients_as_inspect_does() {
    let world = World::new();
    let mut client = world.client("some");
    client.take_delegation("f");
    let id = &inspect(&world).clients[0].id;
    let text = world.server.metrics(5).unwrap();
    assert!(text.contains(&format!("ringback_client_path_up{{client=\"{id}\"}} 1\n")), "{text}");
}
