//! How much the drives are written, and how long they last at that pace.

use serde::Serialize;

use super::Rows;
use crate::config::units::format_decimal_bytes;

/// Seconds of a day without a leap second.
const DAY_SECONDS: f64 = 86_400.0;
/// A warranty ends with its years or its TBW, whichever comes first: five years for most drives (Samsung's table of
/// warranties: 845 DC and 950 PRO five, 850 EVO five, 750 EVO three, 850 PRO ten). At a slower pace the years come first.
const WARRANTY_YEARS: f64 = 5.0;
/// Days of a year without leap days: warranties are not counted closer.
const YEAR_DAYS: f64 = 365.0;

/// `endurance`, of all directories together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endurance {
    /// Bytes that the drives took in a step, mean: data and journals.
    pub written_bytes_per_step: u64,
    /// Bytes that they take in a day of such steps; `None` where none ended.
    pub written_bytes_per_day: Option<u64>,
    /// Bytes that may be written to them: `endurance.tbw`.
    pub tbw_bytes: Option<u64>,
    /// Steps until so many are written; `None` where nobody asked, or nothing is written.
    pub steps_until_tbw: Option<u64>,
    /// Days of such steps, likewise.
    pub days_until_tbw: Option<f64>,
    /// That this is soon, where it is.
    pub warning: Option<String>,
}

impl Endurance {
    /// From the bytes that the drives took in steps of so many seconds each.
    pub fn of(written_bytes: u64, step_seconds: &[f64], tbw_bytes: Option<u64>) -> Self {
        let steps = step_seconds.len() as f64;
        let days = step_seconds.iter().sum::<f64>() / DAY_SECONDS;
        // How many times the measured steps can be done until then.
        let times = tbw_bytes
            .filter(|_| written_bytes > 0 && !step_seconds.is_empty())
            .map(|tbw| tbw as f64 / written_bytes as f64);
        let days_until_tbw = times.map(|times| times * days);
        Self {
            written_bytes_per_step: written_bytes / (step_seconds.len() as u64).max(1),
            written_bytes_per_day: (days > 0.0).then(|| (written_bytes as f64 / days) as u64),
            tbw_bytes,
            steps_until_tbw: times.map(|times| (times * steps) as u64),
            days_until_tbw,
            warning: tbw_bytes.zip(days_until_tbw).and_then(|(tbw, days)| warning(tbw, days)),
        }
    }

    /// Its rows of the table, of a store on so many directories.
    pub fn rows(&self, directories: usize, rows: &mut Rows) {
        let Some(day) = self.written_bytes_per_day else { return };
        let [step, day] = [self.written_bytes_per_step, day].map(format_decimal_bytes);
        let all = if directories > 1 { ", all directories together" } else { "" };
        rows.row("written", format!("{step} a step, {day} a day at this pace{all}"));
        let Some(tbw) = self.tbw_bytes.map(format_decimal_bytes) else { return };
        let end = match self.steps_until_tbw.zip(self.days_until_tbw) {
            Some((steps, days)) => format!("in {steps} steps, {} at this pace", time(days)),
            None => "never: nothing is written".to_owned(),
        };
        let sum = if directories > 1 { " (the sum over the drives)" } else { "" };
        rows.row("endurance", format!("{tbw}{sum} are written {end}"));
    }
}

fn warning(tbw_bytes: u64, days: f64) -> Option<String> {
    let [tbw, time] = [format_decimal_bytes(tbw_bytes), time(days)];
    (days < WARRANTY_YEARS * YEAR_DAYS).then(|| {
        format!(
            "{tbw} are written in {time} at this pace, less than the {WARRANTY_YEARS} years that warranties of drives cover"
        )
    })
}

/// Days, or years where they are some.
fn time(days: f64) -> String {
    if days < YEAR_DAYS { format!("{days:.1} days") } else { format!("{:.1} years", days / YEAR_DAYS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TB: u64 = 1_000_000_000_000;

    fn table(endurance: &Endurance, directories: usize) -> String {
        let mut rows = Rows::new();
        endurance.rows(directories, &mut rows);
        rows.text(None)
    }

    #[test]
    fn steps_and_days_follow_from_the_pace() {
        // 3 steps in 6 s write 6 GB: a day has 43200 such steps of 2 GB.
        let endurance = Endurance::of(6_000_000_000, &[1.0, 2.0, 3.0], Some(600 * TB));
        assert_eq!(endurance.written_bytes_per_step, 2_000_000_000);
        assert_eq!(endurance.written_bytes_per_day, Some(86_400_000_000_000));
        assert_eq!(endurance.steps_until_tbw, Some(300_000));
        let days = endurance.days_until_tbw.unwrap();
        assert!((days - 600.0 / 86.4).abs() < 1e-9, "{days}");
        let warning = endurance.warning.clone().unwrap();
        assert!(warning.starts_with("600.0 TB are written in 6.9 days"), "{warning}");
        assert!(warning.contains("less than the 5 years"), "{warning}");
        let shown = table(&endurance, 1);
        assert!(shown.contains("2.0 GB a step, 86.4 TB a day at this pace"), "{shown}");
        assert!(shown.contains("600.0 TB are written in 300000 steps, 6.9 days"), "{shown}");
        let shown = table(&endurance, 2);
        assert!(shown.contains("all directories together"), "{shown}");
        assert!(shown.contains("600.0 TB (the sum over the drives)"), "{shown}");
    }

    #[test]
    fn what_outlives_its_warranty_is_no_warning() {
        // 1 TB a day.
        let after = |days| Endurance::of(TB, &[DAY_SECONDS], Some(days * TB));
        assert!(after(5 * 365 - 1).warning.is_some());
        assert_eq!(after(5 * 365).warning, None);
        assert!(table(&after(3650), 1).contains("3650 steps, 10.0 years"));
    }

    #[test]
    fn without_writes_there_is_no_end() {
        let endurance = Endurance::of(0, &[1.0, 1.0], Some(600 * TB));
        assert_eq!((endurance.written_bytes_per_step, endurance.written_bytes_per_day), (0, Some(0)));
        assert_eq!(endurance.tbw_bytes, Some(600 * TB));
        assert_eq!((endurance.steps_until_tbw, endurance.days_until_tbw), (None, None));
        assert_eq!(endurance.warning, None);
        assert!(table(&endurance, 1).contains("never: nothing is written"));
    }

    #[test]
    fn without_steps_no_pace_is_known() {
        let endurance = Endurance::of(0, &[], Some(TB));
        assert_eq!((endurance.written_bytes_per_step, endurance.written_bytes_per_day), (0, None));
        assert_eq!((endurance.steps_until_tbw, endurance.warning.clone()), (None, None));
        assert_eq!(table(&endurance, 1), "");
    }

    #[test]
    fn nobody_is_told_of_what_nobody_asked() {
        let endurance = Endurance::of(TB, &[1.0], None);
        assert_eq!(endurance.written_bytes_per_day, Some(86_400 * TB));
        assert_eq!(
            (endurance.tbw_bytes, endurance.steps_until_tbw, endurance.days_until_tbw),
            (None, None, None)
        );
        assert_eq!(endurance.warning, None);
        assert!(!table(&endurance, 1).contains("endurance"));
    }
}
