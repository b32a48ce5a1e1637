//! I/O threads: what waits for the disk waits here.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// Hands jobs to the I/O threads. They end when the last handle is gone.
#[derive(Clone, Debug)]
pub(super) struct Pool(mpsc::Sender<Job>);

impl Pool {
    /// Starts so many threads, which is how many jobs may wait for the disk at once.
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new().name(format!("larder-{name}-{index}")).spawn(move || {
                loop {
                    // The lock is held while waiting for a job, not while doing it.
                    let job = receiver.lock().recv();
                    match job {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            })?;
        }
        Ok(Self(sender))
    }

    /// Does a job soon. Callers bound how many they have waiting.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The threads live as long as this handle.
        let _ = self.0.send(Box::new(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_does_not_hold_up_the_next() {
        let pool = Pool::start("io", 2).unwrap();
        let (sender, receiver) = mpsc::channel();
        let (first, second) = (sender.clone(), sender);
        let (release, gate) = mpsc::channel::<()>();
        pool.run(move || {
            let _ = gate.recv();
            first.send(1).unwrap();
        });
        pool.run(move || second.send(2).unwrap());
        assert_eq!(receiver.recv(), Ok(2));
        drop(release);
        assert_eq!(receiver.recv(), Ok(1));
    }
}
