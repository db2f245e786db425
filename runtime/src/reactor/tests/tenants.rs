//! Tenants on a reactor that is turned by hand.

use super::answer;
use super::stepped::{Far, Stepped};
use crate::{CallbackOp, ClientId, ConnectionId, Error, InsertError, SessionKey, TenantId, TenantLimits};
use ringback_rpc::record::MARK_BYTES;
use std::sync::Arc;

struct Member {
    client: ClientId,
    session: SessionKey,
    connection: ConnectionId,
    far: Arc<Far>,
}

fn member(stepped: &mut Stepped, tenant: TenantId, slots: u32) -> Member {
    let (connection, far) = stepped.transport();
    let (client, session) = stepped.client_of(tenant, connection, slots);
    stepped.runtime.bind(connection, session).unwrap();
    Member { client, session, connection, far }
}

impl Member {
    /// Answers what was sent. How many calls that were.
    fn answer(&self, stepped: &Stepped) -> usize {
        let sent = std::mem::take(&mut *self.far.sent.lock().unwrap());
        let (mut rest, mut answered) = (&sent[..], 0);
        while let Some((mark, after)) = rest.split_first_chunk::<MARK_BYTES>() {
            let (record, after) = after.split_at((u32::from_be_bytes(*mark) & 0x7fff_ffff) as usize);
            stepped.runtime.receive(self.connection, answer(record).1[MARK_BYTES..].to_vec());
            (rest, answered) = (after, answered + 1);
        }
        answered
    }
}

/// A tenant with thirty clients and a storm, and one with one client: each gets half of what a reactor does.
#[test]
fn t25_the_storm_of_one_tenant_is_not_at_the_cost_of_another() {
    let mut stepped = Stepped::new(1, |_| ());
    let loud = stepped.runtime.add_tenant("loud", TenantLimits::default()).unwrap();
    let quiet = stepped.runtime.add_tenant("quiet", TenantLimits::default()).unwrap();
    let crowd: Vec<_> = (0..30).map(|_| member(&mut stepped, loud, 512)).collect();
    let one = member(&mut stepped, quiet, 1024);
    stepped.settle();
    for of_crowd in &crowd {
        (0..500).for_each(|_| {
            stepped.try_run(of_crowd.client);
        });
    }
    (0..1000).for_each(|_| {
        stepped.try_run(one.client);
    });
    // All are taken up, in three turns or four, and a turn sends 512.
    let sent = |stepped: &Stepped, tenant: TenantId| {
        stepped.runtime.tenants().iter().find(|report| report.tenant == tenant).unwrap().callbacks_sent
    };
    while stepped.runtime.stats().started < 16_000 {
        stepped.turn(0);
    }
    let before = (sent(&stepped, loud), sent(&stepped, quiet));
    stepped.turn(0);
    let after = (sent(&stepped, loud), sent(&stepped, quiet));
    let (crowd_sent, one_sent) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(crowd_sent + one_sent, 512);
    assert!(one_sent.abs_diff(256) <= 64, "{one_sent} of 512");
}

/// Two clients of one reactor, one with twenty times the work, and both with as many slots as they like: they take turns.
#[test]
fn t25_two_clients_share_a_reactor_evenly() {
    let mut stepped = Stepped::new(1, |_| ());
    let [busy, other] = [0; 2].map(|_| member(&mut stepped, TenantId::default(), 1024));
    stepped.settle();
    (0..4000).for_each(|_| {
        stepped.try_run(busy.client);
    });
    (0..200).for_each(|_| {
        stepped.try_run(other.client);
    });
    while stepped.runtime.stats().started < 4200 {
        stepped.turn(0);
    }
    stepped.turn(0);
    let calls = |member: &Member| {
        let sent = member.far.sent.lock().unwrap();
        let (mut at, mut calls) = (0, 0);
        while let Some(mark) = sent.get(at..).and_then(|rest| rest.first_chunk::<MARK_BYTES>()) {
            (at, calls) = (at + MARK_BYTES + (u32::from_be_bytes(*mark) & 0x7fff_ffff) as usize, calls + 1);
        }
        calls
    };
    assert_eq!(calls(&other), 200, "all of the little that it has");
    assert!(calls(&busy) >= 200);
}

