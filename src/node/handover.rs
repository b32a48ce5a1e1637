//! What two processes say to each other while one takes over from the other.
//!
//! ```text
//! old: starts new ─────────▶ new: reads its configuration
//!      seals, closes  ◀───── Hello
//!      Group…, Lock, Complete ─▶ recovers, sets everything up
//!      stops to serve from the cache, and to accept ◀── Ready
//!      Go ──────────────────▶ accepts
//! ```
//!
//! One message a packet, with the descriptors that it is about. An end of file is the other's end.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Deserialize, Serialize};

/// The kernel passes 253 at most.
const MOST_DESCRIPTORS: usize = 64;
const MESSAGE_BYTES: usize = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The new one has a configuration that it can use.
    Hello { version: String },
    /// Sockets of one address; an address may come several times, each time with the next `number` for another listener.
    Group { number: usize, role: String, address: SocketAddr },
    /// The lock of the store's directory.
    Lock,
    /// That was all.
    Complete,
    /// The new one can serve.
    Ready,
    /// The old one does not any more.
    Go,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends; neither outlives an exec.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(ours), theirs))
    }

    pub(super) fn on(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(super) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let bytes = [io::IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Sockets, as many messages as they need.
    pub(super) fn send_group(
        &self,
        number: usize,
        role: &str,
        address: SocketAddr,
        sockets: &[impl AsFd],
    ) -> io::Result<()> {
        for sockets in sockets.chunks(MOST_DESCRIPTORS) {
            let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            self.send(&Message::Group { number, role: role.to_owned(), address }, &sockets)?;
        }
        Ok(())
    }

    /// The next message.
    ///
    /// # Errors
    /// `UnexpectedEof`: the other has ended. `TimedOut`.
    pub(super) fn receive(&self, limit: Duration) -> io::Result<(Message, Vec<OwnedFd>)> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(limit))?;
        let mut bytes = [0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [io::IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| recvmsg(&self.0, &mut buffers, &mut control, flags));
        let received = received.map_err(|error| match error {
            rustix::io::Errno::AGAIN => io::ErrorKind::TimedOut.into(),
            rustix::io::Errno::CONNRESET => io::ErrorKind::UnexpectedEof.into(),
            error => io::Error::from(error),
        })?;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors = descriptors.flatten().collect();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, descriptors))
    }

    /// Waits for one certain message.
    pub(super) fn await_message(&self, expected: &Message, limit: Duration) -> io::Result<()> {
        match self.receive(limit)? {
            (message, _) if message == *expected => Ok(()),
            (message, _) => Err(io::Error::other(format!("{message:?} instead of {expected:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn sockets_arrive_and_an_end_is_noticed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::on(theirs);
        let sockets: Vec<_> = (0..70).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let address = sockets[0].local_addr().unwrap();
        ours.send_group(7, "data", address, &sockets).unwrap();
        ours.send(&Message::Complete, &[]).unwrap();
        let mut received = Vec::new();
        while let (Message::Group { number, role, .. }, descriptors) = theirs.receive(SECOND).unwrap() {
            assert_eq!((number, role.as_str()), (7, "data"));
            received.extend(descriptors);
        }
        assert_eq!(received.len(), 70);
        let last = TcpListener::from(received.pop().unwrap());
        assert_eq!(last.local_addr().unwrap(), sockets[69].local_addr().unwrap());

        let short = Duration::from_millis(20);
        assert_eq!(theirs.receive(short).unwrap_err().kind(), io::ErrorKind::TimedOut);
        ours.send(&Message::Ready, &[]).unwrap();
        let wrong = theirs.await_message(&Message::Go, SECOND).unwrap_err();
        assert!(wrong.to_string().contains("Ready instead of Go"), "{wrong}");
        drop(ours);
        assert_eq!(theirs.receive(SECOND).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
