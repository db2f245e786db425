//! The latencies in HdrHistogram's own interval log, for the tools that read it.

use super::results::Measured;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use std::time::SystemTime;

/// The maxima in the log are in milliseconds, as HistogramLogProcessor shows them; the histograms count microseconds.
const MICROSECONDS_PER_MILLISECOND: f64 = 1_000.0;

/// The log of a run whose recall phase began at `started`.
pub fn render(measured: &Measured, started: SystemTime) -> Result<Vec<u8>, String> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("storm: latency of answered callbacks of live clients, in microseconds")
        .with_start_time(started)
        .with_base_time(started)
        .with_max_value_divisor(MICROSECONDS_PER_MILLISECOND);
    let failed = |e: &dyn std::fmt::Debug| format!("the histogram log cannot be written: {e:?}");
    let mut writer = builder.begin_log_with(&mut log, &mut serializer).map_err(|e| failed(&e))?;
    for (start, length, histogram) in &measured.intervals {
        writer.write_histogram(histogram, *start, *length, None).map_err(|e| failed(&e))?;
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_is_read_by_its_own_reader() {
        let measured = sample::results().server.unwrap().measured;
        let log = render(&measured, SystemTime::UNIX_EPOCH).unwrap();
        let mut counts = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(i) = entry.unwrap() {
                counts.push((i.start_timestamp(), i.duration(), i.max()));
            }
        }
        assert_eq!(counts.len(), measured.intervals.len());
        assert_eq!(counts[1].0, measured.intervals[1].0);
        assert!(counts[0].2 > 5.0 && counts[0].2 < 8.0, "milliseconds: {}", counts[0].2);
    }
}
