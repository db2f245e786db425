//! Which files are still to be opened.

use super::fore::File;
use std::collections::VecDeque;

/// Files that one client opens: ranges of them, taken in turns, and those that are to be opened once more.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    ranges: Vec<Range>,
    /// The range that is next, and how far all of them are.
    at: usize,
    offset: u64,
    left: u64,
    /// Files whose OPEN the server delayed, and when to try again. The delay is always the same, so they are in order.
    again: VecDeque<(u64, File)>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    client: u32,
    from: u64,
    count: u64,
}

impl Opens {
    /// Adds the files `from` to `from + count` of `client`, and starts over with all ranges.
    pub(crate) fn add(&mut self, client: u32, from: u64, count: u64) {
        debug_assert_eq!(self.left, 0, "ranges are added before the first is begun, or after the last is done");
        if self.offset > 0 || self.at > 0 {
            self.ranges.clear();
            (self.at, self.offset) = (0, 0);
        }
        self.ranges.push(Range { client, from, count });
    }

    /// Counts what [`add`](Opens::add) has added.
    pub(crate) fn begin(&mut self) {
        self.left = self.ranges.iter().map(|range| range.count).sum();
    }

    /// The next file to open at `now_ns`; only one that is to be opened once more if `more` is not.
    pub(crate) fn next(&mut self, now_ns: u64, more: bool) -> Option<File> {
        if let Some((at, file)) = self.again.front().copied()
            && at <= now_ns
        {
            self.again.pop_front();
            return Some(file);
        }
        while more && self.left > 0 {
            let range = self.ranges[self.at];
            let n = self.offset;
            self.at += 1;
            if self.at == self.ranges.len() {
                self.at = 0;
                self.offset += 1;
            }
            if n < range.count {
                self.left -= 1;
                return Some(File { client: range.client, n: range.from + n });
            }
        }
        None
    }

    /// Opens `file` once more, not before `at_ns`.
    pub(crate) fn repeat(&mut self, file: File, at_ns: u64) {
        self.again.push_back((at_ns, file));
    }

    /// Files that have not been opened even once.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether nothing is left to open.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.again.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_in_turns_and_delayed_files_come_back() {
        let mut opens = Opens::default();
        opens.add(0, 0, 2);
        opens.add(1, 5, 1);
        opens.begin();
        let file = |client, n| File { client, n };
        assert_eq!(opens.next(0, true), Some(file(0, 0)));
        opens.repeat(file(0, 0), 10);
        assert_eq!(opens.next(0, true), Some(file(1, 5)));
        assert!(!opens.is_done());
        assert_eq!(opens.next(9, false), None);
        assert_eq!(opens.next(10, true), Some(file(0, 0)));
        assert_eq!(opens.next(10, true), Some(file(0, 1)));
        assert_eq!((opens.next(10, true), opens.is_done()), (None, true));
        opens.add(0, 2, 1);
        opens.begin();
        assert_eq!((opens.next(11, true), opens.next(11, true)), (Some(file(0, 2)), None));
    }
}
