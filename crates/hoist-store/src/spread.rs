//! How many of a write's bytes go to which directory: in proportion to what each drive is seen to move. Pure; the caller
//! brings the time.

use crate::free_space::occupied;
use std::time::{Duration, Instant};

/// What a directory gets is cut at multiples of this: a block of I/O by default, so that spreading makes no more blocks.
pub(crate) const STRIPE_BYTES: u64 = 1 << 20;

/// A drive is judged by what it moved in so much time of being busy: a few dozen requests of any drive in use, and the
/// shares follow a drive that slows down within a second or two.
const WINDOW: Duration = Duration::from_millis(200);

/// How much the newest window counts. Drives halt for a moment now and then; half of it is forgotten a window later.
const NEWEST: f64 = 0.5;

/// The slowest drive still gets this part of the fastest one's share, so that it is seen when it is well again.
const SHARE_MIN: f64 = 0.02;

/// One directory's drive.
#[derive(Debug)]
struct Drive {
    /// None until it was busy for a window.
    bytes_per_second: Option<f64>,
    /// Bytes that it should have been given by now and was not; negative: it was given more. A stripe either way is
    /// remembered, and what is beyond is forgotten, so that the drives' sum is about 0 and no more.
    owed: f64,
    requests: u32,
    busy_since: Option<Instant>,
    window_bytes: u64,
    window_busy: Duration,
    /// Why it gets no more writes.
    quarantined: Option<String>,
}

/// The drives of a store, in its order of directories.
#[derive(Debug)]
pub(crate) struct Spread {
    drives: Vec<Drive>,
}

impl Spread {
    pub fn new(directories: usize) -> Spread {
        let drive = |_| Drive {
            bytes_per_second: None,
            owed: 0.0,
            requests: 0,
            busy_since: None,
            window_bytes: 0,
            window_busy: Duration::ZERO,
            quarantined: None,
        };
        Spread { drives: (0..directories).map(drive).collect() }
    }

    /// A request was handed to a directory's thread.
    pub fn started(&mut self, directory: usize, now: Instant) {
        let drive = &mut self.drives[directory];
        drive.requests += 1;
        drive.busy_since.get_or_insert(now);
    }

    /// A request came back, and moved so many bytes.
    pub fn ended(&mut self, directory: usize, bytes: u64, now: Instant) {
        let drive = &mut self.drives[directory];
        assert!(drive.requests > 0, "directory {directory} has no request");
        drive.requests -= 1;
        let next = (drive.requests > 0).then_some(now);
        if let Some(since) = std::mem::replace(&mut drive.busy_since, next) {
            drive.window_busy += now.saturating_duration_since(since);
        }
        drive.window_bytes += bytes;
        if drive.window_busy >= WINDOW {
            let seen = drive.window_bytes as f64 / drive.window_busy.as_secs_f64();
            let known = drive.bytes_per_second.map_or(seen, |known| known + NEWEST * (seen - known));
            drive.bytes_per_second = Some(known);
            (drive.window_bytes, drive.window_busy) = (0, Duration::ZERO);
        }
    }

    /// No more writes for this directory. `false`, and nothing changed, when it is the last that takes writes.
    pub fn quarantine(&mut self, directory: usize, cause: &str) -> bool {
        let others = self.drives.iter().enumerate();
        let any =
            others.filter(|(other, _)| *other != directory).any(|(_, drive)| drive.quarantined.is_none());
        if any {
            self.drives[directory].quarantined.get_or_insert_with(|| cause.to_owned());
        }
        any
    }

    /// Why a directory gets no more writes.
    pub fn quarantined(&self, directory: usize) -> Option<&str> {
        self.drives[directory].quarantined.as_deref()
    }

    /// The part of new writes that each directory gets while all have space; together 1.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        self.drives.iter().map(self.share())
    }

    /// A drive's share, from what the drives moved until now.
    fn share(&self) -> impl Fn(&Drive) -> f64 + use<> {
        let seen = self.drives.iter().filter_map(|drive| drive.bytes_per_second);
        let (count, sum) = seen.clone().fold((0.0, 0.0), |(count, sum), rate| (count + 1.0, sum + rate));
        // One that was not seen yet is taken for a usual one.
        let usual = if count > 0.0 { sum / count } else { 1.0 };
        let least = (SHARE_MIN * seen.fold(usual, f64::max)).max(1.0);
        let weight = move |drive: &Drive| match drive.quarantined {
            Some(_) => 0.0,
            None => drive.bytes_per_second.unwrap_or(usual).max(least),
        };
        let total: f64 = self.drives.iter().map(weight).sum();
        move |drive| weight(drive) / total
    }

    /// Divides `bytes` among the directories that take writes, none more than it has `free` (whole pages of 4096):
    /// appends directory and bytes to `out`, each directory once at most, in whole stripes where the space allows, and
    /// in whole pages but for the last. `false`, and nothing done, when they have not the space together.
    pub fn divide(&mut self, bytes: u64, free: impl Fn(usize) -> u64, out: &mut Vec<(u32, u64)>) -> bool {
        let takes = |drive: &Drive| drive.quarantined.is_none();
        let places = self.drives.iter().enumerate();
        let all: u64 = places.filter(|(_, drive)| takes(drive)).map(|(place, _)| free(place)).sum();
        let mut left = occupied(bytes);
        if left > all {
            return false;
        }
        let share = self.share();
        self.drives.iter_mut().for_each(|drive| drive.owed += share(drive) * bytes as f64);
        let first = out.len();
        while left > 0 {
            let asked = &out[first..];
            let places = self.drives.iter_mut().enumerate();
            let open = places.filter(|(place, drive)| {
                takes(drive) && free(*place) > 0 && asked.iter().all(|(other, _)| *other as usize != *place)
            });
            let Some((place, drive)) = open.max_by(|(_, a), (_, b)| a.owed.total_cmp(&b.owed)) else { break };
            let stripes = (drive.owed.max(1.0) / STRIPE_BYTES as f64).ceil() as u64;
            let mut take = left.min(stripes * STRIPE_BYTES).min(free(place));
            if take < left && take > STRIPE_BYTES {
                take -= take % STRIPE_BYTES;
            }
            drive.owed -= take as f64;
            out.push((place as u32, take));
            left -= take;
        }
        // Each was asked once: what is left is what rounding or others' want of space kept from them.
        for (place, taken) in &mut out[first..] {
            let more = left.min(free(*place as usize) - *taken);
            *taken += more;
            left -= more;
        }
        assert_eq!(left, 0, "{bytes} bytes found no place among {all} free: {:?}", &out[first..]);
        if let Some((_, last)) = out.last_mut() {
            *last -= occupied(bytes) - bytes;
        }
        // What a drive without space could not take is no debt: it would get all there is when it has some again.
        let limit = STRIPE_BYTES as f64;
        self.drives.iter_mut().for_each(|drive| drive.owed = drive.owed.clamp(-limit, limit));
        true
    }
}

#[cfg(test)]
mod tests;
