//! Which candidates are measured when: all of them first, then the better half, and so on, in short turns by turns.
//!
//! Shared drives drift by a factor of two within seconds. So nothing is compared with what was measured at another
//! time: every few candidates the same one, the reference, comes again, and a rate counts as a ratio to the reference's
//! before and after it, as if the drive drifted evenly in between.

use std::time::Duration;

use super::candidate::Candidate;
use super::standings::Standings;
use crate::io::Random;

/// Candidates between two turns of the reference: about half a second, in which a drift of a factor of two within three
/// seconds is straight to a hundredth. A third of the time goes to the reference.
const GROUP: usize = 2;
/// So many are left at the end: enough for the best of each direction and what comes near it.
const FINALISTS: usize = 4;

/// What measures candidates.
pub trait Field {
    /// Why it may fail.
    type Error;
    /// Since measuring began.
    fn elapsed(&self) -> Duration;
    /// A round of so many candidates begins.
    fn begin_round(&mut self, candidates: usize);
    /// Rates of a candidate, of each cell: each direction of each directory. None when the time is over.
    ///
    /// # Errors
    /// When it cannot be measured.
    fn visit(&mut self, candidate: Candidate) -> Result<Option<Vec<f64>>, Self::Error>;
    /// What was found so far.
    fn report(&mut self, race: &Race);
}

/// The candidates and what is known of them.
#[derive(Clone)]
pub struct Race {
    candidates: Vec<Candidate>,
    reference: usize,
    /// Ratios to the reference, of each candidate in each cell.
    ratios: Vec<Vec<Vec<f64>>>,
    /// Rates of the reference in each cell.
    reference_rates: Vec<Vec<f64>>,
    /// Measured since the reference was.
    pending: Vec<(usize, Vec<f64>)>,
    alive: Vec<usize>,
    random: Random,
}

impl Race {
    /// Between these candidates, of which one is the reference, over so many cells. The same seed gives the same order.
    pub fn new(candidates: Vec<Candidate>, reference: usize, cells: usize, seed: u64) -> Self {
        Self {
            reference,
            ratios: vec![vec![Vec::new(); cells]; candidates.len()],
            reference_rates: vec![Vec::new(); cells],
            pending: Vec::new(),
            alive: (0..candidates.len()).collect(),
            random: Random(seed),
            candidates,
        }
    }

    /// Measures until the time is over.
    ///
    /// # Errors
    /// Those of the field.
    pub fn run<F: Field>(&mut self, window: Duration, field: &mut F) -> Result<(), F::Error> {
        let stages = self.stages();
        for stage in 1..=stages {
            let end = window * stage / stages;
            loop {
                field.begin_round(self.alive.len());
                for step in self.round() {
                    let Some(rates) = field.visit(self.candidates[step])? else {
                        self.settle(None);
                        field.report(self);
                        return Ok(());
                    };
                    self.add(step, rates);
                    field.report(self);
                }
                if field.elapsed() >= end {
                    break;
                }
            }
            self.halve();
        }
        Ok(())
    }

    /// How often the field is halved until the finalists are left, and once more for these.
    fn stages(&self) -> u32 {
        (self.candidates.len().div_ceil(FINALISTS)).next_power_of_two().ilog2() + 1
    }

    /// All that are left, in random order, with the reference between them and at the end.
    fn round(&mut self) -> Vec<usize> {
        let others: Vec<usize> =
            self.alive.iter().copied().filter(|index| *index != self.reference).collect();
        let count = others.len() as u64;
        let order: Vec<usize> =
            self.random.choose(count, count).into_iter().map(|at| others[at as usize]).collect();
        let mut steps = Vec::new();
        // Later rounds begin after the reference that ended the one before.
        if self.reference_rates.iter().any(Vec::is_empty) {
            steps.push(self.reference);
        }
        for group in order.chunks(GROUP) {
            steps.extend(group);
            steps.push(self.reference);
        }
        steps
    }

    fn add(&mut self, index: usize, rates: Vec<f64>) {
        if index != self.reference {
            self.pending.push((index, rates));
            return;
        }
        self.settle(Some(&rates));
        for (cell, rate) in rates.into_iter().enumerate() {
            self.reference_rates[cell].push(rate);
            self.ratios[index][cell].push(1.0);
        }
    }

    /// Compares what was measured since the reference was with what that was then and is now, where there is a now; in
    /// between, on the straight line from one to the other: drives drift by a third within such a second.
    fn settle(&mut self, now: Option<&[f64]>) {
        let pending = std::mem::take(&mut self.pending);
        let steps = (pending.len() + 1) as f64;
        for (at, (index, rates)) in pending.into_iter().enumerate() {
            let passed = (at + 1) as f64 / steps;
            for (cell, rate) in rates.into_iter().enumerate() {
                let Some(&before) = self.reference_rates[cell].last() else { continue };
                let after = now.map_or(before, |rates| rates[cell]);
                self.ratios[index][cell].push(rate / (before + passed * (after - before)));
            }
        }
    }

    /// Drops the worse half. Half of the places go to the best; the other half to the cheapest of those that may well be
    /// as good, which the best by chance would push out where many are alike. The best of each cell stay, as shares are of
    /// them.
    fn halve(&mut self) {
        let standings = self.standings();
        let seats = self.alive.len().div_ceil(2).max(FINALISTS);
        let score = |index: &usize| standings.score(*index).unwrap_or(0.0);
        let mut ranked = self.alive.clone();
        ranked.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let mut cheap = standings.near_best(&ranked);
        cheap.sort_by_key(|index| self.candidates[*index].cost());
        let mut kept: Vec<usize> = ranked.iter().copied().take(seats.div_ceil(2)).collect();
        for index in cheap.into_iter().chain(ranked.iter().copied()) {
            if kept.len() < seats && !kept.contains(&index) {
                kept.push(index);
            }
        }
        // The reference is measured anyway.
        let stays = standings.best().iter().chain([&self.reference]);
        for &index in stays.filter(|index| ranked.contains(index)) {
            if !kept.contains(&index) {
                kept.push(index);
            }
        }
        self.alive = kept;
    }

    /// What is known by now.
    pub fn standings(&self) -> Standings {
        Standings::of(&self.ratios)
    }

    /// The best of those that are left, or the cheapest that may well be as good; none before all of it was measured.
    pub fn choose(&self) -> Option<usize> {
        let standings = self.standings();
        standings.near_best(&self.alive).into_iter().min_by_key(|index| self.candidates[*index].cost())
    }

    /// How much less than the best of those that are left counts as the same; none before all of it was measured.
    pub fn tolerance(&self) -> Option<f64> {
        let standings = self.standings();
        standings.best_of(&self.alive).map(|best| standings.tolerance(best))
    }

    /// All of them, also those that were dropped.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The one that the others are compared with.
    pub fn reference(&self) -> usize {
        self.reference
    }

    /// Whether a candidate has not been dropped.
    pub fn is_alive(&self, index: usize) -> bool {
        self.alive.contains(&index)
    }

    /// What the reference did in each cell, in the middle; none before it was measured.
    pub fn reference_rate(&self, cell: usize) -> Option<f64> {
        crate::report::Spread::of(&self.reference_rates[cell]).map(|spread| spread.median)
    }
}

#[cfg(test)]
mod tests;
