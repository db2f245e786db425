//! The planner against clients of all kinds, in simulated time.

use super::*;
use proptest::prelude::*;

const SECOND_NS: u64 = 1_000_000_000;

fn client(index: u32) -> ClientId {
    ClientId { index, generation: 1 }
}

fn holding(index: u32, held: u32) -> Holding {
    Holding { client: client(index), held, pending: false }
}

fn holdings(held: &[u32]) -> Vec<Holding> {
    held.iter().enumerate().map(|(index, held)| holding(index as u32, *held)).collect()
}

/// What a client does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Gives up what it should, within a second.
    Obeys,
    /// Gives up half of what it should, each time.
    Halves,
    /// Gives up only what is recalled.
    Deaf,
    /// Gives up nothing.
    Dead,
}

#[derive(Clone, Debug)]
struct Peer {
    manner: Manner,
    held: u32,
    on_recall: u32,
    /// When it was asked or recalled last.
    heard_ns: Option<u64>,
    keep: Option<u32>,
}

/// Clients and a planner, a second at a time.
struct World {
    planner: Planner,
    peers: Vec<Peer>,
    now_ns: u64,
}

impl World {
    fn new(budget: u64, peers: &[(Manner, u32)]) -> Self {
        let peer = |&(manner, held)| Peer { manner, held, on_recall: 0, heard_ns: None, keep: None };
        World { planner: Planner::new(budget), peers: peers.iter().map(peer).collect(), now_ns: 0 }
    }

    fn held(&self) -> u64 {
        self.peers.iter().map(|p| u64::from(p.held)).sum()
    }

    /// A second passes, and the planner has its say. Checks what holds of everything that it says.
    fn step(&mut self) -> Vec<Order> {
        self.now_ns += SECOND_NS;
        let now: Vec<_> = self.peers.iter().enumerate().map(|(i, p)| holding(i as u32, p.held)).collect();
        let orders = self.planner.plan(self.now_ns, false, &now);
        for order in &orders {
            let (client, told_held, keep) = match *order {
                Order::Ask { client, held, keep } | Order::Recall { client, held, keep, .. } => (client, held, keep),
            };
            let peer = &mut self.peers[client.index as usize];
            assert_eq!(told_held, peer.held);
            assert!(keep < peer.held, "{client:?} holds {} and is to keep {keep}", peer.held);
            let pause = peer.heard_ns.replace(self.now_ns).map(|before| self.now_ns - before);
            assert!(pause.is_none_or(|ns| ns >= PAUSE_NS), "{client:?} was asked {pause:?} ago");
            if let Order::Recall { count, .. } = *order {
                assert!(count <= peer.held - keep, "{client:?} is asked for more than it has too much");
                let more = count.min(peer.held - peer.on_recall);
                peer.on_recall += more;
                self.planner.recalled(client, more);
            } else {
                peer.keep = Some(keep);
            }
        }
        self.peers.iter_mut().for_each(Peer::act);
        orders
    }

    fn run(&mut self, seconds: u64) {
        (0..seconds).for_each(|_| drop(self.step()));
    }
}

impl Peer {
    fn act(&mut self) {
        if self.manner == Manner::Dead {
            return;
        }
        self.held -= std::mem::take(&mut self.on_recall).min(self.held);
        let Some(keep) = self.keep.take().filter(|keep| *keep < self.held) else { return };
        self.held = match self.manner {
            Manner::Obeys => keep,
            Manner::Halves => self.held - (self.held - keep).div_ceil(2),
            Manner::Deaf | Manner::Dead => self.held,
        };
    }
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        4 => Just(Manner::Obeys),
        2 => Just(Manner::Halves),
        1 => Just(Manner::Deaf),
        1 => Just(Manner::Dead)
    ]
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..20, 4 => 0u32..100_000, 1 => Just(u32::MAX)]
}

#[test]
fn nothing_is_asked_within_the_budget() {
    let mut planner = Planner::new(100);
    assert_eq!(planner.plan(0, false, &holdings(&[60, 40])), []);
    assert!(!planner.plan(0, false, &holdings(&[60, 41])).is_empty());
    assert_eq!(Planner::new(u64::MAX).plan(0, true, &holdings(&[u32::MAX; 9])), []);
}

