//! The picture of a run: resident memory above, callbacks below, and what was done to the clients as marks.

use super::record::Record;
use crate::picture::{self, Area, BLUE, Drawn, GREEN, quiet, text};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 560);
const MEMORY: RGBColor = BLUE;
const CALLBACKS: RGBColor = GREEN;
const KILLED: RGBColor = RGBColor(190, 50, 50);
/// Callbacks are counted over so long.
const WINDOW_S: u64 = 10;

pub(super) fn render(record: &Record) -> Result<String, String> {
    picture::svg(SIZE, |area| draw(area, record))
}

fn draw(root: &Area<'_>, record: &Record) -> Drawn {
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    let memory = record.samples.iter().map(|sample| (sample.at_s as f64 / 60.0, sample.rss_kib as f64 / 1024.0));
    curve(&upper, record, "resident memory of the server, MiB (marks: a guest was killed)", memory.collect(), MEMORY)?;
    curve(&lower, record, "callbacks that ended, per second, and minutes", rates(record), CALLBACKS)
}

fn curve(area: &Area<'_>, record: &Record, caption: &str, points: Vec<(f64, f64)>, color: RGBColor) -> Drawn {
    let end = points.last().map_or(1.0, |point| point.0).max(0.1);
    let high = points.iter().map(|point| point.1).fold(1.0, f64::max) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, text(15))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..high)?;
    let mut mesh = chart.configure_mesh();
    quiet(&mut mesh);
    mesh.draw()?;
    for event in record.events.iter().filter(|event| event.kind == "killed") {
        let at = event.at_s as f64 / 60.0;
        chart.draw_series(std::iter::once(PathElement::new(vec![(at, 0.0), (at, high)], KILLED.mix(0.5))))?;
    }
    chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
    Ok(())
}

/// (minutes, callbacks per second), over windows.
fn rates(record: &Record) -> Vec<(f64, f64)> {
    let mut rates = Vec::new();
    let Some(mut from) = record.samples.first().copied() else { return rates };
    for sample in &record.samples {
        let took = sample.at_s.saturating_sub(from.at_s);
        if took >= WINDOW_S {
            rates.push((
                sample.at_s as f64 / 60.0,
                sample.completed.saturating_sub(from.completed) as f64 / took as f64,
            ));
            from = *sample;
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::good;
    use super::*;

    #[test]
    fn the_picture_shows_both_curves() {
        let svg = render(&good()).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("resident memory") && svg.contains("callbacks that ended"));
        assert!(!svg.contains("NaN"));
        assert_eq!(rates(&good())[0], (1.0 / 6.0, 10.0));
        assert!(render(&Record::default()).unwrap().ends_with("</svg>\n"));
    }
}
