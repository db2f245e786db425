//! Arguments of the command.

use super::capacity::Plan;
use super::rows::{self, Row, Scale};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

const PAIRS: usize = 9;
const PAIRS_QUICK: usize = 3;
const PAIRS_MAX: usize = 1_000;
const WINDOW_MS: u64 = 1_000;
const WINDOW_MS_QUICK: u64 = 350;
const WINDOW_MS_MAX: u64 = 60_000;
const OUT: &str = "target/peers";

/// Measures what a callback costs with ringback, and with what an author would write instead: an async client on tokio (a
/// task for each callback, with a writer that coalesces or with one write each), one on tokio-uring, a loop over mio,
/// and the io_uring echo that is the limit. All send the same bytes to the same swarm, in another process, which checks
/// and counts them. The measurements of a row are made in turn; the table shows medians and ranges.
///
/// Rows have the names of the requirements; where one of those has several settings, each is a row whose name goes on with
/// the setting, such as echo_share_64x32 (connections x session slots).
///
/// Exit status: 0 if all rows were measured or skipped, 1 if one broke (or, with --check, missed its floor), 2 if the
/// command was wrong.
#[derive(Debug, Parser)]
#[command(name = "peers", version)]
pub struct Args {
    /// Rows to be measured, by name or by the beginning of a name before a `_`; default: all
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// How often each measurement is made [default: 9, with --quick 3]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// How long each load is measured, in milliseconds [default: 1000, with --quick 350]
    #[arg(long, value_name = "MS")]
    window_ms: Option<u64>,
    /// All rows in about three minutes: fewer pairs, shorter loads, smaller populations
    #[arg(long)]
    quick: bool,
    /// Writes the results as one JSON object to a file, or with - to stdout, where nothing else is then
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Directory for the page and the plots [default: target/peers, or none with --json]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Exit status 1 if a row misses its floor
    #[arg(long)]
    check: bool,
    /// Prints what so many delegations of so many clients need on so many cores, by what is measured here, and ends
    #[arg(long, value_name = "DELEGATIONS,CLIENTS,CORES", value_parser = Plan::parse, conflicts_with_all = ["rows", "json", "out", "check", "list"])]
    capacity: Option<Plan>,
    /// Lists the rows, with their floors and aims, and ends
    #[arg(long)]
    list: bool,
    /// For tests of this command: the figures mean nothing
    #[arg(long, hide = true, conflicts_with = "quick")]
    tiny: bool,
    /// The process of one measurement
    #[arg(long, hide = true, value_name = "JSON")]
    pub measure_role: Option<String>,
    /// The process of a swarm
    #[arg(long, hide = true, value_name = "JSON")]
    pub swarm_role: Option<String>,
}

/// The arguments, checked.
#[derive(Debug)]
pub struct Options {
    /// The rows.
    pub rows: Vec<Row>,
    /// How often each measurement is made.
    pub pairs: usize,
    /// How long each load is measured.
    pub window: Duration,
    /// How much is measured.
    pub scale: Scale,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where page and plots go.
    pub out: Option<PathBuf>,
    /// Whether a missed floor is a failure.
    pub check: bool,
    /// Only list the rows.
    pub list: bool,
    /// Only say what this needs.
    pub capacity: Option<Plan>,
}

impl Args {
    /// Fills in and checks. The error is one line that says what to do.
    pub fn check(self) -> Result<Options, String> {
        let (scale, pairs, window) = match (self.tiny, self.quick) {
            (true, _) => (Scale::Tiny, 1, 20),
            (_, true) => (Scale::Quick, PAIRS_QUICK, WINDOW_MS_QUICK),
            _ => (Scale::Full, PAIRS, WINDOW_MS),
        };
        let pairs = self.pairs.unwrap_or(pairs);
        if !(1..=PAIRS_MAX).contains(&pairs) {
            return Err(format!("--pairs is {pairs}, which is not in 1..={PAIRS_MAX}"));
        }
        let window = self.window_ms.unwrap_or(window);
        if !(1..=WINDOW_MS_MAX).contains(&window) {
            return Err(format!("--window-ms is {window}, which is not in 1..={WINDOW_MS_MAX}"));
        }
        Ok(Options {
            rows: rows::select(rows::rows(scale), &self.rows)?,
            pairs,
            window: Duration::from_millis(window),
            scale,
            out: self.out.or_else(|| self.json.is_none().then(|| OUT.into())),
            json: self.json,
            check: self.check,
            list: self.list,
            capacity: self.capacity,
        })
    }
}

impl Options {
    /// Whether stdout is for the JSON alone.
    pub fn json_on_stdout(&self) -> bool {
        self.json.as_deref().is_some_and(|path| path.as_os_str() == "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options, String> {
        Args::try_parse_from(std::iter::once("peers").chain(args.iter().copied())).unwrap().check()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let o = options(&[]).unwrap();
        assert_eq!((o.pairs, o.window.as_millis(), o.out), (9, 1000, Some(OUT.into())));
        let o = options(&["--quick", "--json", "-"]).unwrap();
        assert_eq!((o.pairs, o.scale, o.out.is_none(), o.json_on_stdout()), (3, Scale::Quick, true, true));
        assert_eq!(options(&["--quick", "--pairs", "5"]).unwrap().pairs, 5);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(options(&["--pairs", "0"]).unwrap_err().contains("1..=1000"));
        assert!(options(&["--window-ms", "0"]).unwrap_err().contains("--window-ms"));
        assert!(options(&["--rows", "ech"]).unwrap_err().contains("there is no row ech;"));
    }
}
