//! CREATE_SESSION, BIND_CONN_TO_SESSION, BACKCHANNEL_CTL, DESTROY_SESSION.

use super::*;
use crate::admin::{Reply as Answer, Request};
use ringback_rpc::message::AuthSys;

#[test]
fn attributes_are_cut_to_the_limits_and_never_raised() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    let mut args = peer.create_session_args(sequence);
    args.fore_channel.requests_max = 10_000;
    args.fore_channel.response_bytes_max = 1000;
    args.back_channel.operations_max = 8;
    args.flags |= create_session_flag::PERSIST;
    let ok = peer.create_session(&args).unwrap();
    assert_eq!(ok.sequence_id, sequence);
    assert_eq!(ok.flags, create_session_flag::CONN_BACK_CHAN, "PERSIST is not granted");
    assert_eq!((ok.fore_channel.requests_max, ok.fore_channel.request_bytes_max), (64, 64 << 10));
    assert_eq!((ok.fore_channel.response_bytes_max, ok.fore_channel.response_bytes_max_cached), (1000, 1000));
    assert_eq!((ok.back_channel.requests_max, ok.back_channel.operations_max), (16, 8));
}

#[test]
fn what_no_session_can_be_made_of_is_refused() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    type Spoil = fn(&mut CreateSessionArgs<'_>);
    let cases: [(Spoil, Status); 6] = [
        (|a| a.flags = 8, Status::NFS4ERR_INVAL),
        (|a| a.fore_channel.requests_max = 0, Status::NFS4ERR_TOOSMALL),
        (|a| a.fore_channel.request_bytes_max = 100, Status::NFS4ERR_TOOSMALL),
        (|a| a.back_channel.operations_max = 1, Status::NFS4ERR_TOOSMALL),
        (|a| a.back_channel.response_bytes_max = 20, Status::NFS4ERR_TOOSMALL),
        (|a| a.back_channel.requests_max = 0, Status::NFS4ERR_TOOSMALL),
    ];
    for (n, (spoil, status)) in cases.into_iter().enumerate() {
        let mut args = peer.create_session_args(sequence);
        spoil(&mut args);
        assert_eq!(peer.create_session(&args), Err(status), "case {n}");
        assert_eq!(peer.create_session(&args), Err(status), "case {n}, repeated");
    }
    assert!(peer.create_session(&peer.create_session_args(sequence)).is_ok());
    let (_, results) = (0, peer.create_session(&peer.create_session_args(sequence + 5)));
    assert_eq!(results, Err(Status::NFS4ERR_SEQ_MISORDERED));
}

#[test]
fn a_repeated_create_session_gets_the_same_reply_and_no_second_session() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    let args = peer.create_session_args(sequence);
    assert_eq!(peer.create_session(&peer.create_session_args(sequence - 1)), Err(Status::NFS4ERR_SEQ_MISORDERED));
    let first = peer.create_session(&args).unwrap();
    assert_eq!(peer.create_session(&args), Ok(first));
    assert_eq!(world.inner().sessions.read().unwrap().len(), 1);
    let second = peer.create_session(&peer.create_session_args(sequence + 1)).unwrap();
    assert_ne!(first.session_id, second.session_id);
    assert_eq!(peer.create_session(&args), Err(Status::NFS4ERR_SEQ_MISORDERED), "only the last reply is kept");
}

#[test]
fn sessions_of_one_client_are_limited() {
    let world = World::with(Config { sessions_per_client_max: 2, ..Config::default() });
    let peer = world.client("a");
    let (_, sequence, _) = peer.exchange_id(0).unwrap();
    assert!(peer.create_session(&peer.create_session_args(sequence)).is_ok());
    assert_eq!(peer.create_session(&peer.create_session_args(sequence + 1)), Err(Status::NFS4ERR_NOSPC));
}

#[test]
fn f1_callbacks_use_auth_sys_when_it_is_offered() {
    let world = World::new();
    let mut peer = world.client("a");
    let (_, sequence, _) = peer.exchange_id(0).unwrap();
    let destroy = OpArgs::DestroySession(DestroySessionArgs { session_id: peer.session });
    assert_eq!(peer.bare(&[destroy]).status(), Status::NFS4_OK);
    let sys = AuthSys::new(9, b"host", 1, 2, &[3]).unwrap();
    let offered = [CallbackSecParms::None, CallbackSecParms::Sys(sys)];
    let args = CreateSessionArgs { security: List::Slice(&offered), ..peer.create_session_args(sequence) };
    peer.session = peer.create_session(&args).unwrap().session_id;
    peer.next = 1;
    peer.settle();
    peer.take_delegation("file");
    for held in world.server.held() {
        assert_eq!(world.server.recall(&held), ringback::TryRun::Submitted);
    }
    let record = peer.callbacks.recv_timeout(PATIENCE).unwrap();
    let header = CallHeader::decode(&mut Reader::new(&record[4..])).unwrap();
    assert_eq!(header.credential.flavor, flavor::AUTH_SYS);
    assert_eq!(AuthSys::decode(&mut Reader::new(header.credential.body)), Ok(sys));
}

