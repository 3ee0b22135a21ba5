//! Opening: the slab, the device, the store and the threads, in the order in which they need each other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};
use hoist_memory::Slab;
use hoist_plan::Plan;
use hoist_store::{Durability, Store, TensorSpec};

use crate::config::Config;
use crate::cut::Units;
use crate::engine::Engine;
use crate::error::Error;
use crate::message::Message;
use crate::pipeline::Pipeline;
use crate::slots::Slots;
use crate::workers::Workers;

/// Messages on their way to the engine's thread: each answers a request that the plan has in
/// flight, or is a call of a waiting client, or gives a lease back. The plan keeps far fewer
/// requests in flight (`REQUESTS_AHEAD_MAX`), so that no thread blocks in delivering one.
const MESSAGES_MAX: usize = 16_384;

pub(crate) fn start(config: Config, create: Option<&[TensorSpec]>) -> Result<Engine, Error> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(Error::Config(problems));
    }
    let (messages, inbox) = bounded(MESSAGES_MAX);
    let slab = Slab::map(&config.host)?;
    let deliver = |messages: Sender<Message>| move |completion| send(&messages, Message::Io(completion));
    let store = match create {
        Some(tensors) => Store::create(&config.store, &config.io, &slab, tensors, deliver(messages.clone()))?,
        None => Store::open(&config.store, &config.io, &slab, deliver(messages.clone()))?,
    };
    crate::cast::check(&store)?;
    let done = messages.clone();
    let device =
        hoist_device::open(&config.device, move |completion| send(&done, Message::Device(completion)))?;
    let workers = Workers::start(&messages)?;
    let plan_config = hoist_plan::Config {
        host_pages: slab.pages() as u64,
        page_bytes: slab.page_bytes() as u64,
        device_bytes: device.budget_bytes(),
        // Twice what the drive holds at once: its queue never runs dry between two completions.
        credit_bytes: 2 * u64::from(config.io.queue_depth) * config.io.block_size,
        directories: u8::try_from(store.directories().count()).unwrap_or(u8::MAX),
        prefetch: config.prefetch,
        write_each_step: config.store.durability == Durability::Step,
        bandwidths: config.bandwidths,
    };
    let (tensors, epoch) = (store.tensors().to_vec(), store.epoch());
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
        epoch: epoch + 1,
        committing: None,
        next_commit: None,
        failed: None,
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
        carried: hoist_plan::Stats::default(),
        events: VecDeque::new(),
    };
    let thread = std::thread::Builder::new().name("hoist-engine".into());
    let thread = thread.spawn(move || pipeline.run());
    let failed = |source| Error::Thread { name: "hoist-engine", source: Arc::new(source) };
    Ok(Engine::new(messages, tensors, notes, epoch, thread.map_err(failed)?))
}

/// A completion that finds the engine's thread gone has nobody to hear it, and its memory goes home.
fn send(messages: &Sender<Message>, message: Message) {
    let _ = messages.send(message);
}
