//! HTTP dates (RFC 9110 §5.6.7): the three formats of the grammar and nothing else.
//!
//! Written here rather than taken from a crate because a cache has to be both stricter and laxer than those are: case and
//! weekday do not matter, every other deviation means "invalid", and an invalid Expires means "stale".

use http::HeaderValue;

use super::time::Millis;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// From Thursday on, because the epoch was one.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const WEEKDAYS_LONG: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

const DAY_SECS: i64 = 86_400;
/// 9999-12-31T23:59:59Z, the last date that has a four-digit year; and the first one.
const LAST_SECS: i64 = 253_402_300_799;
const FIRST_SECS: i64 = -62_167_219_200;

/// Seconds since the Unix epoch. `now` only decides the century of the two-digit years of RFC 850.
#[must_use]
pub fn parse(value: &[u8], now: Millis) -> Option<i64> {
    let mut text = Scanner(value);
    if text.weekday(&WEEKDAYS_LONG).is_some() {
        return rfc850(text, now);
    }
    text.weekday(&WEEKDAYS)?;
    match text.0.first()? {
        b',' => imf_fixdate(text),
        _ => asctime(text),
    }
}

/// IMF-fixdate. Times outside the years 0 to 9999 are moved to the nearest one inside.
#[must_use]
pub fn format(unix_secs: i64) -> HeaderValue {
    let secs = unix_secs.clamp(FIRST_SECS, LAST_SECS);
    let days = secs.div_euclid(DAY_SECS);
    let of_day = secs.rem_euclid(DAY_SECS);
    let (year, month, day) = civil_from_days(days);
    let weekday = usize::try_from(days.rem_euclid(7)).unwrap_or(0);
    let month = usize::try_from(month - 1).unwrap_or(0);

    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(WEEKDAYS[weekday].as_bytes());
    put_digits(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[month].as_bytes());
    put_digits(&mut text[12..16], year);
    put_digits(&mut text[17..19], of_day / 3600);
    put_digits(&mut text[20..22], of_day / 60 % 60);
    put_digits(&mut text[23..25], of_day % 60);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// `, 08 Aug 2050 02:01:18 GMT`
fn imf_fixdate(mut text: Scanner<'_>) -> Option<i64> {
    text.literal(", ")?;
    let day = text.number(2)?;
    text.literal(" ")?;
    let month = text.month()?;
    text.literal(" ")?;
    let year = text.number(4)?;
    text.literal(" ")?;
    let secs = text.time_of_day()?;
    text.literal(" GMT")?;
    text.end()?;
    unix_secs(year, month, day, secs)
}

/// `, 18-Aug-50 02:01:18 GMT`
fn rfc850(mut text: Scanner<'_>, now: Millis) -> Option<i64> {
    text.literal(", ")?;
    let day = text.number(2)?;
    text.literal("-")?;
    let month = text.month()?;
    text.literal("-")?;
    let year = full_year(text.number(2)?, now);
    text.literal(" ")?;
    let secs = text.time_of_day()?;
    text.literal(" GMT")?;
    text.end()?;
    unix_secs(year, month, day, secs)
}

/// ` Aug  8 02:01:18 2050`
fn asctime(mut text: Scanner<'_>) -> Option<i64> {
    text.literal(" ")?;
    let month = text.month()?;
    text.literal(" ")?;
    let day = match text.0.first()? {
        b' ' => {
            text.literal(" ")?;
            text.number(1)?
        }
        _ => text.number(2)?,
    };
    text.literal(" ")?;
    let secs = text.time_of_day()?;
    text.literal(" ")?;
    let year = text.number(4)?;
    text.end()?;
    unix_secs(year, month, day, secs)
}

/// The year within 50 of the present one (RFC 9110 §5.6.7).
fn full_year(two_digits: i64, now: Millis) -> i64 {
    let days = now.as_secs_floor().clamp(FIRST_SECS, LAST_SECS).div_euclid(DAY_SECS);
    let (this_year, _, _) = civil_from_days(days);
    let year = this_year - this_year.rem_euclid(100) + two_digits;
    match year - this_year {
        ahead if ahead > 50 => year - 100,
        ahead if ahead <= -50 => year + 100,
        _ => year,
    }
}

fn unix_secs(year: i64, month: i64, day: i64, secs_of_day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    Some(days_from_civil(year, month, day) * DAY_SECS + secs_of_day)
}

/// Days since the epoch of a date in the Gregorian calendar, and back: Hinnant, "chrono-compatible low-level date
/// algorithms". A year starts in March there, so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn put_digits(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number.rem_euclid(10)).unwrap_or(0);
        number /= 10;
    }
}

