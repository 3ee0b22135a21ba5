//! A run from its config to its report.

use std::sync::Arc;
use std::time::Instant;

use hoist::{Order, OrderId};

use super::place::Place;
use super::probe;
use super::progress::Progress;
use super::source::Source;
use super::summary::{self, Steps};
use super::trainer::Trainer;
use super::{bound, engine};
use crate::config::{self, Config, Durability};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, Budgets, Workload};
use crate::report::Report;

/// What becomes of a report.
pub type Publish = dyn Fn(&Report) -> Result<(), Failure> + Send + Sync;

/// Runs the workload of `config` and has the report published before anything is cleaned up. An interrupted run gives
/// a report too, which is marked so.
///
/// # Errors
/// When the work fails, bytes were wrong, or the run was interrupted; those of `publish`.
pub fn run(config: &Config, interrupt: &Interrupt, publish: Arc<Publish>) -> Result<(), Failure> {
    let budgets = Budgets { device_bytes: config.device.budget_bytes, host_bytes: config.host.budget_bytes };
    let engine_config = engine::config(config)?;
    let (workload, source) = workload(config, budgets)?;
    let place = Place::prepare(&config.store.nvme_path, config.store.keep)?;
    let report = run_in_place(config, engine_config, interrupt, &workload, source, publish)?;
    place.finish()?;
    match report.summary.mismatches {
        _ if report.partial => Err(Failure::Interrupted),
        0 => Ok(()),
        bytes => {
            Err(Failure::work("checking contents", format!("{bytes} bytes were wrong"), "run hoist verify"))
        }
    }
}

fn workload(config: &Config, budgets: Budgets) -> Result<(Workload, Option<Source>), Failure> {
    match &config.model {
        config::Model::Gpt2(shapes) => Ok((model::gpt2(shapes, budgets, config.run.seed), None)),
        config::Model::Safetensors { path } => {
            let (source, tensors) = Source::open(path, budgets)?;
            Ok((model::safetensors(&tensors, budgets), Some(source)))
        }
    }
}

fn run_in_place(
    config: &Config,
    engine_config: hoist::Config,
    interrupt: &Interrupt,
    workload: &Workload,
    source: Option<Source>,
    publish: Arc<Publish>,
) -> Result<Report, Failure> {
    let blank = summary::blank(config, workload)?;
    let last_words = {
        let (publish, blank) = (Arc::clone(&publish), blank.clone());
        // The process ends right after it: nobody is left who could be told of an error.
        move || drop(publish(&blank))
    };
    interrupt.set_last_words(Some(Box::new(last_words)));
    let io = engine_config.io.clone();
    let accesses = workload.initial.accesses.len() as u64
        + workload.order.accesses.len() as u64 * (config.run.warmup + config.run.steps);
    let progress = Progress::new(accesses);
    progress.begin("measuring the drive");
    let rates = probe::measure(&config.store.nvme_path, &io, interrupt)?;
    if interrupt.is_set() {
        drop(progress);
        interrupt.set_last_words(None);
        publish(&blank)?;
        return Ok(blank);
    }
    let bandwidths = engine::bandwidths(config, rates);
    let engine = engine::create(hoist::Config { bandwidths, ..engine_config }, &workload.tensors)?;
    let order = bound::with_compute(&engine, &workload.order, bandwidths, config.compute.io_ratio)?;
    let id = bound::declare(&engine, &order)?;
    // At the other durabilities a step makes no epoch.
    let finalizes = config.store.world_size > 1 && config.store.durability == Durability::Step;
    let trainer = Trainer {
        engine: &engine,
        workload,
        source,
        interrupt,
        progress: &progress,
        // What comes after a step has no space until the step is final.
        waits: !config.prefetch.enabled || finalizes,
        finalizes,
        commit: None,
        verified_bytes: 0,
        mismatches: 0,
    };
    let steps = train(trainer, config, id, &order)?;
    // An interrupted run has no time for a second probe, or not for all of it.
    let rates = match interrupt.is_set() {
        true => rates,
        false => {
            let after = probe::measure(&config.store.nvme_path, &io, interrupt)?;
            if interrupt.is_set() { rates } else { rates.mean(after) }
        }
    };
    drop(progress);
    let bound = bound::bound(&engine, id, engine::bandwidths(config, rates), steps.compute_mean())?;
    let report = summary::report(config, workload, rates, bound, &engine::stats(&engine)?, &steps)?;
    interrupt.set_last_words(None);
    publish(&report)?;
    engine.close().map_err(|error| {
        Failure::work("closing the store", error, "see what hoist verify says of the store")
    })?;
    Ok(report)
}

/// Writes version 0 of everything, warms up and measures. Being interrupted ends it like having done all steps.
fn train(mut trainer: Trainer<'_>, config: &Config, id: OrderId, order: &Order) -> Result<Steps, Failure> {
    let engine = trainer.engine;
    let now = engine::stats(engine)?;
    let mut steps = Steps { before: now.clone(), after: now, ..Steps::none(order) };
    let mut all = || -> Result<(), Failure> {
        trainer.progress.begin("writing the model");
        let initial = &trainer.workload.initial;
        trainer.step(bound::declare(engine, initial)?, initial, 0)?;
        for step in 1..=config.run.warmup + config.run.steps {
            let measured = step > config.run.warmup;
            trainer.progress.begin(match measured {
                true => format!("step {} of {}", step - config.run.warmup, config.run.steps),
                false => format!("warm-up step {step} of {}", config.run.warmup),
            });
            let begin = Instant::now();
            let compute = trainer.step(id, order, step)?;
            if step == config.run.warmup + config.run.steps {
                // No step comes after it that would hide its last writes.
                trainer.finish()?;
            }
            let seconds = begin.elapsed().as_secs_f64();
            steps.after = engine::stats(engine)?;
            if measured {
                steps.seconds.push(seconds);
                steps.compute.iter_mut().zip(compute).for_each(|(sum, compute)| *sum += compute);
            } else {
                steps.before = steps.after.clone();
            }
        }
        Ok(())
    };
    match all() {
        Ok(()) | Err(Failure::Interrupted) => {}
        Err(failure) => return Err(failure),
    }
    (steps.verified_bytes, steps.mismatches) = (trainer.verified_bytes, trainer.mismatches);
    Ok(steps)
}
