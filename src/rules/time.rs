//! Node time.

/// Node time: milliseconds since the Unix epoch (wall clock at process start + monotonic time since).
///
/// All arithmetic saturates: a time that cannot be represented is as far away as can be represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// Later than any time there is.
    pub const MAX: Millis = Millis(i64::MAX);
    /// Earlier than any time there is; what is good "until" then is not good at all.
    pub const MIN: Millis = Millis(i64::MIN);

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Millis(secs.saturating_mul(1000))
    }

    /// Whole seconds, rounded towards the past.
    #[must_use]
    pub const fn as_secs_floor(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// `ms` later; earlier when negative.
    #[must_use]
    pub const fn saturating_add(self, ms: i64) -> Self {
        Millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `other` to `self`; negative when `other` is later.
    #[must_use]
    pub const fn saturating_sub(self, other: Millis) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_floored_on_both_sides_of_the_epoch() {
        assert_eq!(Millis(1999).as_secs_floor(), 1);
        assert_eq!(Millis(-1).as_secs_floor(), -1);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Millis::from_secs(i64::MAX), Millis::MAX);
        assert_eq!(Millis::MAX.saturating_add(1), Millis::MAX);
        assert_eq!(Millis::MIN.saturating_sub(Millis::MAX), i64::MIN);
    }
}
