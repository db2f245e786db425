//! Where every decision of a simulation comes from: one seed, or the bytes of an input.

use std::sync::{Arc, Mutex, PoisonError};

/// A stream of decisions. The same seed, or the same input, gives the same stream on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Choices(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The state of a generator.
    Seed(u64),
    /// An input, shared by all who decide, so that its bytes stand in the order in which they are used.
    Tape(Arc<Mutex<Tape>>),
}

#[derive(Debug)]
struct Tape {
    bytes: Vec<u8>,
    used: usize,
    /// What decides when the bytes are used up.
    state: u64,
}

impl Tape {
    /// A number below 2^(8 `count`).
    fn take(&mut self, count: usize) -> u64 {
        let left = self.bytes.get(self.used..self.used + count);
        self.used += count;
        match left {
            Some(bytes) => bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            None => splitmix(&mut self.state) >> (64 - 8 * count),
        }
    }

    /// A number below `end`, from one byte if that is enough, else from two: a decision takes few, however wide it is.
    fn below(&mut self, end: u64) -> u64 {
        match end {
            0 | 1 => 0,
            2..=0x100 => self.take(1) % end,
            _ => ((u128::from(self.take(2)) * u128::from(end)) >> 16) as u64,
        }
    }
}

/// Any number.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Choices {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Choices(Source::Seed(seed))
    }

    pub(crate) fn of_input(input: &[u8]) -> Self {
        let state = input.iter().fold(0, |state, byte| splitmix(&mut { state }) ^ u64::from(*byte));
        Choices(Source::Tape(Arc::new(Mutex::new(Tape { bytes: input.to_vec(), used: 0, state }))))
    }

    /// Whether an input is used up; a seed never is.
    pub(crate) fn is_used_up(&self) -> bool {
        match &self.0 {
            Source::Seed(_) => false,
            Source::Tape(tape) => {
                let tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
                tape.used >= tape.bytes.len()
            }
        }
    }

    /// A stream of its own: what it is asked for does not move this one. An input stays one stream.
    pub(crate) fn fork(&mut self) -> Choices {
        match &mut self.0 {
            Source::Seed(state) => Choices::of_seed(splitmix(state)),
            Source::Tape(tape) => Choices(Source::Tape(Arc::clone(tape))),
        }
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => splitmix(state),
            Source::Tape(tape) => splitmix(&mut tape.lock().unwrap_or_else(PoisonError::into_inner).take(2)),
        }
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        match &mut self.0 {
            Source::Seed(_) if end == 0 => 0,
            Source::Seed(state) => splitmix(state) % end,
            Source::Tape(tape) => tape.lock().unwrap_or_else(PoisonError::into_inner).below(end),
        }
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low).saturating_add(1))
    }

    /// As [`Choices::between`], small ones as likely as large ones.
    pub(crate) fn log_between(&mut self, low: u64, high: u64) -> u64 {
        let bits = self.between(u64::from(low.max(1).ilog2()), u64::from(high.max(1).ilog2()));
        self.between(1 << bits, (2 << bits) - 1).clamp(low, high)
    }

    /// An index into something of that length, which is not 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// `None` if there is nothing to choose from.
    pub(crate) fn any<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let at = self.index(from.len());
        from.get(at)
    }

    /// True in `per_mille` of a thousand cases.
    pub(crate) fn per_mille(&mut self, per_mille: u64) -> bool {
        // Asking costs nothing where the answer is known, so that a feature that is off does not move the stream.
        per_mille > 0 && self.below(1000) < per_mille
    }

    /// An index, each as likely as its weight says. Not all weights may be 0.
    pub(crate) fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if at < *weight {
                return index;
            }
            at -= weight;
        }
        0
    }
}
