//! Node time: the wall clock when the process started plus the monotonic time since.
//!
//! One number serves both ends: it never jumps while the process runs (RFC 9111 §4.2.3 wants
//! resident time monotonic), and it can be written down as wall time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::rules::time::Millis;

/// The source of node time. Cheap to copy; every copy made of one clock agrees.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall_at_start: Duration,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn start() -> Self {
        let wall_at_start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), wall_at_start }
    }

    /// Node time now.
    #[inline]
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// Node time of an instant that was already read.
    #[inline]
    pub fn at(&self, instant: Instant) -> Millis {
        let since_start = instant.saturating_duration_since(self.started);
        Millis((self.wall_at_start + since_start).as_millis() as i64)
    }

    /// Time since the clock was started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-11T00:00:00.000Z`.
pub fn rfc3339(time: Millis) -> String {
    let (days, ms) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    // Days to a civil date: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Reads RFC 3339 with `Z` or an offset; fractions of a second are dropped.
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let zone = text.get(19..)?.trim_start_matches(['.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?)
        }
    };
    // A civil date to days: the inverse of the above.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let secs = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    Some(Millis::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(Millis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Millis(951_782_400_123)), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(Millis(1_794_355_200_000)), "2026-11-11T00:00:00.000Z");
        assert_eq!(rfc3339(Millis(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(parse_rfc3339("2026-11-11T00:00:00Z"), Some(Millis(1_794_355_200_000)));
        assert_eq!(parse_rfc3339("2026-11-11T01:30:00.5+01:30"), Some(Millis(1_794_355_200_000)));
        assert_eq!(parse_rfc3339("2000-02-29T00:00:00Z"), Some(Millis(951_782_400_000)));
        assert_eq!(parse_rfc3339("tomorrow"), None);
    }
}
