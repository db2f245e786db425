//! Settings that change while callbacks run, taken over between two turns.

use super::Reactor;
use super::home::Home;
use crate::io::Io;
use crate::settings::Settings;
use std::sync::Arc;

/// Clients that are given new settings in one turn.
const TUNED_PER_TURN: usize = 1024;

impl<I: Io> Reactor<I> {
    /// Other settings from now on.
    pub(super) fn tune(&mut self, settings: Arc<Settings>) {
        self.home.owed.tune(settings.return_deadline);
        self.home.settings = settings;
        self.untuned = 0..self.home.clients.len() as u32;
    }

    /// Gives them to clients, as many as fit into a turn.
    pub(super) fn go_on_tuning(&mut self) {
        for index in self.untuned.by_ref().take(TUNED_PER_TURN) {
            self.home.tune_client(index);
        }
    }
}

impl Home {
    /// Gives a client the settings, if it has not got them.
    pub fn tune_client(&mut self, index: u32) {
        let settings = Arc::clone(&self.settings);
        if self.client(index).is_none_or(|client| client.tunings == settings.tunings) {
            return;
        }
        self.act(index, |client, host| {
            client.tunings = settings.tunings;
            client.backchannel.tune(&settings.backchannel_config(client.id), host);
            if !client.has_own_limits && client.backchannel.limits() != settings.client_limits {
                client.backchannel.set_limits(settings.client_limits, host);
            }
        });
    }
}
