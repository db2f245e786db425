//! Writes the seeds of the fuzz corpora to `fuzz/corpus`.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

fn main() -> ExitCode {
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
