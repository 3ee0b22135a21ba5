//! Opening: the slab, the device, the store and the threads, in the order in which they need each other.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded, unbounded};
use hoist_memory::Slab;
use hoist_plan::Plan;
use hoist_store::{Deliver, IoError, IoThread, Scalars, Store, TensorSpec};

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

pub(crate) fn start(
    config: Config,
    create: Option<&[TensorSpec]>,
    io: Option<StartIo<'_>>,
) -> Result<Engine, Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    // Unbounded, so that whoever delivers never waits: each message answers a request that the plan
    // has in flight, is the call of a client that waits for it, or gives a lease back.
    let (messages, inbox) = unbounded();
    if let Some(tensors) = create {
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
    let store = match (create, io) {
        (Some(tensors), None) => Store::create(&config.store, &config.io, &slab, tensors, deliver)?,
        (None, None) => Store::open(&config.store, &config.io, &slab, deliver)?,
        (create, Some(start)) => {
            let start = |place, deliver| start(place, &slab, deliver);
            match create {
                Some(tensors) => Store::create_on(&config.store, &start, tensors, deliver)?,
                None => Store::open_on(&config.store, &start, deliver)?,
            }
        }
    };
    crate::cast::check(store.tensors().iter().map(|tensor| &tensor.spec))?;
    let plan_config = config.plan(slab.pages() as u64, device.budget_bytes());
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
pub(crate) fn import(config: &Config, model: &Path) -> Result<(), Error> {
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
