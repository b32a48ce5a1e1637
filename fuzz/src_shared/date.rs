//! What is a date stays the same date when it is written and read again.

use larder::rules::{date, time::Millis};

pub(crate) fn run(data: &[u8]) {
    for now in [Millis(0), Millis::from_secs(1_780_000_000), Millis::MIN, Millis::MAX] {
        if let Some(secs) = date::parse(data, now) {
            let written = date::format(secs);
            let read = date::parse(written.as_bytes(), now).expect("a written date is valid");
            // Only the years 0 to 9999 can be written; two-digit years beside an absurd clock lie outside.
            assert!(read == secs || !(-62_167_219_200..=253_402_300_799).contains(&secs));
        }
    }
}
