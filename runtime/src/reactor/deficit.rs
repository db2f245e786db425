//! What a client, or all clients of a tenant, may send in a turn: deficit round robin, counted in callbacks.
//!
//! A client in the ring gets a quantum when its turn comes. What it sends beyond that, the rest of a batch, it owes: it
//! waits for so many quanta. What it could not use because the reactor's own turn was over it uses first thing in the next
//! one. A client without work, a free session slot or a path leaves the ring and forfeits what it has left, so that
//! nobody saves up for a burst at the cost of others; what it owes stays.

/// Callbacks that a client may still send in its turn; below 0: that it has sent beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deficit(isize);

impl Deficit {
    /// Its turn, and so much is given to it: what it may send. 0: it still owes; the next one's turn.
    pub fn share(&mut self, quantum: usize) -> usize {
        if self.0 <= 0 {
            self.0 += quantum as isize;
        }
        self.0.max(0) as usize
    }

    /// So many were sent. `true`: it has some left, of which the reactor's turn has cut it off.
    pub fn spend(&mut self, sent: usize) -> bool {
        self.0 -= sent as isize;
        self.0 > 0
    }

    /// The client leaves the ring.
    pub fn forfeit(&mut self) {
        self.0 = self.0.min(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::TRANSMITS_PER_CLIENT;
    use std::collections::VecDeque;

    /// Turns of a reactor with a budget, of clients that always have work and send it in batches of their own size. Gives
    /// what each has sent.
    fn play(batches: &[usize], budget: usize, turns: usize) -> Vec<usize> {
        let mut ring: VecDeque<usize> = (0..batches.len()).collect();
        let mut clients = vec![(Deficit::default(), 0); batches.len()];
        for _ in 0..turns {
            let mut left = budget;
            while left > 0 {
                let client = ring.pop_front().expect("nobody leaves");
                let (deficit, sent) = &mut clients[client];
                let share = deficit.share(TRANSMITS_PER_CLIENT).min(left);
                let written = share.next_multiple_of(batches[client]);
                *sent += written;
                left -= written.min(left);
                if deficit.spend(written) { ring.push_front(client) } else { ring.push_back(client) }
            }
        }
        clients.into_iter().map(|(_, sent)| sent).collect()
    }

    #[test]
    fn who_sends_in_batches_gets_no_more_than_others() {
        let sent = play(&[1, 1, 16, 60, 64, 7], 512, 1000);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= 64 + TRANSMITS_PER_CLIENT, "{sent:?}");
    }

    /// A budget that is no multiple of the quantum cuts somebody off in each turn: always another one, and it goes on first.
    #[test]
    fn who_was_cut_off_goes_on_first() {
        let sent = play(&[1; 5], 48, 1000);
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= TRANSMITS_PER_CLIENT, "{sent:?}");
        assert_eq!(sent.iter().sum::<usize>(), 48_000, "none of it is lost");
    }

    #[test]
    fn what_is_left_is_forfeited_and_what_is_owed_is_not() {
        let mut deficit = Deficit::default();
        assert_eq!(deficit.share(TRANSMITS_PER_CLIENT), TRANSMITS_PER_CLIENT);
        assert!(deficit.spend(TRANSMITS_PER_CLIENT - 5));
        assert_eq!(deficit.share(TRANSMITS_PER_CLIENT), 5, "no quantum before it has used the last one");
        deficit.forfeit();
        assert_eq!(deficit.share(TRANSMITS_PER_CLIENT), TRANSMITS_PER_CLIENT, "nothing was saved up");
        assert!(!deficit.spend(3 * TRANSMITS_PER_CLIENT));
        deficit.forfeit();
        assert_eq!(
            [
                deficit.share(TRANSMITS_PER_CLIENT),
                deficit.share(TRANSMITS_PER_CLIENT),
                deficit.share(TRANSMITS_PER_CLIENT)
            ],
            [0, 0, TRANSMITS_PER_CLIENT]
        );
    }
}
