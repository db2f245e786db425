//! The picture of a run: latency by percentile above, rate over time below.

use super::progress::grouped;
use super::results::{Results, ServerResults};
use crate::picture::{self, Area, BLUE, Drawn, FAINT, GREEN, INK, label, quiet, text};
use hdrhistogram::Histogram;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use std::time::Duration;

const SIZE: (u32, u32) = (960, 720);
const TITLE_HEIGHT: u32 = 64;
const LATENCY: RGBColor = BLUE;
const RATE: RGBColor = GREEN;
/// Stretches of the rate curve: fewer than pixels, so that noise does not fill the area.
const RATE_STRETCHES: usize = 100;
/// Where the percentile axis is labelled: x is the number of nines, log10(1 / (1 - quantile)).
const MARKS: [(f64, &str); 7] = [
    (0.0, "min"),
    (std::f64::consts::LOG10_2, "p50"),
    (1.0, "p90"),
    (2.0, "p99"),
    (3.0, "p99.9"),
    (4.0, "p99.99"),
    (5.0, "p99.999"),
];

/// The picture, as SVG.
pub fn render(results: &Results) -> Result<String, String> {
    let server = results.server.as_ref().ok_or("there is nothing to plot: the server half did not run here")?;
    picture::svg(SIZE, |area| draw(area, results, server))
}

fn draw(root: &Area<'_>, results: &Results, server: &ServerResults) -> Drawn {
    let (head, body) = root.split_vertically(TITLE_HEIGHT);
    title(&head, results, server)?;
    let (upper, lower) = body.split_vertically((SIZE.1 - TITLE_HEIGHT) / 2);
    latency(&upper, &server.measured.latency)?;
    rate(&lower, &server.measured.progress)
}

fn title(area: &Area<'_>, results: &Results, s: &ServerResults) -> Drawn {
    let o = &results.options;
    let faded = INK.mix(0.75);
    let small = text(14).color(&faded);
    let line = format!("{} delegations recalled from {} clients", grouped(s.completed), grouped(o.clients.into()));
    area.draw(&Text::new(line, (24, 14), text(22)))?;
    let line = format!(
        "{} callbacks/s, {:.0} ns CPU each, {} with {} reactor{}, kernel {}",
        grouped(s.callbacks_per_s() as u64),
        s.per_callback(s.cpu.total_ns()),
        s.backend,
        o.reactors,
        if o.reactors == 1 { "" } else { "s" },
        results.kernel
    );
    area.draw(&Text::new(line, (24, 42), small))?;
    Ok(())
}

/// Latency against the number of nines: the tail, which matters, gets as much room as the middle.
fn latency(area: &Area<'_>, h: &Histogram<u64>) -> Drawn {
    let points = percentiles(h);
    let nines = points.last().map_or(1.0, |p| p.0).max(1.0);
    let low = points.first().map_or(1.0, |p| p.1) * 0.8;
    let high = (points.last().map_or(10.0, |p| p.1) * 1.25).max(low * 4.0);
    let mut chart = ChartBuilder::on(area)
        .caption("latency by percentile", text(15))
        .margin_left(12)
        .margin_right(24)
        .margin_top(4)
        .x_label_area_size(30)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..nines, (low..high).log_scale())?;
    // The library labels whole decades only, and a storm's latencies often span less than one: own marks on both axes.
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(0)
        .y_labels(0)
        .y_label_formatter(&|_| String::new())
        .axis_style(INK.mix(0.6))
        .draw()?;
    let (left, top) = area.get_base_pixel();
    for (x, name) in MARKS.iter().filter(|(x, _)| *x <= nines) {
        chart.draw_series(std::iter::once(PathElement::new(vec![(*x, low), (*x, high)], FAINT)))?;
        let (px, py) = chart.backend_coord(&(*x, low));
        area.draw(&Text::new(*name, (px - left, py - top + 8), label(HPos::Center, VPos::Top)))?;
    }
    for us in marks_125(low, high) {
        chart.draw_series(std::iter::once(PathElement::new(vec![(0.0, us), (nines, us)], FAINT)))?;
        let (px, py) = chart.backend_coord(&(0.0, us));
        area.draw(&Text::new(axis_micros(us), (px - left - 8, py - top), label(HPos::Right, VPos::Center)))?;
    }
    chart.draw_series(LineSeries::new(points.iter().copied(), LATENCY.stroke_width(2)))?;
    Ok(())
}

/// 1, 2 and 5 times the powers of ten between two values; over more than three decades the powers alone.
fn marks_125(low: f64, high: f64) -> Vec<f64> {
    let digits: &[f64] = if high / low > 1_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    decades
        .flat_map(|d| digits.iter().map(move |m| m * 10_f64.powi(d)))
        .filter(|us| (low..=high).contains(us))
        .collect()
}

