//! Opening: the slab, the device, the store and the threads, in the order in which they need each other.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded, unbounded};
use hoist_memory::Slab;
use hoist_plan::Plan;
use hoist_store::{Deliver, IoError, IoThread, ModelFiles, Scalars, Store, TensorSpec};

use crate::config::Config;
use crate::cut::Units;
use crate::engine::Engine;
use crate::error::Error;
use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::ranks::UntilFinal;
use crate::slots::Slots;
use crate::workers::Workers;

/// Starts the I/O thread of one directory: its place in `config.store.nvme_path`, the slab that the thread moves bytes
/// into and out of, and what it calls with every completion.
pub type StartIo<'a> = &'a dyn Fn(usize, &Arc<Slab>, Deliver) -> Result<IoThread, IoError>;

/// The store that an engine is on.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// A new one of these tensors, over a model's files if there is one.
    New(Option<&'a ModelFiles>, &'a [TensorSpec]),
    /// One that is there.
    Old,
}

impl Engine {
    /// Makes a store of these tensors and an engine on it. No tensor has contents yet, but for
    /// those in bundles (under 1 MiB), which are zero.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem; what the store, the slab or the device refused;
    /// [`Error::BadCast`].
    pub fn create(config: Config, tensors: &[TensorSpec]) -> Result<Engine, Error> {
        start(config, Wanted::New(None, tensors), None)
    }

    /// Like [`Engine::create`], with I/O threads of the caller's making instead of `config.io`'s. For backends that inject
    /// faults or throttle.
    ///
    /// # Errors
    /// Those of [`Engine::create`] and of `start`.
    pub fn create_on(config: Config, tensors: &[TensorSpec], start: StartIo<'_>) -> Result<Engine, Error> {
        self::start(config, Wanted::New(None, tensors), Some(start))
    }

    /// Opens an engine on a store that is there, at its newest epoch.
    ///
    /// # Errors
    /// As [`Engine::create`]; a store that is locked, damaged or of a newer version.
    pub fn open(config: Config) -> Result<Engine, Error> {
        start(config, Wanted::Old, None)
    }

    /// Like [`Engine::open`], with I/O threads of the caller's making, as [`Engine::create_on`] has them.
    ///
    /// # Errors
    /// Those of [`Engine::open`] and of `start`.
    pub fn open_on(config: Config, start: StartIo<'_>) -> Result<Engine, Error> {
        self::start(config, Wanted::Old, Some(start))
    }

    /// Makes a store from a model in safetensors files, every tensor a durable parameter, and an engine on it. `model`
    /// is one file, the index of several (`*.safetensors.index.json`), or a directory that holds either under the
    /// names of the Hugging Face hub.
    ///
    /// # Errors
    /// As [`Engine::create`]; a file that is no safetensors file, and an index that its files do not match.
    pub fn import(config: Config, model: &Path) -> Result<Engine, Error> {
        import(&config, model)?;
        Engine::open(config)
    }

    /// Makes a store over a model's files, named as for [`Engine::import`], and an engine on it: what is not written is
    /// read where it lies, and takes no space in the store. `tensors` are more, of the store's own: adapters, optimizer
    /// state, gradients. The files are only read, and must stay as they are as long as the store is used; a tensor of
    /// theirs that is written goes to the store, which needs `store.in_place_room_bytes` for it.
    ///
    /// # Errors
    /// Those of [`Engine::import`].
    pub fn create_over(config: Config, model: &Path, tensors: &[TensorSpec]) -> Result<Engine, Error> {
        let model = ModelFiles::open(model)?;
        start(config, Wanted::New(Some(&model), tensors), None)
    }
}

