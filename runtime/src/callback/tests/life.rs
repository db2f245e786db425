//! One callback through slab, inbox and word, as an embedder and a reactor would take it.

use super::OP_CB_RECALL;
use crate::callback::inbox::{Inbox, Parking};
use crate::callback::inflight::InFlight;
use crate::callback::slab::CallbackSlab;
use crate::callback::state::{Claim, Dequeue, Finish, Removal};
use crate::callback::{CallbackKey, InsertError};

#[test]
fn one_callback_from_insert_to_the_stale_key() {
    let slab = CallbackSlab::new(10, 2);
    let (inbox, parking, in_flight) = (Inbox::new(), Parking::new(), InFlight::new());
    let key = slab.insert(1, 7, OP_CB_RECALL, 0xfeed).expect("there is room");
    let entry = &slab[key.index];
    assert_eq!((entry.client(), entry.op(), entry.cookie()), (7, OP_CB_RECALL, 0xfeed));

    assert!(parking.prepare_park(|| inbox.is_empty()), "nothing to do");
    assert_eq!(entry.try_run(key.generation), Claim::Submit);
    assert!(in_flight.enter());
    inbox.push(&slab, key.index);
    assert!(parking.must_wake(), "the reactor sleeps");
    assert_eq!(entry.try_run(key.generation), Claim::Coalesced);

    parking.unpark();
    let mut chain = inbox.take_all(&slab);
    assert_eq!(chain.pop(&slab), Some(key.index));
    assert!(chain.is_empty() && chain.pop(&slab).is_none());
    assert_eq!(entry.word().take_requeue(), Dequeue::Prepare);
    entry.word().requeue();
    assert_eq!(entry.word().take_requeue(), Dequeue::Resend);
    entry.word().settle();
    assert_eq!(entry.try_run(key.generation), Claim::Rearmed);
    assert_eq!(entry.word().finish(true), Finish::RunAgain { wake: false });

    assert_eq!(entry.word().take_requeue(), Dequeue::Prepare);
    assert_eq!(entry.word().remove(key.generation), Removal::Deferred);
    entry.word().settle();
    assert_eq!(entry.word().finish(true), Finish::Free { wake: false });
    slab.free(key.index);
    assert!(!in_flight.close() && in_flight.leave());
    assert_eq!(entry.try_run(key.generation), Claim::Stale);
    assert_eq!(entry.word().remove(key.generation), Removal::Stale);
}

#[test]
fn a_long_queue_is_turned_round_a_slice_at_a_time() {
    let slab = CallbackSlab::new(100, 1);
    let inbox = Inbox::new();
    let insert = |cookie| slab.insert(0, 7, OP_CB_RECALL, cookie).expect("there is room").index;
    let indices: Vec<_> = (0..50).map(insert).collect();
    for limit in [1, 7, 49, 50, 51] {
        for index in &indices {
            inbox.push(&slab, *index);
        }
        let (mut chain, mut turns) = (inbox.take(), 0);
        // It comes after those, and waits for the next chain.
        let late = insert(0);
        inbox.push(&slab, late);
        while !chain.is_empty() && chain.pop(&slab).inspect(|first| assert_eq!(*first, indices[0])).is_none() {
            chain.turn(&slab, limit);
            turns += 1;
        }
        assert_eq!(turns, 50usize.div_ceil(limit));
        chain.turn(&slab, limit);
        let rest: Vec<_> = std::iter::from_fn(|| chain.pop(&slab)).collect();
        assert_eq!((&rest[..], chain.is_empty()), (&indices[1..], true), "{limit}");
        let mut next = inbox.take_all(&slab);
        assert_eq!((next.pop(&slab), next.pop(&slab)), (Some(late), None));
    }
}

#[test]
fn keys_pack_into_one_integer() {
    let key = CallbackKey { index: 0x0102_0304, generation: 0xa0b0_c0d0 };
    assert_eq!(key.to_bits(), 0xa0b0_c0d0_0102_0304);
    assert_eq!(CallbackKey::from_bits(key.to_bits()), key);
}

#[test]
fn a_full_slab_says_its_limit() {
    let slab = CallbackSlab::new(1, 3);
    let key = slab.insert(2, 0, OP_CB_RECALL, 0).expect("there is room for one");
    assert_eq!(slab.insert(2, 0, OP_CB_RECALL, 0), Err(InsertError::Full { limit: 1 }));
    assert_eq!(slab[key.index].word().remove(key.generation), Removal::FreeNow);
    slab.free(key.index);
    assert!(slab.insert(1, 0, OP_CB_RECALL, 0).is_ok());
}

#[test]
fn a_closed_door_opens_for_the_next_client() {
    let in_flight = InFlight::new();
    assert!(in_flight.enter() && !in_flight.close() && !in_flight.enter());
    assert!(in_flight.leave(), "the last one out completes the drain");
    in_flight.reopen();
    assert!(in_flight.enter() && !in_flight.is_closed());
    assert_eq!(in_flight.count(), 1);
}

#[test]
fn who_has_left_and_is_counted_still_makes_room() {
    let in_flight = InFlight::new();
    assert!(in_flight.enter_at_home() && in_flight.enter_at_home());
    in_flight.leave_later();
    assert_eq!(in_flight.count(), 2, "too high for a moment, never too low");
    assert!(in_flight.enter_at_home());
    assert_eq!(in_flight.count(), 2);
    assert!(!in_flight.settle(), "nobody has left");
    in_flight.leave_later();
    in_flight.leave_later();
    assert!(!in_flight.close() && !in_flight.enter_at_home());
    assert!(in_flight.settle() && in_flight.is_over(), "the last ones out complete the drain");
}

#[test]
fn an_inbox_gives_of_either_side_in_turn() {
    let (slab, inbox) = (CallbackSlab::new(6, 1), Inbox::new());
    (0..6).for_each(|n| _ = slab.insert(0, n, OP_CB_RECALL, 0).expect("there is room"));
    let taken = |inbox: &Inbox| {
        let mut chain = inbox.take_all(&slab);
        std::iter::from_fn(|| chain.pop(&slab)).collect::<Vec<_>>()
    };
    inbox.push(&slab, 0);
    inbox.push_own(&slab, 1);
    inbox.push_own(&slab, 2);
    assert_eq!(taken(&inbox), [1, 2]);
    inbox.push_own(&slab, 3);
    assert_eq!(taken(&inbox), [0], "what others bring does not wait for ever");
    inbox.push(&slab, 4);
    assert_eq!(taken(&inbox), [3]);
    assert!(!inbox.is_empty());
    assert_eq!(taken(&inbox), [4]);
    assert!(inbox.is_empty() && taken(&inbox).is_empty());
    inbox.push_own(&slab, 5);
    assert_eq!(taken(&inbox), [5]);
}