/// (nines, us), in steps fine enough for a smooth curve, as far as the count of values supports.
fn percentiles(h: &Histogram<u64>) -> Vec<(f64, f64)> {
    if h.is_empty() {
        return Vec::new();
    }
    const STEPS_PER_NINE: usize = 60;
    let nines = (h.len() as f64).log10().max(1.0);
    let steps = (nines * STEPS_PER_NINE as f64) as usize;
    (0..=steps)
        .map(|i| {
            let x = nines * i as f64 / steps as f64;
            let quantile = 1.0 - 10_f64.powf(-x);
            (x, h.value_at_quantile(quantile).max(1) as f64)
        })
        .collect()
}

fn rate(area: &Area<'_>, progress: &[(Duration, u64)]) -> Drawn {
    let points = rates(progress);
    let end = progress.last().map_or(0.001, |p| p.0.as_secs_f64()).max(0.001);
    let high = points.iter().map(|p| p.1).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("callbacks completed per second, over time", text(15))
        .margin_left(12)
        .margin_right(24)
        .margin_top(4)
        .margin_bottom(8)
        .x_label_area_size(30)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..end, 0.0..high)?;
    let (seconds, rate) = (|s: &f64| axis_seconds(*s, end), |r: &f64| axis_rate(*r));
    let mut mesh = chart.configure_mesh();
    quiet(&mut mesh);
    mesh.x_labels(9).y_labels(6).x_label_formatter(&seconds).y_label_formatter(&rate).draw()?;
    chart
        .draw_series(AreaSeries::new(points.iter().copied(), 0.0, RATE.mix(0.18)).border_style(RATE.stroke_width(2)))?;
    Ok(())
}

/// (seconds, completions per second) as steps: the mean rate of each of many equal stretches of time, since the samples
/// themselves lie closer at the beginning.
fn rates(progress: &[(Duration, u64)]) -> Vec<(f64, f64)> {
    let end = progress.last().map_or(0.0, |p| p.0.as_secs_f64());
    let stretches = RATE_STRETCHES.min(progress.len().saturating_sub(1));
    let mut out = Vec::with_capacity(stretches * 2);
    for i in 0..stretches {
        let (from, to) = (end * i as f64 / stretches as f64, end * (i + 1) as f64 / stretches as f64);
        if to > from {
            let rate = (completed_at(progress, to) - completed_at(progress, from)).max(0.0) / (to - from);
            out.extend([(from, rate), (to, rate)]);
        }
    }
    out
}

/// How many were completed at a time, on the straight line between two samples.
fn completed_at(progress: &[(Duration, u64)], s: f64) -> f64 {
    let after = progress.partition_point(|p| p.0.as_secs_f64() < s).min(progress.len() - 1);
    let (b, a) = (progress[after], progress[after.saturating_sub(1)]);
    let (from, to) = (a.0.as_secs_f64(), b.0.as_secs_f64());
    let part = if to > from { ((s - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
    a.1 as f64 + part * (b.1 as f64 - a.1 as f64)
}

fn axis_micros(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{} ms", trimmed(us / 1e3)),
        us => format!("{} s", trimmed(us / 1e6)),
    }
}

fn axis_seconds(s: f64, end: f64) -> String {
    if end < 1.0 { format!("{} ms", trimmed(s * 1e3)) } else { format!("{} s", trimmed(s)) }
}

fn axis_rate(r: f64) -> String {
    match r {
        r if r < 1e4 => format!("{r:.0}"),
        r if r < 1e6 => format!("{} k", trimmed(r / 1e3)),
        r => format!("{} M", trimmed(r / 1e6)),
    }
}

fn trimmed(v: f64) -> String {
    let text = format!("{v:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_picture_shows_both_curves() {
        let svg = render(&sample::results()).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for needle in ["latency by percentile", "p99.9", "callbacks completed per second", "1,000 delegations"] {
            assert!(svg.contains(needle), "{needle}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_run_without_a_single_answer_can_be_drawn() {
        let mut results = sample::results();
        results.server.as_mut().unwrap().measured = Default::default();
        assert!(render(&results).unwrap().ends_with("</svg>\n"));
        results.server = None;
        assert!(render(&results).is_err());
    }

    #[test]
    fn latency_marks_are_round_and_few() {
        assert_eq!(marks_125(80.0, 1_100.0), vec![100.0, 200.0, 500.0, 1_000.0]);
        assert_eq!(marks_125(8.0, 20_000.0), vec![10.0, 100.0, 1_000.0, 10_000.0]);
    }

    #[test]
    fn the_rate_is_completions_over_their_own_time() {
        let ms = Duration::from_millis;
        let steps = rates(&[(ms(0), 0), (ms(100), 50), (ms(200), 50)]);
        assert_eq!(steps, vec![(0.0, 500.0), (0.1, 500.0), (0.1, 0.0), (0.2, 0.0)]);
        assert!(rates(&[(ms(0), 0)]).is_empty() && rates(&[(ms(0), 0), (ms(0), 0)]).is_empty());
        let many: Vec<_> = (0..1000_u32).map(|i| (ms(i.into()), u64::from(i))).collect();
        let steps = rates(&many);
        assert_eq!(steps.len(), 2 * RATE_STRETCHES);
        assert!(steps.iter().all(|p| (p.1 - 1000.0).abs() < 1.0), "a steady rate stays steady when thinned");
    }
}
