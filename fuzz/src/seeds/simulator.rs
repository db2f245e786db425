//! Seeds of the simulator: inputs of noise, each named after what its simulation came across when it was chosen. What it
//! comes across later may be something else, whenever the runtime takes its steps in another order.

use super::{Seed, seed};
use crate::sim::Kind;

/// What is come across, and the number of an input in which it is.
const STORIES: [(Kind, u64); 24] = [
    (Kind::AllocationFailed, 24),
    (Kind::BackchannelCtl, 2),
    (Kind::BadHighSlot, 324),
    (Kind::Batch, 1),
    (Kind::CallsReordered, 66),
    (Kind::ClientExpired, 50),
    (Kind::ClientReplaced, 1),
    (Kind::DrainClient, 9),
    (Kind::Abandoned, 11),
    (Kind::DestroyedMidReply, 9),
    (Kind::InCourtesy, 10),
    (Kind::HookPanics, 1),
    (Kind::LoneSequence, 10),
    (Kind::Misordered, 189),
    (Kind::OwnTransport, 3),
    (Kind::PathDown, 493),
    (Kind::RebootParked, 257),
    (Kind::ReferringAwaited, 454),
    (Kind::ReplyLate, 10),
    (Kind::Resent, 10),
    (Kind::SessionLost, 35),
    (Kind::TableShrunk, 13),
    (Kind::TimedOutSent, 6),
    (Kind::WrongEcho, 121),
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
        let name = kind.name().to_lowercase().replace('\'', "").replace(", ", "_").replace([' ', '-'], "_");
        seeds.push(seed("simulator", name, noise(number)));
    }
}
