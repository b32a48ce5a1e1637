//! One process takes over from another, and no client notices: the new one's and the old one's part.
//!
//! The new process is started by the old one from the path that the old one was started from, with the same
//! arguments, so that a binary that was replaced is used. Until it is ready the old one serves, and whatever
//! goes wrong with the new one, the old one goes on.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use super::handover::{Channel, Message};
use crate::net::Inherited;
use crate::net::inherited::{Group, listening, take_descriptor};

/// Names the descriptor of the channel to the old process.
const DESCRIPTOR: &str = "LARDER_UPGRADE_FD";
/// How long the new process waits for an old one that lives; the old one's own limits are shorter.
const PATIENCE: Duration = Duration::from_secs(600);

static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
static IS_SUCCESSOR: AtomicBool = AtomicBool::new(false);

/// Whether this process took over from another.
pub(super) fn is_successor() -> bool {
    IS_SUCCESSOR.load(Relaxed)
}

/// What a process begins with that it did not open itself.
#[derive(Debug, Default)]
pub struct Inheritance {
    pub(super) sockets: Inherited,
    pub(super) lock: Option<OwnedFd>,
    pub(super) successor: Option<Successor>,
}

/// A process that takes over from another.
#[derive(Debug)]
pub(super) struct Successor(Channel);

impl Inheritance {
    /// What systemd or another process gives. To be called once, with a configuration that can be used, before
    /// anything is opened: the other process stops writing to the store then.
    pub fn take() -> io::Result<Self> {
        PROGRAM.get_or_init(find_program);
        let Some(number) = std::env::var(DESCRIPTOR).ok().and_then(|text| text.parse::<RawFd>().ok()) else {
            return Ok(Self { sockets: Inherited::from_systemd()?, ..Self::default() });
        };
        IS_SUCCESSOR.store(true, Relaxed);
        let channel = Channel::on(take_descriptor(number)?);
        channel.send(&Message::Hello { version: env!("CARGO_PKG_VERSION").to_owned() }, &[])?;
        let mut groups: Vec<(usize, Group)> = Vec::new();
        let mut lock = None;
        loop {
            let (message, descriptors) = channel.receive(PATIENCE)?;
            match message {
                Message::Group { number, role, address } => {
                    let sockets = descriptors.into_iter().map(listening).collect::<io::Result<Vec<_>>>()?;
                    match groups.iter_mut().find(|(known, _)| *known == number) {
                        Some((_, group)) => group.sockets.extend(sockets),
                        None => groups.push((number, Group { role, address, sockets })),
                    }
                }
                Message::Lock => lock = descriptors.into_iter().next(),
                Message::Complete => break,
                other => return Err(io::Error::other(format!("{other:?} from the process before"))),
            }
        }
        let sockets = Inherited::new(groups.into_iter().map(|(_, group)| group).collect());
        Ok(Self { sockets, lock, successor: Some(Successor(channel)) })
    }
}

impl Successor {
    /// Tells the old process that all is ready, and returns when that one serves nobody from the cache any more.
    pub(super) fn begin(self) -> io::Result<()> {
        let answered =
            self.0.send(&Message::Ready, &[]).and_then(|()| self.0.await_message(&Message::Go, PATIENCE));
        match answered {
            // It died with everything handed over: nobody serves until this process does.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe) =>
            {
                tracing::warn!("the process before has ended while it handed over");
                Ok(())
            }
            answered => answered,
        }
    }
}

/// The new process, as the old one sees it. It is killed when this goes before [`Self::go`].
#[derive(Debug)]
pub(super) struct Heir {
    child: Option<Child>,
    channel: Channel,
}

