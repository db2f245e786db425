//! Ctrl-C.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether Ctrl-C (or SIGTERM) has come.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Catches SIGINT and SIGTERM from here on: the first sets the flag, a second one ends the process at once.
    pub fn catch() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the exit looks at the flag before the same signal sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupt.flag))?;
            signal_hook::flag::register(signal, Arc::clone(&interrupt.flag))?;
        }
        Ok(interrupt)
    }

    /// For the swarm process: a terminal sends Ctrl-C to both, and the swarm is to go on until it is told to stop.
    pub fn ignore() -> io::Result<()> {
        signal_hook::flag::register(SIGINT, Arc::default()).map(drop)
    }

    /// Whether it has come.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}
