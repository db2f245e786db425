//! Replays the committed corpora: every file of every target, so that what a fuzzer once found stays fixed.

use ringback_fuzz::{seeds, targets};
use std::fs;
use std::path::{Path, PathBuf};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn every_input_of_every_corpus_is_taken() {
    for (name, target) in targets::ALL {
        let folder = folder(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("no corpus {}: {e}", folder.display()));
        let mut inputs = 0;
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display()); // seen if the target panics
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus {} is empty", folder.display());
    }
}

#[test]
fn the_seeds_are_committed() {
    for seed in seeds::all() {
        let path = folder(seed.target).join(&seed.name);
        let committed = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(committed == seed.bytes, "{} is not what `--example seeds` writes", path.display());
    }
}

#[test]
fn every_seed_reaches_its_decoders() {
    for seed in seeds::all() {
        let (_, target) = targets::ALL.iter().find(|(name, _)| *name == seed.target).expect("a target of that name");
        assert!(target(&seed.bytes) > 0, "{}/{} decodes to nothing", seed.target, seed.name);
    }
}

#[test]
fn every_target_takes_nothing_and_noise() {
    let noise: Vec<u8> = (0..400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (_, target) in targets::ALL {
        target(&[]);
        for start in 0..noise.len() {
            target(&noise[start..]);
        }
    }
}
