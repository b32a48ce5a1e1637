//! A node's days: it serves, is reloaded, hands over or drains, and ends.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

use super::data::Data;
use super::systemd::{self, Pulse};
use super::upgrade::{Heir, Upgrading};
use super::{Ended, Handle, Node, rotate, url};
use crate::control::{Fault, Order, Reloaded};
use crate::edge::LiveEdge;
use crate::net::{Certificates, Phase, Server};
use crate::telemetry;

/// Between two looks for connections that were idle for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the files of certificates.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What the store may take to write out what is queued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a stopped worker may take to end.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Threads of a worker for name lookups and files of directory origins.
const BLOCKING_THREADS: usize = 8;
/// Fills under way may take this long before another process has the store; longer ones are not stored.
const FILLS_PATIENCE: Duration = Duration::from_secs(1);
/// In a drain, connections on which no request comes are closed after this time: one may be on its way.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// After a handover likewise.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// What the listeners are told.
struct Phases {
    data: watch::Sender<Phase>,
    admin: watch::Sender<Phase>,
}

/// The admin API's listeners.
type Listening = tokio::task::JoinSet<io::Result<()>>;

/// Why a node serves no longer.
enum End {
    Died(usize),
    /// Whether a signal says so: the next one stops at once.
    Drain {
        is_signal: bool,
    },
    HandedOver(Heir),
}

