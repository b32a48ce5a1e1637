//! The one timer of a connection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::Limits;
use super::activity::{Activity, Expired};

/// The timer is moved only to an earlier time; when it fires too early
/// because there was progress, it is armed again.
pub(super) struct Watchdog<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    sleep: Pin<Box<Sleep>>,
    armed_ms: u64,
    /// Whether the timer knows this task and its time.
    is_registered: bool,
}

impl<'a> Watchdog<'a> {
    pub(super) fn new(activity: &'a Activity, limits: &'a Limits) -> Self {
        let sleep = Box::pin(sleep(limits.idle_timeout));
        Self { activity, limits, sleep, armed_ms: u64::MAX, is_registered: false }
    }

    pub(super) fn poll_expired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Expired> {
        loop {
            let deadline = self.activity.deadline(self.limits);
            if let Some((at_ms, _)) = deadline
                && at_ms < self.armed_ms
            {
                self.arm(at_ms);
            }
            // A registered timer need not be polled to be asked.
            if std::mem::replace(&mut self.is_registered, true) {
                if !self.sleep.is_elapsed() {
                    return Poll::Pending;
                }
            } else if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now_ms = self.activity.clock_ms();
            match self.activity.deadline(self.limits) {
                Some((at_ms, expired)) if at_ms <= now_ms => return Poll::Ready(expired),
                Some((at_ms, _)) => self.arm(at_ms),
                None => {
                    let later = now_ms + self.limits.write_timeout.as_millis() as u64;
                    self.arm(later);
                }
            }
        }
    }

    fn arm(&mut self, at_ms: u64) {
        self.armed_ms = at_ms;
        self.is_registered = false;
        let at = self.activity.started() + Duration::from_millis(at_ms);
        self.sleep.as_mut().reset(Instant::from_std(at));
    }
}