#[test]
fn what_exists_is_limited_to_the_callback() {
    let mut stepped = Stepped::new(2, |_| ());
    let tenant = stepped.runtime.add_tenant("a", TenantLimits::default().callbacks_max(5)).unwrap();
    let clients: Vec<_> = (0..2).map(|_| member(&mut stepped, tenant, 4).client).collect();
    let insert = |stepped: &Stepped, at: usize| stepped.runtime.insert(clients[at % 2], CallbackOp::Recall, 0);
    let keys: Vec<_> = (0..5).map(|at| insert(&stepped, at).unwrap()).collect();
    assert_eq!(insert(&stepped, 0), Err(InsertError::TenantFull { limit: 5 }));
    stepped.runtime.remove(keys[0]);
    insert(&stepped, 1).unwrap();
    assert_eq!(insert(&stepped, 1), Err(InsertError::TenantFull { limit: 5 }));
    // Others are not concerned.
    let stranger = stepped.runtime.add_client(None).unwrap();
    stepped.runtime.insert(stranger, CallbackOp::Recall, 0).unwrap();
    stepped.runtime.set_tenant_limits(tenant, TenantLimits::default()).unwrap();
    insert(&stepped, 0).unwrap();
    let report = &stepped.runtime.tenants()[0];
    assert_eq!((report.label.as_str(), report.callbacks, report.refused), ("a", 6, 2));
}

/// Calls that are out are limited over all clients and reactors of a tenant; what waits goes as they are settled, also when one of its
/// clients moves meanwhile.
#[test]
fn t24_calls_out_are_limited_for_all_clients_together() {
    let mut stepped = Stepped::new(2, |_| ());
    let tenant = stepped.runtime.add_tenant("a", TenantLimits::default().calls_max(10)).unwrap();
    let members: Vec<_> = (0..4).map(|_| member(&mut stepped, tenant, 64)).collect();
    stepped.settle();
    for member in &members {
        (0..25).for_each(|_| {
            stepped.try_run(member.client);
        });
    }
    let mut turns = 0;
    while stepped.in_flight() > 0 {
        stepped.settle();
        let out = stepped.runtime.tenants()[0].calls_out;
        assert!(out <= 10, "{out} are out");
        if turns == 3 {
            stepped.runtime.move_client(members[0].client, 1).unwrap();
        }
        members.iter().for_each(|member| {
            member.answer(&stepped);
        });
        std::thread::sleep(std::time::Duration::from_millis(1));
        turns += 1;
        assert!(turns < 2000);
    }
    stepped.settle();
    let report = &stepped.runtime.tenants()[0];
    assert_eq!((report.calls_out, report.callbacks_sent), (0, 100));
    assert!(report.held_back > 0);
}

/// A tenant is at its limit with calls whose connection is lost: they go again on the next one, and what waits follows.
#[test]
fn t24_what_is_out_is_sent_again_though_its_tenant_is_at_its_limit() {
    let mut stepped = Stepped::new(1, |_| ());
    let tenant = stepped.runtime.add_tenant("a", TenantLimits::default().calls_max(4)).unwrap();
    let mut member = member(&mut stepped, tenant, 16);
    stepped.settle();
    (0..6).for_each(|_| {
        stepped.try_run(member.client);
    });
    stepped.settle();
    let first = std::mem::take(&mut *member.far.sent.lock().unwrap());
    assert_eq!(stepped.runtime.tenants()[0].calls_out, 4);
    let (connection, far) = stepped.transport();
    stepped.runtime.close_connection(member.connection);
    stepped.runtime.bind(connection, member.session).unwrap();
    // Until its tenant is asked again.
    let pause = std::time::Duration::from_millis(3);
    stepped.settle();
    std::thread::sleep(pause);
    stepped.settle();
    assert_eq!(*far.sent.lock().unwrap(), first, "the same calls, and no others");
    assert_eq!(stepped.runtime.tenants()[0].calls_out, 4);
    (member.connection, member.far) = (connection, far);
    assert_eq!(member.answer(&stepped), 4);
    stepped.settle();
    std::thread::sleep(pause);
    stepped.settle();
    assert_eq!(member.answer(&stepped), 2);
    stepped.settle();
    assert_eq!((stepped.in_flight(), stepped.runtime.tenants()[0].calls_out), (0, 0));
    let counted = (stepped.runtime.tenants()[0].callbacks_sent, stepped.runtime.stats().callbacks_sent);
    assert_eq!(counted, (6, 6), "what was sent again is no other callback");
}

#[test]
fn tenants_have_labels_of_their_own() {
    let stepped = Stepped::new(1, |_| ());
    let runtime = &stepped.runtime;
    let first = runtime.add_tenant("a", TenantLimits::default()).unwrap();
    assert_ne!(first, runtime.add_tenant("b", TenantLimits::default()).unwrap());
    assert_eq!(runtime.add_tenant("a", TenantLimits::default().rate_max(7)), Ok(first));
    assert_eq!(runtime.tenants()[0].limits.rate_max, 7);
    assert_eq!(runtime.add_client_of(TenantId::from_bits(9), None), Err(Error::NoSuchTenant));
    assert_eq!(runtime.set_tenant_limits(TenantId::default(), TenantLimits::default()), Err(Error::NoSuchTenant));
    let all: Vec<_> = (0..2000).map(|n| runtime.add_tenant(&n.to_string(), TenantLimits::default())).collect();
    assert_eq!(all.iter().filter(|made| made.is_ok()).count(), 1021);
    assert_eq!(all[1999], Err(Error::TenantsFull { limit: 1024 }));
}
