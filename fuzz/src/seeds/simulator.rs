//! Seeds of the simulator: inputs of noise, each named after what its simulation came across when it was chosen. What it
//! comes across later may be something else, whenever the runtime takes its steps in another order:
//! `cargo run -p ringback-fuzz --example seeds -- --choose` then prints the table below with numbers for which it is true again.

use super::{Seed, seed};
use crate::sim::{self, Kind, Options};

/// What is come across, and the number of an input in which it is.
const STORIES: [(Kind, u64); 30] = [
    (Kind::AllocationFailed, 8),
    (Kind::BackchannelCtl, 2),
    (Kind::BadHighSlot, 164),
    (Kind::Batch, 4),
    (Kind::CallsReordered, 56),
    (Kind::ClientExpired, 3),
    (Kind::ClientReplaced, 0),
    (Kind::DrainClient, 3),
    (Kind::Abandoned, 1),
    (Kind::DestroyedMidReply, 10),
    (Kind::InCourtesy, 2),
    (Kind::HookPanics, 0),
    (Kind::LoneSequence, 6),
    (Kind::Misordered, 639),
    (Kind::OwnTransport, 3),
    (Kind::PathDown, 110),
    (Kind::RebootParked, 93),
    (Kind::ReferringAwaited, 659),
    (Kind::ReplyLate, 193),
    (Kind::Resent, 5),
    (Kind::SessionLost, 217),
    (Kind::TableShrunk, 7),
    (Kind::TimedOutSent, 6),
    (Kind::WrongEcho, 28),
    (Kind::Upgraded, 49),
    (Kind::UpgradedFlying, 49),
    (Kind::UpgradeFailed, 44),
    (Kind::NobodyServes, 47),
    (Kind::MoreReactors, 104),
    (Kind::OldLeaveDelay, 277),
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

/// Inputs that are tried for one of a kind.
const NUMBERS_MAX: u64 = 20_000;

/// The table of stories with the first number for which each is true again.
///
/// # Errors
///
/// The kind that no input comes across.
pub fn choose() -> Result<Vec<(Kind, u64)>, Kind> {
    let mut found: Vec<(Kind, Option<u64>)> = STORIES.iter().map(|(kind, _)| (*kind, None)).collect();
    for number in 0..NUMBERS_MAX {
        let report = sim::run_input(&noise(number), &Options::default());
        for (kind, first) in &mut found {
            // A story without a callback is none.
            if first.is_none() && report.runs > 0 && report.coverage.count(*kind) > 0 {
                *first = Some(number);
            }
        }
        if found.iter().all(|(_, first)| first.is_some()) {
            break;
        }
    }
    found.into_iter().map(|(kind, first)| Ok((kind, first.ok_or(kind)?))).collect()
}

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    for (kind, number) in STORIES {
        let name = kind.name().to_lowercase().replace('\'', "").replace([',', ':'], "").replace([' ', '-'], "_");
        seeds.push(seed("simulator", name, noise(number)));
    }
}
