//! What the core counts.

use super::host::{Outcome, OutcomeKind, Requeue};
use crate::nfs4::Status;

/// Defines a struct of counters, which can list them by name with what they count.
#[doc(hidden)]
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(#[doc = $help:literal] $field:ident,)*
            $(; $($extra:tt)*)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $(#[doc = $help] pub $field: u64,)*
            $($($extra)*)?
        }

        impl $name {
            /// Every counter that is a field: its name, what it counts, and its value.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($field), $help.trim_ascii(), self.$field),)*].into_iter()
            }

            /// A counter that is a field.
            #[doc(hidden)]
            pub fn field_mut(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }

            /// Adds another one's counters that are fields to these.
            fn add_fields(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }

            /// Takes another one's counters that are fields off these.
            #[allow(dead_code)]
            fn subtract_fields(&mut self, other: &Self) {
                $(self.$field -= other.$field;)*
            }
        }
    };
}

counters! {
    /// What the core counts for one client. All only grow.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringback_rpc::backchannel::{Counters, OutcomeKind};
    ///
    /// fn lost(counters: &Counters) -> u64 {
    ///     counters.ended(OutcomeKind::TimedOut) + counters.ended(OutcomeKind::PathDown)
    /// }
    /// assert_eq!(lost(&Counters::default()), 0);
    /// ```
    pub struct Counters {
        /// Runs that came in, runs that were asked for again included.
        started,
        /// Runs that have ended, however they did.
        completed,
        /// Calls sent, those sent again on another connection apart.
        calls_sent,
        /// Callbacks that these calls carried, one each or a batch. What goes in a further call counts again.
        callbacks_sent,
        /// Calls whose runs were parted into smaller batches, because the client found them too large.
        splits,
        /// Calls sent again with the same bytes on another connection.
        resent,
        /// Lone CB_SEQUENCE calls that resynchronise a session slot.
        resynchronised,
        /// CB_NULL calls, which look whether a path of minor version 0 works.
        probes,
        /// Connections to clients of minor version 0 that could not be made, or on which nothing was answered.
        connects_failed,
        /// Replies that settled a call.
        replies,
        /// Replies that came after their call was given up or settled. Dropped.
        replies_late,
        /// Replies to nothing that is outstanding. Dropped.
        replies_unknown,
        /// Replies that could not be decoded.
        replies_malformed,
        /// Replies that echoed another session, session slot or sequence id.
        wrong_echo,
        /// Runs put back on their queue, for whatever reason.
        requeued,
        /// NFS4ERR_DELAY, from CB_SEQUENCE or from the operation.
        delays,
        /// NFS4ERR_SEQ_FALSE_RETRY: a mistake of ours.
        false_retries,
        /// NFS4ERR_SEQ_MISORDERED: a session slot is lost.
        misordered,
        /// Calls without a reply within the RPC timeout.
        rpc_timeouts,
        /// Connections closed because nothing came back on them.
        connections_condemned,
        /// RPC rejections, and compounds without results.
        rejected,
        ;
        endings: [u64; OutcomeKind::ALL.len()],
        requeues: [u64; Requeue::ALL.len()],
    }
}

impl Counters {
    /// How many of the completed runs ended like this.
    pub fn ended(&self, kind: OutcomeKind) -> u64 {
        self.endings[kind as usize]
    }

    /// How often a run was put back for this reason.
    pub fn requeued_for(&self, why: Requeue) -> u64 {
        self.requeues[why as usize]
    }

    /// A name for every number that is counted, those by kind included: with a prefix.
    pub fn names() -> Vec<String> {
        let fields = Counters::default();
        let fields = fields.each().map(|(name, ..)| name.to_owned());
        let endings = OutcomeKind::ALL.iter().map(|kind| format!("ended_{}", kind.name()));
        let requeues = Requeue::ALL.iter().map(|why| format!("requeued_{}", why.name()));
        fields.chain(endings).chain(requeues).collect()
    }

    /// The number of one of the [names](Counters::names).
    pub fn by_name(&mut self, name: &str) -> Option<&mut u64> {
        if let Some(kind) = name.strip_prefix("ended_") {
            let at = OutcomeKind::ALL.iter().position(|k| k.name() == kind)?;
            return self.endings.get_mut(at);
        }
        if let Some(why) = name.strip_prefix("requeued_") {
            let at = Requeue::ALL.iter().position(|w| w.name() == why)?;
            return self.requeues.get_mut(at);
        }
        self.field_mut(name)
    }

    /// Adds another client's counters to these.
    pub fn add(&mut self, other: &Counters) {
        self.add_fields(other);
        let arrays = self.endings.iter_mut().chain(&mut self.requeues);
        arrays.zip(other.endings.iter().chain(&other.requeues)).for_each(|(to, from)| *to = to.wrapping_add(*from));
    }

    /// Takes off what was counted earlier.
    pub fn subtract(&mut self, earlier: &Counters) {
        self.subtract_fields(earlier);
        let arrays = self.endings.iter_mut().chain(&mut self.requeues);
        arrays.zip(earlier.endings.iter().chain(&earlier.requeues)).for_each(|(from, off)| *from -= off);
    }

    #[inline(always)]
    pub(super) fn count_ending(&mut self, outcome: &Outcome<'_>) {
        self.completed += 1;
        // The first is what nearly all of them are.
        let kind = if matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. }) {
            OutcomeKind::Ok
        } else {
            outcome.kind()
        };
        self.endings[kind as usize] += 1;
    }

    pub(super) fn count_requeue(&mut self, why: Requeue) {
        self.requeued += 1;
        self.requeues[why as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let mut counters = Counters::default();
        for (n, name) in (1..).zip(Counters::names()) {
            *counters.by_name(&name).unwrap() = n;
        }
        assert!(counters.by_name("nothing").is_none() && counters.by_name("ended_nothing").is_none());
        for (n, name) in (1..).zip(Counters::names()) {
            assert_eq!(*counters.by_name(&name).unwrap(), n, "{name}");
        }
        assert_eq!(counters.each().count() + OutcomeKind::ALL.len() + Requeue::ALL.len(), Counters::names().len());
    }
}