#[test]
fn room_is_made_for_who_was_refused() {
    let mut planner = Planner::new(8);
    let asked = planner.plan(0, true, &holdings(&[8]));
    assert_eq!(asked, [Order::Ask { client: client(0), held: 8, keep: 7 }]);
    assert_eq!(Planner::new(8).plan(0, true, &holdings(&[7])), [], "there is room");
}

#[test]
fn each_keeps_the_same_part_and_the_largest_are_asked_first() {
    let mut planner = Planner::new(16);
    let orders = planner.plan(0, false, &holdings(&[10, 30]));
    let ask = |index, held, keep| Order::Ask { client: client(index), held, keep };
    assert_eq!(orders, [ask(1, 30, 10), ask(0, 10, 3)]);
    // One too many of a thousand small ones: one is asked, not a thousand.
    let orders = Planner::new(8008).plan(0, false, &holdings(&[9; 1001]));
    assert_eq!(orders.len(), (9009 - 7007usize).div_ceil(2));
}

#[test]
fn who_gives_up_nothing_is_recalled_and_the_others_do_not_pay_for_it() {
    let mut world = World::new(500, &[(Manner::Deaf, 500), (Manner::Obeys, 500)]);
    let both = world.step();
    assert_eq!(both.len(), 2, "{both:?}");
    world.run(4);
    assert_eq!((world.peers[0].held, world.peers[1].held), (500, 218));
    let [Order::Recall { client: deaf, held: 500, keep: 218, count: 282 }] = world.step()[..] else { panic!() };
    assert_eq!(deaf, client(0));
    world.run(60);
    assert_eq!((world.peers[0].held, world.peers[1].held), (218, 218));
}

#[test]
fn what_is_on_recall_already_is_not_recalled_again() {
    let mut world = World::new(500, &[(Manner::Dead, 1000)]);
    let mut recalled = Vec::new();
    for second in 1..=30 {
        recalled.extend(world.step().into_iter().map(|order| (second, order)));
    }
    let recall = Order::Recall { client: client(0), held: 1000, keep: 437, count: 563 };
    assert_eq!(recalled, [(1, Order::Ask { client: client(0), held: 1000, keep: 437 }), (6, recall)]);
}

#[test]
fn who_has_done_part_of_it_is_asked_for_the_rest() {
    let mut world = World::new(500, &[(Manner::Halves, 1000), (Manner::Obeys, 1000)]);
    world.run(5);
    assert_eq!((world.peers[0].held, world.peers[1].held), (609, 218));
    let again = world.step();
    assert_eq!(again, [Order::Ask { client: client(0), held: 609, keep: 218 }]);
}

#[test]
fn who_has_not_answered_yet_is_not_asked_again() {
    let mut planner = Planner::new(100);
    assert_eq!(planner.plan(0, false, &holdings(&[200])).len(), 1);
    let half_way = [Holding { pending: true, ..holding(0, 150) }];
    assert_eq!(planner.plan(PAUSE_NS, false, &half_way), []);
    assert_eq!(planner.plan(2 * PAUSE_NS, false, &holdings(&[150])).len(), 1);
}

#[test]
fn pressure_shrinks_what_is_held_and_ends_by_itself() {
    let mut world = World::new(u64::MAX, &[(Manner::Obeys, 800), (Manner::Deaf, 800)]);
    assert_eq!(world.step(), []);
    assert_eq!(world.planner.press(world.now_ns, 1600), 1200);
    assert_eq!(world.planner.press(world.now_ns + SECOND_NS, 1600), 1200, "the same pressure");
    world.run(10);
    assert_eq!((world.peers[0].held, world.peers[1].held), (600, 600), "the deaf one was recalled from");
    assert_eq!(world.planner.press(world.now_ns, 1200), 900, "more pressure");
    world.run(20);
    assert_eq!(world.held(), 900);
    world.run(20);
    assert!(!world.planner.is_at_work());
}

