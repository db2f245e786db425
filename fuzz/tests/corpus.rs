//! Replays the committed corpora: every file of every target, so that what a fuzzer once found stays fixed.

use ringback_fuzz::{seeds, targets};
use ringback_rpc::nfs4::callback::{CallbackOp, CbArgs, CbCompoundArgs, CbCompoundRes, CbRes};
use ringback_rpc::nfs4::fore::{CompoundArgs, CompoundRes, Op, OpArgs, OpRes};
use ringback_rpc::xdr::{Decode, Reader};
use std::collections::BTreeSet;
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

/// What `decode` finds in the seeds of a target, operation by operation.
fn found<T: Ord>(target: &str, mut decode: impl FnMut(&mut Reader<'_>, &mut BTreeSet<T>)) -> BTreeSet<T> {
    let mut found = BTreeSet::new();
    for seed in seeds::all().iter().filter(|seed| seed.target == target) {
        decode(&mut Reader::new(&seed.bytes), &mut found);
    }
    found
}

#[test]
fn the_seeds_hold_every_callback_operation() {
    let args = found("callback_args", |r, found| {
        let Ok(head) = CbCompoundArgs::decode(r) else { return };
        found.extend((0..head.count).map_while(|_| CbArgs::decode(r).ok()).map(|args| args.op() as u32));
    });
    let results = found("callback_results", |r, found| {
        let Ok(head) = CbCompoundRes::decode(r) else { return };
        let results = (0..head.count).map_while(|_| CbRes::decode(r).ok());
        found.extend(results.map(|res| (res.op() as u32, res.status().is_ok())));
    });
    for op in CallbackOp::ALL {
        assert!(args.contains(&(*op as u32)), "no seed calls {}", op.name());
        for ok in [false, true] {
            assert!(results.contains(&(*op as u32, ok)), "no seed answers {}, {ok}", op.name());
        }
    }
}

#[test]
fn the_seeds_hold_every_fore_channel_operation_that_is_decoded() {
    let args = found("fore", |r, found| {
        let Ok(head) = CompoundArgs::decode(r) else { return };
        found.extend((0..head.count).map_while(|_| OpArgs::decode(r).ok()).map(|args| args.op()));
    });
    let results = found("fore", |r, found| {
        let Ok(head) = CompoundRes::decode(r) else { return };
        let results = (0..head.count).map_while(|_| OpRes::decode(r).ok());
        found.extend(results.map(|res| (res.op(), res.status().is_ok())));
    });
    // Whatever is not in the table of the codec decodes as an operation without arguments.
    let known = |op: &Op| !matches!(OpArgs::decode(&mut Reader::new(&op.0.to_be_bytes())), Ok(OpArgs::Other(_)));
    let known: Vec<Op> = (0..100).map(Op).filter(known).collect();
    assert!(known.len() > 40, "{known:?}");
    for op in known {
        assert!(args.contains(&op), "no seed calls {op:?}");
        assert!(results.contains(&(op, true)), "no seed answers {op:?}");
        assert!(results.contains(&(op, false)), "no seed refuses {op:?}");
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
