//! The least time that a step could take, for compute times and for the report.

use std::time::Duration;

use hoist::{Access, Bandwidths, Bound, Engine, Order, OrderId};

use crate::failure::Failure;

/// Declares an order. Outside a step only.
///
/// # Errors
/// When an access can never be had within the budgets.
pub fn declare(engine: &Engine, order: &Order) -> Result<OrderId, Failure> {
    engine.declare(order.clone()).map_err(|error| {
        Failure::work("declaring the order of accesses", error, "give device.budget or host.budget more")
    })
}

/// The bound of a declared order, with measured compute times where there are any.
///
/// # Errors
/// When the engine's thread has ended.
pub fn bound(
    engine: &Engine,
    id: OrderId,
    bandwidths: Bandwidths,
    compute: Option<Vec<Duration>>,
) -> Result<Bound, Failure> {
    engine
        .bound(id, bandwidths, compute)
        .map_err(|error| Failure::work("asking the engine for the bound", error, "run it again"))
}

/// The order with compute times that are together `io_ratio` times the drive's time for the bytes that a step must
/// move, each in proportion to the bytes of its access.
///
/// How many bytes that is the engine says of a declared order: it is declared once without compute times therefore,
/// and never used.
///
/// # Errors
/// Those of [`declare`] and [`bound`].
pub fn with_compute(
    engine: &Engine,
    order: &Order,
    bandwidths: Bandwidths,
    io_ratio: f64,
) -> Result<Order, Failure> {
    let least = bound(engine, declare(engine, order)?, bandwidths, None)?;
    let bytes: Vec<u64> = order.accesses.iter().map(Access::bytes).collect();
    let mut order = order.clone();
    let times = spread(drive_seconds(&least, &bandwidths) * io_ratio, &bytes);
    order.accesses.iter_mut().zip(times).for_each(|(access, time)| access.compute = time);
    Ok(order)
}

/// What the drive takes for the least bytes of a step, reading and writing by turns.
fn drive_seconds(least: &Bound, bandwidths: &Bandwidths) -> f64 {
    least.min_read_bytes as f64 / bandwidths.read + least.min_write_bytes as f64 / bandwidths.write
}

/// `seconds` in proportion to `bytes`.
fn spread(seconds: f64, bytes: &[u64]) -> Vec<Duration> {
    let all = bytes.iter().sum::<u64>().max(1) as f64;
    bytes.iter().map(|&bytes| Duration::from_secs_f64(seconds * bytes as f64 / all)).collect()
}

#[cfg(test)]
mod tests {
    use hoist::Resource;

    use super::*;

    #[test]
    fn compute_is_spread_by_bytes() {
        let times = spread(2.0, &[1 << 20, 0, 3 << 20]);
        assert_eq!(times, [0.5, 0.0, 1.5].map(Duration::from_secs_f64));
        assert_eq!(spread(2.0, &[]), []);
        assert_eq!(spread(2.0, &[0]), [Duration::ZERO]);
    }

    #[test]
    fn the_drive_reads_and_writes_by_turns() {
        let least = Bound {
            roofline_seconds: 9.0,
            bound_seconds: 9.0,
            resource: Resource::Compute,
            min_read_bytes: 600,
            min_write_bytes: 100,
            transit_pages: 1,
        };
        let bandwidths =
            Bandwidths { read: 300.0, write: 50.0, mixed_read: 250.0, mixed_write: 40.0, h2d: 1.0, d2h: 1.0 };
        assert_eq!(drive_seconds(&least, &bandwidths), 4.0);
    }
}
