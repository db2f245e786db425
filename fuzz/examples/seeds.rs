//! Writes the seeds of the fuzz corpora to `fuzz/corpus`.
//!
//!     cargo run -p ringback-fuzz --example seeds                # writes them
//!     cargo run -p ringback-fuzz --example seeds -- --choose    # prints which inputs tell the simulator's stories now

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--choose") {
        return choose();
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let seeds = ringback_fuzz::seeds::all();
    let write = || -> io::Result<()> {
        for seed in &seeds {
            let folder = corpus.join(seed.target);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(&seed.name), &seed.bytes)?;
        }
        Ok(())
    };
    match write() {
        Ok(()) => {
            println!("{} seeds in {}", seeds.len(), corpus.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write to {}: {error}", corpus.display());
            ExitCode::FAILURE
        }
    }
}

fn choose() -> ExitCode {
    match ringback_fuzz::seeds::simulator::choose() {
        Ok(stories) => {
            stories.iter().for_each(|(kind, number)| println!("    (Kind::{kind:?}, {number}),"));
            ExitCode::SUCCESS
        }
        Err(kind) => {
            eprintln!("no input comes across {}", kind.name());
            ExitCode::FAILURE
        }
    }
}