#[test]
fn a_client_that_offers_only_gss_gets_no_backchannel() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    let gss = GssHandles { service: GssService::None, handle_from_server: b"s", handle_from_client: b"c" };
    let offered = [CallbackSecParms::Gss(gss)];
    let args = CreateSessionArgs { security: List::Slice(&offered), ..peer.create_session_args(sequence) };
    let ok = peer.create_session(&args).unwrap();
    assert_eq!(ok.flags, 0);
    let bind = |direction| {
        let args = BindConnToSessionArgs { session_id: ok.session_id, direction, rdma: false };
        match peer.bare(&[OpArgs::BindConnToSession(args)]).last() {
            OpRes::BindConnToSession(Ok(ok)) => Ok(ok.direction),
            other => Err(other.status()),
        }
    };
    assert_eq!(bind(BindDirection::ForeOrBoth), Ok(BoundDirection::Fore));
    assert_eq!(bind(BindDirection::Back), Err(Status::NFS4ERR_INVAL));
}

#[test]
fn a_connection_is_bound_in_the_direction_that_was_asked() {
    let world = World::new();
    let peer = world.client("a");
    let bind = |session_id, direction| {
        let args = BindConnToSessionArgs { session_id, direction, rdma: true };
        match peer.bare(&[OpArgs::BindConnToSession(args)]).last() {
            OpRes::BindConnToSession(Ok(ok)) => {
                assert!(!ok.rdma);
                Ok(ok.direction)
            }
            other => Err(other.status()),
        }
    };
    assert_eq!(bind(peer.session, BindDirection::Fore), Ok(BoundDirection::Fore));
    assert_eq!(bind(peer.session, BindDirection::Back), Ok(BoundDirection::Back));
    assert_eq!(bind(peer.session, BindDirection::ForeOrBoth), Ok(BoundDirection::Both));
    assert_eq!(bind(peer.session, BindDirection::BackOrBoth), Ok(BoundDirection::Both));
    assert_eq!(bind(SessionId([9; 16]), BindDirection::Back), Err(Status::NFS4ERR_BADSESSION));
    let args = BindConnToSessionArgs { session_id: peer.session, direction: BindDirection::Back, rdma: false };
    let two = [OpArgs::BindConnToSession(args), OpArgs::PutRootFh];
    assert_eq!(peer.bare(&two).status(), Status::NFS4ERR_NOT_ONLY_OP);
}

#[test]
fn f6_backchannel_ctl_changes_the_program_of_the_next_callback() {
    let world = World::new();
    let mut peer = world.client("a");
    peer.take_delegation("file");
    let args = BackchannelCtlArgs { callback_program: 0x5000, security: List::EMPTY };
    assert_eq!(peer.call(&[OpArgs::BackchannelCtl(args)]).status(), Status::NFS4_OK);
    assert_eq!(peer.bare(&[OpArgs::BackchannelCtl(args)]).status(), Status::NFS4ERR_OP_NOT_IN_SESSION);
    std::thread::sleep(Duration::from_millis(20));
    world.server.held().for_each(|held| assert_eq!(world.server.recall(&held), ringback::TryRun::Submitted));
    let record = peer.callbacks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(CallHeader::decode(&mut Reader::new(&record[4..])).unwrap().program, 0x5000);
}

#[test]
fn a_session_is_destroyed_last_in_its_own_compound() {
    let world = World::new();
    let mut peer = world.client("a");
    let destroy = OpArgs::DestroySession(DestroySessionArgs { session_id: peer.session });
    assert_eq!(peer.call(&[destroy, OpArgs::PutRootFh]).status(), Status::NFS4ERR_NOT_ONLY_OP);
    assert_eq!(peer.bare(&[destroy, OpArgs::PutRootFh]).status(), Status::NFS4ERR_NOT_ONLY_OP);
    assert_eq!(peer.call(&[destroy]).status(), Status::NFS4_OK);
    assert_eq!(peer.call(&[]).status(), Status::NFS4ERR_BADSESSION);
    assert_eq!(peer.bare(&[destroy]).status(), Status::NFS4ERR_BADSESSION);
}

