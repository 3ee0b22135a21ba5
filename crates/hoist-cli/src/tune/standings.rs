//! What ratios say of candidates: medians, how sure they are, and shares of the best.

use crate::report::Spread;

/// The median of values that are spread as the normal distribution has 1.2533 times the error of their mean, which is
/// their deviation by the root of their number; that deviation is 1.4826 times the median of distances from the median.
const MEDIAN_ERROR: f64 = 1.2533;
const DEVIATION: f64 = 1.4826;
/// How far single turns lie apart where too few are known to tell: a tenth, as was seen on a shared virtual disk.
const DEVIATION_ASSUMED: f64 = 0.1;
/// Turns of a candidate from which on their distances say something.
const TURNS_MIN: usize = 3;
/// What counts as the same as the best: never less than drives repeat themselves to, and never so much that what is
/// chosen could be worse by more than 3 hundredths, with what is unsure of the best itself.
const TOLERANCE_MIN: f64 = 0.005;
const TOLERANCE_MAX: f64 = 0.015;

/// One candidate in one cell.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// The median of its ratios to the reference.
    pub ratio: f64,
    /// The standard error of that, as a part of it.
    pub error: f64,
    /// How often it was measured.
    pub turns: usize,
}

/// All candidates in all cells.
pub struct Standings {
    /// Of those that were measured in every cell.
    figures: Vec<Option<Vec<Figure>>>,
    /// The best in each cell; empty when nothing was measured.
    best: Vec<usize>,
}

impl Standings {
    /// Of these ratios: of each candidate, in each cell.
    pub fn of(ratios: &[Vec<Vec<f64>>]) -> Self {
        let cells = ratios.first().map_or(0, Vec::len);
        let deviations: Vec<f64> = (0..cells).map(|cell| deviation(ratios, cell)).collect();
        let figure = |(values, deviation): (&Vec<f64>, &f64)| {
            let (ratio, turns) = (Spread::of(values)?.median, values.len());
            Some(Figure { ratio, error: MEDIAN_ERROR * deviation / (turns as f64).sqrt(), turns })
        };
        let figures: Vec<Option<Vec<Figure>>> =
            ratios.iter().map(|of_one| of_one.iter().zip(&deviations).map(figure).collect()).collect();
        // One lucky turn makes no best: what is sure counts.
        let sure = |index: usize, cell: usize| {
            let figures: &Option<Vec<Figure>> = &figures[index];
            figures.as_ref().map_or(f64::MIN, |figures| figures[cell].ratio * (1.0 - figures[cell].error))
        };
        let measured = |index: &usize| figures[*index].is_some();
        let best_of = |cell| {
            (0..figures.len()).filter(measured).max_by(|a, b| sure(*a, cell).total_cmp(&sure(*b, cell)))
        };
        let best = (0..cells).map_while(best_of).collect();
        Self { figures, best }
    }

    /// What is known of a candidate, in each cell.
    pub fn figures(&self, index: usize) -> Option<&[Figure]> {
        self.figures[index].as_deref()
    }

    /// The best in each cell.
    pub fn best(&self) -> &[usize] {
        &self.best
    }

    /// A candidate's share of the best in a cell, at most 1.
    pub fn share(&self, index: usize, cell: usize) -> Option<f64> {
        let best = self.figures(*self.best.get(cell)?)?[cell].ratio;
        Some((self.figures(index)?[cell].ratio / best).min(1.0))
    }

    /// A candidate's worst share.
    pub fn score(&self, index: usize) -> Option<f64> {
        let shares = (0..self.best.len()).map(|cell| self.share(index, cell));
        shares.collect::<Option<Vec<f64>>>()?.into_iter().min_by(f64::total_cmp)
    }

    /// How much less than the best score counts as the same.
    pub fn tolerance(&self, best: usize) -> f64 {
        let errors = self.figures(best).into_iter().flatten().map(|figure| figure.error);
        // Of the difference of two that are as unsure as each other.
        let error = errors.fold(0.0, f64::max) * 2_f64.sqrt();
        error.clamp(TOLERANCE_MIN, TOLERANCE_MAX)
    }

    /// Those of `among` that may well be as good as the best of them.
    pub fn near_best(&self, among: &[usize]) -> Vec<usize> {
        let least = |best| Some(self.score(best)? * (1.0 - self.tolerance(best)));
        let Some(least) = self.best_of(among).and_then(least) else { return Vec::new() };
        self.scored(among).filter(|(score, _)| *score >= least).map(|(_, index)| index).collect()
    }

    /// The one of `among` that scores best.
    pub fn best_of(&self, among: &[usize]) -> Option<usize> {
        self.scored(among).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, index)| index)
    }

    fn scored<'a>(&'a self, among: &'a [usize]) -> impl Iterator<Item = (f64, usize)> {
        among.iter().filter_map(|index| Some((self.score(*index)?, *index)))
    }
}

/// How far single turns lie from their candidate's median, as a part of it: of all candidates together, as each has few.
fn deviation(ratios: &[Vec<Vec<f64>>], cell: usize) -> f64 {
    let mut distances = Vec::new();
    for values in ratios.iter().map(|of_one| &of_one[cell]).filter(|values| values.len() >= TURNS_MIN) {
        let Some(spread) = Spread::of(values) else { continue };
        // The reference is measured by itself: it says nothing.
        if spread.min < spread.max {
            distances.extend(values.iter().map(|value| (value / spread.median - 1.0).abs()));
        }
    }
    Spread::of(&distances).map_or(DEVIATION_ASSUMED, |spread| DEVIATION * spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_best_of_each_cell() {
        let once = |values: [f64; 2]| values.map(|value| vec![value]).to_vec();
        let standings = Standings::of(&[once([1.0, 1.0]), once([2.0, 0.5]), once([1.8, 0.9])]);
        assert_eq!(standings.best(), [1, 0]);
        let scores: Vec<f64> = (0..3).filter_map(|index| standings.score(index)).collect();
        assert_eq!(scores, [0.5, 0.5, 0.9], "the compromise wins");
        assert_eq!(standings.near_best(&[0, 1, 2]), [2]);
        assert_eq!(standings.near_best(&[0]), [0]);
    }

    #[test]
    fn what_was_not_measured_everywhere_has_no_score() {
        let standings = Standings::of(&[vec![vec![1.0], vec![1.0]], vec![vec![9.0], vec![]]]);
        assert_eq!((standings.score(0), standings.score(1)), (Some(1.0), None));
        assert_eq!(standings.near_best(&[0, 1]), [0]);
        assert!(Standings::of(&[vec![vec![]]]).near_best(&[0]).is_empty());
    }

    #[test]
    fn one_lucky_turn_makes_no_best() {
        let steady = vec![vec![1.0, 1.01, 0.99, 1.1, 0.9, 1.0, 1.0, 1.2, 0.8, 1.0, 1.1, 0.9, 1.1, 0.9, 1.0]];
        let standings = Standings::of(&[steady, vec![vec![1.05]]]);
        assert_eq!(standings.best(), [0]);
        assert_eq!(standings.share(1, 0), Some(1.0), "no share is above 1");
    }

    #[test]
    fn what_is_unsure_widens_what_counts_as_the_same() {
        let turns = |noise: f64| vec![vec![1.0, 1.0 + noise, 1.0 - noise, 1.0 + noise, 1.0 - noise]];
        let tolerance = |noise| Standings::of(&[turns(noise)]).tolerance(0);
        assert_eq!((tolerance(0.0001), tolerance(0.5)), (TOLERANCE_MIN, TOLERANCE_MAX));
    }
}
