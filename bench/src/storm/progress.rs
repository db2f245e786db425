//! A progress bar for each phase, on stderr; plain lines where stderr is not a terminal.

use super::control::Phase;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

/// How often a plain line may be written.
const LINE_EVERY: Duration = Duration::from_secs(2);
const DRAWS_PER_SECOND: u8 = 15;

/// One phase's progress.
#[derive(Debug)]
pub struct Progress {
    phase: Phase,
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins a phase of `total` things called `what`.
    pub fn begin(phase: Phase, what: &'static str, total: u64) -> Progress {
        Progress::since(phase, what, total, Instant::now())
    }

    /// The same for what has been going on since `started`.
    pub fn since(phase: Phase, what: &'static str, total: u64, started: Instant) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| bar(phase, what, total, started));
        Progress { phase, what, total, done: 0, started, said: Instant::now(), bar }
    }

    /// So many are done.
    pub fn set(&mut self, done: u64) {
        self.done = done.min(self.total);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            self.line(&self.plain(self.started.elapsed()));
        }
    }

    /// The phase is over; the bar stays as it is.
    pub fn end(self) {
        if self.bar.is_none() {
            self.line(&self.last(self.started.elapsed()));
        }
    }

    fn plain(&self, elapsed: Duration) -> String {
        let left = left(self.done, self.total, elapsed);
        format!("{}, {}/s, {left}", self.counts(), grouped(rate(self.done, elapsed)))
    }

    fn last(&self, elapsed: Duration) -> String {
        format!("{} in {}, {}/s", self.counts(), short(elapsed), grouped(rate(self.done, elapsed)))
    }

    fn counts(&self) -> String {
        format!("{:>8}: {} of {} {}", self.phase.name(), grouped(self.done), grouped(self.total), self.what)
    }

    fn line(&self, text: &str) {
        // Progress is a courtesy: a closed stderr must not end the run.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

fn bar(phase: Phase, what: &'static str, total: u64, started: Instant) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
    let template = "{prefix:>8} [{bar:32}] {percent:>3} % {counts} {rate}, {left}";
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("counts", move |s: &ProgressState, w: &mut dyn std::fmt::Write| {
            // Nothing to do about a bar that cannot be written.
            let _ = write!(w, "{} of {} {what}", grouped(s.pos()), grouped(s.len().unwrap_or(0)));
        })
        .with_key("rate", |s: &ProgressState, w: &mut dyn std::fmt::Write| {
            let _ = write!(w, "{}/s", grouped(rate(s.pos(), s.elapsed())));
        })
        .with_key("left", |s: &ProgressState, w: &mut dyn std::fmt::Write| {
            let total = s.len().unwrap_or(0);
            let _ = match s.pos() >= total {
                true => write!(w, "took {}", short(s.elapsed())),
                false => write!(w, "{}", left(s.pos(), total, s.elapsed())),
            };
        });
    let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style).with_prefix(phase.name());
    let bar = bar.with_elapsed(started.elapsed());
    bar.tick();
    bar
}

fn rate(done: u64, elapsed: Duration) -> u64 {
    let s = elapsed.as_secs_f64();
    if s > 0.0 { (done as f64 / s) as u64 } else { 0 }
}

fn left(done: u64, total: u64, elapsed: Duration) -> String {
    if done == 0 {
        return "time left unknown".to_owned();
    }
    let s = elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64;
    format!("{} left", short(Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)))
}

/// A duration in one unit, as many digits as anybody reads.
pub fn short(d: Duration) -> String {
    match d.as_secs_f64() {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.1} s"),
        s => format!("{} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

/// A count with its digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
        assert_eq!(short(Duration::from_micros(250)), "250 us");
        assert_eq!(short(Duration::from_millis(43)), "43 ms");
        assert_eq!(short(Duration::from_millis(2_350)), "2.35 s");
        assert_eq!(short(Duration::from_secs(125)), "2 min 5 s");
    }

    #[test]
    fn plain_lines_tell_rate_and_time_left() {
        let mut p = Progress::begin(Phase::Grant, "delegations", 1_000_000);
        p.bar = None;
        assert!(p.plain(Duration::ZERO).ends_with("0/s, time left unknown"));
        p.set(250_000);
        let line = p.plain(Duration::from_secs(2));
        assert_eq!(line, "   grant: 250,000 of 1,000,000 delegations, 125,000/s, 6.00 s left");
        p.set(2_000_000);
        let line = p.last(Duration::from_secs(2));
        assert_eq!(line, "   grant: 1,000,000 of 1,000,000 delegations in 2.00 s, 500,000/s");
    }
}
