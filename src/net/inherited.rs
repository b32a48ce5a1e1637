//! Sockets that this process was given: by the one before it, or by systemd.
//!
//! A listening socket that passes from process to process keeps what is queued on it, so that no client
//! notices.

#![allow(unsafe_code, reason = "a descriptor that a process is started with is known by its number only")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::listener::{BindError, Bound, ListenConfig, bind_one, socket};

/// The first descriptor that systemd passes (`sd_listen_fds(3)`).
const FIRST: RawFd = 3;
/// More than that is a mistake.
const MOST: RawFd = 1024;

/// The sockets of one configured address.
#[derive(Debug)]
pub struct Group {
    /// What listens there; empty: whatever is configured with that address.
    pub role: String,
    /// As it is configured, port 0 included.
    pub address: SocketAddr,
    /// All of them listen already.
    pub sockets: Vec<TcpListener>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Group>);

impl Inherited {
    /// What another process handed over.
    pub fn new(groups: Vec<Group>) -> Self {
        Self(groups)
    }

    /// What systemd passes to this very process. To be called once, before anything else is opened.
    pub fn from_systemd() -> io::Result<Self> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<RawFd>().ok());
        if number("LISTEN_PID").is_none_or(|pid| pid as u32 != std::process::id()) {
            return Ok(Self::default());
        }
        let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MOST);
        let mut groups: Vec<Group> = Vec::new();
        for descriptor in FIRST..FIRST + count {
            let socket = listening(take_descriptor(descriptor)?)?;
            let address = socket.local_addr()?;
            match groups.iter_mut().find(|group| group.address == address) {
                Some(group) => group.sockets.push(socket),
                None => groups.push(Group { role: String::new(), address, sockets: vec![socket] }),
            }
        }
        Ok(Self(groups))
    }

    /// The sockets for a configured address, once.
    pub(super) fn take(&mut self, role: &str, address: SocketAddr) -> Vec<TcpListener> {
        let is_for =
            |group: &Group| (group.role.is_empty() || group.role == role) && group.address == address;
        let found = self.0.iter().position(is_for);
        found.map(|at| self.0.remove(at).sockets).unwrap_or_default()
    }

    /// Closes what nothing is configured for.
    pub fn close_others(self) {
        for group in self.0 {
            tracing::warn!("nothing is configured for the inherited socket {}; it is closed", group.address);
        }
    }
}

/// Binds every address once for each worker, or takes the sockets that were inherited for it.
pub fn bind_or_inherit(
    configs: &[ListenConfig],
    workers: usize,
    role: &str,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, BindError> {
    configs
        .iter()
        .map(|config| {
            let sockets = inherited.take(role, config.address);
            let bound =
                if sockets.is_empty() { bind_one(config, workers) } else { adopt(config, workers, sockets) };
            bound.map_err(|source| BindError { address: config.address, source })
        })
        .collect()
}

/// All of them are accepted on, whatever the number of workers: what is queued on one is its only.
fn adopt(config: &ListenConfig, workers: usize, mut sockets: Vec<TcpListener>) -> io::Result<Bound> {
    let Some(address) = sockets.first().map(TcpListener::local_addr).transpose()? else {
        return bind_one(config, workers);
    };
    for worker in sockets.len()..workers {
        // One that was made without SO_REUSEPORT has no siblings: two workers share it.
        let socket = socket(address, true).or_else(|_| sockets[worker % sockets.len()].try_clone());
        sockets.push(socket?);
    }
    Ok(Bound::new(config, address, sockets))
}

impl Bound {
    /// Its sockets once more, for another process; `configured` is what the configuration calls the address.
    pub fn share(&self, role: &str, configured: SocketAddr) -> io::Result<Group> {
        let sockets = self.sockets.iter().map(TcpListener::try_clone).collect::<Result<_, _>>()?;
        Ok(Group { role: role.to_owned(), address: configured, sockets })
    }
}

/// A listening socket, or an error that says what it is instead.
pub fn listening(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let socket = socket2::Socket::from(descriptor);
    let is_fit = socket.r#type()? == socket2::Type::STREAM && socket.is_listener()?;
    if !is_fit || socket.local_addr()?.as_socket().is_none() {
        return Err(io::Error::other("a passed descriptor is no listening TCP socket"));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A descriptor that whoever started this process names. It is no one else's: to be called once for each, before
/// anything else is opened. It is not passed on.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number < FIRST {
        return Err(io::Error::other("the standard streams are nobody's to take"));
    }
    // SAFETY: the one who started this process opened it for us, says so by its number, and nothing else in
    // this process knows that. A number that is not open is found out by the next call.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(descriptor),
        Err(error) => {
            // There is nothing to close.
            std::mem::forget(descriptor);
            Err(error.into())
        }
    }
}