impl Heir {
    /// Starts it.
    pub(super) fn start() -> io::Result<Self> {
        if std::process::id() == 1 {
            let why =
                "as the first process of a container it can't end and leave another; restart the container";
            return Err(io::Error::other(why));
        }
        let program = PROGRAM.get_or_init(find_program).as_ref();
        let program = program.ok_or_else(|| io::Error::other("the program's own path is unknown"))?;
        let (channel, theirs) = Channel::pair()?;
        // This one descriptor goes along; nothing else is started at the same time.
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(program);
        command.arg0(arguments.next().unwrap_or_else(|| program.clone().into()));
        command.args(arguments).env(DESCRIPTOR, theirs.as_raw_fd().to_string());
        let child = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{} can't be started: {error}", program.display()))
        })?;
        Ok(Self { child: Some(child), channel })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits until it has a configuration that it can use.
    pub(super) fn hello(&mut self, limit: Duration) -> io::Result<String> {
        match self.channel.receive(limit).map_err(|error| self.why(error, limit))? {
            (Message::Hello { version }, _) => Ok(version),
            (other, _) => Err(io::Error::other(format!("{other:?} from the new process"))),
        }
    }

    /// Gives it everything, and waits until it can serve.
    pub(super) fn endow(
        &mut self,
        groups: &[Group],
        lock: Option<&OwnedFd>,
        limit: Duration,
    ) -> io::Result<()> {
        let endowed = (|| {
            for (number, group) in groups.iter().enumerate() {
                self.channel.send_group(number, &group.role, group.address, &group.sockets)?;
            }
            if let Some(lock) = lock {
                self.channel.send(&Message::Lock, &[lock.as_fd()])?;
            }
            self.channel.send(&Message::Complete, &[])?;
            self.channel.await_message(&Message::Ready, limit)
        })();
        endowed.map_err(|error| self.why(error, limit))
    }

    /// Has it serve. There is no way back.
    pub(super) fn go(mut self) {
        // If it has died meanwhile there is nobody to go on for: everything is closed by now.
        if let Err(error) = self.channel.send(&Message::Go, &[]) {
            tracing::error!(%error, "the new process has ended in its last moment");
        }
        self.child = None;
    }

    /// What an error on the channel means.
    fn why(&mut self, error: io::Error, limit: Duration) -> io::Error {
        match error.kind() {
            io::ErrorKind::TimedOut => io::Error::other(format!("it was not ready within {limit:?}")),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                let status = self.child.as_mut().and_then(|child| child.wait().ok());
                let status = status.map(|status| format!(" ({status})")).unwrap_or_default();
                io::Error::other(format!("it ended before it was ready{status}; its log says why"))
            }
            _ => error,
        }
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An upgrade that is under way. The new process is killed when this goes.
#[derive(Debug)]
pub(super) struct Upgrading {
    task: JoinHandle<io::Result<Heir>>,
    started: Started,
}

/// The new process's number; 0: there is none yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Started(Arc<AtomicU32>);

/// In place of a number: nobody waits for the new process any more.
const GIVEN_UP: u32 = u32::MAX;

impl Started {
    /// To be told as soon as it is started.
    ///
    /// # Errors
    /// It is not wanted any more.
    pub(super) fn note(&self, heir: &Heir) -> io::Result<()> {
        match self.0.swap(heir.pid(), Relaxed) {
            GIVEN_UP => Err(io::Error::other("the node ends")),
            _ => Ok(()),
        }
    }
}

impl Upgrading {
    /// Has another thread do what there is to do.
    pub(super) fn begin(work: impl FnOnce(Started) -> io::Result<Heir> + Send + 'static) -> Self {
        let started = Started::default();
        let noted = started.clone();
        Self { task: tokio::task::spawn_blocking(move || work(noted)), started }
    }

    /// The new process, ready to serve.
    pub(super) async fn ended(&mut self) -> io::Result<Heir> {
        (&mut self.task).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Drop for Upgrading {
    /// The thread itself waits for that process, and can't be stopped. Who comes second of the two, this or the note
    /// of its number, knows of the other and ends it.
    fn drop(&mut self) {
        let pid = self.started.0.swap(GIVEN_UP, Relaxed) as i32;
        if let Some(pid) = Pid::from_raw(pid).filter(|_| !self.task.is_finished()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The path by which this program was called, if it leads here: a link that is put elsewhere is followed then.
fn find_program() -> Option<PathBuf> {
    let real = std::env::current_exe().ok()?;
    let called = std::env::args_os().next().and_then(|name| by_name(&name));
    let leads_here = |path: &PathBuf| {
        path.canonicalize().is_ok_and(|path| Ok(path) == real.canonicalize().map_err(|_| ()))
    };
    called.filter(leads_here).or(Some(real))
}

fn by_name(name: &OsString) -> Option<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let path: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_file(file.as_os_str()))
}

fn is_file(path: &OsStr) -> bool {
    Path::new(path).is_file()
}
