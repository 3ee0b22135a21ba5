//! Stores of some ranks become those of others: each reads just its shards, and every byte is where it belongs.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, its helpers too")]

mod common;
mod world;

use common::*;
use hoist_store::*;
use proptest::prelude::*;
use world::*;

/// Of which dtype, how many elements, and how the ranks have it: by cuts, or whole on each, or on one.
fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let dtype =
        prop::sample::select(vec![Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::F64, Dtype::F4, Dtype::F6E2M3]);
    // Bytes: bundles, runs, and the edge between them.
    let bytes =
        prop_oneof![1..5000u64, 1..(3u64 << 20), Just(1), Just(CHECKSUM_BYTES), Just(BUNDLED_BYTES_MAX)];
    let has =
        prop_oneof![6 => Just(Held::Sharded), 1 => Just(Held::Replicated), 1 => (0..5u32).prop_map(Held::By)];
    let tensor = (dtype, bytes, has, 0..3u32).prop_map(|(dtype, bytes, held, group)| {
        // Whole bytes of packed elements, in fours.
        let elements = (bytes * 8 / dtype.bits()).next_multiple_of(4);
        Tensor { dtype, elements, held, group }
    });
    prop::collection::vec(tensor, 1..7)
}

proptest! {
    // Each case makes up to fifteen stores: files, zeros, syncs.
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn any_ranks_go_on_as_any_others(
        tensors in tensors(),
        sizes in prop::array::uniform3(1..=5u32),
        epochs in 0..3u64,
        committed in 0..=5usize,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&tensors, sizes[0], seed);
        for _ in 0..epochs {
            world.step(sizes[0] as usize);
        }
        // One more, in which some die.
        let all = committed >= sizes[0] as usize;
        world.step(committed);
        let step = if all { epochs + 1 } else { epochs };
        let mut before = world.open().unwrap();
        prop_assert_eq!((before.epoch(), before.step()), (step, 10 * step));
        world.check_wholes(&mut before, 10 * step);
        before.close().unwrap();
        // Nothing was dropped by looking.
        let newest = |rank: usize| if rank < committed { epochs + 1 } else { epochs };
        for rank in 0..sizes[0] as usize {
            prop_assert_eq!(world.open_rank(rank).store().epoch(), newest(rank));
        }
        for next in &sizes[1..] {
            world = world.reshard(*next, seed ^ u64::from(*next), 10 * step);
        }
        let mut last = world.open().unwrap();
        prop_assert_eq!((last.epoch(), last.step(), last.world_size()), (1, 10 * step, sizes[2]));
        world.check_wholes(&mut last, 10 * step);
        last.close().unwrap();
        // The new ranks train on.
        world.finalize(1);
        world.epoch = 1;
        world.step(sizes[2] as usize);
        let mut last = world.open().unwrap();
        world.check_wholes(&mut last, 20);
    }
}

fn three() -> (World, Vec<Tensor>) {
    let sharded = |elements| Tensor { dtype: Dtype::F32, elements, held: Held::Sharded, group: 0 };
    let tensors = vec![sharded(1 << 20), sharded(300), Tensor { held: Held::Replicated, ..sharded(50) }];
    (World::new(&tensors, 3, 5), tensors)
}

