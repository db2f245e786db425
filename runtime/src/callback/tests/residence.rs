//! The word of a client's home, and the twins of the proofs.

use crate::callback::residence::Residence;
use crate::sync::Queue;
use std::sync::Arc;
use std::thread;

#[test]
fn a_move_turns_the_side_and_waits_for_the_old_one() {
    let residence = Residence::new();
    residence.settle_at(3);
    assert_eq!(residence.home(), 3);
    let old = residence.enter();
    assert_eq!(old.home, 3);
    assert!(residence.begin_move(5));
    assert!(!residence.begin_move(6), "it is on its way");
    assert_eq!((residence.home(), residence.is_moving(), residence.is_quiet()), (5, true, false));
    let new = residence.enter();
    assert_eq!(new.home, 5);
    assert_eq!(residence.leave(new), None, "nobody waits for those of the new side");
    assert_eq!(residence.leave(old), Some(3), "the old home waits for this one");
    assert!(residence.is_quiet());
    residence.arrived();
    assert_eq!((residence.home(), residence.is_moving()), (5, false));
    assert!(residence.begin_move(3), "and back");
}

#[test]
fn who_is_inside_stays_counted_when_the_place_is_another_clients() {
    let residence = Residence::new();
    let visit = residence.enter();
    residence.settle_at(1);
    assert!(residence.begin_move(2));
    assert!(!residence.is_quiet());
    assert_eq!(residence.leave(visit), Some(1));
    assert!(residence.is_quiet());
}

/// Threads that send while the client goes to and fro.
#[test]
fn messages_to_a_moving_client_are_neither_lost_nor_overtaken() {
    const SENDERS: u64 = 3;
    const MESSAGES: u64 = 3000;
    let scene = Arc::new((Residence::new(), [Queue::<u64>::new(), Queue::new()]));
    let send = |sender: u64| {
        let scene = Arc::clone(&scene);
        thread::spawn(move || {
            for number in 0..MESSAGES {
                let visit = scene.0.enter();
                scene.1[visit.home].push(sender << 32 | number);
                let _ = scene.0.leave(visit);
            }
        })
    };
    let senders: Vec<_> = (0..SENDERS).map(send).collect();
    let mut next = [0; SENDERS as usize];
    let mut home = 0;
    while next.iter().sum::<u64>() < SENDERS * MESSAGES {
        assert!(scene.0.begin_move(1 - home));
        while !scene.0.is_quiet() {
            thread::yield_now();
        }
        for _ in 0..scene.1[home].len() {
            let message = scene.1[home].pop().expect("nobody else takes them");
            let (sender, number) = ((message >> 32) as usize, message & 0xffff_ffff);
            assert_eq!(number, next[sender], "of sender {sender}");
            next[sender] += 1;
        }
        scene.0.arrived();
        home = 1 - home;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!((scene.1[0].len(), scene.1[1].len()), (0, 0));
}
