//! Whose turn it is: tenants in deficit round robin, and within a tenant its clients, so that the storm of one is not at the cost of
//! another, however many clients it has. With the default tenant alone this is one queue of clients.

use super::deficit::Deficit;
use crate::settings::TRANSMITS_PER_TENANT;
use std::collections::VecDeque;

#[derive(Debug, Default)]
struct Turns {
    clients: VecDeque<u32>,
    deficit: Deficit,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// By tenant.
    tenants: Vec<Turns>,
    /// Tenants with clients in the ring.
    order: VecDeque<u16>,
    /// Clients in the ring.
    len: usize,
}

impl Ring {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn turns(&mut self, tenant: u16) -> &mut Turns {
        let at = usize::from(tenant);
        if at >= self.tenants.len() {
            self.tenants.resize_with(at + 1, Turns::default);
        }
        if self.tenants[at].clients.is_empty() {
            self.order.push_back(tenant);
        }
        self.len += 1;
        &mut self.tenants[at]
    }

    pub fn push_back(&mut self, tenant: u16, client: u32) {
        self.turns(tenant).clients.push_back(client);
    }

    pub fn push_front(&mut self, tenant: u16, client: u32) {
        self.turns(tenant).clients.push_front(client);
    }

    /// The client whose turn it is.
    pub fn pop(&mut self) -> Option<u32> {
        if self.order.len() > 1 {
            // Who owes lets others go first. Ends, for each look pays a part of it back.
            while self.tenants[usize::from(*self.order.front()?)].deficit.share(TRANSMITS_PER_TENANT) == 0 {
                self.order.rotate_left(1);
            }
        }
        let tenant = *self.order.front()?;
        let turns = &mut self.tenants[usize::from(tenant)];
        let client = turns.clients.pop_front()?;
        self.len -= 1;
        if turns.clients.is_empty() {
            self.order.pop_front();
        }
        Some(client)
    }

    /// What the client whose turn it was has sent, when it is back in the ring if it has more.
    pub fn served(&mut self, tenant: u16, sent: usize) {
        let Some(turns) = self.tenants.get_mut(usize::from(tenant)) else { return };
        if self.order.iter().all(|other| *other == tenant) {
            // Who is alone owes nobody.
            turns.deficit = Deficit::default();
            return;
        }
        let has_some_left = turns.deficit.spend(sent);
        if turns.clients.is_empty() {
            turns.deficit.forfeit();
        } else if !has_some_left && self.order.front() == Some(&tenant) {
            self.order.rotate_left(1);
        }
    }

    /// A client is not here any more.
    pub fn remove(&mut self, client: u32) {
        for (tenant, turns) in self.tenants.iter_mut().enumerate() {
            let before = turns.clients.len();
            turns.clients.retain(|at| *at != client);
            self.len -= before - turns.clients.len();
            if before > 0 && turns.clients.is_empty() {
                self.order.retain(|at| usize::from(*at) != tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of clients that always have work: (tenant, what it sends in its turn). What each tenant has sent.
    fn play(clients: &[(u16, usize)], turns: usize) -> Vec<usize> {
        let mut ring = Ring::default();
        clients.iter().enumerate().for_each(|(client, (tenant, _))| ring.push_back(*tenant, client as u32));
        let mut sent = vec![0; clients.iter().map(|(tenant, _)| usize::from(*tenant) + 1).max().unwrap()];
        for _ in 0..turns {
            let client = ring.pop().expect("nobody leaves");
            let (tenant, size) = clients[client as usize];
            ring.push_back(tenant, client);
            ring.served(tenant, size);
            sent[usize::from(tenant)] += size;
        }
        sent
    }

    #[test]
    fn a_tenant_with_a_hundred_clients_gets_no_more_than_one_with_one() {
        let mut clients = vec![(1, 32); 100];
        clients.extend([(2, 32), (3, 7), (3, 64)]);
        let sent = play(&clients, 10_000);
        let (least, most) = (sent[1..].iter().min().unwrap(), sent[1..].iter().max().unwrap());
        assert!(most - least <= 64 + 2 * TRANSMITS_PER_TENANT, "{sent:?}");
    }

    #[test]
    fn clients_of_one_tenant_take_turns() {
        let mut ring = Ring::default();
        (0..3).for_each(|client| ring.push_back(0, client));
        let mut order = Vec::new();
        for _ in 0..6 {
            let client = ring.pop().unwrap();
            ring.push_back(0, client);
            ring.served(0, 32);
            order.push(client);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
        ring.remove(1);
        assert_eq!((ring.pop(), ring.pop(), ring.pop(), ring.is_empty()), (Some(0), Some(2), None, true));
    }

    #[test]
    fn who_was_alone_owes_nothing_to_who_comes_later() {
        let mut ring = Ring::default();
        ring.push_back(1, 10);
        for _ in 0..1000 {
            assert_eq!(ring.pop(), Some(10));
            ring.push_back(1, 10);
            ring.served(1, 64);
        }
        ring.push_back(2, 20);
        let mut turns = [0u32; 2];
        for _ in 0..100 {
            let client = ring.pop().unwrap();
            let tenant = client as u16 / 10;
            ring.push_back(tenant, client);
            ring.served(tenant, 32);
            turns[usize::from(tenant) - 1] += 1;
        }
        assert!(turns[0].abs_diff(turns[1]) <= 2, "{turns:?}");
    }

    #[test]
    fn who_was_cut_off_goes_on_first() {
        let mut ring = Ring::default();
        ring.push_back(1, 10);
        ring.push_back(2, 20);
        let client = ring.pop().unwrap();
        ring.push_front(1, client);
        ring.served(1, 5);
        // Tenant 1 has some left, but its only client had left the ring meanwhile: the other one is next.
        let next = [ring.pop(), ring.pop()];
        assert!(next.contains(&Some(10)) && next.contains(&Some(20)), "{next:?}");
    }
}
