//! A machine whose power is cut, with a store that is written to.

use crate::common::*;
use crate::model::{DURABLE, Model, assert_is, assert_space, tensors};
use hoist_io::{Backend, BackendChoice, IoThread};
use hoist_memory::Slab;
use hoist_store::*;
use hoist_testkit::{Power, Powered, Random};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// Operations that opening or creating a store of this size takes, by directory: it is about 25.
const OPENING: u64 = 30;

/// Steps of work at most until a machine ends: more than the latest cut lets it take.
const STEPS_MAX: usize = 60;

/// How work ends.
#[derive(Debug)]
pub enum End {
    /// The power is cut.
    Cut,
    /// The process is killed; the machine goes on.
    Killed,
}

pub struct Machine {
    _folders: Vec<TempDir>,
    config: Config,
    slab: Arc<Slab>,
    pub power: Power,
    pub random: Random,
    store: Option<Driver>,
    model: Option<Model>,
    /// Writes under way, with their seeds.
    pub writes: BTreeMap<u64, (Span, u64)>,
    last_seed: u64,
}

impl Machine {
    pub fn new(seed: u64, directories: usize, slab: &Arc<Slab>) -> Machine {
        let folders: Vec<_> = (0..directories).map(|_| tempdir().unwrap()).collect();
        let config = config(&folders.iter().map(TempDir::path).collect::<Vec<_>>());
        let config = Config { snapshots: 1, ..config };
        let (power, random) = (Power::new(), Random::new(seed));
        let (store, model, writes) = (None, None, BTreeMap::new());
        Machine {
            _folders: folders,
            config,
            slab: Arc::clone(slab),
            power,
            random,
            store,
            model,
            writes,
            last_seed: 0,
        }
    }

    pub fn store(&mut self) -> &mut Driver {
        self.store.as_mut().unwrap()
    }

    pub fn model(&mut self) -> &mut Model {
        self.model.as_mut().unwrap()
    }

    pub fn next_seed(&mut self) -> u64 {
        self.last_seed += 1;
        self.last_seed
    }

    /// A directory of the store.
    pub fn path(&self, place: usize) -> String {
        self.config.nvme_path[place].display().to_string()
    }

    /// Makes the store, sometimes after a cut in the middle of that.
    pub fn create(&mut self) {
        if self.random.one_in(8) {
            self.cut_while_opening();
        }
        let created = self.start(true);
        self.power.cut_after(u64::MAX);
        self.store = Some(created.unwrap_or_else(|error| {
            assert!(!self.power.is_on(), "{error}");
            self.restore();
            self.start(true).unwrap()
        }));
        self.model = Some(Model::new(&self.store.as_ref().unwrap().store));
    }

    /// Opens the store on what is left, sometimes after a cut in the middle of that, and looks at all of it.
    pub fn open(&mut self) {
        let mut store = loop {
            if self.random.one_in(2) {
                self.cut_while_opening();
            }
            let opened = self.start(false);
            if self.power.is_on() {
                break opened.unwrap();
            }
            drop(opened);
            self.restore();
        };
        self.power.cut_after(u64::MAX);
        self.found(&mut store);
        self.store = Some(store);
    }

    fn cut_while_opening(&mut self) {
        let operations = self.random.below(OPENING * self.config.nvme_path.len() as u64);
        self.power.cut_after(operations);
    }

    fn start(&self, create: bool) -> Result<Driver, Error> {
        let start = |_, deliver: Deliver| {
            let (slab, power) = (Arc::clone(&self.slab), self.power.clone());
            // Of one thread, so that a seed means the same order of transfers.
            let io = hoist_io::Config { backend: BackendChoice::Pread, queue_depth: 1, ..Default::default() };
            let open =
                move || Ok(Box::new(Powered::new(hoist_io::open(&io, &slab)?, &power)) as Box<dyn Backend>);
            IoThread::spawn_with("powered", open, deliver)
        };
        match create {
            true => Driver::create_on(&self.config, &self.slab, &start, &tensors()),
            false => Driver::open_on(&self.config, &self.slab, &start),
        }
    }

    fn restore(&mut self) {
        self.power.restore(&mut self.random).unwrap();
    }

    /// Works until the power is cut, or the process killed, and gives power again.
    pub fn work_until_it_ends(&mut self) {
        // From the middle of the first commit to some epochs later.
        let operations = 1 << self.random.below(9);
        let operations = operations + self.random.below(operations);
        self.power.cut_after(operations);
        let ended = (0..STEPS_MAX).try_for_each(|_| self.step());
        self.end(ended.err().unwrap_or(End::Cut));
    }

    /// The process ends, and what makes it end is over.
    pub fn end(&mut self, end: End) {
        self.writes.clear();
        self.store = None;
        self.power.mend();
        if let End::Cut = end {
            self.power.cut();
        }
        if !self.power.is_on() {
            self.restore();
        }
    }

    /// The store was opened, as it must be.
    fn found(&mut self, store: &mut Driver) {
        self.model().opened(&store.store);
        assert_is(store, &self.model().durable.newest);
        assert_space(store, &self.model().durable);
    }

    /// On ordinary drives the store has all its snapshots, and can be written, committed and opened again.
    pub fn finish(&mut self) {
        self.store = None;
        self.restore();
        let mut store = Driver::open(&self.config, &self.slab).unwrap();
        self.found(&mut store);
        for (name, epoch) in self.model().durable.snapshots.clone() {
            drop(store);
            let config = Config { snapshot: Some(name.clone()), ..self.config.clone() };
            assert_is(&mut Driver::open(&config, &self.slab).unwrap(), &epoch);
            store = Driver::open(&self.config, &self.slab).unwrap();
            store.store.delete_snapshot(&name).unwrap();
            assert!(matches!(store.any_event(), StoreEvent::Recorded { result: Ok(()) }));
        }
        self.model().durable.snapshots.clear();
        for run in DURABLE {
            let (span, seed) = (store.whole(run), self.next_seed());
            store.write(span, seed).unwrap();
            self.model().write(span, seed);
        }
        self.model().newest.step = 0;
        let epoch = store.commit();
        self.model().begin_commit(epoch);
        self.model().committed();
        store.store.close().unwrap();
        let mut store = Driver::open(&self.config, &self.slab).unwrap();
        self.found(&mut store);
    }
}
