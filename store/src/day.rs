//! Days in UTC: what tables are partitioned by and what dead-letter keys are named after.

use std::fmt;

const DAY_MS: i64 = 86_400_000;

/// A day in UTC, as days since 1970-01-01. Prints and parses as `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDay(i64);

impl UtcDay {
    /// The day that a moment falls in, given in milliseconds since the Unix epoch.
    #[must_use]
    pub fn of_ms(ms: i64) -> Self {
        Self(ms.div_euclid(DAY_MS))
    }

    /// Today, by this machine's clock.
    #[must_use]
    pub fn today() -> Self {
        Self::of_ms(now_ms())
    }

    /// The day so many days earlier.
    #[must_use]
    pub fn minus_days(self, days: u32) -> Self {
        Self(self.0 - i64::from(days))
    }

    /// Its first moment, milliseconds since the Unix epoch.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        self.0.saturating_mul(DAY_MS)
    }

    /// Reads `YYYY-MM-DD`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if year.len() != 4 || month.len() != 2 || day.len() != 2 {
            return None;
        }
        let parsed = Self(days_from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?));
        // 2024-02-31 is some day in March by arithmetic: only what prints back as itself is a date.
        (parsed.to_string() == text).then_some(parsed)
    }
}

impl fmt::Display for UtcDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// This machine's clock, milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`: proleptic Gregorian, years start
/// in March so that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse, `civil_from_days` of the same source.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_print_as_the_calendar_says() {
        // Unix time 951782400 is 2000-02-29T00:00:00Z, 1700000000 is 2023-11-14T22:13:20Z (`date -u -d @...`).
        assert_eq!(UtcDay::of_ms(0).to_string(), "1970-01-01");
        assert_eq!(UtcDay::of_ms(-1).to_string(), "1969-12-31");
        assert_eq!(UtcDay::of_ms(951_782_400_000).to_string(), "2000-02-29");
        assert_eq!(UtcDay::of_ms(1_700_000_000_000).to_string(), "2023-11-14");
    }

    #[test]
    fn every_day_of_eight_centuries_reads_back_as_itself_and_follows_its_eve() {
        for day in -146_097..146_097 {
            let day = UtcDay(day);
            let text = day.to_string();
            assert_eq!(UtcDay::parse(&text), Some(day), "{text}");
            assert!(day.minus_days(1).to_string() < text, "{text} sorts before its eve");
        }
    }

    #[test]
    fn what_is_not_a_date_is_refused() {
        for text in ["", "2024", "2024-02-31", "2024-13-01", "24-01-01", "2024-1-1", "../etc/ab", "2024-01-01T00"] {
            assert_eq!(UtcDay::parse(text), None, "{text}");
        }
    }
}
