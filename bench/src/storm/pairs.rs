//! What clients that do not behave cost the others: the storm with them and with all clients well, in turn, so that what
//! else the machine does falls on both alike.

use super::cli::Options;
use super::interrupt::Interrupt;
use super::results::Results;
use super::{run, verdict};
use crate::peers::rounds::summary;
use std::fmt::Write;

/// More than this, in the median of the pairs, is a cost that the others can notice.
pub const RATIO_MAX: f64 = 1.25;

/// One storm with all clients well, and one without.
struct Pair {
    /// The 99th percentile of the latencies of clients that behave, in microseconds.
    p99_us: [u64; 2],
}

impl Pair {
    fn ratio(&self) -> f64 {
        let [well, bad] = self.p99_us;
        bad as f64 / well.max(1) as f64
    }
}

/// What the pairs came to.
#[derive(Debug)]
pub enum Verdict {
    /// The text says what was measured; `true`: within [`RATIO_MAX`].
    Measured(String, bool),
    /// A storm lost, doubled or leaked something: what does not add up.
    Wrong(Vec<String>),
    /// By Ctrl-C.
    Interrupted,
}

/// Runs `count` pairs.
pub fn measure(options: &Options, count: u32, interrupt: &Interrupt) -> Result<Verdict, String> {
    let well = Options { dead_clients: 0, slow_clients: 0, delay_clients: 0, ..options.clone() };
    let mut pairs = Vec::new();
    for number in 1..=count {
        let mut p99_us = [0; 2];
        for (p99_us, (options, which)) in p99_us.iter_mut().zip([(&well, "all well"), (options, "not all well")]) {
            run::say(&format!("pair {number} of {count}: {which}"));
            let (mut results, _) = run::run(options, interrupt)?;
            results.discrepancies = verdict::judge(&results);
            if results.interrupted {
                return Ok(Verdict::Interrupted);
            }
            if !results.discrepancies.is_empty() {
                return Ok(Verdict::Wrong(results.discrepancies));
            }
            *p99_us = p99(&results)?;
        }
        pairs.push(Pair { p99_us });
    }
    let median = summary(pairs.iter().map(Pair::ratio)).map_or(f64::NAN, |(median, ..)| median);
    Ok(Verdict::Measured(render(options, &pairs, median), median <= RATIO_MAX))
}

fn p99(results: &Results) -> Result<u64, String> {
    let latency = results.server.as_ref().map(|server| &server.measured.latency).filter(|latency| !latency.is_empty());
    Ok(latency.ok_or("no client has answered: raise --drain-after or --deadline")?.value_at_quantile(0.99))
}

fn render(options: &Options, pairs: &[Pair], median: f64) -> String {
    let &Options { clients, dead_clients, slow_clients, delay_clients, .. } = options;
    let mut text = format!(
        "latency of the clients that behave, 99th percentile, of {clients} clients\n{dead_clients} dead, {slow_clients} slow, \
         {delay_clients} delaying\n\npair    all well   not all well   ratio\n"
    );
    for (pair, number) in pairs.iter().zip(1..) {
        let [well, bad] = pair.p99_us.map(|us| us as f64 / 1e3);
        // A string grows.
        let _ = writeln!(text, "{number:4} {well:8.3} ms    {bad:8.3} ms   {:5.2}", pair.ratio());
    }
    let verdict = if median <= RATIO_MAX { "within" } else { "not within" };
    let _ = writeln!(text, "\nmedian of {}: {median:.2}, {verdict} {RATIO_MAX}", pairs.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::cli::Args;
    use clap::Parser;

    #[test]
    fn the_median_of_the_pairs_decides() {
        let args = ["storm", "--dead-clients", "8", "--rate", "100", "--pairs", "3"];
        let options = Args::try_parse_from(args).unwrap().check(2).unwrap();
        let pairs = [[1_000, 3_000], [2_000, 2_000], [1_000, 1_200]].map(|p99_us| Pair { p99_us });
        let (median, low, high) = summary(pairs.iter().map(Pair::ratio)).unwrap();
        assert_eq!((median, low, high), (1.2, 1.0, 3.0));
        let text = render(&options, &pairs, median);
        assert!(text.contains("   1    1.000 ms       3.000 ms    3.00\n"), "{text}");
        assert!(text.ends_with("\nmedian of 3: 1.20, within 1.25\n"), "{text}");
        assert!(render(&options, &pairs, 1.26).ends_with("not within 1.25\n"));
    }
}