#[test]
fn a_session_is_destroyed_over_a_connection_of_its_own() {
    let world = World::new();
    let (mut a, b) = (world.client("a"), world.client("b"));
    let destroy = OpArgs::DestroySession(DestroySessionArgs { session_id: a.session });
    assert_eq!(b.bare(&[destroy]).status(), Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION);
    // A SEQUENCE associates the connection with the session.
    a.connection = b.connection;
    assert_eq!(a.call(&[]).status(), Status::NFS4_OK);
    assert_eq!(b.bare(&[destroy]).status(), Status::NFS4_OK);
    assert_eq!(a.call(&[]).status(), Status::NFS4ERR_BADSESSION);
}

#[test]
fn a_reply_that_cannot_be_kept_is_not_begun() {
    let world = World::new();
    let mut peer = world.stranger("a");
    let (id, sequence, _) = peer.exchange_id(0).unwrap();
    peer.client_id = id;
    let mut args = peer.create_session_args(sequence);
    args.fore_channel.response_bytes_max_cached = 10;
    peer.session = peer.create_session(&args).unwrap().session_id;
    let keep = SequenceArgs { cache_this: true, ..peer.sequence_args() };
    assert_eq!(peer.bare(&[OpArgs::Sequence(keep)]).status(), Status::NFS4ERR_REP_TOO_BIG_TO_CACHE);
    assert_eq!(peer.call(&[]).status(), Status::NFS4_OK, "the session slot is where it was");
}

/// The highest session slot that there is, and the one that the client is asked to use.
fn slots_told(reply: &Reply) -> (u32, u32) {
    match reply.compound().1.first() {
        Some(OpRes::Sequence(Ok(ok))) => (ok.highest_slot_id, ok.target_highest_slot_id),
        other => panic!("{other:?}"),
    }
}

/// The next CB_RECALL_SLOT that the client gets, which it answers.
fn recalled_to(peer: &Peer<'_>) -> u32 {
    let record = peer.callbacks.recv_timeout(PATIENCE).unwrap();
    let (header, sequence, args) = parse_call(&record[4..]);
    let CbArgs::RecallSlot(slot) = args else { panic!("no CB_RECALL_SLOT: {args:?}") };
    peer.answer_call(&header, sequence, &CbRes::RecallSlot(Status::NFS4_OK));
    slot.target_highest_slot_id
}

#[test]
fn t26_a_fore_channel_is_shrunk_and_grown_by_hand() {
    let world = World::new();
    let (mut peer, idle) = (world.client("a"), world.client("b"));
    assert_eq!(slots_told(&peer.call(&[])), (15, 15));
    assert_eq!(world.server.answer(&Request::SessionSlots(3)), Answer::Started(2));
    assert_eq!((recalled_to(&peer), recalled_to(&idle)), (2, 2));
    assert_eq!(slots_told(&peer.call(&[])), (15, 2), "it has to be told on this slot first");
    let seen = world.server.inspect(0).unwrap();
    let session = seen.clients.iter().find(|client| client.name == "a").unwrap().sessions[0].clone();
    assert_eq!((session.fore_slots, session.fore_slots_target), (16, 3));
    assert!(seen.to_string().contains(", 16 fore slots (asked to use 3)\n"), "{seen}");
    assert_eq!(slots_told(&peer.call(&[])), (2, 2));
    let on_slot = |peer: &Peer<'_>, slot_id, sequence_id| {
        let args = SequenceArgs { slot_id, sequence_id, highest_slot_id: slot_id, ..peer.sequence_args() };
        peer.bare(&[OpArgs::Sequence(args)]).status()
    };
    assert_eq!(on_slot(&peer, 3, 1), Status::NFS4ERR_BADSLOT);
    assert_eq!(on_slot(&peer, 2, 1), Status::NFS4_OK);
    assert_eq!(world.server.answer(&Request::SessionSlots(100)), Answer::Started(0));
    assert_eq!(slots_told(&peer.call(&[])), (15, 15), "never more than it was granted");
    assert_eq!(on_slot(&peer, 3, 1), Status::NFS4_OK);
}

#[test]
fn session_slots_are_spared_while_memory_is_short() {
    let world = World::with(Config { session_slots_max: 16, ..Config::default() });
    let mut peer = world.client("a");
    world.server.runtime().memory_pressure();
    assert_eq!(recalled_to(&peer), 7);
    // The clock of the test's calls stands at the beginning, when memory was short.
    assert_eq!(slots_told(&peer.call(&[])), (15, 7));
    assert_eq!(slots_told(&peer.call(&[])), (7, 7));
    let late = world.client("b");
    let args = CreateSessionArgs { client_id: late.client_id, ..late.create_session_args(2) };
    assert_eq!(late.create_session(&args).map(|ok| ok.fore_channel.requests_max), Ok(8), "a new one gets as many");
    peer.now_ns = 1 << 40;
    assert_eq!(slots_told(&peer.call(&[])), (15, 15));
}

