//! The results as two tables: the rows, and what a callback costs each sender.

use super::job::{Figure, Job};
use super::json::is_plain;
use super::rounds::{Measured, Results, summary};
use super::rows::Row;
use std::fmt::Write as _;

/// A number with three digits that count.
pub fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", digits as usize)
}

/// How a row stands to its floor and its aim, in a word.
pub fn verdict(measured: &Measured) -> &'static str {
    match measured.summary() {
        Some((_, low, high)) => judge(&measured.row, low, high),
        None if measured.skipped.is_some() => "skipped",
        None => "BROKEN",
    }
}

/// What holds from the lowest to the highest value.
fn judge(row: &Row, low: f64, high: f64) -> &'static str {
    let both = |bound| (row.meets(low, bound), row.meets(high, bound));
    match (both(row.floor), both(row.aim)) {
        ((None, _), _) => "",
        (_, (Some(true), Some(true))) => "aim met",
        ((Some(true), Some(true)), _) => "floor met",
        ((Some(false), Some(false)), _) => "FLOOR MISSED",
        _ => "unclear",
    }
}

/// A bound, if there is one.
pub fn bound(bound: Option<f64>) -> String {
    bound.map_or_else(|| "-".to_owned(), number)
}

/// Both tables.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:<27}{:>10}{:>22}{:>9}{:>9}  ", "row", "median", "low to high", "floor", "aim");
    for measured in &results.rows {
        let row = &measured.row;
        let (value, range) = match measured.summary() {
            Some((value, low, high)) => (number(value), format!("{} to {}", number(low), number(high))),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (floor, aim) = (bound(row.floor), bound(row.aim));
        let _ = writeln!(text, "{:<27}{value:>10}{range:>22}{floor:>9}{aim:>9}  {}", row.name, verdict(measured));
        for why in [&measured.skipped, &measured.broken].into_iter().flatten() {
            let _ = writeln!(text, "    {why}");
        }
    }
    let loads: Vec<_> = results.samples.keys().filter(|job| is_plain(job)).collect();
    if !loads.is_empty() {
        let _ =
            writeln!(text, "\n{:<32}{:>10}{:>20}{:>10}", "CPU of one callback, ns", "median", "low to high", "sends");
    }
    for job in loads {
        let (cpu, sends) = (of(results, job, Figure::Cpu), of(results, job, Figure::Sends));
        if let (Some(cpu), Some(sends)) = (cpu, sends) {
            let range = format!("{:.0} to {:.0}", cpu.1, cpu.2);
            let _ = writeln!(text, "{:<32}{:>10.0}{range:>20}{:>10}", job.name(), cpu.0, number(sends.0));
        }
    }
    text
}

/// Median, low and high of a figure.
pub fn of(results: &Results, job: &Job, figure: Figure) -> Option<(f64, f64, f64)> {
    summary(results.samples.get(job)?.iter().filter_map(|sample| sample.get(&figure).copied()))
}

/// The rows as they are asked for.
pub fn list(rows: &[Row]) -> String {
    let line = |row: &Row| format!("{:<27}{:>9}{:>9}  {}\n", row.name, bound(row.floor), bound(row.aim), row.what);
    format!("{:<27}{:>9}{:>9}  {}\n", "row", "floor", "aim", "what") + &rows.iter().map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Scale, rows};
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        assert_eq!(number(0.285_714), "0.286");
        assert_eq!(number(0.012_34), "0.0123");
        assert_eq!(number(412.3), "412");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(32.04), "32.0");
    }

    #[test]
    fn a_verdict_is_about_the_whole_range() {
        let mut row = rows(Scale::Tiny).swap_remove(0);
        (row.floor, row.aim) = (Some(2.0), Some(1.0));
        let ranges = [(0.5, 1.0), (0.5, 1.5), (1.5, 2.0), (1.5, 2.5), (0.5, 2.5), (2.1, 2.5)];
        let words = ["aim met", "floor met", "floor met", "unclear", "unclear", "FLOOR MISSED"];
        assert_eq!(ranges.map(|(low, high)| judge(&row, low, high)), words);
    }
}