#[test]
fn a_request_by_hand_is_no_more_than_a_request() {
    let mut world = World::new(u64::MAX, &[(Manner::Obeys, 800), (Manner::Deaf, 800)]);
    world.planner.come_down(0, 400);
    world.run(30);
    assert_eq!((world.peers[0].held, world.peers[1].held), (200, 800));
}

#[test]
fn who_is_gone_is_forgotten() {
    let mut planner = Planner::new(100);
    assert_eq!(planner.plan(0, false, &holdings(&[200, 300])).len(), 2);
    let reborn = Holding { client: ClientId { index: 0, generation: 2 }, held: 200, pending: false };
    let orders = planner.plan(SECOND_NS, false, &[reborn]);
    assert!(matches!(orders[..], [Order::Ask { client, .. }] if client == reborn.client), "{orders:?}");
    assert_eq!(planner.asked.len(), 1);
}

proptest! {
    /// Of a first look: the sum, the order, the parts.
    #[test]
    fn the_first_requests_cover_the_excess_in_proportion(
        held in proptest::collection::vec(any_count(), 1..50),
        budget in prop_oneof![0u64..1000, 0u64..1 << 33, Just(u64::MAX)],
    ) {
        let total: u64 = held.iter().map(|h| u64::from(*h)).sum();
        let orders = Planner::new(budget).plan(u64::MAX, false, &holdings(&held));
        if total <= budget {
            prop_assert!(orders.is_empty());
            return Ok(());
        }
        let goal = eighths(budget, KEPT_EIGHTHS);
        let (mut given_up, mut asked) = (0, vec![false; held.len()]);
        for order in &orders {
            let Order::Ask { client, held: h, keep } = *order else { panic!("{order:?}") };
            prop_assert_eq!(u128::from(keep), u128::from(h) * u128::from(goal) / u128::from(total));
            prop_assert!(given_up < total - goal, "one more than it takes");
            given_up += u64::from(h - keep);
            asked[client.index as usize] = true;
        }
        prop_assert!(given_up >= total - goal, "{} of {}", given_up, total - goal);
        let least = (0..held.len()).filter(|i| asked[*i]).map(|i| held[i]).min();
        let most = (0..held.len()).filter(|i| !asked[*i]).map(|i| held[i]).max();
        prop_assert!(most.is_none() || least >= most);
    }

    /// Whoever is there: `World::step` checks each order; and it ends below the limit, if nobody is dead.
    #[test]
    fn it_converges_and_asks_nobody_twice_within_the_pause(
        peers in proptest::collection::vec((manner(), any_count()), 1..30),
        budgets in proptest::collection::vec(prop_oneof![0u64..1000, 0u64..1 << 20, 0u64..1 << 33], 1..4),
        pressed in proptest::collection::vec(0u64..60, 0..4),
    ) {
        let mut world = World::new(u64::MAX, &peers);
        for budget in budgets {
            world.planner.budget = budget;
            for second in 0..60 {
                if pressed.contains(&second) {
                    let (now_ns, held) = (world.now_ns, world.held());
                    world.planner.press(now_ns, held);
                }
                world.step();
            }
            // Halving 2^32 takes 32 pauses.
            world.run(160);
            let dead = world.peers.iter().filter(|p| p.manner == Manner::Dead).map(|p| u64::from(p.held)).sum::<u64>();
            prop_assert!(world.held() <= budget.saturating_add(dead), "{:?}", world.peers);
        }
    }

    /// Who obeys is asked once: what others keep is not asked of it.
    #[test]
    fn who_obeys_pays_for_nobody(
        others in proptest::collection::vec((manner(), 0u32..100_000), 1..30),
        own in 1u32..100_000,
        budget in 0u64..1 << 20,
    ) {
        let mut peers = others;
        peers.push((Manner::Obeys, own));
        let mut world = World::new(budget, &peers);
        let (total, goal) = (world.held(), eighths(budget, KEPT_EIGHTHS));
        world.run(100);
        let kept = world.peers.last().unwrap().held;
        prop_assert!(u128::from(kept) >= u128::from(own) * u128::from(goal.min(total)) / u128::from(total));
    }
}
