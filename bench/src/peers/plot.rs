//! Two pictures: the rows against their floors and aims, and what a callback costs each sender.

use super::job::Figure;
use super::json::is_plain;
use super::rounds::Results;
use super::rows::Better;
use super::table::{number, of};
use crate::picture::{self, Area, BLUE, Drawn, FAINT, GREEN, INK, label, text};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

/// File name of the rows' picture.
pub const ROWS_NAME: &str = "rows.svg";
/// File name of the costs' picture.
pub const COSTS_NAME: &str = "costs.svg";

const WIDTH: u32 = 960;
const HEAD: u32 = 56;
const FOOT: u32 = 16;
const LINE: u32 = 24;
const LABELS: i32 = 240;
const VALUES: i32 = 80;
const GOOD: RGBColor = GREEN;
const FAIR: RGBColor = BLUE;
const BAD: RGBColor = RGBColor(190, 60, 50);

/// One bar: from the low to the high value, with a mark at the median.
struct Bar {
    label: String,
    value: String,
    median: f64,
    low: f64,
    high: f64,
    colour: RGBColor,
    /// Where the aim is.
    aim: Option<f64>,
}

/// The rows: how far each is from its floor, which is at 1; left of it is better.
pub fn rows(results: &Results) -> Result<String, String> {
    let bars = results.rows.iter().filter_map(|measured| {
        let (median, low, high) = measured.summary()?;
        let row = &measured.row;
        let (floor, aim) = (row.floor.filter(|f| *f > 0.0)?, row.aim?);
        let relative = |value: f64| if row.better == Better::Lower { value / floor } else { floor / value };
        let colour = match (row.meets(median, row.floor), row.meets(median, row.aim)) {
            (_, Some(true)) => GOOD,
            (Some(true), _) => FAIR,
            _ => BAD,
        };
        let label = row.name.to_owned();
        let (a, b) = (relative(low), relative(high));
        let aim = Some(relative(aim));
        Some(Bar { label, value: number(median), median: relative(median), low: a.min(b), high: a.max(b), colour, aim })
    });
    let marks = [(1.0, "floor"), (0.25, "floor / 4"), (4.0, "4 x floor")];
    picture("rows against their floors; left is better, | is the aim", bars.collect(), &marks)
}

/// The costs, on a scale of powers.
pub fn costs(results: &Results) -> Result<String, String> {
    let plain = results.samples.keys().filter(|job| is_plain(job));
    let bars = plain.filter_map(|job| {
        let (median, low, high) = of(results, job, Figure::Cpu)?;
        Some(Bar { label: job.name(), value: format!("{median:.0} ns"), median, low, high, colour: FAIR, aim: None })
    });
    let marks = [(100.0, "100 ns"), (1_000.0, "1 us"), (10_000.0, "10 us"), (100_000.0, "100 us")];
    picture("CPU of one callback, by sender and connections x slots", bars.collect(), &marks)
}

fn picture(title: &str, bars: Vec<Bar>, marks: &[(f64, &str)]) -> Result<String, String> {
    let height = HEAD + FOOT + LINE * (bars.len() as u32).max(1);
    picture::svg((WIDTH, height), |area| draw(area, height, title, &bars, marks))
}

fn draw(area: &Area<'_>, height: u32, title: &str, bars: &[Bar], marks: &[(f64, &str)]) -> Drawn {
    area.draw(&Text::new(title.to_owned(), (24, 10), text(16)))?;
    if bars.is_empty() {
        area.draw(&Text::new("none was measured", (24, HEAD as i32), text(13)))?;
        return Ok(());
    }
    let x = scale(bars);
    for (at, name) in marks {
        if let Some(px) = x(*at) {
            area.draw(&PathElement::new(vec![(px, HEAD as i32 - 6), (px, height as i32 - FOOT as i32)], FAINT))?;
            area.draw(&Text::new(*name, (px, HEAD as i32 - 10), label(HPos::Center, VPos::Bottom)))?;
        }
    }
    for (index, bar) in bars.iter().enumerate() {
        bar_at(area, bar, HEAD as i32 + (LINE * index as u32 + LINE / 2) as i32, &x)?;
    }
    Ok(())
}

/// Where a value is, on a logarithmic scale that has room for all bars. `None`: nowhere.
fn scale(bars: &[Bar]) -> impl Fn(f64) -> Option<i32> + use<> {
    let all = || bars.iter().flat_map(|bar| [bar.low, bar.high, bar.aim.unwrap_or(bar.low)]).filter(|v| *v > 0.0);
    let low = all().fold(f64::INFINITY, f64::min).min(1e9).ln() - 0.2;
    let high = all().fold(0.0, f64::max).max(1e-9).ln() + 0.2;
    let (left, right) = (f64::from(LABELS), f64::from(WIDTH as i32 - VALUES));
    move |value| {
        let at = left + (value.max(1e-9).ln() - low) / (high - low) * (right - left);
        (left..=right).contains(&at).then_some(at as i32)
    }
}

fn bar_at(area: &Area<'_>, bar: &Bar, y: i32, x: &impl Fn(f64) -> Option<i32>) -> Drawn {
    area.draw(&Text::new(bar.label.clone(), (LABELS - 8, y), label(HPos::Right, VPos::Center)))?;
    area.draw(&Text::new(bar.value.clone(), (WIDTH as i32 - 12, y), label(HPos::Right, VPos::Center)))?;
    // Values too small for the scale are at its left end.
    let at = |value: f64| x(value).unwrap_or(LABELS);
    area.draw(&PathElement::new(vec![(at(bar.low), y), (at(bar.high), y)], bar.colour.stroke_width(3)))?;
    area.draw(&Circle::new((at(bar.median), y), 5, bar.colour.filled()))?;
    if let Some(aim) = bar.aim.and_then(x) {
        area.draw(&PathElement::new(vec![(aim, y - 8), (aim, y + 8)], INK.stroke_width(2)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rounds::Measured;
    use super::super::rows::{self, Scale};
    use super::*;

    #[test]
    fn the_pictures_show_each_row() {
        let all = rows::rows(Scale::Full).into_iter();
        let results = Results {
            rows: all.map(|row| Measured { row, values: vec![0.2, 0.3, 0.25], skipped: None, broken: None }).collect(),
            ..Results::default()
        };
        let svg = rows(&results).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for name in ["cpu_vs_async_task_64x32", "scale", "floor"] {
            assert!(svg.contains(name), "{name}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_measured_can_be_drawn() {
        assert!(rows(&Results::default()).unwrap().contains("none was measured"));
        assert!(costs(&Results::default()).unwrap().contains("none was measured"));
    }
}
