//! Looking at a checkpoint as at a runtime: it is restored without reactors, and nothing runs.

use super::{Checkpoint, CheckpointError, convert, restore};
use crate::command::Command;
use crate::fore::{Call, ForeChannel};
use crate::hooks::{Done, Hooks, Outcome, Run};
use crate::inspect::Snapshot;
use crate::io::monotonic_ns;
use crate::reactor::Offline;
use crate::registry::Shared;
use crate::settings::Settings;
use crate::stats::Stats;
use ringback_rpc::xdr::{self, Writer, XdrError, XdrErrorKind};
use std::sync::Arc;

/// Nobody is there.
struct Nobody;

impl Hooks for Nobody {
    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        Err(XdrError { what: "nobody", offset: 0, kind: XdrErrorKind::EncoderFailed })
    }

    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
}

impl ForeChannel for Nobody {
    fn call(&self, _: Call<'_>) {}
}

impl Checkpoint {
    /// What [`Runtime::snapshot`](crate::Runtime::snapshot) would have told when it was written. Takes as much memory as the
    /// callbacks take.
    pub fn snapshot(&self, callbacks_max: usize) -> Result<Snapshot, CheckpointError> {
        let summary = &self.opened().summary;
        let settings = Settings {
            reactors: summary.reactors.len(),
            callbacks_max: u32::MAX - 1,
            clients_max: summary.clients.len().max(1),
            ..Settings::default()
        };
        let shared = Arc::new(Shared::new(settings, Arc::new(Nobody), Arc::new(Nobody)));
        let now_ns = monotonic_ns();
        restore::restore(&shared, self, now_ns, restore::Purpose::Look)?;
        let (mut reactors, mut clients) = (Vec::new(), Vec::new());
        for (index, record) in summary.reactors.iter().enumerate() {
            let mut offline = Offline::new(index, Arc::clone(&shared), now_ns);
            while let Some(command) = shared.reactors[index].commands.pop() {
                if let Command::Restore(restored) = command {
                    offline.restore(*restored);
                }
            }
            clients.extend(offline.clients(callbacks_max));
            let mut report = offline.describe();
            report.stats = stats(&record.stats, &summary.stat_names, report.stats.in_flight);
            report.endings.clear();
            let counts = crate::stats::EndingCounts::default();
            record.endings.iter().for_each(|(name, count)| counts.add_by_name(name, *count));
            report.endings.extend(counts.each());
            // Those of the clients that are there were added to this above, for the first one.
            report.counters = convert::counters(&record.gone, &summary.counter_names);
            clients.iter().filter(|c| c.home == index).for_each(|c| report.counters.add(&c.counters));
            reactors.push(report);
        }
        clients.sort_by_key(|report| report.client.to_bits());
        let in_flight = self.in_flight();
        Ok(Snapshot {
            reactors,
            clients,
            tenants: shared.tenants.reports(),
            totals: stats(&summary.totals, &summary.stat_names, in_flight),
        })
    }
}

fn stats(values: &[u64], names: &[String], in_flight: u64) -> Stats {
    let mut stats = Stats::default();
    for (name, value) in names.iter().zip(values) {
        if let Some(counter) = stats.field_mut(name) {
            *counter = *value;
        }
    }
    Stats { in_flight, ..stats }
}