impl Node {
    /// Serves until the node is told to end. `on_begin` is called within the control thread's runtime, before anybody
    /// is told that this process serves.
    pub fn run(mut self, on_begin: impl FnOnce(Handle)) -> io::Result<Ended> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        {
            let _inside = runtime.enter();
            // Who is told that this process serves may send it a signal, which ends a process that does not watch it.
            on_begin(Handle(self.orders.clone()));
            rotate::watch_signals(self.edge.clone());
        }
        let is_successor = self.successor.is_some();
        if let Some(successor) = self.successor.take() {
            successor.begin()?;
            self.life.is_a_successor();
        }
        let (phase_sender, phase) = watch::channel(Phase::Run);
        let pulse = Pulse::new(self.workers);
        let mut threads = Vec::new();
        let (died, deaths) = mpsc::channel(1);
        for worker in 0..self.workers {
            let pulse = pulse.clone();
            threads.push(spawn_worker(worker, self.data.clone(), phase.clone(), died.clone(), pulse)?);
        }
        drop(died);
        let ended = runtime.block_on(async {
            // The admin listener outlives a drain, so that it can be watched.
            let (admin_phase, always) = watch::channel(Phase::Run);
            let mut admin = tokio::task::JoinSet::new();
            for listener in std::iter::once(&self.admin).chain(&self.scrapers) {
                admin.spawn(listener.server.clone().run(0, always.clone()));
            }
            let certificates = [self.reloader.certificates.clone(), self.reloader.admin_certificates.clone()];
            tokio::spawn(sweep(self.edge.clone()));
            tokio::spawn(self.saturation.clone().sample());
            tokio::spawn(watch_files(certificates));
            if let Some(pulse) = &pulse {
                tokio::spawn(pulse.clone().watch());
            }
            let warming = tokio::spawn(self.control.warmups().clone().run());
            let compacting = tokio::spawn(self.control.clone().compact_purges());
            self.announce();
            self.control.set_ready(true);
            tracing::info!(pid = std::process::id(), is_successor, "ready");
            systemd::notify(&format!("READY=1\nMAINPID={}", std::process::id()));
            let phases = Phases { data: phase_sender, admin: admin_phase };
            let ended = self.until_ended(&phases, (deaths, admin), pulse.as_deref()).await;
            // What they would store from here on is not kept; the next process goes on with it.
            warming.abort();
            compacting.abort();
            if tokio::time::timeout(CLOSE_TIMEOUT, self.store.close()).await.is_err() {
                tracing::warn!("the store is not written out: its last segment is scanned at the next start");
            }
            ended
        });
        runtime.shutdown_timeout(STOP_GRACE);
        for thread in threads {
            let _ = thread.join();
        }
        Ok(ended)
    }

    fn announce(&self) {
        for (address, tls) in &self.addresses {
            tracing::info!("listening on {}", url(*address, *tls));
        }
        tracing::info!("admin on {}", self.admin_url());
        if let Some(scrapers) = &self.scrapers {
            tracing::info!("metrics on {}", url(scrapers.address, false));
        }
    }

    async fn until_ended(
        &mut self,
        phases: &Phases,
        (mut deaths, admin): (mpsc::Receiver<usize>, Listening),
        pulse: Option<&Pulse>,
    ) -> Ended {
        let end = self.serve(&mut deaths).await;
        if let Some(pulse) = pulse {
            pulse.end();
        }
        self.control.set_ready(false);
        // Kept open here they would take connections that nobody serves.
        self.sockets.lock().clear();
        let (drain_timeout, drain_delay) = self.reloader.drain_times();
        let ended = match end {
            End::Died(worker) => {
                tracing::error!(worker, "a worker died; the node ends");
                phases.data.send_replace(Phase::Stop);
                return Ended::Failed;
            }
            End::Drain { is_signal } => {
                systemd::notify("STOPPING=1");
                tracing::info!("draining: finishing what is begun, for {drain_timeout:?} at most");
                let closing = async {
                    tokio::time::sleep(drain_delay).await;
                    phases.data.send_replace(Phase::Drain);
                    tokio::time::sleep(CLOSE_GRACE).await;
                    phases.data.send_replace(Phase::Close);
                };
                let drained = tokio::time::timeout(drain_delay + drain_timeout, workers_ended(deaths));
                self.or_stopped(usize::from(is_signal), closing, drained).await
            }
            End::HandedOver(heir) => {
                self.leave_to(heir, phases).await;
                let closing = async {
                    tokio::time::sleep(LEAVE_GRACE).await;
                    phases.data.send_replace(Phase::Close);
                    phases.admin.send_replace(Phase::Close);
                };
                let drained = async { tokio::join!(workers_ended(deaths), admin.join_all()) };
                let drained = tokio::time::timeout(drain_timeout, drained);
                self.or_stopped(1, closing, drained).await
            }
        };
        phases.data.send_replace(Phase::Stop);
        match ended {
            Ended::Drained => tracing::info!("drained"),
            _ => tracing::warn!("stopped before everything was finished"),
        }
        ended
    }

    /// Has another process serve. What still comes to this one is answered without the cache: purges of the other
    /// are not known here.
    async fn leave_to(&self, heir: Heir, phases: &Phases) {
        let pid = heir.pid();
        tracing::info!(pid, "a new process takes over; this one finishes what is begun");
        self.reloader.pass_all();
        phases.admin.send_replace(Phase::Leave);
        phases.data.send_replace(Phase::Leave);
        systemd::notify(&format!("MAINPID={pid}"));
        heir.go();
        // Purges that waited are refused: nobody was told that they are in effect.
        self.purges.close().await;
    }

    /// Waits for the end of a drain, or for so many signals that it is to end at once: two, of which some were there.
    async fn or_stopped<T>(
        &mut self,
        mut signals: usize,
        closing: impl Future<Output = ()>,
        drained: impl Future<Output = Result<T, tokio::time::error::Elapsed>>,
    ) -> Ended {
        let stopped = async {
            while signals < 2 {
                match self.received.recv().await {
                    Some(Order::Stop) => signals += 1,
                    Some(Order::Reload(Some(answer))) => {
                        let _ = answer.send(Err(busy("the node ends")));
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        };
        let closing = async {
            closing.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            drained = drained => if drained.is_ok() { Ended::Drained } else { Ended::Stopped },
            () = stopped => Ended::Stopped,
            () = closing => Ended::Stopped,
        }
    }

    /// Serves, and does what it is told, until that is to end.
    async fn serve(&mut self, deaths: &mut mpsc::Receiver<usize>) -> End {
        let mut upgrading: Option<Upgrading> = None;
        loop {
            let upgraded = async {
                match &mut upgrading {
                    Some(upgrading) => upgrading.ended().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = self.received.recv() => match order {
                    Some(Order::Reload(answer)) => self.reload(answer, upgrading.is_some()),
                    Some(Order::Upgrade) if upgrading.is_none() => upgrading = Some(self.upgrade()),
                    Some(Order::Upgrade) => tracing::warn!("an upgrade is under way already"),
                    Some(Order::Drain) => return End::Drain { is_signal: false },
                    Some(Order::Stop) | None => return End::Drain { is_signal: true },
                },
                Some(worker) = deaths.recv() => return End::Died(worker),
                upgraded = upgraded => {
                    upgrading = None;
                    match upgraded {
                        Ok(heir) => return End::HandedOver(heir),
                        Err(error) => {
                            tracing::error!(%error, "the upgrade failed; this process goes on");
                            self.life.upgrade_failed();
                        }
                    }
                }
            }
        }
    }

    fn reload(&self, answer: Option<oneshot::Sender<Result<Reloaded, Vec<Fault>>>>, is_upgrading: bool) {
        let reloader = self.reloader.clone();
        // Files are read, which may take a while.
        tokio::task::spawn_blocking(move || {
            let outcome = if is_upgrading {
                tracing::error!("a new process is taking over; nothing is reloaded");
                Err(busy("a new process is taking over"))
            } else {
                systemd::notify_reloading();
                let outcome = reloader.reload();
                systemd::notify("READY=1");
                outcome
            };
            if let Some(answer) = answer {
                let _ = answer.send(outcome);
            }
        });
    }

    /// Starts a process and gives it everything. Whatever fails, this one has everything again.
    fn upgrade(&self) -> Upgrading {
        let limit = self.reloader.running.lock().upgrade_timeout;
        let (store, purges, warmups) =
            (self.store.clone(), self.purges.clone(), self.control.warmups().clone());
        let sockets = self.sockets.clone();
        let lock = self.lock.clone();
        let runtime = runtime::Handle::current();
        Upgrading::begin(move |started| {
            tracing::info!("an upgrade: a new process is started");
            let mut heir = Heir::start()?;
            started.note(&heir)?;
            let version = heir.hello(limit)?;
            tracing::info!(pid = heir.pid(), version, "the new process can use its configuration");
            runtime.block_on(async {
                warmups.pause().await;
                store.pause(FILLS_PATIENCE).await;
                purges.pause().await;
            });
            match heir.endow(&sockets.lock(), lock.as_deref(), limit) {
                Ok(()) => Ok(heir),
                Err(error) => {
                    // It must not have the store any more when this process writes to it.
                    drop(heir);
                    runtime.block_on(async {
                        for resumed in [store.resume().await, purges.resume().await] {
                            if let Err(error) = resumed {
                                tracing::error!(%error, "not everything is as before the upgrade was tried");
                            }
                        }
                        warmups.resume();
                    });
                    Err(error)
                }
            }
        })
    }
}

/// Ends when every worker has dropped its sender.
async fn workers_ended(mut deaths: mpsc::Receiver<usize>) {
    while deaths.recv().await.is_some() {}
}

fn busy(why: &str) -> Vec<Fault> {
    vec![Fault { place: "node".into(), detail: why.into() }]
}

fn spawn_worker(
    worker: usize,
    server: Arc<Server<Data>>,
    phase: watch::Receiver<Phase>,
    died: mpsc::Sender<usize>,
    pulse: Option<Arc<Pulse>>,
) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().name(format!("larder-{worker}"));
    builder.spawn(move || {
        telemetry::enter_worker(worker);
        let is_running = {
            let phase = phase.clone();
            move || *phase.borrow() == Phase::Run
        };
        let serve = async {
            if let Some(pulse) = pulse {
                tokio::spawn(pulse.beat(worker));
            }
            server.run(worker, phase).await
        };
        let served = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .and_then(|runtime| {
                let result = runtime.block_on(serve);
                runtime.shutdown_timeout(STOP_GRACE);
                result
            });
        if let Err(error) = served {
            tracing::error!(worker, %error, "a worker failed");
        }
        if is_running() {
            let _ = died.try_send(worker);
        }
    })
}

async fn sweep(edge: Arc<LiveEdge>) {
    loop {
        for origin in &edge.current().config().origins {
            origin.sweep();
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Files are read on a thread that may wait for them.
async fn watch_files(certificates: [Arc<Certificates>; 2]) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let certificates = certificates.clone();
        let _ = tokio::task::spawn_blocking(move || certificates.iter().for_each(|of| of.look())).await;
    }
}
