//! Seeds of the simulator: inputs of noise, each named after what its simulation comes across.

use super::{Seed, seed};
use crate::sim::Kind;

/// What is to be come across, and the number of an input in which it is.
pub const STORIES: [(Kind, u64); 19] = [
    (Kind::AllocationFailed, 23),
    (Kind::BackchannelCtl, 1),
    (Kind::BadHighSlot, 232),
    (Kind::Batch, 0),
    (Kind::CallsReordered, 327),
    (Kind::ClientReplaced, 3),
    (Kind::DrainClient, 3),
    (Kind::Abandoned, 11),
    (Kind::DestroyedMidReply, 3),
    (Kind::InCourtesy, 1),
    (Kind::LoneSequence, 2),
    (Kind::Misordered, 159),
    (Kind::OwnTransport, 3),
    (Kind::PathDown, 149),
    (Kind::ReplyLate, 42),
    (Kind::Resent, 8),
    (Kind::SessionLost, 33),
    (Kind::TimedOutSent, 0),
    (Kind::WrongEcho, 75),
];

/// Bytes of an input of noise: for twenty actions or so, and their consequences.
const BYTES: usize = 600;

/// The input of noise with this number.
pub fn noise(number: u64) -> Vec<u8> {
    // Numbers next to each other must differ in more than a bit; xorshift never leaves 0.
    let mut state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    (0..BYTES).map(|_| byte()).collect()
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    for (kind, number) in STORIES {
        let name = kind.name().to_lowercase().replace('\'', "").replace([' ', '-'], "_");
        seeds.push(seed("simulator", name, noise(number)));
    }
}