/// What is left of the text; every step consumes what it recognises.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn literal(&mut self, expected: &str) -> Option<()> {
        let head = self.0.get(..expected.len())?;
        if !head.eq_ignore_ascii_case(expected.as_bytes()) {
            return None;
        }
        self.0 = &self.0[expected.len()..];
        Some(())
    }

    fn weekday(&mut self, names: &[&str; 7]) -> Option<usize> {
        names.iter().position(|name| self.literal(name).is_some())
    }

    fn month(&mut self) -> Option<i64> {
        let index = MONTHS.iter().position(|name| self.literal(name).is_some())?;
        i64::try_from(index).ok().map(|index| index + 1)
    }

    /// Exactly `length` digits.
    fn number(&mut self, length: usize) -> Option<i64> {
        let digits = super::fields::digits(self.0.get(..length)?)?;
        self.0 = &self.0[length..];
        i64::try_from(digits).ok()
    }

    /// `02:01:18`; a leap second is allowed by the grammar.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        self.literal(":")?;
        let minute = self.number(2)?;
        self.literal(":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const NOW: Millis = Millis::from_secs(1_780_000_000);
    const AUGUST_2050: i64 = 2_544_400_878;

    fn secs(text: &str) -> Option<i64> {
        parse(text.as_bytes(), NOW)
    }

    #[test]
    fn three_formats_name_one_second() {
        assert_eq!(secs("Thu, 18 Aug 2050 02:01:18 GMT"), Some(AUGUST_2050));
        assert_eq!(secs("Thursday, 18-Aug-50 02:01:18 GMT"), Some(AUGUST_2050));
        assert_eq!(secs("Thu Aug 18 02:01:18 2050"), Some(AUGUST_2050));
        assert_eq!(secs("Thu Aug  8 02:01:18 2050"), Some(AUGUST_2050 - 10 * DAY_SECS));
    }

    #[test]
    fn case_and_a_wrong_weekday_do_not_matter() {
        for text in ["THU, 18 AUG 2050 02:01:18 gMT", "Mon, 18 Aug 2050 02:01:18 GMT"] {
            assert_eq!(secs(text), Some(AUGUST_2050), "{text}");
        }
    }

    #[test]
    fn everything_else_is_invalid() {
        for text in [
            "",
            "0",
            "-1",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu,  18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050  02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Thu, 18 Aug 2050 02:01:18 GMT ",
            " Thu, 18 Aug 2050 02:01:18 GMT",
            "Thu Aug 8 02:01:18 2050",
            "Foo, 18 Aug 2050 02:01:18 GMT",
            "Thursday, 18 Aug 2050 02:01:18 GMT",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    #[test]
    fn two_digit_years_stay_within_fifty_years() {
        let year = |text: &str| civil_from_days(secs(text).unwrap().div_euclid(DAY_SECS)).0;
        assert_eq!(year("Thursday, 18-Aug-76 02:01:18 GMT"), 2076);
        assert_eq!(year("Thursday, 18-Aug-77 02:01:18 GMT"), 1977);
        assert_eq!(year("Thursday, 18-Aug-99 02:01:18 GMT"), 1999);
    }

    #[test]
    fn far_dates_fit() {
        assert_eq!(secs("Tue, 19 Jan 2038 03:14:08 GMT"), Some(1 << 31));
        assert_eq!(secs("Sat, 20 Nov 2286 17:46:40 GMT"), Some(10_000_000_000));
        assert_eq!(secs("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LAST_SECS));
        assert_eq!(secs("Thu, 29 Feb 1996 00:00:00 GMT"), Some(825_552_000));
    }

    #[test]
    fn times_without_a_date_are_moved_to_one() {
        assert_eq!(format(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(format(i64::MIN).len(), 29);
        assert_eq!(format(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, now: i64) {
            let _ = parse(&bytes, Millis(now));
        }

        #[test]
        fn what_is_written_is_read(secs in FIRST_SECS..=LAST_SECS) {
            prop_assert_eq!(parse(format(secs).as_bytes(), NOW), Some(secs));
        }

        #[test]
        fn the_same_as_httpdate(secs in 0..=LAST_SECS) {
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).unwrap());
            let theirs = httpdate::fmt_http_date(time);
            prop_assert_eq!(format(secs), theirs.as_str());
        }
    }
}
