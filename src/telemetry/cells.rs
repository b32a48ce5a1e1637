//! Counters by worker: each worker adds to its own row, a scrape sums the column.
//!
//! A worker is the only writer of its row, so an addition is a load and a store, without a locked
//! instruction and without sharing a cache line. Row 0 belongs to every other thread and uses real
//! atomic additions.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::worker;

/// Cells are padded to whole cache lines, so that two rows never share one.
const CELLS_A_LINE: usize = 8;

/// `width` counters for each worker.
pub struct Cells {
    rows: Box<[Box<[AtomicU64]>]>,
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl Cells {
    /// `width` counters for `workers` workers and the threads beside them.
    pub fn new(workers: usize, width: usize) -> Self {
        let padded = width.div_ceil(CELLS_A_LINE) * CELLS_A_LINE;
        let row = || (0..padded).map(|_| AtomicU64::new(0)).collect();
        Self { rows: (0..=workers).map(|_| row()).collect() }
    }

    /// Adds `n` to a counter, in this thread's row.
    #[inline]
    pub fn add(&self, cell: usize, n: u64) {
        let slot = worker::slot();
        if slot == 0 || slot >= self.rows.len() {
            self.rows[0][cell].fetch_add(n, Relaxed);
        } else {
            let cell = &self.rows[slot][cell];
            cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// The sum over all rows.
    pub fn sum(&self, cell: usize) -> u64 {
        self.rows.iter().map(|row| row[cell].load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// Upper bounds of the buckets in microseconds: from a memory hit to a slow origin.
const BOUNDS_US: [u64; 18] = [
    50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 204_800, 409_600, 819_200,
    3_276_800, 13_107_200, 52_428_800,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;
/// The buckets and, behind them, the sum in microseconds.
const SERIES_WIDTH: usize = BUCKETS + 1;

/// Several histograms of durations with the same buckets, by worker.
#[derive(Debug)]
pub struct Histogram {
    cells: Cells,
}

impl Histogram {
    /// `series` histograms.
    pub fn new(workers: usize, series: usize) -> Self {
        Self { cells: Cells::new(workers, series * SERIES_WIDTH) }
    }

    /// Counts one duration in microseconds.
    #[inline]
    pub fn observe_us(&self, series: usize, us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.cells.add(series * SERIES_WIDTH + bucket, 1);
        self.cells.add(series * SERIES_WIDTH + BUCKETS, us);
    }

    /// How many durations a series has.
    pub fn count(&self, series: usize) -> u64 {
        (0..BUCKETS).map(|bucket| self.cells.sum(series * SERIES_WIDTH + bucket)).sum()
    }

    /// Writes one series, in seconds.
    pub fn encode(&self, series: usize, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let at = |i: usize| self.cells.sum(series * SERIES_WIDTH + i);
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip((0..BUCKETS).map(at)).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        encoder.encode_histogram::<NoLabelSet>(at(BUCKETS) as f64 / 1e6, count, &buckets, None)
    }
}

/// Writes one labelled value of a counter family.
pub fn encode_cells(encoder: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_family(&labels)?)
}

/// Writes one labelled value of a gauge family.
pub fn encode_gauge(encoder: &mut MetricEncoder<'_>, labels: &[(&str, &str)], value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_family(&labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_workers_and_others_sum_up() {
        let cells = std::sync::Arc::new(Cells::new(2, 3));
        let threads: Vec<_> = (0..2)
            .map(|worker| {
                let cells = cells.clone();
                std::thread::spawn(move || {
                    worker::enter(worker);
                    (0..1000).for_each(|_| cells.add(1, 2));
                })
            })
            .collect();
        cells.add(1, 1);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(cells.sum(1), 4001);
        assert_eq!(cells.sum(0), 0);
    }

    #[test]
    fn a_duration_on_a_bound_is_within_it() {
        let histogram = Histogram::new(1, 1);
        histogram.observe_us(0, 50);
        histogram.observe_us(0, 51);
        assert_eq!(histogram.cells.sum(0), 1);
        assert_eq!(histogram.cells.sum(1), 1);
        assert_eq!(histogram.count(0), 2);
    }
}
