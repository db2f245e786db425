//! The delegation reaper: the runtime, its reactors and its callbacks, in simulated time.

use ringback::Event;
use ringback_fuzz::budget::{Manner, Second, Site};

const PAUSE_S: f64 = 5.0;

/// Nobody is asked twice within the pause, nor to keep more than it holds.
fn check_requests(site: &Site, clients: usize) {
    for client in 0..clients {
        let asked = site.asked(client);
        assert!(asked.iter().all(|a| a.keep < a.held), "{client}: {asked:?}");
        assert!(asked.windows(2).all(|two| two[1].at_s - two[0].at_s >= PAUSE_S), "{client}: {asked:?}");
    }
}

fn run(site: &mut Site, seconds: u64) -> Vec<Second> {
    (0..seconds).map(|_| site.second()).collect()
}

#[test]
fn a_million_delegations_are_halved_each_client_its_part() {
    let clients: Vec<_> = (1..=100).map(|n| (Manner::Obeys, n * 1_000_000 / 5050)).collect();
    let mut site = Site::new(&clients).unwrap();
    let all: u64 = clients.iter().map(|(_, held)| u64::from(*held)).sum();
    site.set_budget(all / 2);
    let seconds = run(&mut site, 12);
    assert_eq!(seconds[0].asked, 100, "all at once");
    let goal = all / 2 * 7 / 8;
    for (client, (_, held)) in clients.iter().enumerate() {
        let share = (u64::from(*held) * goal / all) as u32;
        let asked: Vec<_> = site.asked(client).iter().map(|a| (a.held, a.keep)).collect();
        assert_eq!(asked, [(*held, share)], "{client}");
        assert_eq!(site.held(client), share as usize, "{client}");
    }
    // The largest returns more than ten thousand, five thousand a second.
    let there = seconds.iter().position(|s| s.held <= all / 2).unwrap();
    assert!(there <= 3, "{seconds:?}");
    assert_eq!(site.runtime().stats().reaper_recalled, 0);
    check_requests(&site, clients.len());
}

#[test]
fn who_ignores_it_is_recalled_the_least_recently_used_first_and_a_dead_one_is_revoked() {
    let manner = |n| match n {
        3 => Manner::Ignores,
        5 => Manner::Dead,
        _ => Manner::Obeys,
    };
    let clients: Vec<_> = (0..10).map(|n| (manner(n), 100 * (n + 1))).collect();
    let mut site = Site::new(&clients).unwrap();
    site.set_budget(2750);
    let seconds = run(&mut site, 6);
    let keep = |client: usize| site.asked(client).last().map(|a| a.keep);
    assert_eq!(keep(3), Some(400 * 2406 / 5500));
    // Five seconds later, not before.
    assert_eq!(seconds.iter().map(|s| s.recalled).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 226 + 338]);
    for (client, held) in [(3, 400), (5, 600)] {
        let recalled = site.recalled(client);
        let in_use = recalled.iter().filter(|last_use| **last_use > 0).count();
        assert!(recalled.is_sorted(), "{client}: the idle ones first");
        assert_eq!(in_use, recalled.len() - held / 2, "{client}: all of the idle ones");
    }
    let told = |client| {
        let name = site.client(client);
        let vain = |e: &&Event| matches!(e, Event::AskedInVain { client, .. } if *client == name);
        site.events().iter().filter(vain).count()
    };
    assert_eq!((told(3), told(5), told(7)), (1, 1, 0));
    // The one who ignored it has returned what was recalled; of the dead one it is revoked after a lease.
    assert_eq!(site.held(3), 174);
    assert_eq!(site.held(5), 600);
    let seconds = run(&mut site, 120);
    assert_eq!(site.held(5), 262);
    assert!(seconds.last().unwrap().held <= 2750);
    // What the others have kept was not asked of them on its account.
    assert!((0..10).filter(|n| *n != 5).all(|n| site.asked(n).len() == 1));
    check_requests(&site, clients.len());
}

#[test]
fn pressure_shrinks_what_is_held_and_passes() {
    let mut site = Site::new(&[(Manner::Obeys, 800), (Manner::Obeys, 400)]).unwrap();
    assert_eq!(run(&mut site, 3).iter().map(|s| s.asked).sum::<u64>(), 0);
    for _ in 0..4 {
        site.runtime().memory_pressure();
        site.second();
    }
    assert_eq!((site.held(0), site.held(1)), (600, 300), "one pressure, whatever it is told");
    let told: Vec<_> = site.events().into_iter().filter(|e| matches!(e, Event::MemoryPressure { .. })).collect();
    assert_eq!(told[0], Event::MemoryPressure { held: 1200, keep: 900 });
    run(&mut site, 60);
    assert_eq!((site.held(0), site.held(1)), (600, 300));
    assert_eq!(site.runtime().stats().memory_pressures, 4);
    check_requests(&site, 2);
}

#[test]
fn a_request_by_hand_is_made_once() {
    let mut site = Site::new(&[(Manner::Obeys, 800), (Manner::Ignores, 400)]).unwrap();
    site.runtime().recall_any(600);
    run(&mut site, 60);
    assert_eq!((site.held(0), site.held(1)), (400, 400));
    assert_eq!((site.asked(0).len(), site.asked(1).len()), (1, 1));
}