fn start(config: Config, wanted: Wanted<'_>, io: Option<StartIo<'_>>) -> Result<Engine, Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    // Unbounded, so that whoever delivers never waits: each message answers a request that the plan
    // has in flight, is the call of a client that waits for it, or gives a lease back.
    let (messages, inbox) = unbounded();
    if let Wanted::New(_, tensors) = wanted {
        crate::cast::check(tensors.iter())?;
    }
    let slab = Slab::map(&config.host)?;
    let deliver = |messages: Sender<Message>| move |completion| send(&messages, Message::Io(completion));
    let done = messages.clone();
    let device =
        hoist_device::open(&config.device, move |completion| send(&done, Message::Device(completion)))?;
    let workers = Workers::start(&messages)?;
    // Last, so that what fails before leaves no store behind.
    let deliver = deliver(messages.clone());
    let own = |place: usize, slab: &Arc<Slab>, deliver: Deliver| {
        IoThread::spawn(&format!("hoist-io-{place}"), &config.io, Arc::clone(slab), deliver)
    };
    let io = io.unwrap_or(&own);
    let io = |place, deliver| io(place, &slab, deliver);
    let store = match wanted {
        Wanted::New(None, tensors) => Store::create_on(&config.store, &io, tensors, deliver)?,
        Wanted::New(Some(model), tensors) => {
            Store::create_over_on(&config.store, &io, (model, tensors), deliver)?
        }
        Wanted::Old => Store::open_on(&config.store, &io, deliver)?,
    };
    crate::cast::check(store.tensors().iter().map(|tensor| &tensor.spec))?;
    // What the I/O threads need for themselves they have by now.
    let plan_config = config.plan(slab.pages_free() as u64, device.budget_bytes());
    let too_small = config.problems_of(&plan_config);
    if !too_small.is_empty() {
        if let Wanted::New(..) = wanted {
            store.discard();
        }
        return Err(Error::Config(too_small));
    }
    let (tensors, newest) = (store.shared_tensors(), store.newest());
    let epoch = newest.number;
    let notes = store.notes().map(|(key, bytes)| (key.to_string(), bytes.to_vec())).collect();
    let units = Units::cut(&store, &[]);
    let specs = units.specs(&store);
    let pipeline = Pipeline {
        inbox,
        plan: Plan::new(plan_config.clone(), specs, epoch + 1),
        plan_config,
        store,
        device,
        slab,
        workers,
        slots: Slots::new(units.count()),
        units,
        orders: Vec::new(),
        cuts: Vec::new(),
        current: None,
        in_step: false,
        step_writes: false,
        epoch: epoch + 1,
        committing: None,
        next_commit: None,
        failed: None,
        aborted: None,
        waiting: HashMap::new(),
        held: HashMap::new(),
        releasing: HashMap::new(),
        next_lease: 0,
        requests: HashMap::new(),
        sums: HashMap::new(),
        spare_sums: Vec::new(),
        errors: HashMap::new(),
        write_error: None,
        flushed: false,
        deferred: VecDeque::new(),
        started: Instant::now(),
        summed_bytes: 0,
        notes: Vec::new(),
        sealed_notes: Vec::new(),
        sealed_scalars: Scalars::default(),
        recording: false,
        recorded: None,
        until_final: UntilFinal::default(),
        carried: hoist_plan::Stats::default(),
        events: VecDeque::new(),
    };
    let thread = std::thread::Builder::new().name("hoist-engine".into());
    let (alive, ended) = bounded(0);
    let thread = thread.spawn(move || {
        // Dropped when the thread ends, however it does: who waits for an answer then hears of it.
        let _alive: Sender<()> = alive;
        pipeline.run();
    });
    let failed = |source| Error::Thread { name: "hoist-engine", source: Arc::new(source) };
    Ok(Engine::new(messages, ended, tensors, notes, newest, thread.map_err(failed)?))
}

/// Imports a model's files into a new store, through a slab of its own that is gone afterwards.
fn import(config: &Config, model: &Path) -> Result<(), Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    let slab = Slab::map(&config.host)?;
    Ok(hoist_store::import_safetensors(model, &config.store, &config.io, &slab)?.close()?)
}

/// A completion that finds the engine's thread gone has nobody to hear it, and its memory goes home.
fn send(messages: &Sender<Message>, message: Message) {
    let _ = messages.send(message);
}