/// A second connection of a client's session.
fn second<'w>(world: &'w World, peer: &Peer<'_>, direction: BindDirection) -> Peer<'w> {
    let mut second = world.stranger("second");
    second.session = peer.session;
    let args = BindConnToSessionArgs { session_id: peer.session, direction, rdma: false };
    assert_eq!(second.bare(&[OpArgs::BindConnToSession(args)]).status(), Status::NFS4_OK);
    second
}

#[test]
fn f6_a_client_that_loses_a_connection_is_called_over_the_other_with_what_it_said_last() {
    let world = World::new();
    let mut peer = world.client("a");
    let (stateid, handle) = peer.take_delegation("file");
    let sys = AuthSys::new(9, b"host", 1, 2, &[3]).unwrap();
    let offered = [CallbackSecParms::Sys(sys)];
    let args = BackchannelCtlArgs { callback_program: 0x5000, security: List::Slice(&offered) };
    assert_eq!(peer.call(&[OpArgs::BackchannelCtl(args)]).status(), Status::NFS4_OK);
    let mut other = second(&world, &peer, BindDirection::BackOrBoth);
    world.server.runtime().close_connection(peer.connection);
    // The session is the same, on the connection that is left.
    other.next = peer.next;
    other.settle();
    let mut writer = world.client("b");
    assert_eq!(writer.open("file", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let record = other.callbacks.recv_timeout(PATIENCE).unwrap();
    let header = CallHeader::decode(&mut Reader::new(&record[4..])).unwrap();
    assert_eq!((header.program, header.credential.flavor), (0x5000, flavor::AUTH_SYS));
    assert_eq!(AuthSys::decode(&mut Reader::new(header.credential.body)), Ok(sys));
    let recalled = parse(&record);
    assert_eq!((recalled.stateid, &recalled.handle), (stateid, &handle));
    other.answer(&recalled, Status::NFS4_OK);
    assert_eq!(other.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(writer.open("file", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn a_callback_that_was_not_answered_on_a_lost_connection_is_sent_again_on_the_other() {
    let world = World::new();
    let mut peer = world.client("a");
    let (stateid, handle) = peer.take_delegation("file");
    let mut writer = world.client("b");
    assert_eq!(writer.open("file", share_access::WRITE).status(), Status::NFS4ERR_DELAY);
    let first = peer.recalled();
    let mut other = second(&world, &peer, BindDirection::Back);
    world.server.runtime().close_connection(peer.connection);
    let again = other.recalled();
    let slot = |recalled: &Recalled| (recalled.sequence.slot_id, recalled.sequence.sequence_id);
    assert_eq!((slot(&again), again.stateid), (slot(&first), stateid), "the same call");
    other.answer(&again, Status::NFS4_OK);
    other.next = peer.next;
    assert_eq!(other.delegreturn(stateid, &handle), Status::NFS4_OK);
    assert_eq!(writer.open("file", share_access::WRITE).status(), Status::NFS4_OK);
}

#[test]
fn a_connection_for_the_fore_channel_carries_no_callbacks() {
    let world = World::new();
    let mut peer = world.client("a");
    peer.take_delegation("file");
    let mut other = second(&world, &peer, BindDirection::Fore);
    world.server.runtime().close_connection(peer.connection);
    other.next = peer.next;
    world.until("the path is down", || {
        let args = SequenceArgs { sequence_id: other.next, ..other.sequence_args() };
        let reply = other.bare(&[OpArgs::Sequence(args)]);
        matches!(reply.last(), OpRes::Sequence(Ok(ok)) if ok.status_flags & seq4_status::CB_PATH_DOWN_SESSION != 0)
            || reply.status() != Status::NFS4_OK
    });
    other.next += 1;
    world.server.held().for_each(|held| assert_eq!(world.server.recall(&held), ringback::TryRun::Submitted));
    assert!(other.callbacks.recv_timeout(Duration::from_millis(50)).is_err());
    let mut third = second(&world, &peer, BindDirection::ForeOrBoth);
    third.next = other.next;
    let recalled = third.recalled();
    third.answer(&recalled, Status::NFS4_OK);
    assert_ne!(recalled.stateid, Stateid4::default());
}