fn ranks_error<T>(result: Result<T, Error>) -> RanksError {
    match result.map(drop) {
        Err(Error::Ranks(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_ranks_of_one_run_are_needed_once() {
    let (mut world, _) = three();
    world.step(3);
    let paths = world.paths();
    let open = |paths: &[_]| ranks_error(RankStores::open(paths, &hoist_io::Config::default(), &world.slab));
    let missing = open(&[paths[2].clone(), paths[0].clone()]);
    assert_eq!(missing, RanksError::Missing { world_size: 3, given: 2, missing: vec![1] });
    assert!(missing.to_string().contains("missing are 1"), "{missing}");
    let again = [&paths[..], &paths[1..2]].concat();
    assert!(matches!(open(&again), RanksError::Twice { rank: 1, .. }));
    let other = World::new(&[], 1, 0);
    let mixed = [&paths[..2], &other.paths()[..]].concat();
    assert!(matches!(open(&mixed), RanksError::WorldSizes { world_sizes: (3, 1), .. }));
    let none = RankStores::open(&[], &hoist_io::Config::default(), &world.slab).err().unwrap();
    assert!(matches!(none, Error::Config(_)), "{none}");
    // In any order they are one.
    let turned = [&paths[1..], &paths[..1]].concat();
    let mut stores = RankStores::open(&turned, &hoist_io::Config::default(), &world.slab).unwrap();
    world.check_wholes(&mut stores, 10);
}

#[test]
fn ranks_without_a_common_epoch_or_of_other_steps_are_refused() {
    let (mut world, _) = three();
    world.step(3);
    world.step(3);
    // One that went on alone, by a mistake of its trainer.
    world.write_rank(0, 40);
    world.finalize_rank(0, 3);
    let error = ranks_error(world.open());
    let epochs = vec![(0, vec![3]), (1, vec![2]), (2, vec![2])];
    assert_eq!(error, RanksError::NoCommonEpoch { epochs });
    world.write_rank(1, 30);
    world.write_rank(2, 30);
    let error = ranks_error(world.open());
    assert_eq!(error, RanksError::Steps { epoch: 3, rank: 1, steps: (40, 30) });
}

#[test]
fn shards_that_are_no_whole_and_other_tensors_are_refused() {
    let (world, tensors) = three();
    let cut = |change: &dyn Fn(&mut Vec<TensorSpec>)| {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { rank: 1, world_size: 3, ..config(&[folder.path()]) };
        let mut specs = world.specs(1);
        change(&mut specs);
        BlockingStore::create(&config, &hoist_io::Config::default(), &world.slab, &specs)
            .unwrap()
            .close()
            .unwrap();
        let mut paths = world.paths();
        paths[1] = config.nvme_path;
        ranks_error(RankStores::open(&paths, &hoist_io::Config::default(), &world.slab))
    };
    let short = cut(&|specs| specs[0].shape[0] -= 1);
    assert!(
        matches!(&short, RanksError::Gap { tensor, from, to } if tensor == "t0" && to - from == 1),
        "{short}"
    );
    assert!(matches!(cut(&|specs| drop(specs.remove(0))), RanksError::Gap { .. }));
    let long = cut(&|specs| specs[0].shape[0] += 1);
    assert!(matches!(long, RanksError::Overlap { ranks: (1, 2), .. }), "{long}");
    assert!(cut(&|specs| specs[2].dtype = Dtype::I32).to_string().contains("I32 in rank 1"));
    // The same for what is to be made.
    let mut stores = world.open().unwrap();
    let mut refused = |change: &dyn Fn(&mut TensorSpec)| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        let config = Config { rank: 0, world_size: 1, ..config(&[&path]) };
        let mut specs = World::new(&tensors, 1, 0).specs(0);
        change(&mut specs[0]);
        let error = ranks_error(stores.reshard(&config, &hoist_io::Config::default(), &world.slab, &specs));
        assert!(!path.exists(), "nothing is made");
        error.to_string()
    };
    assert!(
        refused(&|spec| spec.dtype = Dtype::I32).contains("F32 in the old stores, and I32 in the new one")
    );
    let shape = refused(&|spec| spec.shard.as_mut().unwrap().shape.push(2));
    assert!(shape.contains("its whole shape is [1048576] in the old stores"), "{shape}");
    let mut into = [0; 8];
    let mut bad =
        |name: &str, first, count| ranks_error(stores.read(name, first, count, &mut into)).to_string();
    assert!(bad("none", 0, 2).contains("no such tensor"));
    assert!(bad("t0", 1 << 20, 2).contains("it has 1048576"));
    assert!(bad("t0", u64::MAX, 2).contains("it has 1048576"));
    assert!(bad("t0", 0, 3).contains("12 bytes"));
}

#[test]
fn what_is_new_or_never_written_stays_without_bytes() {
    let (world, tensors) = three();
    let epoch_0 = world.reshard(2, 1, 0);
    for rank in 0..2 {
        let store = epoch_0.open_rank(rank);
        assert_eq!(store.store().epoch(), 1);
        for run in 0..store.store().runs().len() as u32 {
            let whole = Span { run: RunId(run), offset: 0, bytes: store.store().runs()[run as usize].bytes };
            assert!(!store.store().has_bytes(&whole));
        }
    }
    let mut written = World::new(&tensors, 3, 5);
    written.step(3);
    let mut stores = written.open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut specs = World::new(&tensors, 1, 0).specs(0);
    specs.push(spec("new", 2 << 20, Life::Durable));
    specs.push(spec("passing", 2 << 20, Life::Scratch));
    let config = config(&[folder.path()]);
    let mut store = stores.reshard(&config, &hoist_io::Config::default(), &written.slab, &specs).unwrap();
    let has = |name: &str, store: &BlockingStore| {
        let id = store.store().tensor(name).unwrap();
        store.store().has_bytes(&store.store().covering(id))
    };
    assert!(has("t0", &store) && has("t1", &store) && has("t2", &store));
    assert!(!has("new", &store) && !has("passing", &store));
    let id = store.store().tensor("t0").unwrap();
    assert_eq!(store.tensor_bytes(id).unwrap(), content(0, 0, 4 << 20, 10));
    assert_eq!(store.store().note("of rank").unwrap(), b"0");
    assert_eq!(store.store().newest().scalars.values["rng"], [0]);
}

#[test]
fn half_of_a_tensor_is_refused() {
    let tensor = Tensor { dtype: Dtype::U8, elements: 4 << 20, held: Held::Replicated, group: 0 };
    let world = World::new(&[tensor], 1, 5);
    let mut store = BlockingStore::open(&world.config(0), &hoist_io::Config::default(), &world.slab).unwrap();
    store.write(span(0, 0, 1 << 20), |_, _| Ok(())).unwrap();
    store.commit().unwrap();
    store.close().unwrap();
    let mut stores = world.open().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut reshard = |start, elements| {
        let mut specs = world.specs(0);
        specs[0].shard = Some(Box::new(Shard { shape: vec![4 << 20], start }));
        specs[0].shape = vec![elements];
        let config = config(&[&folder.path().join(start.to_string())]);
        stores.reshard(&config, &hoist_io::Config::default(), &world.slab, &specs)
    };
    let error = ranks_error(reshard(1 << 19, 1 << 20));
    assert_eq!(error, RanksError::Partial { tensor: "t0".into(), from: 1 << 19, to: 3 << 19 });
    // The halves by themselves are right.
    assert!(reshard(0, 1 << 20).unwrap().store().has_bytes(&span(0, 0, 1 << 20)));
    assert!(!reshard(2 << 20, 1 << 20).unwrap().store().has_bytes(&span(0, 0, 1 << 20)));
}

#[test]
fn bytes_that_have_changed_are_an_error_and_the_others_are_read() {
    let (mut world, _) = three();
    world.step(3);
    let start = world.specs(1)[0].start();
    let segments = std::fs::read_dir(world.paths()[1][0].join("data")).unwrap();
    let sought = content(0, 4 * start, 4096, 10);
    let mut flipped = 0;
    for path in segments.map(|entry| entry.unwrap().path()) {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(block) = bytes.chunks_mut(4096).find(|block| *block == sought) {
            block[77] ^= 1;
            flipped += 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(flipped, 1);
    let mut stores = world.open().unwrap();
    let mut into = [0; 4096];
    let error = stores.read("t0", start, 1024, &mut into).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    // A second look does not believe it either.
    assert!(stores.read("t0", start, 1024, &mut into).is_err());
    stores.read("t0", 0, 1024, &mut into).unwrap();
    assert!(into[..] == content(0, 0, 4096, 10));
}
