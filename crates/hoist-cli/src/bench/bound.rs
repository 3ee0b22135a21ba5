//! The least time that a step could take, for compute times and for the report.

use std::time::Duration;

use hoist::{Access, Bound, Engine, Order, OrderId};

use crate::failure::Failure;

/// Declares an order whose accesses compute for these times; gives its bound, too. The engine computes it with the
/// bandwidths of its own config, those of the probe before the run. Outside a step only.
///
/// # Errors
/// When an access can never be had within the budgets.
pub fn declare(engine: &Engine, order: &Order, compute: &[Duration]) -> Result<(OrderId, Bound), Failure> {
    let declared = engine.declare(with_compute(order, compute));
    declared.and_then(|id| Ok((id, engine.bound(id)?))).map_err(|error| {
        Failure::work("declaring the order of accesses", error, "give device.budget or host.budget more")
    })
}

/// Compute times that are `io_ratio` times the predicted I/O time together, and in proportion to the bytes of each
/// access.
///
/// # Errors
/// Those of [`declare`].
pub fn compute_times(engine: &Engine, order: &Order, io_ratio: f64) -> Result<Vec<Duration>, Failure> {
    let none = vec![Duration::ZERO; order.accesses.len()];
    let io_seconds = declare(engine, order, &none)?.1.bound_seconds;
    let bytes: Vec<u64> = order.accesses.iter().map(Access::bytes).collect();
    Ok(spread(io_seconds * io_ratio, &bytes))
}

/// `seconds` in proportion to `bytes`.
fn spread(seconds: f64, bytes: &[u64]) -> Vec<Duration> {
    let all = bytes.iter().sum::<u64>().max(1) as f64;
    bytes.iter().map(|&bytes| Duration::from_secs_f64(seconds * bytes as f64 / all)).collect()
}

/// The order with these compute times.
pub fn with_compute(order: &Order, compute: &[Duration]) -> Order {
    let mut order = order.clone();
    for (access, compute) in order.accesses.iter_mut().zip(compute) {
        access.compute = *compute;
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compute_is_spread_by_bytes() {
        let times = spread(2.0, &[1 << 20, 0, 3 << 20]);
        assert_eq!(times, [0.5, 0.0, 1.5].map(Duration::from_secs_f64));
        assert_eq!(spread(2.0, &[]), []);
        assert_eq!(spread(2.0, &[0]), [Duration::ZERO]);
    }
}
